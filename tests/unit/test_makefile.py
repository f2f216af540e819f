"""Which interpreter `make` installs into ``.venv``, and what it says of one that it cannot use; none is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
REBUILD = 'if [ -n "other-python" ]; then rm -rf .venv; fi'


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Not what a `make` around the tests hands to those that it starts.
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    command = ["make", "-C", str(folder), "--no-print-directory", *arguments]
    return subprocess.run(command, env=ours | variables, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(PROJECT_DIR / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", ["help", "install", "test"])
def test_a_python_that_is_not_there_is_named_in_one_line(checkout: Path, target: str) -> None:
    for done in (make(checkout, target, "PYTHON=/nope"), make(checkout, target, PYTHON="/nope")):
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert "there is no Python at /nope" in line
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["demo", "up", "ui"])
@pytest.mark.parametrize("name", ["my music", "Müsik"])
def test_a_folder_that_the_daemons_cannot_use_is_said_before_anything_is_installed(
    checkout: Path, tmp_path: Path, target: str, name: str
) -> None:
    odd = tmp_path / name
    odd.mkdir()
    for file in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(checkout / file, odd)
    done = make(odd, target)
    assert done.returncode != 0 and done.stdout == ""
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"genres: the daemons cannot keep data in {odd}, ") and "set GENRES_STATE_DIR" in first
    assert not (odd / ".venv").exists()
    assert make(odd, "able", GENRES_STATE_DIR="/srv/genres").returncode == 0
    (odd / ".env").write_text("GENRES_STATE_DIR=/srv/genres\n")
    assert make(odd, "able").returncode == make(checkout, "able").returncode == 0


@pytest.mark.parametrize("target", ["demo", "up", "ui"])
def test_a_disk_without_room_is_said_before_anything_is_installed(checkout: Path, tmp_path: Path, target: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    # As POSIX lays it out, with the figure that is asked for.
    said = "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo \"/dev/a 9 9 $FREE_KIB 9% /\""
    (programs / "df").write_text(f"#!/bin/sh\n{said}\n")
    (programs / "df").chmod(0o755)
    path = os.pathsep.join([str(programs), *os.get_exec_path()])

    def asked(target: str, mebibytes: int, **variables: str) -> subprocess.CompletedProcess[str]:
        return make(checkout, target, PATH=path, FREE_KIB=str(1024 * mebibytes), **variables)

    done = asked(target, 3623)
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.splitlines()[0].startswith(
        f"genres: the disk of {checkout} has 3623 MiB free, and 3624 MiB are needed (2600 for .venv, "
    )
    assert not (checkout / ".venv").exists()
    assert asked("able", 3624).returncode == 0
    # Data that are elsewhere take nothing here.
    assert asked("able", 2600, GENRES_STATE_DIR="/srv/genres").returncode == 0
    assert asked("able", 2599, GENRES_STATE_DIR="/srv/genres").returncode != 0
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "installed").touch()
    assert asked("able", 1).returncode == 0, "what is installed takes no more"


def test_a_home_that_cannot_be_written_to_is_said_before_anything_is_installed(checkout: Path, tmp_path: Path) -> None:
    home = tmp_path / "file"  # into which not even root can write a folder
    home.touch()
    for done in (make(checkout, target, HOME=str(home)) for target in ("demo", "up", "ui")):
        assert done.returncode != 0 and done.stdout == ""
        said = done.stderr.splitlines()[0]
        assert said.startswith(f"genres: {home} cannot be written to, and the daemons' jars are to be kept there")
        assert "set GENRES_JAR_DIR" in said
    assert not (checkout / ".venv").exists()
    assert make(checkout, "able", HOME=str(home), GENRES_JAR_DIR="/srv/jars").returncode == 0


def test_a_python_of_another_version_is_refused_in_one_line(checkout: Path) -> None:
    old = checkout / "python"
    old.write_text("#!/bin/sh\necho 3 10 13 /usr\n")
    old.chmod(0o755)
    (line,) = make(checkout, "install", f"PYTHON={old}").stderr.splitlines()
    assert "is Python 3.10: 3.11, 3.12 or 3.13 is needed" in line


def test_the_environment_is_rebuilt_only_for_another_python_that_was_asked_for(checkout: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")], check=True)
    (checkout / ".venv" / "installed").touch()
    for name in ("requirements.txt", "pyproject.toml"):
        os.utime(checkout / name, (0, 0))
    other = checkout / "python"
    other.write_text("#!/bin/sh\necho 3 12 99 /elsewhere\n")
    other.chmod(0o755)
    assert REBUILD not in make(checkout, "-n", "install").stdout
    assert REBUILD not in make(checkout, "-n", "install", f"PYTHON={sys.executable}").stdout
    assert REBUILD in make(checkout, "-n", "install", f"PYTHON={other}").stdout


@pytest.mark.parametrize("failing", ["", "mypy", "sphinx", "tests/unit", "tests/faults", "tests/integration"])
def test_all_tests_run_and_any_failure_counts(checkout: Path, failing: str) -> None:
    """They run beside each other."""
    programs = checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    said = f'#!/bin/sh\necho "ran $0 $*"\ncase "$0 $*" in *{failing or "nothing"}*) exit 1;; esac\n'
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (programs / name).write_text(said)
        (programs / name).chmod(0o755)
    (programs.parent / "installed").touch()
    for name in ("requirements.txt", "pyproject.toml"):
        os.utime(checkout / name, (0, 0))
    done = make(checkout, "test")
    assert (done.returncode != 0) is bool(failing), done.stdout + done.stderr
    for what in ("-m pytest tests/unit", "-m pytest tests/faults", "-m pytest tests/integration", "-m sphinx ", "mypy"):
        assert re.search(f"^ran .*{what}", done.stdout, re.MULTILINE), what

"""The wheel: it installs into an environment of its own and gives a working ``genres`` where there is no checkout.

The new environment borrows its dependencies from the interpreter that runs the tests, so that nothing is downloaded.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
import soundfile

from genres.audio.gtzan57 import GTZAN57
from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.settings import PROJECT_DIR

PYPROJECT = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]
NO_CODE = (".csv", ".lock.toml", ".mako", "wheel.txt", ".yaml", ".js", ".css", "py.typed")

# What reads the data files and starts the parts that need no daemon.
PROGRAM = """
import importlib, json, sys, tempfile
from pathlib import Path
import genre_assets.definitions, streaming_sensors.definitions
from genres.datasets import gtzan
from genres.settings import CHECKOUT, PROJECT_DIR, Settings
from genres.store.database import Database
from genres_dagster.launch import open_instance
from jgo.env import LockFile
from local_stack.class_path import HADOOP_LOCK, KAFKA_LOCK
settings = Settings()
Database(settings.database).migrate()
with open_instance(settings) as instance:
    launcher = type(instance.run_launcher).__name__
print(json.dumps({
    "files": {name: importlib.import_module(name).__file__ for name in sys.argv[1:]},
    "tracks": len(gtzan.tracks()),
    "jars": min(len(LockFile.load(lock).dependencies) for lock in (HADOOP_LOCK, KAFKA_LOCK)),
    "launcher": launcher,
    "checkout": CHECKOUT,
    "state_dir": str(settings.state_dir),
    "port_base": settings.port_base,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing an earlier build left in the checkout gets into it."""
    source = tmp_path_factory.mktemp("source")
    no_leftovers = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(PROJECT_DIR / package, source / package, ignore=no_leftovers)
    for path in PROJECT_DIR.iterdir():
        if path.is_file() and path.suffix in {"", ".md", ".toml", ".yaml", ".txt"} and path.name[0] != ".":
            shutil.copy(path, source)
    built = tmp_path_factory.mktemp("built")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(built), str(source)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it; the folder of the new environment's programs."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True).stdout
    # One line, a folder: the editable install in that folder is not followed.
    borrowed = Path(site_packages.strip()) / "borrowed.pth"
    borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
    return python.parent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def run(installed: Path, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the new environment in an empty folder, with no variable that could lead to the checkout."""
    empty = home.parent / "empty"
    empty.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "COLUMNS": "120"}
    program = [str(installed / command[0]), *command[1:]]
    done = subprocess.run(program, cwd=empty, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(empty.iterdir()) or "-o" in command
    return done


def test_every_file_of_the_packages_is_in_it(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(PROJECT_DIR))
        for package in PACKAGES
        for path in (PROJECT_DIR / package).rglob("*")
        if path.suffix == ".py" or path.name.endswith(NO_CODE)
    }
    assert held == ours
    assert {path.rpartition("/")[2] for path in held if path.endswith(NO_CODE)} == {
        *("gtzan_tracks.csv", "script.py.mako", "py.typed", "dagster.yaml", "workspace.yaml"),
        *("hadoop.lock.toml", "kafka.lock.toml", "wheel.txt", "curve.js", "page.css"),
    }


def test_its_metadata_name_version_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
        assert "genres = genres_cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()
    assert re.findall(r"^(?:Name|Version|License-Expression): (.+)$", metadata, re.MULTILINE) == [
        "genres",
        PYPROJECT["project"]["version"],
        "Apache-2.0",
    ]


def test_help_lists_the_commands(installed: Path, home: Path) -> None:
    shown = run(installed, home, "genres", "--help").stdout
    assert {"up", "demo", "features", "status"} <= {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert not list(home.iterdir())


def test_features_of_a_clip(installed: Path, home: Path, tmp_path: Path) -> None:
    clip, table = tmp_path / "clip.wav", tmp_path / "features.csv"
    soundfile.write(clip, synthesise("disco", 1, clip_s=3.0, seed=7), SAMPLE_RATE, subtype="PCM_16")
    run(installed, home, "genres", "features", str(clip), "-o", str(table))
    with table.open() as file:
        (row,) = csv.DictReader(file)
    values = {name: float(row[name]) for name in GTZAN57.columns}
    samples, _ = soundfile.read(clip, dtype="float32")
    assert values == pytest.approx(GTZAN57.kernel(samples).clip, rel=1e-9)


def test_status_of_a_stack_that_was_never_started(installed: Path, home: Path) -> None:
    services = json.loads(run(installed, home, "genres", "status", "--json").stdout)
    assert {service["state"] for service in services} == {"stopped"}
    folders = [Path(service["data_dir"]) for service in services if service["data_dir"]]
    assert folders
    assert all(folder.is_relative_to(home / ".genres") for folder in folders)


def test_what_runs_is_the_wheels(installed: Path, home: Path) -> None:
    (home / ".genres").mkdir()
    (home / ".genres" / ".env").write_text("GENRES_PORT_BASE=21000\n")
    found = json.loads(run(installed, home, "python", "-c", PROGRAM, *PACKAGES).stdout)
    assert all(Path(file).is_relative_to(installed.parent) for file in found["files"].values()), found["files"]
    assert (found["tracks"], found["launcher"], found["checkout"]) == (1000, "WarmRunLauncher", None)
    assert found["jars"] > 0
    assert (found["state_dir"], found["port_base"]) == (str(home / ".genres"), 21000)


def test_dagster_loads_both_code_locations(installed: Path, home: Path) -> None:
    where = "from genres_dagster.launch import WORKSPACE; print(WORKSPACE)"
    workspace = run(installed, home, "python", "-c", where).stdout.strip()
    told = run(installed, home, "python", "-m", "dagster", "definitions", "validate", "-w", workspace)
    shown = told.stdout + told.stderr
    for location in ("genre_assets", "streaming_sensors"):
        assert f"Validation successful for code location {location}" in shown

"""The code that is sent to workers without the project: one file, the same for the same code, that works as it is."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR
from spark.engine_probe import code_version
from spark.sent_code import code_zip
from tests.other_interpreter import site_without_the_project

PACKAGES = {path.parent.name for path in PROJECT_DIR.glob("*/__init__.py")}

# What a worker imports, the kernel's compiled loops and a file that is no code.
PROGRAM = """
import json
import spark.extraction, streaming_sensors.kafka_clips
from genres.audio.spectral import loops
from genres.datasets import gtzan
from genres.settings import CHECKOUT
from spark.engine_probe import code_version
print(json.dumps({
    "code": spark.extraction.__file__,
    "loops": loops.__file__,
    "compiled": loops.window_frames.stats.cache_path,
    "tracks": len(gtzan.tracks()),
    "version": code_version(),
    "checkout": CHECKOUT,
}))
"""


def test_the_same_code_is_the_same_file(tmp_path: Path) -> None:
    one, other = code_zip(tmp_path / "one"), code_zip(tmp_path / "other")
    assert one.name == other.name and one.read_bytes() == other.read_bytes()
    written = one.stat().st_mtime_ns
    assert code_zip(tmp_path / "one") == one and one.stat().st_mtime_ns == written, "it is built once"
    assert [path.name for path in one.parent.iterdir()] == [one.name]


def test_it_holds_the_packages_and_nothing_that_python_made(tmp_path: Path) -> None:
    with zipfile.ZipFile(code_zip(tmp_path)) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == PACKAGES
    assert "spark/extraction.py" in names and "genres/datasets/gtzan_tracks.csv" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_files_of_other_code_are_removed_after_a_day(tmp_path: Path) -> None:
    new, old, foreign = (tmp_path / name for name in ("genres-code-new.zip", "genres-code-old.zip", "mine.zip"))
    for path in (new, old, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (0, 0))
    kept = {code_zip(tmp_path), new, foreign}
    assert set(tmp_path.iterdir()) == kept


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_without_the_project(tmp_path_factory.mktemp("site"))


def run_from_zip(zip_file: Path, site: Path, **variables: str) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": f"{zip_file}:{site}", **variables}
    done = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM],
        cwd=zip_file.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_it_works_from_the_zip_and_keeps_what_it_compiled_in_one_place(tmp_path: Path, site: Path) -> None:
    cache = tmp_path / "cache"
    places = set()
    for session in ("one session", "another one"):
        zip_file = code_zip(tmp_path / session)
        found = run_from_zip(zip_file, site, GENRES_CACHE_DIR=str(cache))
        assert str(found["code"]).startswith(f"{zip_file}/")
        assert (found["tracks"], found["version"], found["checkout"]) == (1000, code_version(), None)
        assert Path(str(found["compiled"])).is_relative_to(cache)
        places.add((found["loops"], found["compiled"]))
    assert len(places) == 1, "each session would compile again"
    loops = Path(str(found["loops"]))
    assert loops.read_bytes() == (PROJECT_DIR / "genres/audio/spectral/loops.py").read_bytes()
    assert [path.name for path in loops.parent.iterdir() if path.name != "__pycache__"] == ["loops.py"]


def test_workers_without_a_home_keep_compiled_loops_in_a_private_folder(tmp_path: Path, site: Path) -> None:
    no_folder = tmp_path / "a file"
    no_folder.touch()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    zip_file = code_zip(tmp_path / "code")
    found = run_from_zip(zip_file, site, GENRES_CACHE_DIR=str(no_folder / "cache"), TMPDIR=str(temporary))
    (private,) = temporary.iterdir()
    assert Path(str(found["compiled"])).is_relative_to(private)
    assert private.stat().st_mode & 0o077 == 0

"""Who may import whom: the contracts in ``pyproject.toml`` hold, cover every room, and find what they forbid."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from genres.settings import PROJECT_DIR

PYPROJECT = PROJECT_DIR / "pyproject.toml"
RULES: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    # Only what lies in the folder itself: not what the environment or an editable install points at.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_rules_hold() -> None:
    linted = lint(PROJECT_DIR)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert f"Contracts: {len(RULES['contracts'])} kept, 0 broken." in linted.stdout


def test_every_room_has_a_layer() -> None:
    layers = {room for layer in RULES["contracts"][0]["layers"] for room in layer.split(" | ")}
    packages = {path.parent.name for path in PROJECT_DIR.glob("*/__init__.py")}
    of_genres = {
        f"genres.{path.stem}"
        for path in (PROJECT_DIR / "genres").iterdir()
        if (path / "__init__.py").is_file() or (path.suffix == ".py" and path.stem != "__init__")
    }
    assert packages == set(RULES["root_packages"])
    assert layers == (packages - {"genres"}) | of_genres


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in RULES["root_packages"]:
        shutil.copytree(PROJECT_DIR / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PYPROJECT, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "statement", "found"),
    [
        ("genres/errors.py", "import genres.settings", "genres.errors is not allowed to import genres.settings"),
        ("genres/audio/gate.py", "import genres.store.lake", "genres.audio is not allowed to import genres.store"),
        ("genres/audio/gate.py", "import kafka", "genres.audio is not allowed to import kafka"),
        ("genres/datasets/split.py", "import pyspark.sql", "genres.datasets is not allowed to import pyspark"),
        ("genres/store/lake.py", "import dagster", "genres.store is not allowed to import dagster"),
        ("spark/scoring.py", "import dagster", "spark is not allowed to import dagster"),
        ("spark/scoring.py", "import genres_dagster.checks", "spark is not allowed to import genres_dagster"),
        (
            "genre_assets/raw_audio.py",
            "import streaming_sensors.topic",
            "genre_assets is not allowed to import streaming_sensors",
        ),
        (
            "streaming_sensors/topic.py",
            "import genre_assets.raw_audio",
            "streaming_sensors is not allowed to import genre_assets",
        ),
        ("streaming_sensors/topic.py", "import genres_cli.report", "is not allowed to import genres_cli"),
        (
            "streaming_sensors/topic.py",
            "import local_stack.ports",
            "streaming_sensors is not allowed to import local_stack",
        ),
        ("local_stack/ports.py", "import streaming_sensors.topic", "is not allowed to import streaming_sensors"),
    ],
)
def test_a_forbidden_import_is_found(copy: Path, module: str, statement: str, found: str) -> None:
    path = copy / module
    # Inside a function, where the project keeps its heavy imports.
    path.write_text(f"{path.read_text()}\n\ndef forbidden() -> None:\n    {statement}\n")
    linted = lint(copy)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert found in linted.stdout

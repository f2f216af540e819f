"""The ``dg`` command in the checkout: it sees everything that the two code locations define, and finds it sound."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genre_assets.definitions import build_defs as build_batch
from genres.settings import PROJECT_DIR, Settings
from streaming_sensors.definitions import build_defs as build_stream


def dg(tmp_path: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), *arguments],
        cwd=PROJECT_DIR,
        env=environment | {"GENRES_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dg_check_defs_finds_them_sound(tmp_path: Path) -> None:
    assert "All definitions loaded successfully." in dg(tmp_path, "check", "defs")


def test_dg_list_defs_shows_both_code_locations(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    halves: list[Any] = [build(settings=settings).get_repository_def() for build in (build_batch, build_stream)]
    shown = json.loads(dg(tmp_path, "list", "defs", "--json"))
    expected = {
        "assets": [key.to_user_string() for half in halves for key in half.asset_graph.get_all_asset_keys()],
        "asset_checks": [check.to_user_string() for half in halves for check in half.asset_graph.asset_check_keys],
        "jobs": [name for half in halves for name in half.job_names if not name.startswith("__")],
        "sensors": [sensor.name for half in halves for sensor in half.sensor_defs],
    }
    names = {"assets": "asset_key", "asset_checks": "key", "jobs": "name", "sensors": "name"}
    for kind, there in expected.items():
        # A set: the stream's half names the champion that it takes from the batch half.
        assert sorted(thing[names[kind]] for thing in shown[kind]) == sorted(set(there))
    assert len(shown["assets"]) > 10


@pytest.mark.parametrize("location", ["genre_assets", "streaming_sensors"])
def test_settings_are_read_when_a_location_is_loaded_not_when_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.setenv("GENRES_PORT_BASE", "no port")
    imported = [sys.executable, "-c", f"import {location}.definitions"]
    loaded = [sys.executable, "-c", f"import {location}.definitions as it; it.defs()"]
    assert subprocess.run(imported, cwd=PROJECT_DIR, check=False).returncode == 0
    failed = subprocess.run(loaded, cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert "port_base" in failed.stderr

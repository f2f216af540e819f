"""``kill -9`` between assets and in the middle of one: the supervisor restarts, a re-run repairs, nothing is lost."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

from genres.audio.gtzan57 import GTZAN57
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger, predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from tests.faults.processes import pid_of
from tests.stream_rig import kill_tree, wait_until

GENRES = ("blues", "disco", "metal")
CLIPS = 5
Loaded = Callable[[str], BatchTables]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_clips: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "music"
    write_clips(folder, GENRES, CLIPS)
    return folder


@pytest.fixture(scope="module")
def loaded(stack: Settings, run_genres: Callable[..., Any], folder: Path) -> Loaded:
    """Bring the folder to HDFS as a dataset of the wanted name."""

    def load(dataset: str) -> BatchTables:
        done = run_genres("load", str(folder), "--dataset", dataset)
        assert done.returncode == 0, done.stdout + done.stderr
        lake = Lake.of(stack)
        return BatchTables(lake, Database(stack.database), dataset)

    return load


@pytest.fixture(scope="module")
def untrained(loaded: Loaded, start_materializing: Callable[..., Any]) -> BatchTables:
    """A dataset with features and a split, by a run that nothing happened to."""
    tables = loaded("untrained")
    assert start_materializing("audio_features,track_split", "untrained").wait(300) == 0
    return tables


@pytest.fixture(scope="module")
def undisturbed(untrained: BatchTables) -> pd.DataFrame:
    """The features of a run that nothing happened to."""
    return untrained.features(GTZAN57.feature_version)


@pytest.mark.long
def test_killed_services_between_assets_lose_nothing(
    stack: Settings, loaded: Loaded, start_materializing: Callable[..., Any], undisturbed: pd.DataFrame
) -> None:
    tables = loaded("killed")
    for service, asset in (
        ("datanode", "audio_features"),
        ("namenode", "track_split"),
        ("spark-connect", "genre_classifiers"),
        ("spark-connect", "calibrated_classifier"),
        ("namenode", "champion_model"),
        ("spark-connect", "batch_predictions"),
    ):
        kill(stack, service)
        assert start_materializing(asset, "killed").wait(600) == 0, f"{asset} after the end of {service}"
    pd.testing.assert_frame_equal(tables.features(GTZAN57.feature_version), undisturbed)
    rows = predictions.batch_predictions(tables.database, "killed")
    assert {row["track_id"] for row in rows} == set(undisturbed["track_id"])
    assert len(rows) == len(undisturbed) == len(tables.split()) == len(GENRES) * CLIPS


@pytest.mark.long
def test_a_step_killed_while_it_computes_is_repaired_by_the_next(
    stack: Settings, loaded: Loaded, start_materializing: Callable[..., Any], undisturbed: pd.DataFrame
) -> None:
    tables = loaded("halved")
    before = spark_jobs(stack)
    run = start_materializing("audio_features", "halved")
    wait_until(lambda: spark_jobs(stack) > before)
    kill_tree(run.pid)
    run.wait()
    assert ledger.published(tables.database, "halved", "audio_features") == []
    assert start_materializing("audio_features", "halved").wait(300) == 0
    pd.testing.assert_frame_equal(tables.features(GTZAN57.feature_version), undisturbed)
    (commit,) = ledger.published(tables.database, "halved", "audio_features")
    assert commit.row_count == len(undisturbed)
    lying = tables.lake.files.ls(tables.feature_folder(GTZAN57.feature_version), detail=False)
    assert lying == [commit.path], "what is not published does not lie where tables lie"


@pytest.mark.long
def test_a_training_whose_engine_dies_ends_and_is_repaired_by_the_next(
    stack: Settings, untrained: BatchTables, start_materializing: Callable[..., Any]
) -> None:
    tables = untrained
    before = spark_jobs(stack)
    run = start_materializing("genre_classifiers", "untrained")
    wait_until(lambda: spark_jobs(stack) > before + 20)
    kill(stack, "spark-connect")
    assert run.wait(300) != 0, "it ends, and says that it failed"
    with pytest.raises(GenresError, match="no finished genre_classifiers run"):
        ModelRegistry(stack.tracking_uri).latest_training("untrained")
    assets = "genre_classifiers,calibrated_classifier,champion_model"
    assert start_materializing(assets, "untrained").wait(900) == 0
    registry = ModelRegistry(stack.tracking_uri)
    parent = registry.latest_training("untrained")
    trained = [tables.candidate_path(parent.info.run_id, child.info.run_id) for child in registry.child_runs(parent)]
    assert len(trained) == 2 and all(tables.lake.files.isdir(path) for path in trained)


def kill(stack: Settings, service: str) -> None:
    """End a service the hard way and wait until the supervisor has started another process; it need not be ready."""
    pid = pid_of(stack, service)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(stack, service) not in (pid, None))


def spark_jobs(stack: Settings) -> int:
    api = f"http://127.0.0.1:{stack.ports.spark_ui}/api/v1/applications"
    (application,) = requests.get(api, timeout=30).json()
    return len(requests.get(f"{api}/{application['id']}/jobs", timeout=30).json())

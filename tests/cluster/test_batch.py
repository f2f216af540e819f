"""The batch half on a cluster whose parts die; Postgres holds everything, and workers have not got the project."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import sqlalchemy as sa

from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from tests.cluster.commands import run_genres, run_log, start_materializing
from tests.cluster.oracle import wrong_features
from tests.cluster.parts import Cluster
from tests.stream_rig import wait_until

pytestmark = pytest.mark.cluster

DATASET = "cluster"
GENRES, CLIPS = ("blues", "disco", "metal"), 10
REST = "track_split,genre_classifiers,calibrated_classifier,champion_model,batch_predictions"


def test_up_finds_every_service(cluster: Cluster) -> None:
    done = run_genres("up")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = run_genres("status", "--json")
    assert shown.stdout.count('"external"') == 4, shown.stdout


def test_a_batch_goes_through_while_a_worker_a_datanode_and_a_broker_die(
    cluster: Cluster, folder: Path, write_clips: Callable[[Path, Iterable[str], int], None]
) -> None:
    settings, music = cluster.settings, folder / "music"
    write_clips(music, GENRES, CLIPS)
    done = run_genres("load", str(music), "--dataset", DATASET)
    assert done.returncode == 0, done.stdout + done.stderr
    failed_before = cluster.spark.failed_tasks()
    run = start_materializing(settings, "audio_features", DATASET)
    victim = cluster.spark.workers[1]
    wait_until(lambda: cluster.spark.has_tasks(victim) or run.poll() is not None)
    assert run.poll() is None, run_log(settings).read_text()
    with cluster.without(victim, cluster.hdfs.datanodes[1], cluster.brokers.names[2]):
        assert run.wait(300) == 0, run_log(settings).read_text()[-4000:]
        assert cluster.spark.failed_tasks() > failed_before, "the worker was not killed at work"
        run = start_materializing(settings, REST, DATASET)
        assert run.wait(600) == 0, run_log(settings).read_text()[-4000:]
    tables = BatchTables(Lake.of(settings), Database(settings.database), DATASET)
    assert wrong_features(tables, music) == []
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == len(tables.split()) == len(GENRES) * CLIPS
    assert {row["track_id"] for row in rows} == set(tables.accepted()["track_id"])
    champion = ModelRegistry(settings.tracking_uri).find_champion(DATASET)
    assert champion is not None
    assert {row["model_version"] for row in rows} == {champion.version}


def test_everything_is_kept_in_postgres(cluster: Cluster) -> None:
    settings = cluster.settings
    engine = sa.create_engine(settings.dagster_database)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
    engine.dispose()
    assert not list(settings.state_dir.rglob("*.db")), "nothing in SQLite"
    assert settings.database.startswith("postgresql")

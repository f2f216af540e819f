"""A standalone cluster whose workers have the requirements but not the project: the code comes with each session."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genres.settings import Settings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from spark.session import open_session, session_config, stop_session
from tests.cluster.commands import run_genres, run_log, start_materializing
from tests.cluster.daemons import Daemons
from tests.cluster.oracle import wrong_features
from tests.cluster.parts import SparkCluster
from tests.stream_rig import wait_until

if TYPE_CHECKING:
    import pyarrow as pa

pytestmark = pytest.mark.cluster

GENRES, CLIPS = ("blues", "disco", "metal"), 10


@pytest.fixture(scope="module")
def spark_cluster(stack: Settings, folder: Path, daemons: Daemons, free_port_base: Callable[[], int]) -> SparkCluster:
    cluster = SparkCluster(daemons, folder / "spark", free_port_base, hdfs=stack.hdfs, replication=1)
    cluster.start()
    cluster.wait()
    return cluster


@pytest.fixture(scope="module")
def settings(stack: Settings, spark_cluster: SparkCluster, use_settings: Callable[..., Settings]) -> Settings:
    return use_settings(
        HDFS_URL=stack.hdfs,
        WEBHDFS_URL=stack.webhdfs,
        KAFKA_BOOTSTRAP_SERVERS=stack.bootstrap_servers,
        SPARK_REMOTE=spark_cluster.remote,
        MLFLOW_TRACKING_URI=stack.tracking_uri,
    )


def test_up_finds_able_workers_and_says_what_would_be_better(settings: Settings) -> None:
    done = run_genres("up")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "did a job of one row in" in said
    assert "the project's code" not in said and "lack" not in said
    (line,) = [line for line in said.splitlines() if "was started otherwise" in line]
    assert f"the server of Spark at {settings.remote} was started otherwise: spark.python.daemon.module is not" in line
    assert line.count("is better") == 1, "all else is as in the embedded one"


def test_workers_run_the_code_that_was_sent(settings: Settings) -> None:
    """Also those of a session that another process has opened and sent the code to before."""

    def look(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        import spark.extraction
        from genres.audio.spectral import loops

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"code": [spark.extraction.__file__], "loops": [loops.__file__]})

    found = []
    for _ in range(2):
        session = open_session(session_config(settings, app_name="who is there"), shared_as="tests")
        found += session.range(0, 4, 1, 4).mapInArrow(look, "code string, loops string").collect()
        stop_session(session, remote=settings.remote)
    for row in found:
        assert "/genres-code-" in row["code"] and ".zip/" in row["code"]
    assert len({row["loops"] for row in found}) == 1


def test_a_worker_killed_during_extraction_costs_nothing(
    settings: Settings,
    spark_cluster: SparkCluster,
    daemons: Daemons,
    folder: Path,
    write_clips: Callable[[Path, Iterable[str], int], None],
) -> None:
    music = folder / "music"
    write_clips(music, GENRES, CLIPS)
    done = run_genres("load", str(music), "--dataset", "sent_code")
    assert done.returncode == 0, done.stdout + done.stderr
    failed_before = spark_cluster.failed_tasks()
    run = start_materializing(settings, "audio_features", "sent_code")
    victim = spark_cluster.workers[1]
    wait_until(lambda: spark_cluster.has_tasks(victim) or run.poll() is not None)
    daemons.kill(victim)
    assert run.poll() is None, run_log(settings).read_text()
    assert run.wait(300) == 0, run_log(settings).read_text()[-4000:]
    assert spark_cluster.failed_tasks() > failed_before, "it was not killed at work"
    daemons.start_again(victim)
    spark_cluster.wait()
    tables = BatchTables(Lake.of(settings), Database(settings.database), "sent_code")
    assert len(tables.accepted()) == len(GENRES) * CLIPS
    assert wrong_features(tables, music) == []


def test_what_was_compiled_is_kept_in_one_place(settings: Settings, folder: Path) -> None:
    """By several sessions, each of which had the code in a folder of its own."""
    (version,) = (folder / "spark" / "cache" / "loops").iterdir()
    assert (version / "loops.py").is_file()
    assert any(path.suffix == ".nbc" for path in (version / "__pycache__").iterdir())

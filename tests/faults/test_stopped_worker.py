"""Python workers that are stopped (SIGSTOP), as a debugger or a frozen container stops them: the limits see it."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import psutil
import pytest

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store.stream_ledger import ranges, results
from local_stack.stack import status
from spark.isolation import OutOfTimeError, check_engine, interrupted_when_stuck, is_workers_death
from spark.session import open_session, session_config
from tests.stream_rig import Stream, running_stream, set_champion, short_clips, wait_until

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

TOPIC = "test_stopped_worker"


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    with running_stream(stack, tmp_path_factory.mktemp("stopped") / "drop", TOPIC, RANGE_LIMIT_S="8") as stream:
        set_champion(stream.settings, 1)
        yield stream


def test_a_range_whose_worker_is_stopped_is_computed_again_and_nobody_is_blamed(stream: Stream) -> None:
    stream.wait_for(stream.drop(short_clips(4, seed=80)))
    # All that are there, idle ones as well: the next task that gets one waits for it.
    stopped = workers(stream.settings)
    assert stopped
    for worker in stopped:
        worker.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    hashes = stream.drop(short_clips(4, seed=81))
    stream.wait_for(hashes, patience_s=240)
    print(f"{len(stopped)} stopped workers: {time.monotonic() - began:.0f} s, at a limit of 8 s")  # noqa: T201
    assert stream.places(hashes) == (hashes, set())
    assert not results.quarantine(stream.database, topic=TOPIC)
    wait_until(lambda: {found.state for found in ranges.history(stream.database, TOPIC)} == {"committed"})
    # Stopped ones that got no task sleep on: Spark does not know of them, and gives them no other.
    for worker in stopped:
        if worker.is_running():
            worker.kill()


@pytest.mark.parametrize("setting", ["ours", "spark"])
def test_spark_own_limit_ends_no_stopped_worker(stack: Settings, setting: str) -> None:
    spark = open_session(session_config(stack, app_name="stopped worker"))
    try:
        if setting == "spark":
            spark.conf.set("spark.sql.execution.pyspark.udf.idleTimeoutSeconds", "2s")
            spark.conf.set("spark.sql.execution.pyspark.udf.killOnIdleTimeout", "true")
        began = time.monotonic()
        with pytest.raises(OutOfTimeError), interrupted_when_stuck(spark, limit_s=12.0):
            one_task(spark, stop_itself)
        took_s = time.monotonic() - began
        assert took_s > 12, "Spark's own limit would have ended it sooner"
        check_engine(spark, GTZAN57)
        if setting == "spark":
            # One that hangs in Python is ended by it: it gets the signal that a stopped one does not act on.
            with pytest.raises(Exception, match="idle timeout") as hung:
                one_task(spark, sleep_long)
            assert is_workers_death(hung.value)
    finally:
        spark.stop()


def stop_itself(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    os.kill(os.getpid(), signal.SIGSTOP)
    yield from batches


def sleep_long(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    time.sleep(60)
    yield from batches


def one_task(spark: "SparkSession", function: object) -> None:
    spark.range(1).repartition(1).mapInArrow(function, "id long").collect()  # type: ignore[arg-type]


def workers(settings: Settings) -> list[psutil.Process]:
    """The Python workers of the tests' Connect server: what its daemons have forked."""
    pid = next(row.pid for row in status(settings) if row.service == "spark-connect")
    below = psutil.Process(pid).children(recursive=True)
    daemons = {process.pid for process in below if "spark.worker_daemon" in process.cmdline()}
    return [process for process in below if process.pid in daemons and process.ppid() in daemons]

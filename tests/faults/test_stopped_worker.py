"""Python workers that are stopped (SIGSTOP): none of their limits runs, so somebody else has to end them."""

import itertools
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store.stream_ledger import ranges, results
from local_stack.stack import status
from spark.isolation import OutOfTimeError, check_engine, interrupted_when_stuck, is_workers_death
from spark.session import open_session, session_config
from tests.faults.processes import python_workers
from tests.stream_rig import Stream, running_stream, set_champion, short_clips, wait_until

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

TOPIC = "test_stopped_worker"
DEATH = "Python worker exited unexpectedly"


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """With the limits that a user has: a range may go without progress for ten minutes."""
    with running_stream(stack, tmp_path_factory.mktemp("stopped") / "drop", TOPIC) as stream:
        set_champion(stream.settings, 1)
        yield stream


@pytest.fixture(scope="module")
def spark(stack: Settings) -> Iterator["SparkSession"]:
    spark = open_session(session_config(stack, app_name="stopped worker"))
    yield spark
    spark.stop()


@pytest.mark.long
def test_a_range_whose_workers_are_stopped_is_computed_again_and_nobody_is_blamed(stream: Stream) -> None:
    stream.wait_for(stream.drop(short_clips(4, seed=80)))
    deaths = engine_log(stream.settings).count(DEATH)
    hashes, seeds, stopped = set[str](), itertools.count(81), set[psutil.Process]()

    def stop_all() -> None:
        for worker in python_workers(stream.settings):
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
                stopped.add(worker)

    # At work or idle, for a task that is given an idle one waits for it as well; those that are forked meanwhile, too.
    # A machine may compute a range before its workers are stopped: other clips follow then.
    while engine_log(stream.settings).count(DEATH) == deaths:
        if set.union(*stream.places(hashes)) == hashes:
            hashes |= stream.drop(short_clips(16, seed=next(seeds)))
        for _ in range(10):
            stop_all()
            time.sleep(0.02)
    began = time.monotonic()
    stream.wait_for(hashes, patience_s=240)
    print(f"{len(stopped)} stopped workers: {time.monotonic() - began:.0f} s from a death to the last prediction")  # noqa: T201
    assert stream.places(hashes) == (hashes, set())
    assert not results.quarantine(stream.database, topic=TOPIC)
    wait_until(lambda: {found.state for found in ranges.history(stream.database, TOPIC)} == {"committed"})
    wait_until(lambda: not any(worker.is_running() for worker in stopped))


def test_a_stopped_worker_is_ended_and_its_job_fails_as_by_a_death(spark: "SparkSession") -> None:
    with pytest.raises(Exception, match=DEATH) as died:
        one_task(spark, stop_itself)
    assert is_workers_death(died.value)
    check_engine(spark, GTZAN57)


def test_an_interrupted_job_ends_its_stopped_worker(spark: "SparkSession") -> None:
    """What holds a worker without stopping it for good, such as a debugger, is left to the limit without progress."""
    with pytest.raises(OutOfTimeError), interrupted_when_stuck(spark, limit_s=2.0):
        one_task(spark, stop_itself)
    check_engine(spark, GTZAN57)


def test_what_sparks_own_limit_ends_is_a_death_as_any_other(spark: "SparkSession") -> None:
    """The project does not set it: it counts a whole task's seconds, and ended 22 of 25 stopped workers, not all."""
    spark.conf.set("spark.sql.execution.pyspark.udf.idleTimeoutSeconds", "1s")
    spark.conf.set("spark.sql.execution.pyspark.udf.killOnIdleTimeout", "true")
    # Which of the two Spark says depends on what it sees first: that it has ended the worker, or that it is gone.
    with pytest.raises(Exception, match=f"idle timeout|{DEATH}") as hung:
        one_task(spark, sleep_long)
    assert is_workers_death(hung.value)


def stop_itself(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    os.kill(os.getpid(), signal.SIGSTOP)
    yield from batches


def sleep_long(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    time.sleep(60)
    yield from batches


def one_task(spark: "SparkSession", function: object) -> None:
    spark.range(1).repartition(1).mapInArrow(function, "id long").collect()  # type: ignore[arg-type]


def engine_log(settings: Settings) -> str:
    log = next(row.log for row in status(settings) if row.service == "spark-connect")
    assert log is not None
    return log.read_text(errors="replace")

"""An engine that somebody else runs: what its workers lack is said before any work, and so is that it has no cores."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pandas as pd
import pytest
from pyspark.sql import functions as sf

from genres.audio.gtzan57 import GTZAN57
from genres.errors import last_words
from genres.settings import Settings
from genres.store.hdfs_access import HdfsAccess
from local_stack import spark_server
from local_stack import stack as local
from local_stack.program import Program
from local_stack.stack import down, up
from spark.clip_source import WebHdfsClips
from spark.extraction import extract_features, parallelism, spread
from spark.session import open_session, session_config
from spark.starvation import starvation_told
from tests.stream_rig import wait_until

if TYPE_CHECKING:
    import pyarrow as pa

RunGenres = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bare(
    stack: Settings, free_port_base: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Run a Connect server whose workers have nothing but Python's own library and what Spark brings along."""
    folder = tmp_path_factory.mktemp("bare")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    own = Settings(
        state_dir=folder / "engine",
        port_base=free_port_base(),
        hdfs_url=stack.hdfs,
        webhdfs_url=stack.webhdfs,
        kafka_bootstrap_servers=stack.bootstrap_servers,
        mlflow_tracking_uri=stack.tracking_uri,
    )
    programs, conf = spark_server.spark_programs, spark_server.connect_conf

    def bare_programs(settings: Settings, java_home: Path) -> list[Program]:
        connect, pages = programs(settings, java_home)
        less = {"PYSPARK_PYTHON": str(python), "PYTHONPATH": ""}
        return [replace(connect, environment=connect.environment | less), pages]

    def bare_conf(settings: Settings) -> dict[str, str]:
        return {name: value for name, value in conf(settings).items() if name != "spark.python.daemon.module"}

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(spark_server, "connect_conf", bare_conf)
        monkeypatch.setattr(local, "spark_programs", bare_programs)
        up(own, on_progress=lambda line: sys.stderr.write(f"{line}\n"))
    yield own
    down(own)


def test_what_the_workers_lack_is_one_line(bare: Settings, run_genres: RunGenres) -> None:
    done = run_genres("up", GENRES_SPARK_REMOTE=bare.remote)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("genres: ")]
    assert line.startswith(f"genres: the workers of Spark at {bare.remote} lack what this project needs (")
    assert "not installed: " in line and "numpy>=" in line and "kafka-python>=" in line
    assert "the project's code" not in line, "it is sent"


def test_a_workers_own_error_is_what_a_person_reads(bare: Settings) -> None:
    spark = open_session(session_config(bare, app_name="workers without the project"))
    try:
        named = {"track_id": ["a"], "genre": ["blues"], "path": ["/a.wav"], "sha256": ["0"]}
        rows = spread(spark, pd.DataFrame(named), tasks=1)
        source = WebHdfsClips(HdfsAccess(bare.webhdfs, "me"))
        features = extract_features(rows, source=source, feature_set=GTZAN57, max_clip_s=10)
        with pytest.raises(Exception) as failed:
            features.collect()
    finally:
        spark.stop()
    assert "No module named" in last_words(failed.value), str(failed.value)


def test_each_task_of_a_large_engine_has_as_many_clips(stack: Settings) -> None:
    spark = open_session(session_config(stack, app_name="spread"))
    try:
        assert parallelism(spark) == os.cpu_count()
        spark.conf.set("spark.sql.leafNodeDefaultParallelism", "64")  # as 64 cores have it
        assert parallelism(spark) == 64
        for rows, tasks in ((63, 63), (1000, 100), (7, 3)):
            frame = spread(spark, pd.DataFrame({"clip": range(rows)}), tasks=tasks)
            found = frame.groupBy(sf.spark_partition_id()).count().collect()
            assert sorted(row["count"] for row in found) == sorted(
                len(range(task, rows, tasks)) for task in range(tasks)
            )
    finally:
        spark.stop()


def test_an_able_engine_is_asked_and_passes(stack: Settings, bare: Settings) -> None:
    lines: list[str] = []
    foreign = Settings(
        state_dir=bare.state_dir / "nothing of its own",
        hdfs_url=stack.hdfs,
        webhdfs_url=stack.webhdfs,
        kafka_bootstrap_servers=stack.bootstrap_servers,
        spark_remote=stack.remote,
        mlflow_tracking_uri=stack.tracking_uri,
    )
    up(foreign, on_progress=lines.append)
    (line,) = lines
    assert line.startswith(f"Spark at {stack.remote} did a job of one row in ")


def test_a_job_that_gets_no_cores_is_said(stack: Settings, tmp_path: Path) -> None:
    """Somebody else's tasks hold every core of the engine."""
    flag, holding, told = tmp_path / "enough", tmp_path / "holding", list[str]()
    holding.mkdir()

    def hold(batches: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        (holding / uuid4().hex).touch()
        deadline = time.monotonic() + 120
        while not flag.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        yield from batches

    tasks = 2 * (os.cpu_count() or 1)
    holder = open_session(session_config(stack, app_name="holds all cores"))
    try:
        with ThreadPoolExecutor(2) as pool:
            held = pool.submit(holder.range(0, tasks, 1, tasks).mapInArrow(hold, "id long").collect)
            wait_until(lambda: len(list(holding.iterdir())) >= parallelism(holder))
            waiting = pool.submit(holder.range(0, 1, 1, 1).mapInArrow(hold, "id long").collect)
            try:
                with starvation_told(holder, engine=stack.remote, tell=told.append, after_s=5):
                    deadline = time.monotonic() + 60
                    while not told and time.monotonic() < deadline:
                        time.sleep(0.2)
            finally:
                flag.touch()
            assert len(held.result(120)) == tasks and len(waiting.result(120)) == 1
    finally:
        holder.stop()
    assert stack.remote in told[0] and "no free cores" in told[0]

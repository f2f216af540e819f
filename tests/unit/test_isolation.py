"""A clip is blamed for a worker's death only when it kills again, alone, while a known-good clip passes."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from genres.audio.clip_features import clip_features
from genres.audio.feature_sets import installed_sets
from genres.audio.known_good import known_good_wav
from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError, last_words
from genres.settings import PROJECT_DIR
from spark.isolation import OutOfTimeError, interrupted_when_stuck, is_workers_death, isolated

DEATH = RuntimeError("Job aborted: SparkException: Python worker exited unexpectedly (crashed)")


class Engine:
    """Workers that certain clips kill, some of them only sometimes; counts what was computed."""

    def __init__(self, *, killers: dict[str, int], is_broken: bool = False, lives_s: float = 0.0) -> None:
        self.lives_s = lives_s
        self.deaths_left = dict(killers)
        self.is_broken = is_broken
        self.checks = self.jobs = 0
        self.longest_s = 0.0

    def compute(self, clips: Sequence[str]) -> pa.Table:
        self.jobs += 1
        for clip in clips:
            if self.deaths_left.get(clip, 0) > 0:
                self.deaths_left[clip] -= 1
                time.sleep(self.lives_s)
                raise DEATH
        return pa.table({"clip": list(clips)})

    def check(self, seconds: float) -> None:
        self.checks += 1
        self.longest_s = max(self.longest_s, seconds)
        if self.is_broken:
            raise GenresError("Spark's workers do not compute a known-good clip")

    def run(self, clips: Sequence[str]) -> dict[str, object]:
        found = list(isolated(clips, compute=self.compute, check_engine=self.check))
        assert [clip for part, _ in found for clip in part] == list(clips)
        return {clip: rows for part, rows in found for clip in part}


def test_only_the_clip_that_kills_each_time_alone_is_refused() -> None:
    engine = Engine(killers={"b": 9})
    found = engine.run("abc")
    assert [clip for clip, rows in found.items() if isinstance(rows, pa.Table)] == ["a", "c"]
    assert isinstance(found["b"], RejectedAudio)
    assert found["b"].columns == {
        "reason": "killed its worker 3 times, alone, while known-good clips passed",
        "reason_code": "killed_worker",
    }
    assert engine.checks == 3


@pytest.mark.parametrize("killers", [[0], [1999], [7, 1000, 1001]])
def test_a_killer_among_thousands_takes_few_jobs(killers: list[int]) -> None:
    clips = [f"clip {number}" for number in range(2000)]
    engine = Engine(killers={clips[number]: 99 for number in killers})
    found = engine.run(clips)
    refused = [clip for clip, rows in found.items() if isinstance(rows, RejectedAudio)]
    assert refused == [clips[number] for number in killers]
    tables = {id(rows): rows for rows in found.values() if isinstance(rows, pa.Table)}.values()
    assert pa.concat_tables(tables)["clip"].to_pylist() == [clip for clip in clips if clip not in refused]
    assert engine.jobs <= 45 * len(killers)


def test_an_engine_that_fails_ends_the_search_at_its_first_job() -> None:
    clips = [f"clip {number}" for number in range(2000)]
    engine = Engine(killers=dict.fromkeys(clips, 99), is_broken=True)
    with pytest.raises(GenresError, match="known-good"):
        engine.run(clips)
    assert engine.jobs == 1


@pytest.mark.parametrize("times", [1, 2])
def test_a_clip_that_kills_not_each_time_may_have_been_unlucky(times: int) -> None:
    assert isinstance(Engine(killers={"a": times}).run("a")["a"], pa.Table)


def test_known_good_clips_pass_for_longer_than_the_suspect_lived() -> None:
    """What ends workers now and then would end one of theirs as well."""
    engine = Engine(killers={"a": 9}, lives_s=0.05)
    engine.run("a")
    assert 5 * 0.05 <= engine.longest_s < 20


def test_nobody_is_blamed_on_an_engine_that_fails_a_known_good_clip() -> None:
    with pytest.raises(GenresError, match="known-good"):
        Engine(killers={"a": 9}, is_broken=True).run("a")


@pytest.mark.parametrize("first", [DEATH, OutOfTimeError("no task ended for 9 s")])
def test_nobody_is_blamed_for_a_job_that_was_interrupted(first: Exception) -> None:
    """A clip that hangs has its worker end itself; this one may have waited for its bytes."""
    tries = iter([first, *[OutOfTimeError("no task ended for 9 s")] * 2])

    def compute(clips: Sequence[str]) -> pa.Table:
        raise next(tries)

    with pytest.raises(GenresError, match=r"^no task .* with one clip alone"):
        list(isolated("a", compute=compute, check_engine=lambda _: None))


def test_a_clip_whose_job_was_interrupted_once_may_have_its_rows() -> None:
    tries = iter([OutOfTimeError("no task ended for 9 s"), None])

    def compute(clips: Sequence[str]) -> pa.Table:
        if error := next(tries):
            raise error
        return pa.table({"clip": list(clips)})

    ((_, rows),) = isolated("a", compute=compute, check_engine=lambda _: None)
    assert isinstance(rows, pa.Table)


def test_an_outage_meanwhile_is_an_outage() -> None:
    def away(clips: Sequence[str]) -> pa.Table:
        raise ConnectionError("StatusCode.UNAVAILABLE")

    with pytest.raises(ConnectionError):
        list(isolated("a", compute=away, check_engine=lambda _: None))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DEATH, True),
        (OutOfTimeError("no task ended for 600 s"), True),
        (MemoryError(), False),
        (OSError("No space left on device"), False),
        (RuntimeError("<_InactiveRpcError ... StatusCode.UNAVAILABLE ...>"), False),
        (RuntimeError("[INVALID_HANDLE.SESSION_CHANGED] The server session changed"), False),
        (KeyError("spark_model_path"), False),
        (RuntimeError("org.apache.hadoop.hdfs.protocol.NSQuotaExceededException: ... "), False),
        (GenresError("Kafka at 127.0.0.1:1 does not answer"), False),
    ],
)
def test_whatever_is_no_workers_death_is_an_outage(error: Exception, expected: bool) -> None:
    assert is_workers_death(error) is expected


def test_a_stuck_job_is_interrupted_until_it_ends() -> None:
    """The first request fails, the second comes before the server has begun the job."""
    requests, ended = list[str](), threading.Event()

    def interrupt(tag: str) -> None:
        requests.append(tag)
        if len(requests) == 1:
            raise ConnectionError("the server is busy")
        if len(requests) > 2:
            ended.set()

    def take(_: object) -> None: ...

    spark: Any = SimpleNamespace(
        addTag=take, removeTag=take, registerProgressHandler=take, removeProgressHandler=take, interruptTag=interrupt
    )
    with pytest.raises(OutOfTimeError), interrupted_when_stuck(spark, limit_s=0.05):
        ended.wait(30)
        raise RuntimeError("OPERATION_CANCELED")
    assert ended.is_set()
    assert len(set(requests)) == 1


@pytest.mark.parametrize("name", installed_sets())
def test_the_known_good_clip_has_features(name: str) -> None:
    found = clip_features(known_good_wav(), file_suffix=".wav", feature_set=installed_sets()[name], max_clip_s=10)
    assert set(found.values) == set(installed_sets()[name].columns)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "RuntimeError"),
        ("\n\nthe disk is full\nmore", "the disk is full"),
        (
            "\nAn exception was thrown from the Python worker:\nTraceback (most recent call last):\n"
            '  File "x", line 1\n'
            "genres.errors.GenresError: HDFS at http://x does not give /clip: it is away\n",
            "HDFS at http://x does not give /clip: it is away",
        ),
        (
            '\n(org.apache.spark.api.python.PythonException) \nTraceback (most recent call last):\n  File "x", line 1\n'
            "ModuleNotFoundError: No module named 'soxr'\n",
            "ModuleNotFoundError: No module named 'soxr'",
        ),
        (
            "(java.lang.IllegalStateException) Cannot call methods on a stopped SparkContext.\nThis stopped ...",
            "Spark failed (`genres status` shows whether it runs): (java.lang.IllegalStateException) "
            "Cannot call methods on a stopped SparkContext.",
        ),
    ],
)
def test_a_workers_error_reaches_people_as_the_line_that_says_most(text: str, line: str) -> None:
    assert last_words(RuntimeError(text)) == line


def test_a_worker_that_hangs_at_a_clip_ends_itself() -> None:
    """The kernel sleeps in C, where no signal handler of Python's would run."""
    program = (
        "import pyarrow as pa\n"
        "from dataclasses import replace\n"
        "from genres.audio.gtzan57 import GTZAN57\n"
        "from spark.extraction import feature_batches\n"
        "from spark.isolation import KnownGoodClips\n"
        "import ctypes\n"
        "hangs = replace(GTZAN57, kernel=lambda samples: ctypes.PyDLL(None).sleep(60))\n"
        "rows = pa.RecordBatch.from_pylist([{'track_id': 'a'}])\n"
        "list(feature_batches([rows], source=KnownGoodClips(), feature_set=hangs, max_clip_s=60, clip_limit_s=0.5))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_DIR, capture_output=True, timeout=50, check=False)
    assert run.returncode == 1
    assert b"Timeout" in run.stderr

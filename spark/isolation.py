"""Finding the clip that kills its worker: ever fewer clips at a time, each suspect alone, a known-good one beside it.

A Python worker that died, or ran out of time, has not said at which clip. Nobody is blamed for that: the clips are
computed again in parts, and those of a part whose worker dies in parts of it, down to single clips. Only a clip that
kills it again, alone, three times, while known-good clips pass on the same engine after each, for longer than it
lived, is a culprit; if one of them fails as well, the engine is at fault: what ends workers now and then, such as a
system without memory, ends some of those too. A clip that hangs has its worker end itself (`spark.extraction`);
a job that is interrupted because nothing came of it says nothing of its clip, whose bytes it may have waited for.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from genres.audio.clip_features import Clip
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.known_good import known_good_wav
from genres.audio.rejections import CLIP_OR_MACHINE, Reason, RejectedAudio
from genres.errors import GenresError, last_words
from genres.store.schemas import TRACK_ID, Column

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

_PARTS = 16
"""How many parts are computed where all together killed a worker. With fewer, a clip that hangs would use up its time
limit more often before it stands alone; with more, there are more jobs."""
_TRIES = 3
"""How often a clip has to kill its worker, alone."""
_LONGER, _LONGEST_S = 5, 20.0
"""How many times as long as the clip's job known-good clips have to pass, and for how many seconds at most."""
_KNOWN_GOOD = 5
"""Known-good clips of a job."""
# What Spark says of a worker that is gone: it died, or was killed because nothing had come from it for too long. What
# the worker itself says when memory ran out, or its decoder was killed, is no other thing.
_DEATHS = ("Python worker exited unexpectedly", "Python worker failed to connect back", "idle timeout", CLIP_OR_MACHINE)

_Unit = TypeVar("_Unit")


class OutOfTimeError(Exception):
    """A Spark job was interrupted because nothing had come of it for too long."""


@dataclass(frozen=True)
class KnownGoodClips:
    """A source of a clip that every feature set can compute: half a minute of a tone with overtones, made here.

    As long as clips are, so that what ends workers from outside has as much time for it.
    """

    columns: tuple[Column, ...] = (TRACK_ID,)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Return the clip once for each row."""
        for _ in rows:
            yield Clip({"track_id": "known good"}, ".wav", known_good_wav(30))


def is_workers_death(error: BaseException) -> bool:
    """Return whether a Spark job failed because a Python worker, or its decoder, died or ran out of time or memory.

    At which clip is not said.
    """
    return isinstance(error, OutOfTimeError) or any(sign in str(error) for sign in _DEATHS)


def isolated(
    units: Sequence[_Unit],
    *,
    compute: Callable[[Sequence[_Unit]], "pa.Table"],
    check_engine: Callable[[float], None],
    on_progress: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Sequence[_Unit], "pa.Table | RejectedAudio"]]:
    """Compute clips in parts after a job over all of them killed a worker.

    Parameters
    ----------
    units
        What names one clip each.
    compute
        Computes some clips that follow each other in a job of its own.
    check_engine
        Computes known-good clips, for at least so many seconds; raises if that fails.
    on_progress
        Called after each job.

    Yields
    ------
    units
        Some that follow each other; all come, in their order.
    table or RejectedAudio
        The clips' rows; or, of one clip, the verdict that refuses it.

    Raises
    ------
    Exception
        What `compute` raises that is no worker's death, and what `check_engine` raises: an outage.
    GenresError
        If a clip's job was interrupted and the clip has not killed its worker each time: an outage as well.
    """
    size = -(-len(units) // _PARTS)
    for start in range(0, len(units), size):
        part = units[start : start + size]
        if len(part) == 1:
            yield part, _alone(part, compute, check_engine, on_progress)
        else:
            try:
                table = compute(part)
            except Exception as error:
                if not is_workers_death(error):
                    raise
                check_engine(0)
                yield from isolated(part, compute=compute, check_engine=check_engine, on_progress=on_progress)
            else:
                yield part, table
        on_progress()


def _alone(
    one: Sequence[_Unit],
    compute: Callable[[Sequence[_Unit]], "pa.Table"],
    check_engine: Callable[[float], None],
    on_progress: Callable[[], None],
) -> "pa.Table | RejectedAudio":
    interrupted = None
    for _ in range(_TRIES):
        began = time.monotonic()
        try:
            return compute(one)
        except Exception as error:
            if not is_workers_death(error):
                raise
            check_engine(min(_LONGER * (time.monotonic() - began), _LONGEST_S))
            on_progress()
            if isinstance(error, OutOfTimeError):
                interrupted = error
    if interrupted is not None:
        raise GenresError(
            f"{interrupted}, with one clip alone, whose worker did not end itself: it waited for something else, "
            "such as Kafka, HDFS or memory; see `genres status` and the engine's log; the clips wait"
        ) from interrupted
    return RejectedAudio(Reason.KILLED_WORKER, times=_TRIES)


@contextmanager
def interrupted_when_stuck(
    spark: "SparkSession", *, limit_s: float, on_progress: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Interrupt the Spark jobs that the block starts as soon as none of their tasks has ended for too long.

    Parameters
    ----------
    limit_s
        How long a job may go without a task that ends, in seconds.
    on_progress
        Called whenever a task has ended.

    Raises
    ------
    OutOfTimeError
        Instead of Spark's word that the job was interrupted.
    """
    tag = f"limited-{uuid4().hex}"
    last_sign, finished, stuck, done = time.monotonic(), -1, threading.Event(), threading.Event()

    def take_note(stages: Any, **_: object) -> None:
        nonlocal last_sign, finished
        now_finished = sum(stage.num_completed_tasks for stage in stages or [])
        if now_finished != finished:
            finished, last_sign = now_finished, time.monotonic()
            on_progress()

    def watch() -> None:
        while not done.wait(min(limit_s / 4, 5.0)):
            if time.monotonic() - last_sign > limit_s:
                stuck.set()
                # Again and again: a job that the server has not begun yet is not interrupted, and nor is any by a
                # request that fails.
                with suppress(Exception):
                    spark.interruptTag(tag)

    watcher = threading.Thread(target=watch, name="stuck job", daemon=True)
    spark.addTag(tag)
    spark.registerProgressHandler(take_note)  # type: ignore[arg-type]  # a function will do
    watcher.start()
    try:
        yield
    except Exception as error:
        if stuck.is_set():
            raise OutOfTimeError(f"no task ended for {limit_s:g} s") from error
        raise
    finally:
        done.set()
        spark.removeProgressHandler(take_note)  # type: ignore[arg-type]
        spark.removeTag(tag)


def check_engine(
    spark: "SparkSession", feature_set: AnyFeatureSet, *, for_s: float = 0.0, limit_s: float = 60.0
) -> None:
    """Compute known-good clips.

    Parameters
    ----------
    for_s
        For how long at least, in seconds; a few in any case.
    limit_s
        How long a few may take, in seconds: they may get a worker that is stopped, as any task may.

    Raises
    ------
    GenresError
        If that fails: whatever happened to other clips was the engine's fault.
    """
    import pandas as pd

    from spark.extraction import extract_features, spread

    began = time.monotonic()
    rows = spread(spark, pd.DataFrame({"track_id": ["known good"] * _KNOWN_GOOD}), tasks=_KNOWN_GOOD)
    while True:
        try:
            with interrupted_when_stuck(spark, limit_s=limit_s):
                table = extract_features(
                    rows, source=KnownGoodClips(), feature_set=feature_set, max_clip_s=60.0
                ).collect()
        except Exception as error:
            raise GenresError(
                f"Spark's workers do not compute a known-good clip ({last_words(error)}): look at the engine's log; "
                "the clips wait"
            ) from error
        if len(table) != _KNOWN_GOOD or any(row["reason"] is not None for row in table):
            raise GenresError(f"Spark's workers refuse a known-good clip ({table}): look at the engine; the clips wait")
        if time.monotonic() - began >= for_s:
            return

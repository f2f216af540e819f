"""Features of many clips: the clips that a Spark DataFrame names, computed in Spark's Python workers.

Where bytes come from is `spark.clip_source`, what happens to a clip `genres.audio.clip_features`.
"""

import faulthandler
import functools
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from genres.audio.clip_features import Clip, clip_row
from genres.audio.feature_set import AnyFeatureSet
from genres.store import schemas
from spark.clip_source import ClipSource

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_CLIPS_PER_TASK = 10
"""Rows of a Spark task: small enough that progress shows and the last task does not leave a core idle, large
enough that a task's fixed costs do not count beside its clips."""


def extract_features(
    clips: "DataFrame",
    *,
    source: ClipSource,
    feature_set: AnyFeatureSet,
    max_clip_s: float,
    clip_limit_s: float = 0.0,
) -> "DataFrame":
    """Compute the features of the clips that a DataFrame names, in Spark's Python workers.

    Each worker fetches the bytes itself, holds one clip and the next one's bytes, and gives back features only.

    Parameters
    ----------
    clips : pyspark.sql.DataFrame
        Of a classic or a Connect session; it has the columns that `source` reads, and as many partitions as there are
        to be tasks (see `spread`).
    source : ClipSource
        Where the workers get the bytes from.
    feature_set : FeatureSet or JoinedFeatureSets
        What to compute, in one decode of each clip.
    max_clip_s : float
        Longest clip that is let in, in seconds.
    clip_limit_s : float
        A worker that computes with one clip for longer than so many seconds ends itself; 0: no limit.

    Returns
    -------
    pyspark.sql.DataFrame
        The columns of `source`, then ``length`` (samples; see `length_columns`), the feature set's columns, those of
        windows, ``sha256``, ``feature_version``, ``reason`` and ``reason_code``. A rejected clip is a row with a reason
        and its code and without length and features; a good one has nulls there. What keeps bytes from being fetched
        fails the task instead.
    """
    extract = functools.partial(
        feature_batches, source=source, feature_set=feature_set, max_clip_s=max_clip_s, clip_limit_s=clip_limit_s
    )
    schema = ", ".join(f"{column.name} {column.kind}" for column in _columns(source, feature_set))
    return clips.mapInArrow(extract, schema)


def spread(spark: "SparkSession", rows: "pd.DataFrame", *, tasks: int) -> "DataFrame":
    """Make a DataFrame of rows that name clips, in so many partitions of equally many rows, give or take one.

    Spark's own `repartition` deals the rows of each partition out from a random place on. An engine of many cores has
    local rows in as many partitions, of a row or two, so that some tasks would get several and others none.
    """
    import numpy as np

    numbered = rows.assign(task=np.arange(len(rows), dtype=np.int32) % np.int32(tasks))  # Spark takes no other integer
    return spark.createDataFrame(numbered).repartitionById(tasks, "task")


def parallelism(spark: "SparkSession") -> int:
    """Return how many tasks the engine works on at the same time, as it is now: a cluster grows and shrinks.

    Only a plan says so to a Connect client; it is made, which takes some milliseconds, and not run.
    """
    # `explain` prints, and what other threads print meanwhile would be taken for it.
    found = re.search(r"splits=(\d+)", spark.range(2)._explain_string())  # type: ignore[operator]
    return int(found.group(1)) if found else 1


def tasks_for(clips: int) -> int:
    """How many tasks a number of clips is best spread over."""
    return max(1, -(-clips // _CLIPS_PER_TASK))


def feature_batches(
    row_batches: "Iterable[pa.RecordBatch]",
    *,
    source: ClipSource,
    feature_set: AnyFeatureSet,
    max_clip_s: float,
    clip_limit_s: float = 0.0,
) -> "Iterator[pa.RecordBatch]":
    """Do a worker's share of `extract_features`: a batch of features for each batch of rows that name clips.

    Parameters and raised errors are those of `extract_features`; the batches have its columns, in its order. Arrow
    goes in and out without pandas, which takes longer to build a table this wide than a short clip takes to compute.
    """
    import pyarrow as pa

    schema = feature_schema(source, feature_set)
    for rows in row_batches:
        table = []
        for clip in _fetched_ahead(source.clips(rows.to_pylist())):
            with _limited(clip_limit_s):
                table.append(clip.about | clip_row(clip, feature_set=feature_set, max_clip_s=max_clip_s))
        yield pa.RecordBatch.from_pylist(table, schema=schema)


def feature_schema(source: ClipSource, feature_set: AnyFeatureSet) -> "pa.Schema":
    """Return the columns of `extract_features` with Arrow's types."""
    return schemas.arrow_schema(_columns(source, feature_set))


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """End this process if the block takes too long; nothing else stops a decoder that hangs outside Python."""
    if limit_s:
        faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        yield
    finally:
        if limit_s:
            faulthandler.cancel_dump_traceback_later()


def _columns(source: ClipSource, feature_set: AnyFeatureSet) -> tuple[schemas.Column, ...]:
    lengths = feature_set.length_columns.values()
    return (*source.columns, *schemas.extracted(feature_set.columns, lengths, feature_set.windows_columns))


def _fetched_ahead(clips: Iterator[Clip]) -> Iterator[Clip]:
    """Yield a source's clips, each fetched while the caller still computes with the one before it."""
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, clips, None)
        while (clip := coming.result()) is not None:
            coming = other.submit(next, clips, None)
            yield clip

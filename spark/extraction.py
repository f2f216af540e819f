"""From clips to rows of features: one clip, the clips of a Spark DataFrame, or local files.

What happens to a clip (gate, decoder, kernel, verdict) is written once, in `clip_features`; the other functions
carry clips to it. Where bytes come from is `spark.clip_source`, what a feature is `spark.features`.
"""

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark import audio_gate
from spark.audio_gate import RejectedAudio
from spark.clip_source import Clip, ClipSource
from spark.feature_sets import FeatureSet
from spark.thread_pools import single_threaded

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame

_CLIPS_PER_TASK = 10
"""Rows of a Spark task: small enough that progress shows and the last task does not leave a core idle, large
enough that a task's fixed costs do not count beside its clips."""


@dataclass(frozen=True)
class ClipFeatures:
    """What the pipeline keeps of one clip."""

    length: int
    """Samples after decoding, at the feature set's sample rate."""
    sha256: str
    """Hexadecimal digest of the file's bytes."""
    values: dict[str, float]
    """A finite value for each column of the feature set."""


def clip_features(data: bytes, *, file_suffix: str, feature_set: FeatureSet, max_clip_s: float) -> ClipFeatures:
    """Take one clip from its bytes to its features: the same way in batch, in streaming and for local files.

    Parameters
    ----------
    data : bytes
        The whole file.
    file_suffix : str
        Suffix of its name, with the dot; it must agree with the container inside.
    feature_set : FeatureSet
        What to compute.
    max_clip_s : float
        Longest clip that is let in, in seconds.

    Returns
    -------
    ClipFeatures
        Length, digest and the finite values of all columns.

    Raises
    ------
    RejectedAudio
        With the reason, if the bytes are no audio that is read, or give features that are not finite.
    """
    from spark.audio_decode import decode

    audio_gate.inspect(data, suffix=file_suffix, max_clip_s=max_clip_s)
    samples = decode(data)
    if len(samples) < feature_set.min_samples:
        raise RejectedAudio(
            f"{len(samples) / feature_set.sample_rate:.3f} s long; features need "
            f"{feature_set.min_samples / feature_set.sample_rate:.3f} s"
        )
    values = feature_set.kernel(samples)
    not_finite = [column for column, value in values.items() if not math.isfinite(value)]
    if not_finite:
        raise RejectedAudio(f"features are not finite: {', '.join(not_finite[:3])}")
    return ClipFeatures(len(samples), hashlib.sha256(data).hexdigest(), values)


def extract_features(
    clips: "DataFrame", *, source: ClipSource, feature_set: FeatureSet, max_clip_s: float, tasks: int
) -> "DataFrame":
    """Compute the features of the clips that a DataFrame names, in Spark's Python workers.

    Each worker fetches the bytes itself, holds one clip and the next one's bytes, and gives back features only.

    Parameters
    ----------
    clips : pyspark.sql.DataFrame
        Of a classic or a Connect session; the columns are those that `source` reads.
    source : ClipSource
        Where the workers get the bytes from.
    feature_set : FeatureSet
        What to compute.
    max_clip_s : float
        Longest clip that is let in, in seconds.
    tasks : int
        How many tasks the rows are spread over; `tasks_for` says how many are good.

    Returns
    -------
    pyspark.sql.DataFrame
        The columns of `source`, then ``length`` (samples), the feature set's columns, ``sha256``,
        ``feature_version`` and ``reason``. A rejected clip is a row with a reason and without length and
        features; a good one has a null reason. What keeps bytes from being fetched fails the task instead.
    """
    extract = functools.partial(feature_batches, source=source, feature_set=feature_set, max_clip_s=max_clip_s)
    schema = ", ".join(f"{name} {kind}" for name, kind in _columns(source, feature_set).items())
    return clips.repartition(tasks).mapInArrow(extract, schema)


def tasks_for(clips: int) -> int:
    """How many tasks a number of clips is best spread over."""
    return max(1, -(-clips // _CLIPS_PER_TASK))


def feature_batches(
    row_batches: "Iterable[pa.RecordBatch]", *, source: ClipSource, feature_set: FeatureSet, max_clip_s: float
) -> "Iterator[pa.RecordBatch]":
    """Do a worker's share of `extract_features`: a batch of features for each batch of rows that name clips.

    Parameters and raised errors are those of `extract_features`; the batches have its columns, in its order. Arrow
    goes in and out without pandas, which takes longer to build a table this wide than a short clip takes to compute.
    """
    import pyarrow as pa

    arrow_types = {
        "string": pa.string(),
        "int": pa.int32(),
        "long": pa.int64(),
        "double": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(name, arrow_types[kind]) for name, kind in _columns(source, feature_set).items()])
    for rows in row_batches:
        clips = _fetched_ahead(source.clips(rows.to_pylist()))
        table = [clip.about | _row(clip, feature_set=feature_set, max_clip_s=max_clip_s) for clip in clips]
        yield pa.RecordBatch.from_pylist(table, schema=schema)


def features_of_files(
    paths: Sequence[Path], *, feature_set: FeatureSet, max_clip_s: float, workers: int | None = None
) -> Iterator[dict[str, Any]]:
    """Compute the features of local audio files, over several processes.

    Parameters
    ----------
    paths : sequence of Path
        Audio files; the folder that a file is in names its genre.
    feature_set : FeatureSet
        What to compute.
    max_clip_s : float
        Longest clip that is let in, in seconds.
    workers : int, optional
        Processes; by default one a core, but no more than there are files. With one, the files are computed in
        this process.

    Yields
    ------
    dict
        A row for each file, in their order and as soon as it is there: ``filename, track_id, genre, length``,
        the features, ``sha256``, ``feature_version`` and ``reason``. A file that is rejected or cannot be read
        has a reason and no length and features.
    """
    row_of = functools.partial(_file_row, feature_set=feature_set, max_clip_s=max_clip_s)
    workers = min(workers or len(os.sched_getaffinity(0)), len(paths))
    if workers <= 1:
        yield from map(row_of, paths)
        return
    # A fork would copy the caller's threads' locks; a spawned process starts clean.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=single_threaded) as pool:
        yield from pool.map(row_of, paths)


def published_table(features: "pd.DataFrame", feature_set: FeatureSet) -> "pd.DataFrame":
    """Shape rows of features like the published GTZAN table: ``filename, length``, the features, ``label``.

    Parameters
    ----------
    features : pd.DataFrame
        Rows with ``track_id``, ``genre``, ``length``, ``reason`` and the feature columns. Where there is no
        ``filename``, it is the track's name with ``.wav``, as in the published table.
    feature_set : FeatureSet
        Whose columns to give.

    Returns
    -------
    pd.DataFrame
        One row for each clip that was not rejected, in order of file name.
    """
    good = features[features["reason"].isna()]
    filename = good["filename"] if "filename" in good else good["track_id"] + ".wav"
    table = good[["length", *feature_set.columns]].assign(label=good["genre"])
    table.insert(0, "filename", filename)
    return table.astype({"length": "int64"}).sort_values("filename", ignore_index=True)


def _columns(source: ClipSource, feature_set: FeatureSet) -> dict[str, str]:
    """Columns of an extraction and their Spark types, in order."""
    about = dict(column.split() for column in source.columns.split(","))
    features = dict.fromkeys(feature_set.columns, "double")
    return {**about, "length": "long", **features, **dict.fromkeys(("sha256", "feature_version", "reason"), "string")}


def _fetched_ahead(clips: Iterator[Clip]) -> Iterator[Clip]:
    """Give a source's clips, each fetched while the caller still computes with the one before it."""
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(next, clips, None)
        while (clip := coming.result()) is not None:
            coming = other.submit(next, clips, None)
            yield clip


def _row(clip: Clip, *, feature_set: FeatureSet, max_clip_s: float) -> dict[str, Any]:
    """Columns of one clip that do not come from its source."""
    try:
        if clip.rejection is not None:
            raise RejectedAudio(clip.rejection)
        found = clip_features(clip.data, file_suffix=clip.suffix, feature_set=feature_set, max_clip_s=max_clip_s)
    except RejectedAudio as rejection:
        verdict: dict[str, Any] = {
            "sha256": hashlib.sha256(clip.data).hexdigest(),
            "reason": rejection.reason,
        }
    else:
        verdict = {"length": found.length, **found.values, "sha256": found.sha256, "reason": None}
    return verdict | {"feature_version": feature_set.feature_version}


def _file_row(path: Path, *, feature_set: FeatureSet, max_clip_s: float) -> dict[str, Any]:
    about = {"filename": path.name, "track_id": path.stem, "genre": path.parent.name}
    try:
        data = path.read_bytes()
    except OSError as error:
        return about | {
            "sha256": None,
            "feature_version": feature_set.feature_version,
            "reason": f"cannot be read: {error.strerror}",
        }
    return about | _row(Clip(about, path.suffix, data), feature_set=feature_set, max_clip_s=max_clip_s)

"""From the bytes of a clip to its features: one clip, a clip with what is known about it, or local files.

What happens to a clip (gate, decoder, kernel, verdict) is written once, in `clip_features`; whoever has clips, on one
machine or in the workers of an engine, carries them here.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genres.audio import gate
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.known_good import known_good_wav
from genres.audio.rejections import ClipOrMachineError, NotJudgedError, Reason, RejectedAudio
from genres.audio.thread_pools import single_threaded, usable_cores

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Clip:
    """One clip's bytes, with what its row says about it."""

    about: dict[str, Any]
    """What is known about it, by column."""
    suffix: str
    """Suffix of the clip's file name, with the dot."""
    data: bytes
    rejection: RejectedAudio | None = None
    """Why the source itself refuses it: the message is no envelope, the bytes are not those that it promised."""
    sha256: str | None = None
    """Digest of the clip that was meant, where `data` is not it."""


@dataclass(frozen=True)
class ClipFeatures:
    """What the pipeline keeps of one clip."""

    lengths: dict[str, int]
    """Samples after decoding, by the feature set's `length_columns`."""
    sha256: str
    """Hexadecimal digest of the file's bytes."""
    values: dict[str, float]
    """A finite value for each column of the feature set."""
    windows: "dict[str, list[np.ndarray]]"
    """By the feature sets' `windows_column`, a row for each window: finite values in the order of that set's columns.
    Sets that say nothing over time are left out."""

    @property
    def length(self) -> int:
        """Samples after decoding, at the feature set's sample rate; the first one's, if several are joined."""
        return self.lengths["length"]


@contextmanager
def _machine_told_from_clip() -> Iterator[None]:
    """Say of what a machine lacks that it is no verdict: the bytes are in memory, no system call depends on them."""
    try:
        yield
    except MemoryError as error:
        raise ClipOrMachineError("there is not enough memory") from error
    except OSError as error:
        raise NotJudgedError(
            f"this machine cannot compute features ({error}): free disk, or whatever it lacks, and try again"
        ) from error


@_machine_told_from_clip()
def clip_features(data: bytes, *, file_suffix: str, feature_set: AnyFeatureSet, max_clip_s: float) -> ClipFeatures:
    """Take one clip from its bytes to its features: the same way in batch, in streaming and for local files.

    Parameters
    ----------
    data : bytes
        The whole file.
    file_suffix : str
        Suffix of its name, with the dot; it must agree with the container inside.
    feature_set : FeatureSet or JoinedFeatureSets
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
        With the reason, if the bytes are no audio that is read, or give features that are not finite, be it those of
        one of several sets.
    NotJudgedError
        If the machine lacks something, such as disk, that it takes for any clip.
    ClipOrMachineError
        If memory ran out, or a signal ended ffmpeg.
    """
    import numpy as np

    from genres.audio.decode import decode_at

    header = gate.inspect(data, suffix=file_suffix, max_clip_s=max_clip_s)
    samples = decode_at(data, sample_rates=feature_set.length_columns, header=header)
    for part in feature_set.parts:
        if (length := len(samples[part.sample_rate])) < part.min_samples:
            raise RejectedAudio(
                Reason.TOO_SHORT,
                samples=length,
                length=length / part.sample_rate,
                needed=part.min_samples,
                needed_s=part.min_samples / part.sample_rate,
            )
    containing = {inner.name: part.name for part in feature_set.parts for inner in part.contains}
    measured = {
        part.name: part.kernel(samples[part.sample_rate]) for part in feature_set.parts if part.name not in containing
    }
    values = {column: value for found in measured.values() for column, value in found.clip.items()}
    windows = {}
    for part in feature_set.parts:
        if over_time := measured[containing.get(part.name, part.name)].windows:
            windows[part.windows_column] = [
                np.array([window[column] for column in part.columns], np.float32) for window in over_time
            ]
    not_finite = [column for column, value in values.items() if not math.isfinite(value)]
    not_finite += [name for name, rows in windows.items() if not np.isfinite(rows).all()]
    if not_finite:
        raise RejectedAudio(Reason.FEATURES_NOT_FINITE, columns=", ".join(not_finite[:3]))
    lengths = {column: len(samples[sample_rate]) for sample_rate, column in feature_set.length_columns.items()}
    return ClipFeatures(lengths, hashlib.sha256(data).hexdigest(), values, windows)


def clip_row(clip: Clip, *, feature_set: AnyFeatureSet, max_clip_s: float) -> dict[str, Any]:
    """Return a clip's columns that do not come from its source: length, features and windows, or the reason why not.

    The reason is its text and its code, both empty for a good clip.

    Parameters
    ----------
    clip
        From whatever source.
    feature_set, max_clip_s
        As for `clip_features`.

    Raises
    ------
    NotJudgedError
        As `clip_features` does: nothing is known of the clip.
    Exception
        If not even a known-good clip has features: the code or the machine is at fault.
    """
    try:
        if clip.rejection is not None:
            raise clip.rejection
        found = clip_features(clip.data, file_suffix=clip.suffix, feature_set=feature_set, max_clip_s=max_clip_s)
    except RejectedAudio as rejection:
        verdict = _verdict(clip, rejection)
    except NotJudgedError:
        raise  # a known-good clip may pass: it is short, and takes neither a file nor another process
    except Exception as error:
        # No verdict, but a mistake of the code that this clip finds; unless it finds one in any clip.
        clip_features(known_good_wav(), file_suffix=".wav", feature_set=feature_set, max_clip_s=max_clip_s)
        failure = f"{type(error).__name__}: {error}"[:500]
        verdict = _verdict(clip, RejectedAudio(Reason.FEATURES_FAILED, error=failure))
    else:
        about = {"sha256": found.sha256, "reason": None, "reason_code": None}
        verdict = {**found.lengths, **found.values, **found.windows, **about}
    return verdict | {"feature_version": feature_set.feature_version}


def features_of_files(
    paths: Sequence[Path], *, feature_set: AnyFeatureSet, max_clip_s: float, workers: int | None = None
) -> Iterator[dict[str, Any]]:
    """Compute the features of local audio files, over several processes.

    Parameters
    ----------
    paths : sequence of Path
        Audio files; the folder that a file is in names its genre.
    feature_set : FeatureSet or JoinedFeatureSets
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
        the features and windows, ``sha256``, ``feature_version``, ``reason`` and ``reason_code``. A file that is
        rejected, or cannot be read or judged, has a reason and no length and features; so has one that ends its
        process, if there are several. One that cannot be judged was not refused: its reason has no code.
    """
    row_of = functools.partial(_file_row, feature_set=feature_set, max_clip_s=max_clip_s)
    workers = min(workers or usable_cores(), len(paths))
    if workers <= 1:
        yield from map(row_of, paths)
        return
    kept: dict[int, dict[str, Any]] = {}
    place = 0
    while place < len(paths):
        futures = {}
        pool = _pool(workers)
        with suppress(BrokenProcessPool):
            try:
                for number in range(place, len(paths)):
                    if number not in kept:
                        futures[number] = pool.submit(row_of, paths[number])
                while place < len(paths):
                    yield kept.pop(place) if place in kept else futures[place].result()
                    place += 1
            finally:
                pool.shutdown(cancel_futures=True)
        # A process that ended took the pool with it, and has not said at which file.
        for number, future in futures.items():
            if number >= place and not future.cancelled() and future.exception() is None:
                kept[number] = future.result()
        without = [number for number in range(place, len(paths)) if number not in kept]
        # Files are begun in their order: those that were at work are the first that have no row.
        kept |= {number: _row_alone(paths[number], row_of, feature_set) for number in without[:workers]}


def published_table(features: "pd.DataFrame", feature_set: AnyFeatureSet) -> "pd.DataFrame":
    """Shape rows of features like the published GTZAN table: ``filename, length``, the features, ``label``.

    Parameters
    ----------
    features : pd.DataFrame
        Rows with ``track_id``, ``genre``, ``length``, ``reason`` and the feature columns. Where there is no
        ``filename``, it is the track's name with ``.wav``, as in the published table.
    feature_set : FeatureSet or JoinedFeatureSets
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


def _verdict(clip: Clip, rejection: RejectedAudio) -> dict[str, Any]:
    return {"sha256": clip.sha256 or hashlib.sha256(clip.data).hexdigest(), **rejection.columns}


def _pool(workers: int) -> ProcessPoolExecutor:
    # A fork would copy the caller's threads' locks; a spawned process starts clean.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=single_threaded)


def _row_alone(path: Path, row_of: Callable[[Path], dict[str, Any]], feature_set: AnyFeatureSet) -> dict[str, Any]:
    """Compute a file in a process of its own, which it may end."""
    try:
        with _pool(1) as pool:
            return pool.submit(row_of, path).result()
    except BrokenProcessPool:
        return _without_features(path, RejectedAudio(Reason.ENDED_PROCESS).columns, feature_set)


def _file_row(path: Path, *, feature_set: AnyFeatureSet, max_clip_s: float) -> dict[str, Any]:
    try:
        gate.check_size(path.stat().st_size, max_clip_s=max_clip_s)
        data = path.read_bytes()
    except RejectedAudio as rejection:
        return _without_features(path, rejection.columns, feature_set)
    except OSError as error:
        return _without_features(path, RejectedAudio(Reason.CANNOT_READ, error=error.strerror).columns, feature_set)
    clip = Clip(_about(path), path.suffix, data)
    try:
        return clip.about | clip_row(clip, feature_set=feature_set, max_clip_s=max_clip_s)
    except NotJudgedError as error:  # of this file; others may need less
        return _without_features(path, {"reason": str(error), "reason_code": None}, feature_set)


def _about(path: Path) -> dict[str, Any]:
    # Of a path that begins here, the folder's name is not in it.
    folder = os.path.basename(os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH119, PTH120 - "..", too
    return {"filename": path.name, "track_id": path.stem, "genre": folder}


def _without_features(path: Path, why: Mapping[str, str | None], feature_set: AnyFeatureSet) -> dict[str, Any]:
    return {**_about(path), "sha256": None, "feature_version": feature_set.feature_version, **why}

"""``raw_audio``: the dataset's clips in HDFS, and the manifest that says which were accepted."""

import errno
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.datasets import published_datasets
from genres.datasets.folder import LabelledFile, notices, scan
from genres.errors import GenresError
from genres.file_names import display_path
from genres.settings import Settings
from genres.store import ledger, predictions, quarantine, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres_dagster.checks import check, check_spec
from genres_dagster.columns import column_schema
from genres_dagster.figures import figure_metadata, new_figure
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SEED = 0
_OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""Errors that say something of one file. All others are its disk's, its mount's or this process's."""
_HELD_BYTES = 256 * 2**20
"""Of files that are in memory at a time: dozens of clips, or one file that is larger."""


@dg.asset(
    group_name="audio",
    kinds={"python", "hdfs", "parquet"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="The labelled clips in HDFS and their manifest. Uploads only what is new or changed. A fresh graph "
    "has no partition to materialize: `genres load FOLDER` or `genres demo` adds one. Then launch the job "
    "batch_pipeline with it; Materialize all does the same and searches for hyperparameters besides, which takes up to "
    "ten minutes more.",
    metadata={"dagster/column_schema": column_schema(schemas.RAW_AUDIO)},
    check_specs=[
        *(
            check_spec(
                "raw_audio", f"{known.name}_checksums", f"Files with {known.title}'s names are the original ones."
            )
            for known in published_datasets.PUBLISHED
        ),
        check_spec("raw_audio", "class_balance", "No genre has fewer than half the accepted clips of the largest."),
        check_spec("raw_audio", "exact_duplicates", "No two accepted clips are byte for byte the same."),
        check_spec("raw_audio", "quarantined", "No clip was refused by the audio gate."),
    ],
)
def raw_audio(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
) -> dg.MaterializeResult:
    """Find, gate and upload the clips, then publish the manifest."""
    import pandas as pd

    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    if dataset.is_synthetic:
        from genres.datasets import synthetic

        synthetic.write_clips(
            dataset.source_folder,
            clips_per_genre=settings.synthetic_clips_per_genre,
            clip_s=settings.synthetic_clip_s,
            seed=_SEED,
            on_progress=lambda done, total: _log_tenths(context, "synthesised", done, total),
        )
    folder = scan(dataset.source_folder)
    for line in notices(folder):
        context.log.warning(line)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    known = tables.manifest() if tables.has_manifest() else None

    uploaded, rows = 0, []
    for row, was_uploaded in upload_clips(folder.files, tables, known, settings):
        rows.append(row)
        uploaded += was_uploaded
        _log_tenths(context, "in HDFS", len(rows), len(folder.files))
    manifest = pd.DataFrame(rows)
    refused = manifest[manifest["status"] == "quarantined"]
    if len(refused) == len(manifest):
        raise GenresError(
            f"none of the {len(manifest)} clips in {dataset.source_folder} can be read "
            f"(the first: {refused.iloc[0]['file_name']}: {refused.iloc[0]['reason']}); nothing to work with"
        )
    quarantine.replace(
        database,
        dataset.dataset,
        "raw_audio",
        [
            quarantine.RefusedClip(
                row["track_id"], row["file_name"], row["sha256"], "raw_audio", row["reason"], row["reason_code"]
            )
            for row in refused.to_dict("records")
        ],
        run_id=context.run_id,
    )
    for clip in refused.itertuples():
        context.log.warning(f"quarantined {clip.file_name}: {clip.reason}")
    commit = tables.publish_manifest(manifest, run_id=context.run_id)

    accepted = manifest[manifest["status"] == "accepted"]
    audio = dict(zip(accepted["track_id"], accepted["sha256"], strict=True))
    stale = predictions.mark_stale(database, dataset.dataset, audio, moment=datetime.now(UTC))
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "dagster/row_count": len(manifest),
            "clips_accepted": len(accepted),
            "clips_quarantined": len(refused),
            "clips_uploaded": uploaded,
            "predictions_stale": stale,
            "ignored": dg.MetadataValue.json(folder.passed_over.by_reason()),
            "manifest": tables.lake.uri(commit.path),
            "fingerprint": commit.fingerprint,
            "class_balance": figure_metadata(clips_of_each_genre(accepted["genre"], data=provenance(dataset))),
        },
        check_results=list(_checks(manifest, accepted, dataset=dataset.dataset)),
        data_version=dg.DataVersion(commit.fingerprint),
    )


def upload_clips(
    files: list[LabelledFile], tables: BatchTables, known: "pd.DataFrame | None", settings: Settings
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Bring clips to HDFS, several at a time, in their order.

    Parameters
    ----------
    files
        The clips.
    known
        The published manifest, if any: a clip that it has with the same hash, and that lies on HDFS in full
        size, is not uploaded again.

    Yields
    ------
    row
        The clip's row of the manifest, and ``reason_code``, which the quarantine alone keeps: with another column the
        manifest of clips that are as they were would be another.
    was_uploaded
        Whether bytes were sent.

    Raises
    ------
    GenresError
        If a file's disk, mount or this process keeps it from being read: no row can be right.
    """
    hashes = {} if known is None else dict(zip(known["path"], known["sha256"], strict=True))
    sizes = tables.lake.sizes(tables.lake.path(tables.dataset, "raw_audio"))

    memory = _Memory(_HELD_BYTES)

    def bring(file: LabelledFile) -> tuple[dict[str, Any], bool]:
        path = tables.lake.path(tables.dataset, "raw_audio", file.lake_name)
        return _bring(file, path, tables.lake, hashes.get(path), sizes.get(path), settings.max_clip_s, memory)

    with ThreadPoolExecutor(settings.upload_threads, thread_name_prefix="upload") as pool:
        yield from pool.map(bring, files)


class _Memory:
    """What several threads may hold in memory together; they get their parts in the order in which they ask.

    Parameters
    ----------
    limit
        In bytes. A part that is larger is held alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._turn = threading.Lock()  # or small parts would pass a large one for as long as any come
        self._given_back = threading.Condition()

    @contextmanager
    def part(self, size: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and have it during the block."""
        with self._turn, self._given_back:
            self._given_back.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._given_back:
                self._held -= size
                self._given_back.notify()


def _bring(
    file: LabelledFile,
    path: str,
    lake: Lake,
    known_sha256: str | None,
    known_bytes: int | None,
    max_clip_s: float,
    memory: _Memory,
) -> tuple[dict[str, Any], bool]:
    from genres.audio.gate import check_size, inspect
    from genres.audio.rejections import RejectedAudio

    row: dict[str, Any] = {
        "track_id": file.track_id,
        "genre": file.genre,
        "file_name": file.file_name,
        **dict.fromkeys(("path", "duration_s", "sample_rate", "channels", "reason", "reason_code")),
        "status": "quarantined",
    }
    try:
        size = file.path.stat().st_size
        try:
            check_size(size, max_clip_s=max_clip_s)
        except RejectedAudio as rejection:
            with file.path.open("rb") as stream:  # in blocks: it may be larger than the memory
                row["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
            return {**row, "md5": "", "bytes": size, **rejection.columns}, False
    except OSError as error:
        return {**row, **_unread(file, error)}, False
    with memory.part(size):
        try:
            data = file.path.read_bytes()
        except OSError as error:
            return {**row, **_unread(file, error)}, False
        row["sha256"] = sha256 = hashlib.sha256(data).hexdigest()
        row["md5"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
        row["bytes"] = len(data)
        try:
            header = inspect(data, suffix=file.path.suffix, max_clip_s=max_clip_s)
        except RejectedAudio as rejection:
            return {**row, **rejection.columns}, False
        is_there = known_sha256 == sha256 and known_bytes == len(data)
        if not is_there:
            lake.put_clip(path, data)
    row |= {
        "path": path,
        "duration_s": header.duration_s,
        "sample_rate": header.sample_rate,
        "channels": header.channels,
        "status": "accepted",
    }
    return row, not is_there


def _unread(file: LabelledFile, error: OSError) -> dict[str, Any]:
    """Return what a file's row says of why it cannot be read, if that is the file's own fault."""
    from genres.audio.rejections import Reason, RejectedAudio

    if error.errno not in _OF_THE_FILE:
        raise GenresError(
            f"{display_path(file.path)} cannot be read ({error.strerror or error}), which is no fault of the clip: "
            "look at the disk or mount that it is on, then load the folder again; nothing was published"
        ) from error
    return {"sha256": "", "md5": "", "bytes": 0, **RejectedAudio(Reason.CANNOT_READ, error=error.strerror).columns}


def clips_of_each_genre(genres: "pd.Series", *, data: str) -> "Figure":
    """Draw how many clips each genre has.

    Parameters
    ----------
    genres
        The genre of each accepted clip.
    """
    counts = genres.value_counts().sort_index()
    figure, axes = new_figure(8, 3.2, title=f"Clips of each genre (n = {len(genres)})", data=data)
    axes.bar(counts.index, counts.to_numpy())
    axes.set_xlabel("genre")
    axes.set_ylabel("accepted clips")
    axes.tick_params(axis="x", rotation=45)
    return figure


def published_checksums(manifest: "pd.DataFrame", *, dataset: str) -> Iterator[dg.AssetCheckResult]:
    """Compare clips with the originals of the published dataset whose names they have: a check for each that is known.

    Parameters
    ----------
    manifest
        Columns ``track_id``, ``genre`` and ``md5``.
    dataset
        The dataset's id.
    """
    recognised = published_datasets.published_dataset(zip(manifest["track_id"], manifest["genre"], strict=True))
    for known in published_datasets.PUBLISHED:
        title = known.title
        if known is not recognised:
            actual = f"the names are not {title}'s"
            expected = f"only for {title}'s names"
            yield check(f"{known.name}_checksums", True, dataset=dataset, expected=expected, actual=actual)
            continue
        validation = known.validate(dict(zip(manifest["track_id"], manifest["md5"], strict=True)))
        in_all = len(known.read_tracks())
        yield check(
            f"{known.name}_checksums",
            not validation.different,
            dataset=dataset,
            expected=f"every file is {title}'s original",
            actual=f"{len(validation.different)} differ, {len(validation.missing)} of {title}'s {in_all} are not here",
            warn=True,
            different=dg.MetadataValue.json(validation.different[:50]),
        )


def _checks(manifest: "pd.DataFrame", accepted: "pd.DataFrame", *, dataset: str) -> Iterator[dg.AssetCheckResult]:
    yield from published_checksums(manifest, dataset=dataset)
    # Of every genre that was handed in: one whose clips were all refused has none left.
    counts = accepted["genre"].value_counts().reindex(sorted(manifest["genre"].unique()), fill_value=0)
    yield check(
        "class_balance",
        counts.min() * 2 >= counts.max(),
        dataset=dataset,
        expected="every genre has at least half the clips of the largest",
        actual=", ".join(f"{genre} {count}" for genre, count in counts.items()),
        warn=True,
    )
    copies = accepted[accepted.duplicated("sha256", keep=False)]
    yield check(
        "exact_duplicates",
        copies.empty,
        dataset=dataset,
        expected="no two clips are the same",
        actual=f"{len(copies)} clips share their bytes with another",
        warn=True,
        clips=dg.MetadataValue.json([sorted(group) for _, group in copies.groupby("sha256")["track_id"]][:50]),
    )
    refused = manifest[manifest["status"] == "quarantined"]
    yield check(
        "quarantined",
        refused.empty,
        dataset=dataset,
        expected="no clip refused",
        actual=f"{len(refused)} of {len(manifest)} refused",
        warn=True,
        clips=dg.MetadataValue.json(dict(zip(refused["file_name"], refused["reason"], strict=True))),
    )


def _log_tenths(context: dg.AssetExecutionContext, what: str, done: int, total: int) -> None:
    step = max(total // 10, 1)
    if done % step == 0 or done == total:
        context.log.info(f"{what}: {done} of {total} clips")

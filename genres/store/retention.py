"""Retention in the lake: what lies there and nobody needs any more, kind by kind.

Each function lists the leftovers of one kind, and leaves out what a live range, a reader or a person may still need.
What is listed is older than a moment that the caller chooses, long enough ago that whoever wrote it is done: the lake
is asked first and the database after that, so that what was published in between is seen. When this is done, and what
goes of Dagster's own records, is said in ``streaming_sensors.maintenance``.
"""

import posixpath
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import ATTEMPTS, STREAM, Entry, Lake
from genres.store.sql import sa, tables
from genres.store.stream_features import is_merged, range_of
from genres.store.stream_ledger import results
from genres.store.stream_ledger.transaction import in_statements

_DAY = timedelta(days=1)


class Swept(NamedTuple):
    """What went, or would go, of one kind."""

    entries: int = 0
    bytes: int = 0
    kept_because: str = ""
    """Why nothing of the kind was touched; empty if it was."""


def sweep(lake: Lake, leftovers: Iterable[Entry], *, dry_run: bool) -> Swept:
    """Delete what a function of this module has listed, unless this is a dry run."""
    count = size = 0
    for entry in leftovers:
        size += lake.bytes_of(entry)
        count += 1
        if not dry_run:
            lake.files.rm(entry.path, recursive=entry.is_folder)
    return Swept(count, size)


def old_attempts(lake: Lake, *, before: datetime) -> list[Entry]:
    """List what was being written by runs that were killed."""
    places = lake.entries(lake.path(ATTEMPTS))
    return [entry for place in places for entry in lake.entries(place.path) if entry.modified_at < before]


def claims_root(lake_path: str) -> str:
    """Folder of a lake's claim checks, each in its day's; those of versions that had none for each day lie in it."""
    return posixpath.join(lake_path.rstrip("/"), STREAM, "claims")


def claims_folder(lake: Lake, moment: datetime) -> str:
    """Folder of the clips whose messages are sent on a day."""
    return posixpath.join(claims_root(lake.root), moment.astimezone(UTC).date().isoformat())


def old_claims(lake: Lake, *, before: datetime) -> list[Entry]:
    """List the claim checks of messages that were sent before a moment; the caller knows that those are done with.

    Folders of days that were over then, and single files of versions that had no folder for each day.
    """
    return [entry for entry in lake.entries(claims_root(lake.root)) if _sent_by(entry) < before]


def unneeded_quarantine(lake: Lake, database: Database, *, before: datetime) -> list[Entry]:
    """List kept bytes of refused clips that have no open refusal: only those of an open one can be judged again."""
    kept = [entry for entry in lake.entries(lake.path(STREAM, "quarantine")) if entry.modified_at < before]
    refused = results.quarantine(database) if kept else []
    needed = {row["sha256"] for row in refused} | {posixpath.basename(row["kept_path"] or "") for row in refused}
    return [entry for entry in kept if posixpath.basename(entry.path) not in needed]


def unpublished_stream_features(lake: Lake, database: Database, *, before: datetime) -> list[Entry]:
    """List features that no range names: of attempts that did not commit, of older versions, and merged ones.

    Whatever belongs to a range that is planned, and so may be in work, is left out; and what was merged, as long as the
    file that it was merged into is young, so that whoever read the ledger before finds it there.
    """
    stored = lake.entries(lake.path(STREAM, "features"), below=True)
    old = {entry.path: entry for entry in stored if entry.modified_at < before}
    column = tables.STREAM_RANGES.c
    named = sa.select(column.feature_path).where(column.feature_path.is_not(None)).distinct()
    kept: set[str] = set()
    with database.reading() as connection:
        published = set(connection.scalars(named))
        kept.update(connection.scalars(sa.select(column.partition_key).where(column.state == "planned")))
        unnamed = [entry for path, entry in old.items() if path not in published]
        for some in in_statements([range_of(entry.path) for entry in unnamed]):
            moved = sa.select(column.partition_key, column.feature_path).where(column.partition_key.in_(some))
            # One that the lake did not list is younger than the list.
            kept.update(key for key, path in connection.execute(moved) if is_merged(path or "") and path not in old)
    return [entry for entry in unnamed if range_of(entry.path) not in kept]


def unpublished_tables(dataset: BatchTables, *, before: datetime) -> list[Entry]:
    """List tables of a dataset, and parts of them, that were renamed into place and never published."""
    places = [entry for folder in dataset.table_folders() for entry in dataset.lake.entries(folder)]
    stored = [entry for entry in places if entry.modified_at < before]
    with dataset.database.reading() as connection:
        published = set(connection.scalars(sa.select(tables.LAKE_COMMITS.c.path)))
    return [entry for entry in stored if entry.path not in published]


def unused_candidates(dataset: BatchTables, *, newest_training: Callable[[str], str], before: datetime) -> list[Entry]:
    """List a dataset's candidates of trainings before the newest complete one, which champion_model chooses from.

    Registered models are copies in a folder of their own.

    Parameters
    ----------
    newest_training
        Returns the MLflow run of a dataset's newest complete training; asked only if there is anything to choose from.
    """
    trainings = dataset.lake.entries(dataset.candidates_folder())
    if len(trainings) < 2 or not any(entry.modified_at < before for entry in trainings):
        return []
    newest = newest_training(dataset.dataset)
    return [entry for entry in trainings if entry.modified_at < before and posixpath.basename(entry.path) != newest]


def _sent_by(claim: Entry) -> datetime:
    """When the last message was sent that names a claim check, or one of a folder's."""
    if not claim.is_folder:
        return claim.modified_at
    try:
        return datetime.fromisoformat(posixpath.basename(claim.path)).replace(tzinfo=UTC) + _DAY
    except ValueError:  # nobody of ours made it
        return datetime.max.replace(tzinfo=UTC)

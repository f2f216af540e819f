"""The ledger: which Parquet on HDFS is published, and which datasets there are."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import sa, tables


class Dataset(NamedTuple):
    """A labelled dataset: where its clips come from, what they are, and which features its models read."""

    dataset: str
    source_folder: Path
    is_synthetic: bool
    feature_set: str
    """Name of the feature set that the dataset's models are trained on."""


class Commit(NamedTuple):
    """A published table, or part of one."""

    path: str
    row_count: int
    fingerprint: str
    run_id: str


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 over the sorted lines: equal content, whatever its order, has equal fingerprints."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def register_dataset(database: Database, entry: Dataset) -> None:
    """Add a dataset, or change its folder or its feature set from now on."""
    values = {
        **entry._asdict(),
        "source_folder": str(entry.source_folder),
        "registered_at": datetime.now(UTC),
    }
    with database.writing() as connection:
        connection.execute(sa.delete(tables.DATASETS).where(tables.DATASETS.c.dataset == entry.dataset))
        connection.execute(sa.insert(tables.DATASETS).values(values))


def registered_dataset(database: Database, dataset: str) -> Dataset:
    """Look a dataset up.

    Raises
    ------
    GenresError
        If it was never registered.
    """
    columns = [tables.DATASETS.c[name] for name in Dataset._fields]
    with database.reading() as connection:
        row = connection.execute(sa.select(*columns).where(tables.DATASETS.c.dataset == dataset)).one_or_none()
        if row is None:
            known = ", ".join(connection.scalars(sa.select(tables.DATASETS.c.dataset))) or "none"
            raise GenresError(
                f"there is no dataset '{dataset}' (known: {known}): load a folder with `genres load <folder>`"
            )
    return Dataset(**row._mapping)._replace(source_folder=Path(row.source_folder))


def publish(database: Database, dataset: str, table_name: str, commit: Commit) -> None:
    """Make a table that lies complete on HDFS visible to readers."""
    values = {
        "dataset": dataset,
        "table_name": table_name,
        "committed_at": datetime.now(UTC),
        **commit._asdict(),
    }
    with database.writing() as connection:
        connection.execute(sa.insert(tables.LAKE_COMMITS).values(values))


def published(database: Database, dataset: str, table_name: str) -> list[Commit]:
    """All published parts of a table, oldest first; empty if there is none yet."""
    columns = [tables.LAKE_COMMITS.c[name] for name in Commit._fields]
    chosen = (tables.LAKE_COMMITS.c.dataset == dataset) & (tables.LAKE_COMMITS.c.table_name == table_name)
    with database.reading() as connection:
        rows = connection.execute(sa.select(*columns).where(chosen).order_by(tables.LAKE_COMMITS.c.commit_id))
        return [Commit(*row) for row in rows]


def latest(database: Database, dataset: str, table_name: str) -> Commit:
    """The newest published version of a table.

    Raises
    ------
    GenresError
        If it has not been made yet.
    """
    commits = published(database, dataset, table_name)
    if not commits:
        raise GenresError(
            f"dataset '{dataset}' has no {table_name} yet: materialize {table_name} first, or run `genres demo`"
        )
    return commits[-1]

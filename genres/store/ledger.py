"""The ledger: which Parquet on HDFS is published, and which datasets there are."""

import hashlib
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from genres.datasets.folder import SYNTHETIC
from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import sa, tables


class Dataset(NamedTuple):
    """A labelled dataset: where its clips come from, what they are, and which features its models read."""

    dataset: str
    source_folder: Path
    is_synthetic: bool
    feature_sets: tuple[str, ...]
    """Names of the feature sets that are computed for its clips, and that its models are trained on."""


class Commit(NamedTuple):
    """A published table, or part of one."""

    path: str
    row_count: int
    fingerprint: str
    run_id: str


def fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 over the sorted lines: equal content, whatever its order, has equal fingerprints."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def register_dataset(database: Database, entry: Dataset, *, replaces: bool = False) -> None:
    """Add a dataset, or change its feature sets from now on; it is the current one.

    Parameters
    ----------
    replaces
        Whether it takes the place of one that was loaded from another folder.

    Raises
    ------
    GenresError
        If its id belongs to another folder, and it is not to replace that one.
    """
    now = datetime.now(UTC)
    values = {
        **entry._asdict(),
        "source_folder": str(entry.source_folder),
        "feature_sets": ",".join(entry.feature_sets),
        "registered_at": now,
        "chosen_at": now,
    }
    with database.writing() as connection:
        if not replaces:
            _require_source(connection, entry)
        connection.execute(sa.delete(tables.DATASETS).where(tables.DATASETS.c.dataset == entry.dataset))
        connection.execute(sa.insert(tables.DATASETS).values(values))


def use_dataset(database: Database, dataset: str) -> None:
    """Make a dataset the current one.

    Raises
    ------
    GenresError
        If it was never registered.
    """
    registered_dataset(database, dataset)
    chosen = sa.update(tables.DATASETS).where(tables.DATASETS.c.dataset == dataset)
    with database.writing() as connection:
        connection.execute(chosen.values(chosen_at=datetime.now(UTC)))


def require_source(database: Database, entry: Dataset) -> None:
    """Refuse a dataset whose id belongs to another folder. A folder that was moved is another one.

    Raises
    ------
    GenresError
        With what to do.
    """
    with database.reading() as connection:
        _require_source(connection, entry)


def _require_source(connection: "sa.Connection", entry: Dataset) -> None:
    if entry.is_synthetic:  # what it is made from is this project's, wherever it lies
        return
    named = sa.select(tables.DATASETS.c.source_folder).where(tables.DATASETS.c.dataset == entry.dataset)
    source, folder = connection.scalar(named), str(entry.source_folder)
    if source not in (None, folder):
        raise GenresError(
            f"dataset '{entry.dataset}' was loaded from {source}: load {folder} under an id of its own (--dataset or "
            f"GENRES_DATASET), or let it take the other's place with `genres load {shlex.quote(folder)} "
            f"--dataset {entry.dataset} --replace`"
        )


def dataset_of_folder(database: Database, folder: Path) -> str | None:
    """Return the id under which a folder was loaded; the newest one if there are several, None if it never was."""
    return next((entry.dataset for entry in registered_datasets(database) if entry.source_folder == folder), None)


def dataset_meant(database: Database, *, dataset: str, folder: Path | None) -> str:
    """Return the id of the dataset that settings mean; no folder is looked into.

    Parameters
    ----------
    dataset
        The id that they name, if they name one.
    folder
        The folder that they name; the dataset that was loaded from it is meant.

    Returns
    -------
    str
        The current dataset, if neither says which one; the synthetic one's id, if none was loaded.
    """
    if dataset:
        return dataset
    entries = registered_datasets(database)
    of_folder = [entry for entry in entries if entry.source_folder == folder]
    return next((entry.dataset for entry in [*of_folder, *entries]), SYNTHETIC)


def registered_datasets(database: Database) -> list[Dataset]:
    """Return every dataset, the current one first: the one that was loaded or chosen last."""
    columns = [tables.DATASETS.c[name] for name in Dataset._fields]
    query = sa.select(*columns).order_by(tables.DATASETS.c.chosen_at.desc())
    with database.reading() as connection:
        return [_dataset(row) for row in connection.execute(query)]


def described_datasets(database: Database) -> list[dict[str, Any]]:
    """Return what the database says of every dataset, the current one first.

    Returns
    -------
    list of dict
        The columns of ``datasets``, ``clips`` of its newest manifest, refused ones among them (None if there is none
        yet), ``batch_predictions`` and ``champion_version``, as it is recorded (None if there was none yet).
    """
    datasets, commits = tables.DATASETS, tables.LAKE_COMMITS
    predictions, changes = tables.BATCH_PREDICTIONS, tables.CHAMPION_CHANGES

    def newest(column: sa.ColumnElement[Any], key: sa.ColumnElement[Any], *chosen: sa.ColumnElement[bool]) -> Any:
        found = sa.select(column).where(*chosen).order_by(key.desc()).limit(1)
        return found.correlate(datasets).scalar_subquery()

    query = sa.select(
        datasets,
        newest(
            commits.c.row_count,
            commits.c.commit_id,
            commits.c.dataset == datasets.c.dataset,
            commits.c.table_name == "raw_audio",
        ).label("clips"),
        sa.select(sa.func.count())
        .select_from(predictions)
        .where(predictions.c.dataset == datasets.c.dataset)
        .correlate(datasets)
        .scalar_subquery()
        .label("batch_predictions"),
        newest(changes.c.model_version, changes.c.change_id, changes.c.dataset == datasets.c.dataset).label(
            "champion_version"
        ),
    ).order_by(datasets.c.chosen_at.desc())
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def _dataset(row: Any) -> Dataset:
    names = tuple(row.feature_sets.split(","))
    return Dataset(**row._mapping)._replace(source_folder=Path(row.source_folder), feature_sets=names)


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
    return _dataset(row)


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


def latest_until(database: Database, dataset: str, table_name: str, moment: datetime) -> Commit | None:
    """Return the version of a table that was the newest one at a moment; None if there was none yet."""
    table = tables.LAKE_COMMITS
    chosen = (table.c.dataset == dataset) & (table.c.table_name == table_name) & (table.c.committed_at <= moment)
    query = sa.select(*(table.c[name] for name in Commit._fields)).where(chosen).order_by(table.c.commit_id.desc())
    with database.reading() as connection:
        row = connection.execute(query.limit(1)).one_or_none()
    return Commit(*row) if row else None


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

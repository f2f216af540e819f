"""Deleting a dataset: what belongs to it in the lake, in SQL and in MLflow, and in which order it goes.

What stays: its source folder; the stream's predictions by its models, which are the stream's record; and the name of
its registered model, so that the versions of a later dataset of this id count on: else a clip of the stream would seem
to have a new version's row already.
"""

from __future__ import annotations

from typing import NamedTuple

from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_registry import ModelRegistry
from genres.store.sql import sa, tables


class Holdings(NamedTuple):
    """What belongs to a dataset and goes with it."""

    dataset: Dataset
    rows: dict[str, int]
    """How many of each table."""
    folder: str
    """In the lake: clips, tables, candidates and models."""
    folder_bytes: int
    model_name: str
    versions: list[int]
    """Registered ones, the oldest first."""


def holdings(entry: Dataset, database: Database, lake: Lake, registry: ModelRegistry) -> Holdings:
    """Look up what belongs to a dataset."""
    folder = lake.path(entry.dataset)
    size = sum(lake.sizes(folder).values())
    with database.reading() as connection:
        rows = {
            table.name: connection.scalar(
                sa.select(sa.func.count()).select_from(table).where(table.c.dataset == entry.dataset)
            )
            or 0
            for table in _tables()
        }
    versions = sorted(int(version.version) for version in registry.versions(entry.dataset))
    return Holdings(entry, rows, folder, size, registry.name_for(entry.dataset), versions)


def delete(found: Holdings, database: Database, lake: Lake, registry: ModelRegistry) -> None:
    """Delete a dataset and what belongs to it; if it is interrupted, it can be done again.

    First what people and programs find it by, then what is found, and its own row last.
    """
    name = found.dataset.dataset
    registry.delete_versions(name)
    with database.writing() as connection:
        for table in _tables():
            connection.execute(sa.delete(table).where(table.c.dataset == name))
    if lake.files.exists(found.folder):
        lake.files.rm(found.folder, recursive=True)
    registry.retire_experiment(name)
    with database.writing() as connection:
        connection.execute(sa.delete(tables.DATASETS).where(tables.DATASETS.c.dataset == name))


def _tables() -> tuple[sa.Table, ...]:
    return tables.BATCH_PREDICTIONS, tables.QUARANTINE, tables.CHAMPION_CHANGES, tables.LAKE_COMMITS

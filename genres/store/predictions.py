"""Prediction tables: rows go in once for a key and come out for people and programs."""

from typing import Any

from genres.store.database import Database
from genres.store.sql import sa, tables


def add_batch_predictions(database: Database, rows: list[dict[str, Any]]) -> int:
    """Store predictions whose (dataset, track_id, sha256, model_version) is new.

    Returns
    -------
    int
        How many rows were new; the others were there already and stay as they are.
    """
    with database.writing() as connection:
        return database.insert_new(connection, tables.BATCH_PREDICTIONS, rows)


def batch_predictions(
    database: Database, dataset: str | None = None, *, model_version: int | None = None
) -> list[dict[str, Any]]:
    """Stored predictions as plain dictionaries, ordered by key.

    Parameters
    ----------
    dataset
        Only this dataset's; None for all.
    model_version
        Only this version's; None for all.
    """
    query = sa.select(tables.BATCH_PREDICTIONS).order_by(*tables.BATCH_PREDICTIONS.primary_key.columns)
    if dataset is not None:
        query = query.where(tables.BATCH_PREDICTIONS.c.dataset == dataset)
    if model_version is not None:
        query = query.where(tables.BATCH_PREDICTIONS.c.model_version == model_version)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]

"""Prediction tables: rows go in once for a key and come out for people and programs."""

from __future__ import annotations

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
    database: Database,
    dataset: str | None = None,
    *,
    model_version: int | None = None,
    track_id: str | None = None,
    wrong: bool = False,
    uncertain: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Stored predictions as plain dictionaries, ordered by key.

    Parameters
    ----------
    dataset
        Only this dataset's; None for all.
    model_version
        Only this version's; None for all.
    track_id
        Only this track's; None for all.
    wrong, uncertain
        Only those: see `answers`.
    limit
        Only so many of the newest, which come ordered by time and key then, the newest last.
    """
    table = tables.BATCH_PREDICTIONS
    keys = list(table.primary_key.columns)
    query = sa.select(table).where(*answers(table, wrong=wrong, uncertain=uncertain))
    if limit is None:
        query = query.order_by(*keys)
    else:
        query = query.order_by(table.c.predicted_at.desc(), *(key.desc() for key in keys)).limit(limit)
    if dataset is not None:
        query = query.where(table.c.dataset == dataset)
    if model_version is not None:
        query = query.where(table.c.model_version == model_version)
    if track_id is not None:
        query = query.where(table.c.track_id == track_id)
    with database.reading() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return rows if limit is None else rows[::-1]


def answers(table: sa.Table, *, wrong: bool, uncertain: bool) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that choose rows of a prediction table by how good their answers are.

    Parameters
    ----------
    wrong
        Only rows whose true genre is known and another one.
    uncertain
        Only rows that are uncertain, or unlike anything learnt.
    """
    chosen: list[sa.ColumnElement[bool]] = []
    if wrong:
        chosen.append(table.c.genre != table.c.predicted_genre)
    if uncertain:
        chosen.append(sa.or_(table.c.is_uncertain.is_(True), table.c.is_unlike.is_(True)))
    return chosen

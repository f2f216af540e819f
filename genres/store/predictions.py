"""Prediction tables: rows go in once for a key and come out for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
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
    current: bool = False,
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
    current
        Only those of audio that the datasets hold now, and of the version that answers for each: the newest champion
        that predicted any of it.
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
        if current:
            versions = _answering_versions(connection).items()
            of_them = [sa.and_(table.c.dataset == name, table.c.model_version == version) for name, version in versions]
            query = query.where(table.c.stale_since.is_(None), sa.or_(sa.false(), *of_them))
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return rows if limit is None else rows[::-1]


def mark_stale(database: Database, dataset: str, audio: Mapping[str, str], *, moment: datetime) -> int:
    """Mark the predictions of audio that a dataset holds no more, and those no longer whose audio is back.

    Parameters
    ----------
    dataset
        The dataset.
    audio
        The sha256 of its audio now, by track. Rows of unknown audio are stale when their track is gone.
    moment
        When that was found.

    Returns
    -------
    int
        How many rows are marked now.
    """
    table = tables.BATCH_PREDICTIONS
    keys = sa.select(table.c.track_id, table.c.sha256, table.c.stale_since).where(table.c.dataset == dataset).distinct()
    of_key = [
        table.c.dataset == dataset,
        table.c.track_id == sa.bindparam("track"),
        table.c.sha256 == sa.bindparam("digest"),
    ]
    marked = sa.and_(table.c.dataset == dataset, table.c.stale_since.is_not(None))
    with database.writing() as connection:
        gone: list[dict[str, str]] = []
        back: list[dict[str, str]] = []
        for track, digest, since in connection.execute(keys):
            is_there = audio.get(track) == digest if digest else track in audio
            if is_there == (since is not None):
                (back if is_there else gone).append({"track": track, "digest": digest})
        if gone:
            once = [*of_key, table.c.stale_since.is_(None)]
            connection.execute(sa.update(table).where(*once).values(stale_since=moment), gone)
        if back:
            connection.execute(sa.update(table).where(*of_key).values(stale_since=None), back)
        return connection.scalar(sa.select(sa.func.count()).select_from(table).where(marked)) or 0


def _answering_versions(connection: sa.Connection) -> dict[str, int]:
    """Return the version whose answers are a dataset's, by dataset: see `batch_predictions`."""
    table, changes = tables.BATCH_PREDICTIONS, tables.CHAMPION_CHANGES
    have: dict[str, set[int]] = {}
    for dataset, version in connection.execute(sa.select(table.c.dataset, table.c.model_version).distinct()):
        have.setdefault(dataset, set()).add(version)
    moves = connection.execute(sa.select(changes.c.dataset, changes.c.model_version).order_by(changes.c.change_id))
    champions = {dataset: version for dataset, version in moves if version in have.get(dataset, ())}
    # Of versions of before the changes were recorded, the newest.
    return {dataset: max(versions) for dataset, versions in have.items()} | champions


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

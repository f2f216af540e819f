"""What the stream has predicted, refused and checked, read for people and programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from genres.store.database import Database
from genres.store.sql import sa, tables


def predictions(database: Database, since: datetime | None = None, limit: int | None = None) -> list[dict[str, Any]]:
    """Stored predictions as plain dictionaries, oldest first.

    Parameters
    ----------
    since
        Only those predicted after this time; the last row's ``predicted_at`` continues a live table without gaps,
        since a range's rows appear together and carry one time.
    limit
        Only so many of the newest.
    """
    newest = (
        sa.select(tables.STREAM_PREDICTIONS)
        .order_by(
            *(tables.STREAM_PREDICTIONS.c[name].desc() for name in ("predicted_at", "partition_key", "kafka_offset"))
        )
        .limit(limit)
    )
    if since is not None:
        newest = newest.where(tables.STREAM_PREDICTIONS.c.predicted_at > since)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(newest)][::-1]


def quarantine(database: Database) -> list[dict[str, Any]]:
    """Quarantined clips of the stream as plain dictionaries, oldest first."""
    columns = tables.STREAM_QUARANTINE.c
    query = sa.select(tables.STREAM_QUARANTINE).order_by(columns.quarantined_at, columns.sha256)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def checks(database: Database, *, failed_only: bool = False) -> list[dict[str, Any]]:
    """Checks of the ranges as plain dictionaries, oldest first."""
    columns = tables.STREAM_CHECKS.c
    query = sa.select(tables.STREAM_CHECKS).order_by(columns.checked_at, columns.partition_key, columns.check_name)
    if failed_only:
        query = query.where(~columns.passed)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]

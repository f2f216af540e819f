"""What is inside one transaction of the ledger: the lock that its writers queue for, and ranges as it reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import OnFirstUse, sa, tables
from genres.store.stream_ledger.values import PartitionKey, StreamRange

_WRITER_LOCK = 0x67656E726573
"""Key of the advisory lock that makes Postgres, like SQLite, let one ledger transaction in at a time ('genres')."""
RANGE: Any = OnFirstUse(lambda: tables.STREAM_RANGES.c)
"""The columns of ``stream_ranges``."""


@contextmanager
def writing(database: Database) -> Iterator[sa.Connection]:
    """Open a transaction that no other one of the ledger runs beside; it is rolled back on an error."""
    # What a transaction reads here decides what it writes (a position, a lease, the other table's clips).
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))
        yield connection


def read_ranges(
    connection: sa.Connection, *chosen: sa.ColumnElement[bool], newest: int | None = None
) -> list[StreamRange]:
    """Read the ranges that meet all conditions, in the order they were planned; only the `newest`, if it is said."""
    last_first = (column.desc() for column in (RANGE.planned_at, RANGE.kafka_partition, RANGE.start_offset))
    query = sa.select(tables.STREAM_RANGES).where(*chosen).order_by(*last_first).limit(newest)
    return [_as_range(row) for row in connection.execute(query)][::-1]


def read_range(connection: sa.Connection, key: PartitionKey) -> StreamRange:
    """Read one range.

    Raises
    ------
    GenresError
        If it was never planned.
    """
    row = connection.execute(sa.select(tables.STREAM_RANGES).where(RANGE.partition_key == str(key))).one_or_none()
    if row is None:
        raise GenresError(f"the ledger has no range '{key}': only ranges that `audio_clips_sensor` planned can be run")
    return _as_range(row)


def _as_range(row: sa.Row[Any]) -> StreamRange:
    values = dict(row._mapping)
    key = PartitionKey(*(values.pop(field.name) for field in fields(PartitionKey)))
    del values["partition_key"]
    return StreamRange(key=key, **values)

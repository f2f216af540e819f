"""What is inside one transaction of the ledger: the lock that its writers queue for, and ranges as it reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import OnFirstUse, sa, tables
from genres.store.stream_ledger.values import PartitionKey, StreamRange

_WRITER_LOCK = 0x67656E726573
"""Key of the advisory lock that a ledger transaction on Postgres shares with those of other topics ('genres')."""
_TOPIC_LOCKS = 0x67656E72
"""First half of the keys of the advisory locks that let one transaction of a topic in at a time ('genr')."""
_VALUES_AT_ONCE = 500
"""Of a statement: databases take only so many."""
RANGE: Any = OnFirstUse(lambda: tables.STREAM_RANGES.c)
"""The columns of ``stream_ranges``."""


_Value = TypeVar("_Value")


@contextmanager
def writing(database: Database, topic: str = "") -> Iterator[sa.Connection]:
    """Open a transaction that no other one of the topic runs beside; it is rolled back on an error.

    What a transaction reads here decides what it writes: a position, a lease, the other table's clips. Between topics
    there is nothing of the kind but rows with one key, where the first write wins.

    Parameters
    ----------
    topic
        Whose rows are written; empty for those of any, beside which nobody else writes.
    """
    with database.writing() as connection:
        # SQLite lets one writer in at a time anyway.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(*_locks(topic)))
        yield connection


def _locks(topic: str) -> list[sa.ColumnElement[Any]]:
    if not topic:
        return [sa.func.pg_advisory_xact_lock(_WRITER_LOCK)]
    number = int.from_bytes(zlib.crc32(topic.encode()).to_bytes(4), signed=True)
    integer = sa.Integer()
    return [
        sa.func.pg_advisory_xact_lock_shared(_WRITER_LOCK),
        sa.func.pg_advisory_xact_lock(sa.cast(_TOPIC_LOCKS, integer), sa.cast(number, integer)),
    ]


def in_statements(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield as many of the values at a time as a statement takes."""
    for begin in range(0, len(values), _VALUES_AT_ONCE):
        yield values[begin : begin + _VALUES_AT_ONCE]


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

"""The producer's memory: the watched files that the broker has confirmed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables


class SentFile(NamedTuple):
    """A watched file that the broker has confirmed: a row of ``sent_files``."""

    path: str
    """Absolute."""
    size: int
    mtime_ns: int
    sha256: str
    topic: str
    kafka_partition: int
    kafka_offset: int
    sent_at: datetime


def remember(database: Database, row: SentFile) -> None:
    """Remember a file that the broker has confirmed; a file that changed is remembered again."""
    with database.writing() as connection:
        connection.execute(sa.delete(tables.SENT_FILES).where(tables.SENT_FILES.c.path == row.path))
        connection.execute(sa.insert(tables.SENT_FILES).values(row._asdict()))


def last_sent(database: Database, path: str) -> SentFile | None:
    """Look up what was last sent from this absolute path."""
    columns = [tables.SENT_FILES.c[name] for name in SentFile._fields]
    with database.reading() as connection:
        row = connection.execute(sa.select(*columns).where(tables.SENT_FILES.c.path == path)).one_or_none()
    return None if row is None else SentFile(*row)

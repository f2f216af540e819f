"""The folder producers' signs of life: who fills a topic, since when, and what it waits for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables

BEAT_S = 10.0
"""How often a producer gives a sign of life, in seconds."""
SILENT_S = 60.0
"""How old the last sign of life of a producer that counts as alive may be: more than a beat and a long wait for the
database, in seconds."""


class Producer(NamedTuple):
    """A producer as it last said: a row of ``producers``."""

    topic: str
    host: str
    folder: str
    pid: int
    started_at: datetime
    beat_at: datetime
    ended_at: datetime | None
    """When it ended in order; None while it runs, and for one that was killed."""
    last_error: str | None
    """What it waits for, or what it ended of; None if nothing is wrong."""
    sent: int
    refused: int
    waiting: int

    def is_alive(self, *, now: datetime | None = None) -> bool:
        """Return whether it runs, as far as its last sign of life tells."""
        age = (now or datetime.now(UTC)) - self.beat_at
        # A sign from the future is of a clock that went back since.
        return self.ended_at is None and abs(age) < timedelta(seconds=SILENT_S)

    def describe(self, *, now: datetime | None = None) -> str:
        """Return a line for people."""
        where = f"pid {self.pid} on {self.host}"
        why = f"; {self.last_error}" if self.last_error else ""
        if self.ended_at is not None:
            return f"not running since {_time(self.ended_at)} ({where}){why}"
        if not self.is_alive(now=now):
            return f"silent since {_time(self.beat_at)} ({where}){why}"
        return f"running ({where}): {self.sent} sent, {self.refused} refused, {self.waiting} waiting{why}"


def beat(database: Database, producer: Producer) -> None:
    """Write a producer's sign of life down, over the last one for its topic, host and folder."""
    with database.writing() as connection:
        database.upsert(connection, tables.PRODUCERS, [producer._asdict()])


def newest(database: Database, topic: str) -> Producer | None:
    """Look up the topic's producer: one that runs, else the one that was heard of last; None if there never was one."""
    columns = [tables.PRODUCERS.c[name] for name in Producer._fields]
    query = sa.select(*columns).where(tables.PRODUCERS.c.topic == topic).order_by(tables.PRODUCERS.c.beat_at)
    now = datetime.now(UTC)
    with database.reading() as connection:
        found = [Producer(*row) for row in connection.execute(query)]
    return max(found, key=lambda producer: (producer.is_alive(now=now), producer.beat_at), default=None)


def describe(producer: Producer | None) -> str:
    """Return a line for people about a topic's producer, or about there being none."""
    return producer.describe() if producer else "not running, and never was (`genres watch` is the producer)"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

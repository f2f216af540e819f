"""The producer's memory: the watched files that the broker has confirmed, and those whose clips Kafka has lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables
from genres.store.stream_ledger.transaction import RANGE
from genres.store.stream_ledger.values import PartitionKey


class SentFile(NamedTuple):
    """A watched file that the broker has confirmed: a row of ``sent_files``."""

    host: str
    """The machine that the path is of; empty in rows of a version that did not note it."""
    path: str
    """Absolute."""
    size: int
    mtime_ns: int
    ctime_ns: int | None
    """When the inode last changed; None, like `inode` and `topic_id`, in rows of a version that did not note it."""
    inode: int | None
    sha256: str
    topic: str
    topic_id: str | None
    """Which topic of that name; None is taken for the present one."""
    kafka_partition: int
    kafka_offset: int
    sent_at: datetime


def remember(database: Database, rows: Sequence[SentFile]) -> None:
    """Remember files that the broker has confirmed; a file that changed is remembered again."""
    columns = tables.SENT_FILES.c
    # The row of a version that did not note the host is of the same file.
    old = (columns.host == "") & columns.path.in_([row.path for row in rows])
    with database.writing() as connection:
        connection.execute(sa.delete(tables.SENT_FILES).where(old))
        # In one order, so that two producers never wait for each other's rows crosswise.
        database.upsert(connection, tables.SENT_FILES, [row._asdict() for row in sorted(rows, key=lambda row: row[:2])])


def sent_from(database: Database, path: str, *, host: str) -> list[SentFile]:
    """Look up what was last sent from this absolute path by each host, `host` first.

    Other hosts' rows matter where the path is on a disk that they share, or where one machine got another name.
    """
    columns = tables.SENT_FILES.c
    query = (
        sa.select(*(columns[name] for name in SentFile._fields))
        .where(columns.path == path)
        .order_by(columns.host != host, columns.sent_at.desc())
    )
    with database.reading() as connection:
        return [SentFile(*row) for row in connection.execute(query)]


def within(database: Database, key: PartitionKey) -> list[SentFile]:
    """List the files whose clips the broker confirmed at offsets of a range."""
    return _read(database, _lies_within(key))


def unanswered(database: Database, keys: Collection[PartitionKey]) -> list[SentFile]:
    """List the files whose clips the broker confirmed at offsets of these ranges, and which have no row at all."""
    has_row = [
        sa.exists().where(table.c.sha256 == tables.SENT_FILES.c.sha256)
        for table in (tables.STREAM_PREDICTIONS, tables.STREAM_QUARANTINE)
    ]
    return _read(database, sa.or_(sa.false(), *map(_lies_within, keys)), ~sa.or_(*has_row))


def _read(database: Database, *chosen: sa.ColumnElement[bool]) -> list[SentFile]:
    query = sa.select(*(tables.SENT_FILES.c[name] for name in SentFile._fields)).where(*chosen)
    with database.reading() as connection:
        return [SentFile(*row) for row in connection.execute(query)]


def _lies_within(key: PartitionKey) -> sa.ColumnElement[bool]:
    columns = tables.SENT_FILES.c
    return (
        (columns.topic == key.topic)
        & (columns.topic_id == key.topic_id)
        & (columns.kafka_partition == key.kafka_partition)
        & (columns.kafka_offset >= key.start_offset)
        & (columns.kafka_offset < key.end_offset)
    )


def lost(database: Database, topic: str, topic_id: str, beginnings: Mapping[int, int]) -> list[SentFile]:
    """List the files whose clips nobody can read from the topic any more, and nobody had read before.

    Parameters
    ----------
    topic, topic_id
        The topic as it is now: what was sent to an earlier one of its name is lost.
    beginnings
        For each Kafka partition the offset of the oldest message: what was sent before is lost.

    Returns
    -------
    list[SentFile]
        Without those whose clip was dealt with: it has its row in this stream, be it a prediction or a refusal under
        the same suffix, or its range is committed.
    """
    columns = tables.SENT_FILES.c
    deleted = [
        # A row without an id is asked for apart, so that either is found by the index.
        (columns.topic_id == of) & (columns.kafka_partition == partition) & (columns.kafka_offset < beginning)
        for of in (topic_id, None)
        for partition, beginning in beginnings.items()
        if beginning
    ]
    query = sa.select(*(columns[name] for name in SentFile._fields)).where(
        columns.topic == topic, sa.or_(columns.topic_id != topic_id, *deleted), ~_is_dealt_with()
    )
    with database.reading() as connection:
        return [SentFile(*row) for row in connection.execute(query)]


def _is_dealt_with() -> sa.ColumnElement[bool]:
    """Whether a file's clip was predicted or refused; another stream, and a refusal under another suffix, say nothing.

    A stream that shares its model with another has no prediction of its own for what that one predicted first: there
    the committed range tells.
    """
    sent, predicted, refused = tables.SENT_FILES.c, tables.STREAM_PREDICTIONS.c, tables.STREAM_QUARANTINE.c
    within = (
        (RANGE.topic == sent.topic)
        & (RANGE.topic_id == sent.topic_id)
        & (RANGE.kafka_partition == sent.kafka_partition)
        & (RANGE.start_offset <= sent.kafka_offset)
        & (RANGE.end_offset > sent.kafka_offset)
    )
    return sa.or_(
        sa.exists().where(predicted.sha256 == sent.sha256, predicted.topic == sent.topic),
        sa.exists().where(
            refused.sha256 == sent.sha256,
            refused.topic.in_((sent.topic, "")),
            sa.func.lower(sent.path).endswith(refused.suffix),
        ),
        sa.exists().where(within, RANGE.state == "committed"),
    )

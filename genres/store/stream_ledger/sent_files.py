"""What the broker has confirmed: the producer's memory of watched files, and messages that no file stands for any more.

Belongs here: which clip a message held, and which files' clips Kafka has lost. What becomes of lost offsets is
`genres.store.stream_ledger.losses`'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

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


class ConfirmedMessage(NamedTuple):
    """A message with a clip that no watched file's row stands for: a row of ``confirmed_messages``."""

    topic: str
    topic_id: str
    kafka_partition: int
    kafka_offset: int
    sha256: str
    path: str
    """Of the file; its name alone where it came from the quarantine."""


def remember(database: Database, rows: Sequence[SentFile]) -> None:
    """Remember files that the broker has confirmed; a file that was sent again, or changed, is remembered again.

    Its earlier message, which no row stands for then, is remembered beside, unless its range is committed: only a
    message that can still be lost matters.
    """
    columns = tables.SENT_FILES.c
    paths = columns.path.in_([row.path for row in rows])
    # In one order, so that two producers never wait for each other's rows crosswise.
    rows = sorted(rows, key=lambda row: row[:2])
    with database.writing() as connection:
        # The row of a version that did not note the host is of the same file.
        connection.execute(sa.delete(tables.SENT_FILES).where((columns.host == "") & paths))
        query = sa.select(*(columns[name] for name in SentFile._fields)).where(paths)
        there = {row[:2]: row for row in (SentFile(*found) for found in connection.execute(query))}
        for row in rows:
            if (before := there.get(row[:2])) and _place(before) != _place(row):
                _keep(database, connection, before)
            there[row[:2]] = row
        database.upsert(connection, tables.SENT_FILES, [row._asdict() for row in rows])


def remember_message(database: Database, message: ConfirmedMessage) -> None:
    """Remember a message that was sent for no watched file."""
    with database.writing() as connection:
        database.insert_new(connection, tables.CONFIRMED_MESSAGES, [message._asdict()])


def forget(connection: sa.Connection, files: Collection[SentFile], messages: Collection[ConfirmedMessage]) -> None:
    """Forget what was confirmed; a file that is there all the same is sent like a new one."""
    chosen = [
        *((tables.SENT_FILES, {"host": file.host, "path": file.path}) for file in files),
        *((tables.CONFIRMED_MESSAGES, dict(zip(_PLACE, _place(message), strict=True))) for message in messages),
    ]
    for table, key in chosen:
        connection.execute(sa.delete(table).where(*(table.c[name] == value for name, value in key.items())))


_PLACE = ("topic", "topic_id", "kafka_partition", "kafka_offset")


def _place(row: SentFile | ConfirmedMessage) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in _PLACE)


def _keep(database: Database, connection: sa.Connection, row: SentFile) -> None:
    """Keep what a message held whose file's row goes, if it can still be lost and its topic is known."""
    if row.topic_id is not None and not connection.scalar(sa.select(is_committed(row))):
        message = {name: getattr(row, name) for name in ConfirmedMessage._fields}
        database.insert_new(connection, tables.CONFIRMED_MESSAGES, [message])


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
    return _read(database, lies_within(key, tables.SENT_FILES.c))


def unanswered(database: Database, keys: Collection[PartitionKey]) -> list[SentFile]:
    """List the files whose clips the broker confirmed at offsets of these ranges, and which have no row at all."""
    has_row = [
        sa.exists().where(table.c.sha256 == tables.SENT_FILES.c.sha256)
        for table in (tables.STREAM_PREDICTIONS, tables.STREAM_QUARANTINE)
    ]
    return _read(
        database, sa.or_(sa.false(), *(lies_within(key, tables.SENT_FILES.c) for key in keys)), ~sa.or_(*has_row)
    )


def _read(database: Database, *chosen: sa.ColumnElement[bool]) -> list[SentFile]:
    query = sa.select(*(tables.SENT_FILES.c[name] for name in SentFile._fields)).where(*chosen)
    with database.reading() as connection:
        return [SentFile(*row) for row in connection.execute(query)]


def lies_within(key: PartitionKey, columns: Any) -> sa.ColumnElement[bool]:
    """Whether a message lies in a range, by its columns ``topic`` to ``kafka_offset``."""
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
    sent = tables.SENT_FILES.c
    gone = _is_gone(sent, topic, topic_id, beginnings)
    # A stream that shares its model with another has no prediction of its own for what that one predicted first: there
    # the committed range tells.
    return _read(database, gone, ~sa.or_(has_row(sent), is_committed(sent)))


def lost_messages(
    database: Database, topic: str, topic_id: str, beginnings: Mapping[int, int]
) -> list[ConfirmedMessage]:
    """List the messages beside the files' that are lost in the same way, and whose clips did not come again.

    Their files hold something else by now, or came from the quarantine.
    """
    sent = tables.CONFIRMED_MESSAGES.c
    query = sa.select(*(sent[name] for name in ConfirmedMessage._fields)).where(
        _is_gone(sent, topic, topic_id, beginnings), ~sa.or_(is_made_good(sent), is_committed(sent))
    )
    with database.reading() as connection:
        return [ConfirmedMessage(*row) for row in connection.execute(query)]


def topic_has_lost(message: SentFile, topic_id: str, beginnings: Mapping[int, int]) -> bool:
    """Whether a topic has lost a message that it once took; `_is_gone` asks the same of rows in the tables.

    Parameters
    ----------
    message
        What the topic's broker has confirmed.
    topic_id
        The topic's id now.
    beginnings
        Each partition's first offset that can be read.
    """
    return message.topic_id != topic_id or message.kafka_offset < beginnings.get(message.kafka_partition, 0)


def _is_gone(sent: Any, topic: str, topic_id: str, beginnings: Mapping[int, int]) -> sa.ColumnElement[bool]:
    deleted = [
        # A row without an id is asked for apart, so that either is found by the index.
        (sent.topic_id == of) & (sent.kafka_partition == partition) & (sent.kafka_offset < beginning)
        for of in (topic_id, None)
        for partition, beginning in beginnings.items()
        if beginning
    ]
    return (sent.topic == topic) & sa.or_(sent.topic_id != topic_id, *deleted)


def is_made_good(sent: Any) -> sa.ColumnElement[bool]:
    """Whether a lost message's clip has its row, or came again from its file in a range that is committed.

    Parameters
    ----------
    sent
        The message's columns: ``topic``, ``sha256`` and ``path`` are asked.
    """
    again = tables.SENT_FILES.alias("again").c
    came_again = sa.exists().where(
        again.path == sent.path, again.sha256 == sent.sha256, again.topic == sent.topic, is_committed(again)
    )
    return sa.or_(has_row(sent), came_again)


def has_row(sent: Any) -> sa.ColumnElement[bool]:
    """Whether a message's clip was predicted or refused.

    Other streams say nothing, nor do refusals under other suffixes, or of messages that were no clips.

    Parameters
    ----------
    sent
        The message's columns: ``topic``, ``sha256`` and ``path`` are asked.
    """
    predicted, refused = tables.STREAM_PREDICTIONS.c, tables.STREAM_QUARANTINE.c
    return sa.or_(
        sa.exists().where(predicted.sha256 == sent.sha256, predicted.topic == sent.topic),
        sa.exists().where(
            refused.sha256 == sent.sha256,
            refused.topic.in_((sent.topic, "")),
            # A message that was no clip has no suffix, and says nothing of a file of the same bytes. Nor have rows of a
            # version that did not note it; nobody can say what those are of.
            sa.or_(refused.suffix != "", refused.judged_by == ""),
            sa.func.lower(sent.path).endswith(refused.suffix),
        ),
    )


def is_committed(sent: Any) -> sa.ColumnElement[bool]:
    """Whether a message lies in a committed range, by its columns ``topic`` to ``kafka_offset``."""
    within = (
        (RANGE.topic == sent.topic)
        & (RANGE.topic_id == sent.topic_id)
        & (RANGE.kafka_partition == sent.kafka_partition)
        & (RANGE.start_offset <= sent.kafka_offset)
        & (RANGE.end_offset > sent.kafka_offset)
    )
    return sa.exists().where(within, RANGE.state == "committed")

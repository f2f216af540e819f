"""Losses: offsets that nobody could read any more, which of them were made good, and what a person has acknowledged.

A lost offset is made good when it is known which clip it held and that clip has its row in the stream, having come
another time. What an offset held is known of clips that the producer sent, and of those sent again from the quarantine;
a message of anybody else stays lost until a person says that this is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables
from genres.store.stream_ledger import sent_files
from genres.store.stream_ledger.sent_files import ConfirmedMessage, SentFile
from genres.store.stream_ledger.transaction import RANGE, read_ranges, writing
from genres.store.stream_ledger.values import PartitionKey


class Loss(NamedTuple):
    """A range that was lost and is neither made good nor acknowledged."""

    key: PartitionKey
    reason: str
    made_good: int
    """How many of its offsets held clips that have their row by now."""
    lacking: tuple[str, ...]
    """Files whose clips it held, as far as that is known, and which have none."""

    def describe(self) -> str:
        """Return a line for people."""
        unknown = len(self.key) - self.made_good - len(self.lacking)
        parts = [f"{self.made_good} of {len(self.key)} made good"] if self.made_good else []
        parts += [f"nobody knows what {unknown} held"] if unknown else []
        return f"{self.key}: {'; '.join([self.reason, *parts])}"


class Losses(NamedTuple):
    """What a stream has lost and what is neither made good nor acknowledged."""

    ranges: list[Loss]
    files: list[SentFile]
    """Files that the broker had confirmed, whose messages are gone and which have no row."""
    messages: list[ConfirmedMessage]
    """Other messages of that kind: their files hold something else by now, or came from the quarantine."""

    @property
    def paths(self) -> list[str]:
        """The known files whose clips have to be dropped again, each once."""
        known = {file.path for file in self.files} | {message.path for message in self.messages}
        return sorted(known.union(*(loss.lacking for loss in self.ranges)))


def of_topic(database: Database, topic: str, topic_id: str, beginnings: Mapping[int, int]) -> Losses:
    """Return what a topic's stream has lost.

    Parameters
    ----------
    topic, topic_id
        The topic as it is now: what was sent to an earlier one of its name is lost.
    beginnings
        For each Kafka partition the offset of the oldest message.
    """
    is_open = (RANGE.topic == topic) & (RANGE.state == "lost") & RANGE.acknowledged_at.is_(None)
    with database.reading() as connection:
        lost = [_loss(connection, found.key, found.reason or "") for found in read_ranges(connection, is_open)]
    open_ones = [loss for loss in lost if loss.made_good < len(loss.key)]
    return Losses(
        open_ones,
        sent_files.lost(database, topic, topic_id, beginnings),
        sent_files.lost_messages(database, topic, topic_id, beginnings),
    )


def acknowledge(database: Database, losses: Losses, *, now: datetime | None = None) -> None:
    """Record that a person knows of these losses: the ranges count no longer, files and messages are forgotten.

    A forgotten file that lies in its folder all the same is sent like a new one.
    """
    keys = [str(loss.key) for loss in losses.ranges]
    mine = RANGE.partition_key.in_(keys) & (RANGE.state == "lost")
    with writing(database) as connection:
        values = {"acknowledged_at": now or datetime.now(UTC)}
        connection.execute(sa.update(tables.STREAM_RANGES).where(mine).values(values))
        sent_files.forget(connection, losses.files, losses.messages)


def _loss(connection: sa.Connection, key: PartitionKey, reason: str) -> Loss:
    made_good: dict[int, bool] = {}
    paths: dict[int, str] = {}
    for sent in (tables.SENT_FILES.c, tables.CONFIRMED_MESSAGES.c):
        query = sa.select(sent.kafka_offset, sent.path, sent_files.is_made_good(sent))
        query = query.where(sent_files.lies_within(key, sent))
        for offset, path, good in connection.execute(query):
            made_good[offset] = bool(good) or made_good.get(offset, False)
            paths[offset] = path
    lacking = tuple(sorted(path for offset, path in paths.items() if not made_good[offset]))
    return Loss(key, reason, sum(made_good.values()), lacking)

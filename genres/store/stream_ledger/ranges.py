"""Ranges: which offsets are planned and what has become of them, as planner, runs and reconciler write it down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from genres.store.database import Database
from genres.store.sql import sa, tables
from genres.store.stream_ledger import leases
from genres.store.stream_ledger.transaction import RANGE, in_statements, read_range, read_ranges, writing
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan, RangeState, Split, StreamRange


class Progress(NamedTuple):
    """How far the ledger is with a Kafka partition."""

    first_offset: int
    done: int
    """Offsets that are committed or lost."""


class Waiting(NamedTuple):
    """Clips whose ranges wait for another attempt, for one reason."""

    clips: int
    reason: str

    def describe(self) -> str:
        """Return a line for people."""
        return f"{self.clips} {'clip waits' if self.clips == 1 else 'clips wait'}: {self.reason}"


def known(database: Database, topic: str) -> list[StreamRange]:
    """Read what the planner needs to know: the planned ranges, and of every Kafka partition the one that ends last.

    Of every topic id, since uncommitted ranges of a topic that was recreated have to be given up. The rest of the
    ledger's history, which only grows, is left out.
    """
    with database.reading() as connection:
        # Each condition whole, so that each is found by its index; the history only grows.
        last = [
            (RANGE.topic == topic)
            & (RANGE.topic_id == topic_id)
            & (RANGE.kafka_partition == position.kafka_partition)
            & (RANGE.end_offset == position.end_offset)
            for topic_id in list(connection.scalars(_distinct(RANGE.topic_id, RANGE.topic == topic)))
            for position in _positions(connection, topic, topic_id)
        ]
        planned = (RANGE.topic == topic) & (RANGE.state == "planned")
        return read_ranges(connection, sa.or_(planned, *last))


class _Position(NamedTuple):
    """Where the ranges of a Kafka partition begin and end; they leave no hole."""

    kafka_partition: int
    first_offset: int
    end_offset: int


def _positions(connection: sa.Connection, topic: str, topic_id: str) -> list[_Position]:
    """Look up each Kafka partition's position by its index, however long the history is."""
    of_topic = (RANGE.topic == topic, RANGE.topic_id == topic_id)
    found = _distinct(RANGE.kafka_partition, *of_topic).subquery()
    own = sa.select(tables.STREAM_RANGES).where(*of_topic, RANGE.kafka_partition == found.c.value)
    # The range that ends first is the one that begins first: parts of a split one end before it does.
    first, last = (
        own.with_only_columns(column).order_by(order).limit(1).scalar_subquery()
        for column, order in ((RANGE.start_offset, RANGE.end_offset), (RANGE.end_offset, RANGE.end_offset.desc()))
    )
    return [_Position(*row) for row in connection.execute(sa.select(found.c.value, first, last))]


def _distinct(column: sa.ColumnElement[Any], *chosen: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Select the different values of an index's next column, one look-up each; ``DISTINCT`` reads every row."""
    found = sa.select(sa.func.min(column).label("value")).where(*chosen).cte("found", recursive=True)
    following = sa.select(sa.func.min(column)).where(*chosen, column > found.c.value).scalar_subquery()
    found = found.union_all(sa.select(following).where(found.c.value.is_not(None)))
    return sa.select(found.c.value).where(found.c.value.is_not(None))


def topics_with_planned(database: Database) -> list[str]:
    """List the topics that have planned ranges, also those that no stream reads any more."""
    query = sa.select(RANGE.topic).where(RANGE.state == "planned").distinct()
    with database.reading() as connection:
        return list(connection.scalars(query))


def find(database: Database, key: PartitionKey) -> StreamRange:
    """Look one range up.

    Raises
    ------
    GenresError
        If it was never planned.
    """
    with database.reading() as connection:
        return read_range(connection, key)


def history(
    database: Database, topic: str, *, states: Collection[RangeState] | None = None, newest: int | None = None
) -> list[StreamRange]:
    """Read a topic's ranges in the order they were planned.

    Parameters
    ----------
    states
        Only those in one of these states; None for all.
    newest
        Only so many of those planned last; None for all.
    """
    chosen = [RANGE.topic == topic]
    if states is not None:
        # Of one state, the index has them in their order.
        chosen.append(RANGE.state == next(iter(states)) if len(states) == 1 else RANGE.state.in_(states))
    with database.reading() as connection:
        return read_ranges(connection, *chosen, newest=newest)


def waiting(found: Collection[StreamRange]) -> list[Waiting]:
    """Sum up why the planned ones of these ranges wait: what their last attempts ended with, the most clips first."""
    clips: dict[str, int] = {}
    for offset_range in found:
        if offset_range.state == "planned" and offset_range.reason:
            clips[offset_range.reason] = clips.get(offset_range.reason, 0) + len(offset_range.key)
    return sorted((Waiting(count, reason) for reason, count in clips.items()), reverse=True)


def progress(database: Database, topic: str, topic_id: str) -> dict[int, Progress]:
    """Return, for each Kafka partition that has ranges, where the first begins and how many offsets are done."""
    # Summed up here: to group them, SQLite would read all that there ever was in the groups' order.
    planned = sa.select(RANGE.topic_id, RANGE.kafka_partition, RANGE.end_offset - RANGE.start_offset).where(
        RANGE.topic == topic, RANGE.state == "planned"
    )
    waiting: Counter[tuple[str, int]] = Counter()
    with database.reading() as connection:
        for found_id, number, offsets in connection.execute(planned):
            waiting[found_id, number] += offsets
        return {
            number: Progress(first, end - first - waiting[topic_id, number])
            for number, first, end in _positions(connection, topic, topic_id)
        }


def finished(database: Database, keys: Sequence[str], *, most: int) -> list[str]:
    """Return the first of some ranges' keys that are committed, lost or split, as many as are wanted.

    Parameters
    ----------
    keys
        Of ranges of any topic, as texts.
    """
    found: list[str] = []
    with database.reading() as connection:
        for some in in_statements(keys):
            query = sa.select(RANGE.partition_key).where(RANGE.partition_key.in_(some), RANGE.state != "planned")
            done = set(connection.scalars(query))
            found += [key for key in some if key in done]
            if len(found) >= most:
                break
    return found[:most]


def record_plan(
    database: Database, plan: Plan, *, token: int | None = None, shard: int = 0, now: datetime | None = None
) -> tuple[Attempt, ...]:
    """Write a plan down; what another planner wrote first stands.

    A new range counts only where it begins at its Kafka partition's position, and a change of a range only while
    that is still planned, so that plans made from a state that has passed change nothing, and the same plan twice
    leads to the same rows.

    Parameters
    ----------
    token
        Fencing token of a draining run that plans its next range; None for the sensors, which hold no lease.
    shard
        The one that the token is of.

    Returns
    -------
    tuple[Attempt, ...]
        The attempts, new and retried, that this call wrote down: the runs to launch. An attempt that is written
        down and never launched is found again after the grace time.

    Raises
    ------
    FencedError
        If the lease has moved on; nothing is written.
    """
    now = now or datetime.now(UTC)
    topics = {attempt.key.topic for attempt in (*plan.new, *plan.retry)}
    topics |= {lost.key.topic for lost in plan.lost} | {split.parent.topic for split in plan.split}
    with writing(database, topics.pop() if len(topics) == 1 else "") as connection:
        if token is not None:
            for attempt in (*plan.new, *plan.retry):
                leases.check_fence(connection, attempt.key.topic, token, shard=shard)
        for entry in plan.lost:
            if not _change_planned(connection, entry.key, state="lost", reason=entry.reason):
                _insert_at_position(connection, entry.key, state="lost", reason=entry.reason, planned_at=now)
        for split in plan.split:
            _replace_split(connection, split, now)
        begun = [
            attempt
            for attempt in plan.new
            if _insert_at_position(connection, attempt.key, state="planned", attempts=1, planned_at=now)
        ]
        again = [
            attempt
            for attempt in plan.retry
            if _change_planned(
                connection,
                attempt.key,
                RANGE.attempts == attempt.attempt - 1,
                attempts=attempt.attempt,
                heartbeat_at=now,
            )
        ]
        return (*begun, *again)


def begin_attempt(
    database: Database, key: PartitionKey, run_id: str, *, attempt: int | None = None, now: datetime | None = None
) -> StreamRange:
    """Record that a run works on a range. A run that is killed meanwhile leaves nothing else behind.

    Parameters
    ----------
    attempt
        The attempt's number, for a run that `record_plan` gave one; None (launched from the UI, a backfill): the
        next number.

    Returns
    -------
    StreamRange
        The range as it is now. Only a planned one is changed by this.

    Raises
    ------
    GenresError
        If the range was never planned.
    """
    with writing(database, key.topic) as connection:
        current = read_range(connection, key)
        number = max(current.attempts, attempt or current.attempts + 1)
        _change_planned(
            connection,
            key,
            attempts=number,
            run_id=run_id,
            heartbeat_at=now or datetime.now(UTC),
            reason=None,
        )
        return read_range(connection, key)


def end_attempt(
    database: Database,
    key: PartitionKey,
    run_id: str,
    *,
    reason: str,
    is_outage: bool,
    now: datetime | None = None,
) -> None:
    """Record why an attempt ended without a commit. Nothing is counted against a clip.

    Parameters
    ----------
    is_outage
        Whether the next attempt may meet the same and had better wait longer; False where the run was stopped, or
        only a champion is missing.
    """
    with writing(database, key.topic) as connection:
        _change_planned(
            connection,
            key,
            RANGE.run_id == run_id,
            failures=RANGE.failures + (1 if is_outage else 0),
            heartbeat_at=now or datetime.now(UTC),
            reason=reason,
        )


def heartbeat(database: Database, topic: str, run_id: str, *, now: datetime | None = None) -> None:
    """Record that a run is alive, for the ranges it began."""
    mine = (RANGE.topic == topic) & (RANGE.run_id == run_id) & (RANGE.state == "planned")
    with writing(database, topic) as connection:
        connection.execute(sa.update(tables.STREAM_RANGES).where(mine).values(heartbeat_at=now or datetime.now(UTC)))


def publish_features(database: Database, key: PartitionKey, feature_path: str, feature_version: str) -> None:
    """Note where a range's features lie, without committing it: they are predicted from later."""
    values = {"feature_path": feature_path, "feature_version": feature_version}
    with writing(database, key.topic) as connection:
        connection.execute(sa.update(tables.STREAM_RANGES).where(RANGE.partition_key == str(key)).values(values))


def move_features(database: Database, paths: Mapping[PartitionKey, str], merged_path: str) -> bool:
    """Let committed ranges, all or none, name the file that their features were merged into.

    Parameters
    ----------
    paths
        The file that each of them, of one topic, is taken to name.

    Returns
    -------
    bool
        False if one of them names another file by now; then nothing is changed.
    """
    chosen = [
        RANGE.partition_key.in_([key for key, _ in some])  # found by its index; the pairs are not
        & sa.tuple_(RANGE.partition_key, RANGE.feature_path).in_(some)
        & (RANGE.state == "committed")
        for some in in_statements([(str(key), path) for key, path in paths.items()])
    ]
    count = sa.select(sa.func.count()).select_from(tables.STREAM_RANGES)
    with writing(database, next(iter(paths)).topic) as connection:
        if sum(connection.scalar(count.where(those)) or 0 for those in chosen) != len(paths):
            return False
        for those in chosen:
            connection.execute(sa.update(tables.STREAM_RANGES).where(those).values(feature_path=merged_path))
        return True


def forget_features(database: Database, *, committed_before: datetime, dry_run: bool = False) -> int:
    """Let ranges that were committed before a moment name no features any more; return how many named some.

    Their predictions stay. Such a range is predicted again only while Kafka has its clips.
    """
    old = (RANGE.state == "committed") & (RANGE.committed_at < committed_before) & RANGE.feature_path.is_not(None)
    if dry_run:
        with database.reading() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(tables.STREAM_RANGES).where(old)) or 0
    with writing(database) as connection:
        # Without the version too: the next commit with features of the same one would not note their path.
        forgotten = sa.update(tables.STREAM_RANGES).where(old).values(feature_path=None, feature_version=None)
        return connection.execute(forgotten).rowcount


def _change_planned(
    connection: sa.Connection, key: PartitionKey, *conditions: sa.ColumnElement[bool], **values: Any
) -> bool:
    planned = RANGE.state == "planned"
    statement = (
        sa.update(tables.STREAM_RANGES).where(RANGE.partition_key == str(key), planned, *conditions).values(values)
    )
    return connection.execute(statement).rowcount == 1


def _insert_at_position(connection: sa.Connection, key: PartitionKey, **values: Any) -> bool:
    neighbours = sa.select(sa.func.max(RANGE.end_offset)).where(
        RANGE.topic == key.topic, RANGE.topic_id == key.topic_id, RANGE.kafka_partition == key.kafka_partition
    )
    if connection.scalar(neighbours) not in {None, key.start_offset}:
        return False
    connection.execute(sa.insert(tables.STREAM_RANGES).values(_range_row(key, **values)))
    return True


def _replace_split(connection: sa.Connection, split: Split, now: datetime) -> None:
    if _change_planned(connection, split.parent, state="split"):
        parent = str(split.parent)
        rows = [_range_row(key, state="planned", planned_at=now, parent_key=parent) for key in split.planned]
        if split.lost:
            lost = split.lost
            rows.append(_range_row(lost.key, state="lost", planned_at=now, parent_key=parent, reason=lost.reason))
        for row in rows:
            connection.execute(sa.insert(tables.STREAM_RANGES).values(row))


def _range_row(key: PartitionKey, **values: Any) -> dict[str, Any]:
    return {"partition_key": str(key), **asdict(key), "attempts": 0, "failures": 0, **values}

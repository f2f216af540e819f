"""The stream's ledger in SQL: ranges, leases, results and the producer's memory, each change one transaction.

What is to be done is decided elsewhere (``streaming_sensors.offset_plan``); here it is written down so that runs that
are killed, doubled or late do no harm: the first write of a key wins, and a run that lost its lease writes nothing.
Each distinct sha256 ends in exactly one of ``stream_predictions`` and ``stream_quarantine``, the one it reached first;
only another model version may add a prediction to a predicted clip.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.sql import OnFirstUse, sa, tables
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan, RangeState, Split, StreamRange

_WRITER_LOCK = 0x67656E726573
"""Key of the advisory lock that makes Postgres, like SQLite, let one ledger transaction in at a time ('genres')."""
_RANGE: Any = OnFirstUse(lambda: tables.STREAM_RANGES.c)
_LEASE: Any = OnFirstUse(lambda: tables.STREAM_LEASES.c)


class FencedError(GenresError):
    """The run has lost its lease to another one, which does its work: it must stop, and has written nothing."""


class QuarantinedClip(NamedTuple):
    """A refused clip: a row of ``stream_quarantine`` without the time."""

    sha256: str
    file_name: str
    stage: str
    """``producer`` or ``stream``."""
    reason: str
    topic: str | None = None
    kafka_partition: int | None = None
    kafka_offset: int | None = None
    kept_path: str | None = None
    """Where on HDFS its bytes are kept."""
    partition_key: str | None = None
    run_id: str | None = None


class RangeCheck(NamedTuple):
    """What a check of a range found: a row of ``stream_checks``."""

    check_name: str
    passed: bool
    expected: str | None = None
    actual: str | None = None


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


class CommitResult(NamedTuple):
    """What a commit added."""

    new_predictions: int
    new_quarantine: int
    duplicates: int
    """Rows given for clips that had theirs already."""
    was_already_committed: bool


class RangeCount(NamedTuple):
    """Ranges in one state."""

    ranges: int
    offsets: int


class Progress(NamedTuple):
    """How far the ledger is with a Kafka partition."""

    first_offset: int
    done: int
    """Offsets that are committed or lost."""


# ---------------------------------------------------------------------------------------------------------- ranges


def ranges(database: Database, topic: str) -> list[StreamRange]:
    """Read what the planner needs to know: the planned ranges, and of every Kafka partition the one that ends last.

    Of every topic id, since uncommitted ranges of a topic that was recreated have to be given up. The rest of the
    ledger's history, which only grows, is left out.
    """
    partition = (_RANGE.topic_id, _RANGE.kafka_partition)
    ends = sa.select(*partition, sa.func.max(_RANGE.end_offset)).where(_RANGE.topic == topic).group_by(*partition)
    with database.reading() as connection:
        # Each condition whole, so that each is found by its index; the history only grows.
        last = [
            (_RANGE.topic == topic)
            & (_RANGE.topic_id == topic_id)
            & (_RANGE.kafka_partition == number)
            & (_RANGE.end_offset == end)
            for topic_id, number, end in connection.execute(ends)
        ]
        planned = (_RANGE.topic == topic) & (_RANGE.state == "planned")
        return _read_ranges(connection, sa.or_(planned, *last))


def find_range(database: Database, key: PartitionKey) -> StreamRange:
    """Look one range up.

    Raises
    ------
    GenresError
        If it was never planned.
    """
    with database.reading() as connection:
        return _range(connection, key)


def history(database: Database, topic: str, *, states: Collection[RangeState] | None = None) -> list[StreamRange]:
    """Read all ranges of a topic in these states (None: in any), in the order they were planned."""
    chosen = sa.true() if states is None else _RANGE.state.in_(states)
    with database.reading() as connection:
        return _read_ranges(connection, _RANGE.topic == topic, chosen)


def range_counts(database: Database, topic: str) -> dict[RangeState, RangeCount]:
    """Count the topic's ranges and their offsets by state."""
    offsets = sa.func.sum(_RANGE.end_offset - _RANGE.start_offset)
    query = sa.select(_RANGE.state, sa.func.count(), offsets).where(_RANGE.topic == topic).group_by(_RANGE.state)
    with database.reading() as connection:
        return {state: RangeCount(count, int(total)) for state, count, total in connection.execute(query)}


def progress(database: Database, topic: str, topic_id: str) -> dict[int, Progress]:
    """Say for each Kafka partition that has ranges where the first one begins and how many offsets are done with."""
    done = sa.case((_RANGE.state.in_(("committed", "lost")), _RANGE.end_offset - _RANGE.start_offset), else_=0)
    query = (
        sa.select(_RANGE.kafka_partition, sa.func.min(_RANGE.start_offset), sa.func.sum(done))
        .where(_RANGE.topic == topic, _RANGE.topic_id == topic_id)
        .group_by(_RANGE.kafka_partition)
    )
    with database.reading() as connection:
        return {partition: Progress(first, int(total)) for partition, first, total in connection.execute(query)}


def record_plan(
    database: Database, plan: Plan, *, token: int | None = None, now: datetime | None = None
) -> tuple[Attempt, ...]:
    """Write a plan down, except its poison; what another planner wrote first stands.

    A new range counts only where it begins at its Kafka partition's position, and a change of a range only while
    that is still planned, so that plans made from a state that has passed change nothing, and the same plan twice
    gives the same rows.

    Parameters
    ----------
    token
        Fencing token of a draining run that plans its next range; None for the sensors, which hold no lease.

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
    with _writing(database) as connection:
        if token is not None:
            for attempt in plan.new:
                _check_fence(connection, attempt.key.topic, token)
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
                _RANGE.attempts == attempt.attempt - 1,
                attempts=attempt.attempt,
                heartbeat_at=now,
            )
        ]
        return (*begun, *again)


def begin_attempt(
    database: Database, key: PartitionKey, run_id: str, *, attempt: int | None = None, now: datetime | None = None
) -> StreamRange:
    """Say that a run works on a range; its failure is counted beforehand, since a killed run can't do it afterwards.

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
    with _writing(database) as connection:
        found = _range(connection, key)
        number = max(found.attempts, attempt or found.attempts + 1)
        _change_planned(
            connection,
            key,
            attempts=number,
            failures=found.failures + 1,
            run_id=run_id,
            heartbeat_at=now or datetime.now(UTC),
            reason=None,
        )
        return _range(connection, key)


def end_attempt(
    database: Database,
    key: PartitionKey,
    run_id: str,
    *,
    reason: str,
    is_clips_fault: bool,
    now: datetime | None = None,
) -> None:
    """Say why an attempt ended without a commit.

    Parameters
    ----------
    is_clips_fault
        False for whatever would stop any range (no champion yet, HDFS or Spark down): the failure isn't counted,
        so that an outage never makes poison of good clips.
    """
    with _writing(database) as connection:
        _change_planned(
            connection,
            key,
            _RANGE.run_id == run_id,
            failures=_RANGE.failures - (0 if is_clips_fault else 1),
            heartbeat_at=now or datetime.now(UTC),
            reason=reason,
        )


def heartbeat(database: Database, run_id: str, *, now: datetime | None = None) -> None:
    """Say that a run is alive, for the ranges it began."""
    mine = (_RANGE.run_id == run_id) & (_RANGE.state == "planned")
    with _writing(database) as connection:
        connection.execute(sa.update(tables.STREAM_RANGES).where(mine).values(heartbeat_at=now or datetime.now(UTC)))


# ---------------------------------------------------------------------------------------------------------- leases


def acquire_lease(
    database: Database, topic: str, holder: str, lease_s: float, *, now: datetime | None = None
) -> int | None:
    """Take the topic's lease, if it is free, expired or the holder's own.

    Returns
    -------
    int | None
        The fencing token, larger with every new holder; None if another one holds the lease.
    """
    now = now or datetime.now(UTC)
    with _writing(database) as connection:
        lease = connection.execute(sa.select(tables.STREAM_LEASES).where(_LEASE.topic == topic)).one_or_none()
        if lease is not None and lease.holder != holder and lease.expires_at > now:
            return None
        if lease is None:
            token = 1
        else:
            token = lease.token if lease.holder == holder else lease.token + 1
            connection.execute(sa.delete(tables.STREAM_LEASES).where(_LEASE.topic == topic))
        connection.execute(
            sa.insert(tables.STREAM_LEASES).values(
                topic=topic, holder=holder, token=token, expires_at=now + timedelta(seconds=lease_s)
            )
        )
        return token


def lease_is_held(database: Database, topic: str, *, now: datetime | None = None) -> bool:
    """Tell whether a run holds the topic's lease now."""
    held = (_LEASE.topic == topic) & (_LEASE.holder != "") & (_LEASE.expires_at > (now or datetime.now(UTC)))
    with database.reading() as connection:
        return connection.execute(sa.select(tables.STREAM_LEASES).where(held)).one_or_none() is not None


def renew_lease(database: Database, topic: str, token: int, lease_s: float, *, now: datetime | None = None) -> None:
    """Hold the lease for another `lease_s` seconds from now.

    Raises
    ------
    FencedError
        If another holder has taken it over. One that only expired is still good.
    """
    now = now or datetime.now(UTC)
    with _writing(database) as connection:
        _check_fence(connection, topic, token)
        until = now + timedelta(seconds=lease_s)
        connection.execute(sa.update(tables.STREAM_LEASES).where(_LEASE.topic == topic).values(expires_at=until))


def release_lease(database: Database, topic: str, token: int, *, now: datetime | None = None) -> None:
    """Let the next holder in at once; nothing happens if there is one already."""
    mine = (_LEASE.topic == topic) & (_LEASE.token == token)
    with _writing(database) as connection:
        # Without a holder, the same run coming back is a new one too and gets a new token.
        connection.execute(
            sa.update(tables.STREAM_LEASES).where(mine).values(holder="", expires_at=now or datetime.now(UTC))
        )


# --------------------------------------------------------------------------------------------------------- commits


def commit_range(
    database: Database,
    key: PartitionKey,
    *,
    run_id: str,
    token: int | None = None,
    predictions: Sequence[dict[str, Any]] = (),
    quarantine: Iterable[QuarantinedClip] = (),
    checks: Iterable[RangeCheck] = (),
    feature_path: str | None = None,
    feature_version: str | None = None,
    model_name: str | None = None,
    model_version: int | None = None,
    reason: str | None = None,
    now: datetime | None = None,
) -> CommitResult:
    """Store a range's results and commit it, in one transaction.

    Parameters
    ----------
    token
        The draining run's fencing token; None for a run that does exactly its range and holds no lease.
    predictions
        Rows of ``stream_predictions`` without topic, kafka_partition, partition_key, run_id, predicted_at and
        latency_s, which are filled in: a row counts as predicted when it is stored.
    quarantine
        Refused clips; topic, Kafka partition, key and run are filled in.
    reason
        For people: what is out of the ordinary with this range.

    Returns
    -------
    CommitResult
        A range may be committed again: predictions of another model version are added, the newest model is noted,
        features of another version replace the path, and counts and time stay those of the first commit. A range
        that was split or given up as lost keeps its results too: a lost one becomes committed, a split one stays
        replaced by its children, for which these clips are duplicates.

    Raises
    ------
    FencedError
        If the lease has moved on; nothing is written.
    GenresError
        If the range was never planned.
    """
    refused = list(quarantine)
    with _writing(database) as connection:
        # Within the lock: rows that are stored later are also predicted later, so readers can follow by time.
        now = now or datetime.now(UTC)
        if token is not None:
            _check_fence(connection, key.topic, token)
        found = _range(connection, key)
        where: dict[str, Any] = {"topic": key.topic, "kafka_partition": key.kafka_partition, "partition_key": str(key)}
        predicted = _add_predictions(
            database,
            connection,
            [
                {
                    **row,
                    **where,
                    "run_id": run_id,
                    "predicted_at": now,
                    "latency_s": (now - row["event_time"]).total_seconds(),
                }
                for row in predictions
            ],
        )
        quarantined = _add_quarantine(
            database, connection, [clip._replace(**where, run_id=run_id) for clip in refused], now
        )
        result = CommitResult(
            new_predictions=predicted,
            new_quarantine=quarantined,
            duplicates=len(predictions) + len(refused) - predicted - quarantined,
            was_already_committed=found.state == "committed",
        )
        _write_checks(connection, key, checks, now)
        changes: dict[str, Any] = {}
        if found.state != "split" and model_version is not None and model_version > (found.model_version or 0):
            changes |= {"model_name": model_name, "model_version": model_version}
        if found.state != "split" and feature_version is not None and feature_version != found.feature_version:
            changes |= {"feature_path": feature_path, "feature_version": feature_version}
        if found.state in {"planned", "lost"}:
            changes |= {
                "state": "committed",
                "committed_at": now,
                "run_id": run_id,
                "clip_count": len(predictions) + len(refused),
                "predicted_count": predicted,
                "quarantined_count": quarantined,
                "duplicate_count": result.duplicates,
                "reason": reason,
            }
        if changes:
            connection.execute(sa.update(tables.STREAM_RANGES).where(_RANGE.partition_key == str(key)).values(changes))
        return result


def publish_features(database: Database, key: PartitionKey, feature_path: str, feature_version: str) -> None:
    """Note where a range's features lie, without committing it: they are predicted from later."""
    values = {"feature_path": feature_path, "feature_version": feature_version}
    with _writing(database) as connection:
        connection.execute(sa.update(tables.STREAM_RANGES).where(_RANGE.partition_key == str(key)).values(values))


def quarantine_poison(
    database: Database, key: PartitionKey, clips: Iterable[QuarantinedClip], *, now: datetime | None = None
) -> CommitResult:
    """Commit a range whose clips break every attempt with quarantine rows only."""
    found = find_range(database, key)
    return commit_range(
        database,
        key,
        run_id=found.run_id or "",
        quarantine=clips,
        reason=f"given up as poison after {found.failures} failed attempts",
        now=now,
    )


# --------------------------------------------------------------------------------------------------------- results


def stream_predictions(
    database: Database, since: datetime | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
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


def stream_quarantine(database: Database) -> list[dict[str, Any]]:
    """Quarantined clips of the stream as plain dictionaries, oldest first."""
    columns = tables.STREAM_QUARANTINE.c
    query = sa.select(tables.STREAM_QUARANTINE).order_by(columns.quarantined_at, columns.sha256)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def stream_checks(database: Database, *, failed_only: bool = False) -> list[dict[str, Any]]:
    """Checks of the ranges as plain dictionaries, oldest first."""
    columns = tables.STREAM_CHECKS.c
    query = sa.select(tables.STREAM_CHECKS).order_by(columns.checked_at, columns.partition_key, columns.check_name)
    if failed_only:
        query = query.where(~columns.passed)
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


# -------------------------------------------------------------------------------------------------------- producer


def add_stream_quarantine(database: Database, row: QuarantinedClip, *, now: datetime | None = None) -> bool:
    """Quarantine a clip that reached no range; False if it is quarantined or predicted already."""
    with _writing(database) as connection:
        return _add_quarantine(database, connection, [row], now or datetime.now(UTC)) == 1


def remember_sent(database: Database, row: SentFile) -> None:
    """Remember a file that the broker has confirmed; a file that changed is remembered anew."""
    with database.writing() as connection:
        connection.execute(sa.delete(tables.SENT_FILES).where(tables.SENT_FILES.c.path == row.path))
        connection.execute(sa.insert(tables.SENT_FILES).values(row._asdict()))


def sent(database: Database, path: str) -> SentFile | None:
    """Look up what was last sent from this absolute path."""
    columns = [tables.SENT_FILES.c[name] for name in SentFile._fields]
    with database.reading() as connection:
        found = connection.execute(sa.select(*columns).where(tables.SENT_FILES.c.path == path)).one_or_none()
    return None if found is None else SentFile(*found)


# ----------------------------------------------------------------------------------------- inside one transaction


@contextmanager
def _writing(database: Database) -> Iterator[sa.Connection]:
    # What a transaction reads here decides what it writes (a position, a lease, the other table's clips).
    with database.writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))
        yield connection


def _read_ranges(connection: sa.Connection, *chosen: sa.ColumnElement[bool]) -> list[StreamRange]:
    query = (
        sa.select(tables.STREAM_RANGES)
        .where(*chosen)
        .order_by(_RANGE.planned_at, _RANGE.kafka_partition, _RANGE.start_offset)
    )
    return [_as_range(row) for row in connection.execute(query)]


def _range(connection: sa.Connection, key: PartitionKey) -> StreamRange:
    row = connection.execute(sa.select(tables.STREAM_RANGES).where(_RANGE.partition_key == str(key))).one_or_none()
    if row is None:
        raise GenresError(f"the ledger has no range '{key}': only ranges that `audio_clips_sensor` planned can be run")
    return _as_range(row)


def _as_range(row: sa.Row[Any]) -> StreamRange:
    values = dict(row._mapping)
    key = PartitionKey(*(values.pop(field.name) for field in fields(PartitionKey)))
    del values["partition_key"]
    return StreamRange(key=key, **values)


def _change_planned(
    connection: sa.Connection, key: PartitionKey, *conditions: sa.ColumnElement[bool], **values: Any
) -> bool:
    planned = _RANGE.state == "planned"
    statement = (
        sa.update(tables.STREAM_RANGES).where(_RANGE.partition_key == str(key), planned, *conditions).values(values)
    )
    return connection.execute(statement).rowcount == 1


def _insert_at_position(connection: sa.Connection, key: PartitionKey, **values: Any) -> bool:
    neighbours = sa.select(sa.func.max(_RANGE.end_offset)).where(
        _RANGE.topic == key.topic, _RANGE.topic_id == key.topic_id, _RANGE.kafka_partition == key.kafka_partition
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


def _check_fence(connection: sa.Connection, topic: str, token: int) -> None:
    current = connection.scalar(sa.select(_LEASE.token).where(_LEASE.topic == topic))
    if current != token:
        raise FencedError(
            f"the lease on topic '{topic}' has moved on (token {token}, now {current}): another run took over, "
            "this one writes nothing more; nothing is to be done"
        )


def _add_predictions(database: Database, connection: sa.Connection, rows: list[dict[str, Any]]) -> int:
    refused = _known_clips(connection, tables.STREAM_QUARANTINE, [row["sha256"] for row in rows])
    return database.insert_new(
        connection, tables.STREAM_PREDICTIONS, [row for row in rows if row["sha256"] not in refused]
    )


def _add_quarantine(
    database: Database, connection: sa.Connection, clips: Sequence[QuarantinedClip], now: datetime
) -> int:
    predicted = _known_clips(connection, tables.STREAM_PREDICTIONS, [clip.sha256 for clip in clips])
    rows = [{**clip._asdict(), "quarantined_at": now} for clip in clips if clip.sha256 not in predicted]
    return database.insert_new(connection, tables.STREAM_QUARANTINE, rows)


def _known_clips(connection: sa.Connection, table: sa.Table, hashes: list[str]) -> set[str]:
    return set(connection.scalars(sa.select(table.c.sha256).where(table.c.sha256.in_(hashes))))


def _write_checks(connection: sa.Connection, key: PartitionKey, checks: Iterable[RangeCheck], now: datetime) -> None:
    columns = tables.STREAM_CHECKS.c
    for check in checks:
        same = (columns.partition_key == str(key)) & (columns.check_name == check.check_name)
        connection.execute(sa.delete(tables.STREAM_CHECKS).where(same))
        row = {"partition_key": str(key), "checked_at": now, **check._asdict()}
        connection.execute(sa.insert(tables.STREAM_CHECKS).values(row))

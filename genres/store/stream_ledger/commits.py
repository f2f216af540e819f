"""Commits: how clips get their rows, a range's all at once, and what is noted of the range with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from genres.store.database import Database
from genres.store.sql import sa, tables
from genres.store.stream_ledger import leases
from genres.store.stream_ledger.transaction import RANGE, in_statements, read_range, writing
from genres.store.stream_ledger.values import PartitionKey, StreamRange


class QuarantinedClip(NamedTuple):
    """A refused clip: a row of ``stream_quarantine`` without the time."""

    sha256: str
    file_name: str
    stage: str
    """``producer`` or ``stream``."""
    reason: str
    suffix: str
    """Of its name: the same bytes under another one may be fine."""
    judged_by: str
    """Version of what refused it."""
    genre: str | None = None
    """The true genre, if the folder named one."""
    topic: str = ""
    """Empty if nobody knows of which: then it counts as one of any."""
    kafka_partition: int | None = None
    kafka_offset: int | None = None
    kept_path: str | None = None
    """Where on HDFS its bytes are kept."""
    partition_key: str | None = None
    run_id: str | None = None
    reason_code: str = ""
    """An empty text in rows from before it was kept."""


class RangeCheck(NamedTuple):
    """What a check of a range found: a row of ``stream_checks``."""

    check_name: str
    passed: bool
    expected: str | None = None
    actual: str | None = None


@dataclass(frozen=True)
class RangeResult:
    """What a run made of a range: all that one commit stores."""

    key: PartitionKey
    run_id: str
    predictions: Sequence[dict[str, Any]] = ()
    """Rows of ``stream_predictions`` without topic, kafka_partition, partition_key, run_id, predicted_at and latency_s,
    which are filled in: a row counts as predicted when it is stored."""
    quarantine: Sequence[QuarantinedClip] = ()
    """Refused clips; topic, Kafka partition, key and run are filled in."""
    checks: Sequence[RangeCheck] = ()
    feature_path: str | None = None
    feature_version: str | None = None
    model_name: str | None = None
    model_version: int | None = None
    reason: str | None = None
    """For people: what is out of the ordinary with this range."""


class CommitResult(NamedTuple):
    """What a commit added."""

    new_predictions: int
    new_quarantine: int
    duplicates: int
    """Rows given for clips that had theirs already."""
    was_already_committed: bool


def commit_range(
    database: Database, result: RangeResult, *, token: int | None = None, shard: int = 0, now: datetime | None = None
) -> CommitResult:
    """Store a range's results and commit it, in one transaction.

    Parameters
    ----------
    token
        The draining run's fencing token; None for a run that does exactly its range and holds no lease.
    shard
        The one that the token is of.

    Returns
    -------
    CommitResult
        A range may be committed again: predictions of another model or version are added, the model's newest version
        or another model is noted, features of another version replace the path, and counts and time stay those of the
        first commit. A range that was split or given up as lost keeps its results too: a lost one becomes committed, a
        split one stays replaced by its children, for which these clips are duplicates.

    Raises
    ------
    FencedError
        If the lease has moved on; nothing is written.
    GenresError
        If the range was never planned.
    """
    key = result.key
    where: dict[str, Any] = {"topic": key.topic, "kafka_partition": key.kafka_partition, "partition_key": str(key)}
    with writing(database, key.topic) as connection:
        # Within the lock: rows that are stored later are also predicted later, so readers can follow by time.
        now = now or datetime.now(UTC)
        if token is not None:
            leases.check_fence(connection, key.topic, token, shard=shard)
        current = read_range(connection, key)
        predicted = _add_predictions(
            database,
            connection,
            [
                {
                    **row,
                    **where,
                    "run_id": result.run_id,
                    "predicted_at": now,
                    "latency_s": (now - row["event_time"]).total_seconds(),
                }
                for row in result.predictions
            ],
            now,
            topic=key.topic,
        )
        quarantined = _add_quarantine(
            database,
            connection,
            [clip._replace(**where, run_id=result.run_id) for clip in result.quarantine],
            now,
            topic=key.topic,
            model_name=result.model_name,
        )
        clips = len(result.predictions) + len(result.quarantine)
        added = CommitResult(
            new_predictions=predicted,
            new_quarantine=quarantined,
            duplicates=clips - predicted - quarantined,
            was_already_committed=current.state == "committed",
        )
        _write_checks(connection, key, result.checks, now)
        changes = _model_and_features(current, result)
        if current.state in {"planned", "lost"}:
            changes |= {
                "state": "committed",
                "committed_at": now,
                "run_id": result.run_id,
                "clip_count": clips,
                "predicted_count": predicted,
                "quarantined_count": quarantined,
                "duplicate_count": added.duplicates,
                "reason": result.reason,
            }
        if changes:
            connection.execute(sa.update(tables.STREAM_RANGES).where(RANGE.partition_key == str(key)).values(changes))
        return added


def quarantine_clip(database: Database, row: QuarantinedClip, *, now: datetime | None = None) -> bool:
    """Quarantine a clip that reached no range; False if the same verdict is there, or the clip is predicted."""
    with writing(database, row.topic) as connection:
        return _add_quarantine(database, connection, [row], now or datetime.now(UTC), topic=row.topic) == 1


def _model_and_features(current: StreamRange, result: RangeResult) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if current.state == "split":
        return changes
    # Versions of two models cannot be compared: the one that scored the range last is noted.
    is_newer = result.model_name != current.model_name or (result.model_version or 0) > (current.model_version or 0)
    if result.model_version is not None and is_newer:
        changes |= {"model_name": result.model_name, "model_version": result.model_version}
    if result.feature_version is not None and result.feature_version != current.feature_version:
        changes |= {"feature_path": result.feature_path, "feature_version": result.feature_version}
    return changes


def _add_predictions(
    database: Database, connection: sa.Connection, rows: list[dict[str, Any]], now: datetime, *, topic: str
) -> int:
    """Store predictions whose key is new; a clip that the stream refused before is accepted by that."""
    # In one order, or two topics with the same clips would wait for each other.
    rows = sorted(rows, key=lambda row: row["sha256"])
    added = database.insert_new(connection, tables.STREAM_PREDICTIONS, rows)
    _close(connection, topic, [row["sha256"] for row in rows], now)
    return added


def _add_quarantine(
    database: Database,
    connection: sa.Connection,
    clips: Sequence[QuarantinedClip],
    now: datetime,
    *,
    topic: str,
    model_name: str | None = None,
) -> int:
    """Store verdicts whose key is new, but for clips that are predicted; an older verdict on the same is closed.

    What another stream's model predicts says nothing about this one's, which may compute other features.
    """
    predicted = _predicted(connection, topic, [clip.sha256 for clip in clips], model_name)
    rows: dict[_Verdict, dict[str, Any]] = {}
    for clip in clips:
        if clip.sha256 not in predicted:
            rows.setdefault(_Verdict.on(clip), {**clip._asdict(), "quarantined_at": now, "closed_at": None})
    added = set(database.insert_new_keys(connection, tables.STREAM_QUARANTINE, list(rows.values())))
    # Of several new verdicts on a clip the last one stands.
    standing = {verdict.sha256: verdict for verdict in rows if verdict in added}
    _close(connection, topic, list(standing), now, but=standing)
    return len(added)


class _Verdict(NamedTuple):
    """The key of ``stream_quarantine``."""

    sha256: str
    suffix: str
    judged_by: str
    topic: str

    @classmethod
    def on(cls, clip: QuarantinedClip) -> Self:
        """Return the key of a clip's verdict."""
        return cls(clip.sha256, clip.suffix, clip.judged_by, clip.topic)


def _close(
    connection: sa.Connection,
    topic: str,
    hashes: Sequence[str],
    now: datetime,
    *,
    but: Mapping[str, _Verdict] | None = None,
) -> None:
    """Close the topic's open verdicts on some clips, but for one of each."""
    verdict = tables.STREAM_QUARANTINE.c
    for some in in_statements(hashes):
        chosen = verdict.sha256.in_(some) & verdict.topic.in_((topic, "")) & verdict.closed_at.is_(None)
        if but:
            key = sa.tuple_(*(verdict[name] for name in _Verdict._fields))
            chosen &= key.not_in([but[sha256] for sha256 in some])
        connection.execute(sa.update(tables.STREAM_QUARANTINE).where(chosen).values(closed_at=now))


def _predicted(connection: sa.Connection, topic: str, hashes: Sequence[str], model_name: str | None) -> set[str]:
    """Return the clips that have a row already: one of the topic's, or, if streams share a model, of this model's."""
    prediction = tables.STREAM_PREDICTIONS.c
    query = sa.select(prediction.sha256).distinct()
    if topic:
        query = query.where((prediction.topic == topic) | (prediction.model_name == model_name))
    found: set[str] = set()
    for some in in_statements(hashes):
        found.update(connection.scalars(query.where(prediction.sha256.in_(some))))
    return found


def _write_checks(connection: sa.Connection, key: PartitionKey, checks: Sequence[RangeCheck], now: datetime) -> None:
    columns = tables.STREAM_CHECKS.c
    for check in checks:
        same = (columns.partition_key == str(key)) & (columns.check_name == check.check_name)
        connection.execute(sa.delete(tables.STREAM_CHECKS).where(same))
        row = {"partition_key": str(key), "checked_at": now, **check._asdict()}
        connection.execute(sa.insert(tables.STREAM_CHECKS).values(row))

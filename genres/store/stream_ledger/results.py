"""What the stream has predicted, refused and checked, read for people and programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from genres.store.database import Database
from genres.store.predictions import answers
from genres.store.sql import sa, tables
from genres.store.stream_ledger.transaction import RANGE

_NEWEST = 10_000
"""Rows by which is told what the streams answer now."""


class Outcome(NamedTuple):
    """What a clip ended in."""

    at: datetime
    sha256: str
    is_refused: bool
    dataset: str
    """Of the model that answered; empty of a refusal, which is by features and by no model."""
    feature_version: str
    """Of the features by which it was judged; empty where none were computed, and in older refusals."""


def predictions(
    database: Database,
    *,
    topic: str | None = None,
    dataset: str | None = None,
    since: datetime | None = None,
    predicted_genre: str | None = None,
    wrong: bool = False,
    uncertain: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Stored predictions as plain dictionaries, oldest first.

    Parameters
    ----------
    topic
        Only this topic's; None for all.
    dataset
        Only those of models that were trained on it; None for all.
    since
        Only those predicted after this time; the last row's ``predicted_at`` continues a live table without gaps,
        since a range's rows appear together and carry one time.
    predicted_genre
        Only those with this answer; None for all.
    wrong, uncertain
        Only those: see `genres.store.predictions.answers`.
    limit
        Only so many of the newest.
    """
    columns = tables.STREAM_PREDICTIONS.c
    newest_first = (column.desc() for column in (columns.predicted_at, columns.partition_key, columns.kafka_offset))
    chosen = answers(tables.STREAM_PREDICTIONS, wrong=wrong, uncertain=uncertain)
    query = sa.select(tables.STREAM_PREDICTIONS).where(*chosen).order_by(*newest_first).limit(limit)
    if topic is not None:
        query = query.where(columns.topic == topic)
    if dataset is not None:
        query = query.where(columns.dataset == dataset)
    if since is not None:
        query = query.where(columns.predicted_at > since)
    if predicted_genre is not None:
        query = query.where(columns.predicted_genre == predicted_genre)
    return _rows(database, query)[::-1]


def predicted_genres(database: Database) -> list[str]:
    """Return each genre that is the answer of any of the newest rows, sorted; of millions, all would take seconds."""
    columns = tables.STREAM_PREDICTIONS.c
    newest = sa.select(columns.predicted_genre).order_by(columns.predicted_at.desc()).limit(_NEWEST).subquery()
    with database.reading() as connection:
        return sorted(connection.scalars(sa.select(newest.c.predicted_genre).distinct()))


def scored_elsewhere(database: Database, *, topic: str, dataset: str) -> int:
    """Count the clips sent to a topic whose row, by a dataset's models, is that of another stream, which was first."""
    sent, predicted = tables.SENT_FILES.c, tables.STREAM_PREDICTIONS.c
    theirs = (predicted.sha256 == sent.sha256, predicted.dataset == dataset, predicted.topic != topic)
    query = sa.select(sa.func.count(sa.distinct(sent.sha256))).where(sent.topic == topic, sa.exists().where(*theirs))
    with database.reading() as connection:
        return connection.scalar(query) or 0


def over_time_at(database: Database, partition_key: str, offset: int) -> dict[str, Any] | None:
    """Return the newest model's genres over time of the clip at an offset of a range; None where nothing says it."""
    columns = tables.STREAM_PREDICTIONS.c
    query = (
        sa.select(columns.over_time)
        .where(columns.partition_key == partition_key, columns.kafka_offset == offset)
        .order_by(columns.predicted_at.desc())
        .limit(1)
    )
    with database.reading() as connection:
        return connection.scalar(query)


class Arrival(NamedTuple):
    """When a clip had its row, and how long that took."""

    predicted_at: datetime
    latency_s: float


def arrivals(database: Database, *, topic: str, limit: int) -> list[Arrival]:
    """Return when the newest clips of a topic had their rows, the newest first."""
    columns = tables.STREAM_PREDICTIONS.c
    query = (
        sa.select(columns.predicted_at, columns.latency_s)
        .where(columns.topic == topic)
        .order_by(columns.predicted_at.desc())
        .limit(limit)
    )
    with database.reading() as connection:
        return [Arrival(*row) for row in connection.execute(query)]


def quarantine(database: Database, *, topic: str | None = None, history: bool = False) -> list[dict[str, Any]]:
    """Quarantined clips of the stream as plain dictionaries, oldest first.

    Parameters
    ----------
    topic
        Only this topic's; None for all, those too that were refused without a word about their topic.
    history
        Whether to return those too that were accepted or judged again since.
    """
    columns = tables.STREAM_QUARANTINE.c
    query = sa.select(tables.STREAM_QUARANTINE).order_by(columns.quarantined_at, columns.sha256)
    if topic is not None:
        query = query.where(columns.topic == topic)
    if not history:
        query = query.where(columns.closed_at.is_(None))
    return _rows(database, query)


def outcomes(database: Database, *, topic: str, limit: int) -> list[Outcome]:
    """Return what the newest clips of a topic ended in, predictions and open refusals alike, the newest first."""
    predicted, refused = tables.STREAM_PREDICTIONS.c, tables.STREAM_QUARANTINE.c
    newest = [
        sa.select(predicted.predicted_at, predicted.sha256, sa.false(), predicted.dataset, predicted.feature_version)
        .where(predicted.topic == topic)
        .order_by(predicted.predicted_at.desc())
        .limit(limit),
        sa.select(refused.quarantined_at, refused.sha256, sa.true(), sa.literal(""), refused.judged_by)
        .where(refused.topic == topic, refused.closed_at.is_(None))
        .order_by(refused.quarantined_at.desc())
        .limit(limit),
    ]
    with database.reading() as connection:
        rows = [row for query in newest for row in connection.execute(query)]
    found = [
        # Whoever refuses by features names the gate's version before theirs.
        Outcome(at, sha256, bool(is_refused), dataset, by.partition("+")[2] if is_refused else by)
        for at, sha256, is_refused, dataset, by in rows
    ]
    return sorted(found, reverse=True)[:limit]


class Judged(NamedTuple):
    """How many of the newest clips were judged, each once, and how many of them are refused."""

    clips: int
    refused: int


def judged_lately(database: Database, *, topic: str, dataset: str, limit: int) -> Judged:
    """Count what the newest clips of a topic ended in, by the dataset and the features that judge them now.

    What another dataset's champion answered, or other features made possible, says nothing of those that judge now:
    only what came after it counts.

    Parameters
    ----------
    dataset
        Whose champion scores the topic's clips.
    limit
        Clips that are looked at, the newest.
    """
    ended = outcomes(database, topic=topic, limit=limit)
    present = next((one.feature_version for one in ended if one.feature_version), "")
    former = [one for one in ended if one.dataset not in ("", dataset) or one.feature_version not in ("", present)]
    newest = [one for one in ended if not former or one.at > former[0].at]  # a range's rows carry one time
    return Judged(len({one.sha256 for one in newest}), len({one.sha256 for one in newest if one.is_refused}))


class Summary(NamedTuple):
    """What has become of a topic's clips, all in all."""

    ranges: dict[str, int]
    """How many there are in each state."""
    predicted: int
    refused: int
    """Refusals that are open."""
    newest_row: datetime | None
    """When a clip was predicted last."""


def summary(database: Database, topic: str) -> Summary:
    """Sum a topic's ranges and rows up."""
    predicted, refused = tables.STREAM_PREDICTIONS.c, tables.STREAM_QUARANTINE.c
    states = sa.select(RANGE.state, sa.func.count()).where(RANGE.topic == topic).group_by(RANGE.state)
    rows = sa.select(sa.func.count(), sa.func.max(predicted.predicted_at)).where(predicted.topic == topic)
    open_refusals = sa.select(sa.func.count()).where(refused.topic == topic, refused.closed_at.is_(None))
    with database.reading() as connection:
        ranges = {state: int(count) for state, count in connection.execute(states)}
        count, newest = connection.execute(rows).one()
        return Summary(ranges, count, connection.scalar(open_refusals) or 0, newest)


def checks(database: Database, *, topic: str | None = None, failed_only: bool = False) -> list[dict[str, Any]]:
    """Checks of the ranges as plain dictionaries, oldest first.

    Parameters
    ----------
    topic
        Only those of this topic's ranges; None for all.
    """
    columns = tables.STREAM_CHECKS.c
    query = sa.select(tables.STREAM_CHECKS).order_by(columns.checked_at, columns.partition_key, columns.check_name)
    if topic is not None:
        query = query.join(tables.STREAM_RANGES, RANGE.partition_key == columns.partition_key)
        query = query.where(RANGE.topic == topic)
    if failed_only:
        query = query.where(~columns.passed)
    return _rows(database, query)


def _rows(database: Database, query: sa.Select[Any]) -> list[dict[str, Any]]:
    with database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]

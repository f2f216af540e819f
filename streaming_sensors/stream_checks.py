"""The stream's checks that ask Kafka and the ledger, and the sensor that evaluates them while nothing arrives, too.

Belongs here: what is wrong with a stream although no run fails. Each check is also an asset check of its own, which a
person may run. None opens a message or a file on HDFS.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

import dagster as dg

from genres.errors import GenresError
from genres.plurals import counted, waits
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import losses, producers, ranges, results, sent_files
from genres_dagster.checks import outcome_of
from streaming_sensors.offset_plan import plan
from streaming_sensors.sensors import lag, lag_observation
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import limits
from streaming_sensors.topic import TopicState, topic_state

_EVERY_S = 60
_SAY_AGAIN_S = 600.0
"""How old an outcome may be that is not reported again, in seconds."""
_SHOWN = 20
"""How many of the things that a check found are named."""
_NEWEST_CLIPS = 2000
_MOST_REFUSED = 0.2
_NEWEST_RANGES = 50


class Finding(NamedTuple):
    """What a check found."""

    passed: bool
    said: str
    """What should be and what is, a line."""
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN


class Observed:
    """A stream as it is now; the topic is asked once, and only if a check wants to know.

    Parameters
    ----------
    stream
        The stream.
    settings, database
        Where its topic and its ledger are.
    """

    def __init__(self, stream: Stream, settings: Settings, database: Database) -> None:
        self.stream = stream
        self.settings = settings
        self.database = database

    @cached_property
    def topic(self) -> TopicState:
        """How far the topic reaches, by Kafka's word."""
        return topic_state(self.settings, self.stream.topic)

    @property
    def lag(self) -> int:
        """Clips that lie in the topic and are not committed, lost or given up."""
        return lag(self.database, self.topic)


class StreamCheck(NamedTuple):
    """A check of a stream."""

    name: str
    asset: dg.AssetKey
    description: str
    evaluate: Callable[[Observed], Finding]


def stream_checks(stream: Stream) -> tuple[StreamCheck, ...]:
    """Return the stream's checks."""
    return (
        StreamCheck(
            "nothing_lost",
            stream.clips,
            "Retention and recreated topics took no clip that nobody had read and that has not come again: by the "
            "ledger, by Kafka's offsets now, and by the files that the broker had confirmed.",
            nothing_lost,
        ),
        StreamCheck(
            "producer_alive",
            stream.clips,
            "A producer sends what is dropped in the stream's folder: it gave a sign of life within a minute.",
            producer_alive,
        ),
        StreamCheck(
            "consumer_lag",
            stream.clips,
            "The topic holds no more unread clips than two batches, the largest of late.",
            consumer_lag,
        ),
        StreamCheck(
            "complete",
            stream.predictions,
            "Every clip that the broker confirmed in a committed range has been predicted or refused.",
            complete,
        ),
        StreamCheck(
            "quarantine_rate",
            stream.predictions,
            "At most a fifth of the newest clips are refused, by the dataset and the features that judge them now.",
            quarantine_rate,
        ),
    )


def nothing_lost(now: Observed) -> Finding:
    """Look for clips that can never be read, and came in no other way: noted as lost, gone unread, or confirmed before.

    What was lost and is made good, because all of its clips have their rows by now, counts no longer; nor does what a
    person has acknowledged.
    """
    topic, state = now.stream.topic, now.topic
    noted = losses.of_topic(now.database, topic, state.topic_id, state.beginnings)
    # What nobody has noted yet: the sensors may be off, and a draining run notes no losses.
    found = plan(ranges.known(now.database, topic), state, limits(now.settings), now=datetime.now(UTC))
    unnoted = [*found.lost, *(split.lost for split in found.split if split.lost)]
    gone = [loss.describe() for loss in noted.ranges] + [f"{entry.key}: {entry.reason}" for entry in unnoted]
    clips = sum(len(loss.key) - loss.made_good for loss in noted.ranges) + sum(len(entry.key) for entry in unnoted)
    said = [f"{counted(clips, 'clip')} by offset", *gone[-_SHOWN:]]
    said += [f"{counted(len(noted.paths), 'confirmed file')} without a row", *noted.paths[:_SHOWN]]
    if is_lost := bool(gone or noted.paths):
        said.append("drop them again; `genres losses` lists them, and --acknowledge says that the rest is known")
    return Finding(not is_lost, f"lost: {'; '.join(said)}", dg.AssetCheckSeverity.ERROR)


def producer_alive(now: Observed) -> Finding:
    """Look for the producer's sign of life."""
    producer = producers.newest(now.database, now.stream.topic)
    is_alive = producer is not None and producer.is_alive()
    return Finding(is_alive, f"{now.stream.settings.watch_folder}: {producers.describe(producer)}")


def consumer_lag(now: Observed) -> Finding:
    """Count what Kafka holds beyond what is done."""
    # Ranges grow with the rate.
    newest = ranges.history(now.database, now.stream.topic, states={"committed"}, newest=_NEWEST_RANGES)
    batch = max(limits(now.settings).max_clips_per_batch, *(len(found.key) for found in newest), 1)
    lagging, allowed = now.lag, 2 * batch
    why = "twice the largest range of late, which GENRES_MAX_CLIPS_PER_BATCH limits"
    return Finding(lagging <= allowed, f"{waits(lagging, 'clip')}, at most {allowed:,} should ({why})")


def complete(now: Observed) -> Finding:
    """Look up the rows of what the broker confirmed to the producers in the newest committed ranges."""
    committed = ranges.history(now.database, now.stream.topic, states={"committed"}, newest=_NEWEST_RANGES)
    lacking = sent_files.unanswered(now.database, [found.key for found in committed])
    said = (
        f"confirmed files without a row, in the newest {counted(len(committed), 'committed range')}: {len(lacking):,}"
    )
    return Finding(
        not lacking, "; ".join([said, *(file.path for file in lacking[:_SHOWN])]), dg.AssetCheckSeverity.ERROR
    )


def quarantine_rate(now: Observed) -> Finding:
    """Count the refused among the newest clips that those judged who judge now."""
    dataset = now.stream.dataset(now.settings, now.database)
    judged = results.judged_lately(now.database, topic=now.stream.topic, dataset=dataset, limit=_NEWEST_CLIPS)
    return Finding(
        judged.refused <= _MOST_REFUSED * judged.clips,
        f"refused of the newest {counted(judged.clips, 'clip')}: {judged.refused:,}, at most {_MOST_REFUSED:.0%} "
        "should be",
    )


def build_stream_checks(stream: Stream) -> list[dg.AssetChecksDefinition]:
    """Build the checks as asset checks that a person may run."""
    return [_asset_check(stream, check) for check in stream_checks(stream)]


def build_audio_clips_observer(stream: Stream) -> dg.SensorDefinition:
    """Build the sensor that measures the lag and evaluates the stream's checks, whether or not anything arrives."""

    @dg.sensor(
        name=stream.named("audio_clips_observer"),
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Measures the lag of topic {stream.topic} and evaluates the stream's checks, without a run: while "
        "clips flow, while they wait and while nothing arrives.",
    )
    def audio_clips_observer(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            database.check_migrated()
        except GenresError as error:
            return dg.SkipReason(str(error))
        now = Observed(stream, settings, database)
        events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = list(_news(context.instance, now))
        try:
            lagging, why = str(now.lag), waits(now.lag, "clip")
        except GenresError as error:
            lagging, why = "", str(error)
        before, at = (context.cursor or ":0").split(":")
        cursor = context.cursor
        if lagging and (lagging != before or time.time() - float(at) > _SAY_AGAIN_S):
            events.append(lag_observation(stream, database, now.topic))
            cursor = f"{lagging}:{time.time():.0f}"
        return dg.SensorResult(skip_reason=why, asset_events=events, cursor=cursor)

    return audio_clips_observer


def _news(instance: dg.DagsterInstance, now: Observed) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate each check; yield what is another outcome than the last one, or the first for a while."""
    for check in stream_checks(now.stream):
        try:
            found = check.evaluate(now)
        except GenresError as error:
            found = Finding(False, f"it cannot be told: {error}")
        key = dg.AssetCheckKey(check.asset, check.name)
        last = instance.get_latest_asset_check_evaluation_record(key)
        before = outcome_of(last)
        is_old = last is None or time.time() - last.create_timestamp > _SAY_AGAIN_S
        if is_old or before is None or (before.passed, before.description) != (found.passed, found.said):
            yield dg.AssetCheckEvaluation(
                asset_key=check.asset,
                check_name=check.name,
                passed=found.passed,
                severity=found.severity,
                description=found.said,
            )


def _asset_check(stream: Stream, check: StreamCheck) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=check.asset, name=check.name, description=check.description)
    def evaluate(settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
        found = check.evaluate(Observed(stream, settings, database))
        return dg.AssetCheckResult(passed=found.passed, severity=found.severity, description=found.said)

    return evaluate

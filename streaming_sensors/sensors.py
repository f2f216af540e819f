"""The sensors: they ask Kafka for offsets, let the planner decide, write the plan down and request runs.

A tick opens no message and loads neither Spark nor an audio library.
"""

import dataclasses
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from genres.errors import GenresError
from genres.plurals import counted
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import leases, producers, ranges
from genres.store.stream_ledger.producers import Producer
from genres.store.stream_ledger.values import Attempt, Plan, StreamRange
from genres_dagster.checks import outcome_of
from genres_dagster.resources import MlflowResource
from streaming_sensors.offset_plan import Shard, plan
from streaming_sensors.run_tags import ATTEMPT_TAG, DRAIN_TAG, LIMIT_TAG, RANGE_TAG, SHARD_TAG, short_name
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import NO_CHAMPION, limits
from streaming_sensors.topic import TopicState, topic_state, wait_for_data

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

_LONG_POLL_S = 25.0
"""How long a tick waits for clips: long beside the 5 s that may pass before the daemon begins the next one, in which
nobody waits; below its limit of 60 s for a tick; and no longer than a person waits for Dagster to close."""
_SHORT_POLL_S = 4.0
"""The same while runs drain other partitions: one of them may end meanwhile, and what it had is not waited for."""
_START_S = 60.0
"""How long a run may take to start before its range counts as abandoned."""
JOB = "stream_batch_job"
_NOT_STARTED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]


def build_job(stream: Stream) -> "UnresolvedAssetJobDefinition":
    """Build the job of the stream's offset ranges."""
    return dg.define_asset_job(
        stream.named(JOB),
        selection=dg.AssetSelection.assets(stream.features, stream.predictions),
        partitions_def=stream.offset_ranges,
        # A step process of its own would cost more than the work on a small batch.
        executor_def=dg.in_process_executor,
        description="One offset range; launched by a sensor, also what has arrived since.",
    )


def build_audio_clips_sensor(stream: Stream) -> dg.SensorDefinition:
    """Build the sensor that plans new ranges; it waits on Kafka inside the tick when there is nothing to plan."""

    @dg.sensor(
        name=stream.named("audio_clips_sensor"),
        job_name=stream.named(JOB),
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Turns new offsets of topic {stream.topic} into streaming partitions and launches draining runs.",
    )
    def audio_clips_sensor(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            database.check_migrated()
            producer = producers.newest(database, stream.topic)
        except GenresError as error:
            return dg.SkipReason(str(error))
        news = _producer_news(context.instance, stream, producer)
        try:
            state = topic_state(settings, stream.topic)
            held = leases.holders(database, stream.topic, settings.lease_s)
            with_partitions = [shard for shard in Shard.all(settings.drains) if any(map(shard.has, state.ends))]
            # Who holds the others takes what arrives there.
            shards = [shard for shard in with_partitions if shard.number not in held]
            if not shards:
                why = f"{who_drains(held.values())} draining {stream.topic}{_idle_drains(settings, state)}"
                return _skip(_and_why(why, ranges.known(database, stream.topic)), stream, producer, news)
            planned = _plan_new(context, stream, settings, database, state, shards)
            if not (planned.new or planned.lost) and wait_for_data(
                settings,
                stream.topic,
                state.ends,
                _SHORT_POLL_S if held else _LONG_POLL_S,
                concerns=lambda partition: any(shard.has(partition) for shard in shards),
            ):
                state = topic_state(settings, stream.topic)
                # A resident drain may have taken one meanwhile.
                held = leases.holders(database, stream.topic, settings.lease_s)
                shards = [shard for shard in shards if shard.number not in held]
                planned = _plan_new(context, stream, settings, database, state, shards)
            attempts = ranges.record_plan(database, planned)
            if not attempts and not planned.lost:
                nothing = "nothing new" if shards else f"{who_drains(held.values())} draining {stream.topic}"
                why = f"{planned.reason or nothing}{_idle_drains(settings, state)}"
                return _skip(_and_why(why, ranges.known(database, stream.topic)), stream, producer, news)
        except GenresError as error:
            return _skip(str(error), stream, producer, news)
        result = _result(stream, settings, database, state, planned, attempts)
        return result._replace(asset_events=[*result.asset_events, *news])

    return audio_clips_sensor


def build_range_reconciler(stream: Stream) -> dg.SensorDefinition:
    """Build the sensor that retries what was planned and is not committed."""

    @dg.sensor(
        name=stream.named("range_reconciler"),
        job_name=stream.named(JOB),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches again what was planned and is not committed; says what Kafka's retention took.",
    )
    def range_reconciler(
        context: dg.SensorEvaluationContext,
        settings: dg.ResourceParam[Settings],
        database: dg.ResourceParam[Database],
        mlflow: MlflowResource,
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            database.check_migrated()
            state = topic_state(settings, stream.topic)
            known = ranges.known(database, stream.topic)
            wanted = wanted_of(known, context.instance, stream, settings, state, Shard.all(settings.drains))
            retry, waiting = with_champion(wanted.retry, known, stream, settings, database, mlflow)
            repair = dataclasses.replace(wanted, new=(), retry=retry)
            attempts = ranges.record_plan(database, repair)
        except GenresError as error:
            return dg.SkipReason(str(error))
        if not (attempts or repair.split or repair.lost):
            return dg.SkipReason(_and_why(waiting or "every planned range is committed, in work or young", known))
        return _result(stream, settings, database, state, repair, attempts)

    return range_reconciler


def wanted_of(
    known: list[StreamRange],
    instance: dg.DagsterInstance,
    stream: Stream,
    settings: Settings,
    state: TopicState,
    shards: list[Shard],
) -> Plan:
    """Return what is to be done about some shards now, runs that have not started yet considered."""
    held = _held(instance, stream)
    return plan(known, state, limits(settings), now=datetime.now(UTC), held=held, shards=shards)


def with_champion(
    retry: tuple[Attempt, ...],
    known: list[StreamRange],
    stream: Stream,
    settings: Settings,
    database: Database,
    mlflow: MlflowResource,
) -> tuple[tuple[Attempt, ...], str]:
    """Leave out the ranges that wait for a champion as long as there is none, or MLflow does not say; say so."""
    reasons = {
        offset_range.key: offset_range.reason
        for offset_range in known
        if (offset_range.reason or "").startswith(NO_CHAMPION)
    }
    waiting = [attempt for attempt in retry if attempt.key in reasons]
    if not waiting:
        return retry, ""
    why = reasons[waiting[0].key]
    try:
        if mlflow.open().find_champion(stream.dataset(settings, database)):
            return retry, ""
    except GenresError as error:
        why = str(error)
    clips = sum(len(attempt.key) for attempt in waiting)
    return tuple(attempt for attempt in retry if attempt not in waiting), f"{counted(clips, 'clip')}: {why}"


def _plan_new(
    context: dg.SensorEvaluationContext,
    stream: Stream,
    settings: Settings,
    database: Database,
    state: TopicState,
    shards: list[Shard],
) -> Plan:
    known = ranges.known(database, stream.topic)
    wanted = wanted_of(known, context.instance, stream, settings, state, shards)
    return dataclasses.replace(wanted, retry=(), split=())


def _result(
    stream: Stream,
    settings: Settings,
    database: Database,
    state: TopicState,
    planned: Plan,
    attempts: tuple[Attempt, ...],
) -> dg.SensorResult:
    requests = [
        dg.RunRequest(
            run_key=attempt.run_key,
            partition_key=str(attempt.key),
            tags=run_tags(attempt, settings),
        )
        for attempt in attempts
    ]
    keys = [str(request.partition_key) for request in requests]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[stream.offset_ranges.build_add_request(keys)] if keys else [],
        cursor=",".join(f"{partition}={end}" for partition, end in state.ends.items()),
        asset_events=[lag_observation(stream, database, state), *_losses(stream, planned)],
    )


def run_tags(attempt: Attempt, settings: Settings) -> dict[str, str]:
    """Return the tags of the run that makes an attempt at a range and then drains the shard that has it."""
    return {
        DRAIN_TAG: "true",
        SHARD_TAG: str(Shard.holding(attempt.key.kafka_partition, settings.drains)),
        ATTEMPT_TAG: str(attempt.attempt),
        RANGE_TAG: short_name(attempt.key),
        # Nobody here can tell whether a process on another host is gone: its run does not stay "started" for ever.
        LIMIT_TAG: f"{3600 * settings.sweep_grace_h:g}",
    }


def who_drains(holders: Collection[str]) -> str:
    """Return who holds some leases: the subject of a sentence, with its verb."""
    found = [leases.Resident.parse(holder) for holder in holders]
    residents = [resident.describe() for resident in found if resident]
    runs = len(found) - len(residents)
    said = [*(["a run" if runs == 1 else f"{runs} runs"] if runs else []), *residents]
    return f"{' and '.join(said)} {'is' if len(found) == 1 else 'are'}"


def _producer_news(
    instance: dg.DagsterInstance, stream: Stream, producer: Producer | None
) -> list[dg.AssetCheckEvaluation]:
    """Evaluate the check `producer_alive`, if its outcome is another than the last time."""
    key = dg.AssetCheckKey(stream.clips, "producer_alive")
    before = outcome_of(instance.get_latest_asset_check_evaluation_record(key))
    is_alive = producer is not None and producer.is_alive()
    if before is not None and before.passed == is_alive:
        return []
    return [
        dg.AssetCheckEvaluation(
            asset_key=stream.clips,
            check_name=key.name,
            passed=is_alive,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{stream.settings.watch_folder}: {producers.describe(producer)}",
        )
    ]


def _idle_drains(settings: Settings, state: TopicState) -> str:
    """Return how many drains have no partition to drain; an empty text if each has one."""
    idle = settings.drains - len(state.ends)
    if idle <= 0:
        return ""
    are = f"{idle} of {settings.drains} drains (GENRES_DRAINS) {'is' if idle == 1 else 'are'} idle"
    return f"; {are}: the topic has {counted(len(state.ends), 'partition')}"


def _and_why(reason: str, known: list[StreamRange]) -> str:
    """Add to a reason what ranges that were tried wait for."""
    return "; ".join([reason, *(found.describe() for found in ranges.waiting(known) if found.reason not in reason)])


def _skip(
    reason: str, stream: Stream, producer: Producer | None, news: list[dg.AssetCheckEvaluation]
) -> dg.SensorResult:
    """Launch nothing, and say so; that nobody sends what is dropped, too."""
    if producer is None or not producer.is_alive():
        reason += f"; the producer of {stream.settings.watch_folder} is {producers.describe(producer)}"
    return dg.SensorResult(skip_reason=reason, asset_events=news)


def lag(database: Database, state: TopicState) -> int:
    """Count the clips that lie in the topic and are not committed, lost or given up."""
    known = ranges.progress(database, state.topic, state.topic_id)
    waiting = 0
    for partition, end in state.ends.items():
        first, done = known.get(partition, (state.beginnings[partition], 0))
        waiting += max(0, end - first - done)
    return waiting


def lag_observation(stream: Stream, database: Database, state: TopicState) -> dg.AssetObservation:
    """Return how many clips wait, and how far the topic reaches."""
    return dg.AssetObservation(
        stream.clips,
        metadata={
            "lag_clips": lag(database, state),
            "end_offsets": dg.MetadataValue.json({str(key): end for key, end in state.ends.items()}),
            "topic_id": state.topic_id,
        },
    )


def _losses(stream: Stream, planned: Plan) -> list[dg.AssetCheckEvaluation]:
    """A loud failed check for each range of offsets that nobody can read any more."""
    return [
        dg.AssetCheckEvaluation(
            asset_key=stream.clips,
            check_name="nothing_lost",
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{entry.key}: {entry.reason}",
            metadata={"offsets": str(entry.key), "clips": len(entry.key), "reason": entry.reason},
        )
        for entry in [*planned.lost, *(split.lost for split in planned.split if split.lost)]
    ]


def _held(instance: dg.DagsterInstance, stream: Stream) -> frozenset[str]:
    """Partitions whose run Dagster has, but has not started yet.

    Only for so long: a run whose process was killed before it began is "starting" to Dagster for ever. Should it
    begin after all, beside a new attempt, the first commit wins.
    """
    recently = datetime.now(UTC) - timedelta(seconds=_START_S)
    waiting = instance.get_runs(
        dg.RunsFilter(job_name=stream.named(JOB), statuses=_NOT_STARTED, created_after=recently), limit=500
    )
    return frozenset(run.tags["dagster/partition"] for run in waiting if "dagster/partition" in run.tags)

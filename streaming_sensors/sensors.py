"""The sensors: they ask Kafka for offsets, let the planner decide, write the plan down and request runs.

A tick opens no message and loads neither Spark nor an audio library.
"""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from genres.errors import GenresError
from genres.settings import Settings
from genres.store import stream_ledger
from genres.store.database import Database
from genres.store.stream_ranges import Attempt, Plan, StreamRange
from genres_dagster.resources import MlflowResource
from streaming_sensors.names import (
    ATTEMPT_TAG,
    DRAIN_TAG,
    FEATURES,
    NO_CHAMPION,
    OFFSET_RANGES,
    POISON_TAG,
    PREDICTIONS,
)
from streaming_sensors.offset_plan import plan
from streaming_sensors.stream_assets import audio_clips
from streaming_sensors.stream_run import limits, stream_dataset
from streaming_sensors.topic import TopicState, topic_state, wait_for_data

_LONG_POLL_S = 25.0
"""How long a tick waits for clips: long beside the 5 s that may pass before the daemon begins the next one, in which
nobody waits; below its limit of 60 s for a tick; and no longer than a person waits for Dagster to close."""
_START_S = 60.0
"""How long a run may take to start before its range counts as abandoned."""
_NOT_STARTED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]

stream_job = dg.define_asset_job(
    "stream_batch_job",
    selection=dg.AssetSelection.assets(FEATURES, PREDICTIONS),
    partitions_def=OFFSET_RANGES,
    # A step process of its own would cost more than the work on a small batch.
    executor_def=dg.in_process_executor,
    description="One offset range; launched by a sensor, also what has arrived since.",
)


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Turns new offsets of the topic into streaming partitions and launches a draining run.",
)
def audio_clips_sensor(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
) -> dg.SensorResult | dg.SkipReason:
    """Plan new ranges; wait on Kafka inside the tick when there is nothing to plan."""
    try:
        database.check_migrated()
        state = topic_state(settings, settings.topic)
        if stream_ledger.lease_is_held(database, settings.topic):
            # The run that holds it takes what arrives.
            return dg.SkipReason(f"a run is draining {settings.topic}")
        planned = _plan_new(context, settings, database, state)
        if not (planned.new or planned.lost) and wait_for_data(settings, settings.topic, state.ends, _LONG_POLL_S):
            state = topic_state(settings, settings.topic)
            planned = _plan_new(context, settings, database, state)
    except GenresError as error:
        return dg.SkipReason(str(error))
    attempts = stream_ledger.record_plan(database, planned)
    if not attempts and not planned.lost:
        return dg.SkipReason(planned.reason or "nothing new")
    return _result(settings, database, state, planned, attempts)


@dg.sensor(
    job=stream_job,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches again what was planned and is not committed; splits ranges that fail to find the clip at "
    "fault; prunes old partitions.",
)
def range_reconciler(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
) -> dg.SensorResult | dg.SkipReason:
    """Retry, split, give up, prune."""
    try:
        database.check_migrated()
        state = topic_state(settings, settings.topic)
        known = stream_ledger.ranges(database, settings.topic)
        found = plan(known, state, limits(settings), now=datetime.now(UTC), held=_held(context.instance))
        retry, waiting = _with_champion(found.retry, known, settings, mlflow)
    except GenresError as error:
        return dg.SkipReason(str(error))
    mending = dataclasses.replace(found, new=(), retry=retry)
    attempts = stream_ledger.record_plan(database, mending)
    old = _old_partitions(context.instance, database, settings)
    if not (attempts or mending.poison or mending.split or mending.lost or old):
        return dg.SkipReason(waiting or "every planned range is committed, in work or young")
    result = _result(settings, database, state, mending, attempts)
    prune = [OFFSET_RANGES.build_delete_request(old)] if old else []
    return result._replace(dynamic_partitions_requests=[*(result.dynamic_partitions_requests or []), *prune])


def _with_champion(
    retry: tuple[Attempt, ...], known: list[StreamRange], settings: Settings, mlflow: MlflowResource
) -> tuple[tuple[Attempt, ...], str]:
    """Leave out the ranges that wait for a champion as long as there is none; say so."""
    reasons = {found.key: found.reason for found in known if (found.reason or "").startswith(NO_CHAMPION)}
    waiting = [attempt for attempt in retry if attempt.key in reasons]
    # MLflow's client is loaded only if a range waits for it.
    if not waiting or mlflow.open().find_champion(stream_dataset(settings)):
        return retry, ""
    clips = sum(len(attempt.key) for attempt in waiting)
    return tuple(attempt for attempt in retry if attempt not in waiting), f"{clips} clips: {reasons[waiting[0].key]}"


def _plan_new(context: dg.SensorEvaluationContext, settings: Settings, database: Database, state: TopicState) -> Plan:
    known = stream_ledger.ranges(database, settings.topic)
    found = plan(known, state, limits(settings), now=datetime.now(UTC), held=_held(context.instance))
    return dataclasses.replace(found, retry=(), split=(), poison=())


def _result(
    settings: Settings, database: Database, state: TopicState, planned: Plan, attempts: tuple[Attempt, ...]
) -> dg.SensorResult:
    requests = [
        dg.RunRequest(
            run_key=attempt.run_key,
            partition_key=str(attempt.key),
            tags={DRAIN_TAG: "true", ATTEMPT_TAG: str(attempt.attempt)},
        )
        for attempt in attempts
    ]
    requests += [
        dg.RunRequest(run_key=f"{key}#poison", partition_key=str(key), tags={POISON_TAG: "true"})
        for key in planned.poison
    ]
    keys = [str(request.partition_key) for request in requests]
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[OFFSET_RANGES.build_add_request(keys)] if keys else [],
        cursor=",".join(f"{partition}={end}" for partition, end in state.ends.items()),
        asset_events=[_lag(settings, database, state), *_losses(planned)],
    )


def lag(settings: Settings, database: Database, state: TopicState) -> int:
    """Count the clips that lie in the topic and are not committed, lost or given up."""
    known = stream_ledger.progress(database, settings.topic, state.topic_id)
    waiting = 0
    for partition, end in state.ends.items():
        first, done = known.get(partition, (state.beginnings[partition], 0))
        waiting += max(0, end - first - done)
    return waiting


def _lag(settings: Settings, database: Database, state: TopicState) -> dg.AssetObservation:
    return dg.AssetObservation(
        audio_clips.key,
        metadata={
            "lag_clips": lag(settings, database, state),
            "end_offsets": dg.MetadataValue.json({str(key): end for key, end in state.ends.items()}),
            "topic_id": state.topic_id,
        },
    )


def _losses(planned: Plan) -> list[Any]:
    """A loud failed check for each range of offsets that nobody can read any more."""
    return [
        dg.AssetCheckEvaluation(
            asset_key=audio_clips.key,
            check_name="nothing_lost",
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=f"{entry.key}: {entry.reason}",
            metadata={"offsets": str(entry.key), "clips": len(entry.key), "reason": entry.reason},
        )
        for entry in [*planned.lost, *(split.lost for split in planned.split if split.lost)]
    ]


def _held(instance: dg.DagsterInstance) -> frozenset[str]:
    """Partitions whose run Dagster has, but has not started yet.

    Only for so long: a run whose process was killed before it began is "starting" to Dagster for ever. Should it
    begin after all, beside a new attempt, the first commit wins.
    """
    recently = datetime.now(UTC) - timedelta(seconds=_START_S)
    waiting = instance.get_runs(
        dg.RunsFilter(job_name=stream_job.name, statuses=_NOT_STARTED, created_after=recently), limit=500
    )
    return frozenset(run.tags["dagster/partition"] for run in waiting if "dagster/partition" in run.tags)


def _old_partitions(instance: dg.DagsterInstance, database: Database, settings: Settings) -> list[str]:
    """The oldest finished partitions beyond the number that is kept; the ledger keeps their history."""
    keys = instance.get_dynamic_partitions(str(OFFSET_RANGES.name))
    surplus = len(keys) - settings.keep_partitions
    if surplus <= 0:
        return []
    finished = stream_ledger.history(database, settings.topic, states={"committed", "lost", "split"})
    present = set(keys)
    return [str(found.key) for found in finished if str(found.key) in present][:surplus]

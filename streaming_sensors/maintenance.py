"""``maintenance``: sweeps what nobody needs any more, in the lake and among Dagster's records, and merges small files.

One asset for all of it, the batch half's leftovers too: nearly all that accumulates comes from the streams, what may go
of the rest is ``genres.store.retention``'s to say, and a third code location would be one more process that stands by.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from genres.errors import GenresError, last_words
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import ranges
from genres_dagster import run_records
from genres_dagster.partitions import OWNERS
from genres_dagster.resources import LakeResource, MlflowResource
from streaming_sensors.stream import Stream
from streaming_sensors.topic import offsets_at, topic_state

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from genres.store.compaction import Compacted
    from genres.store.lake import Entry
    from genres.store.retention import Swept

JOB = "maintenance_job"
_NOT_NOW = (GenresError, OSError, RuntimeError, ValueError)
"""What a kind of leftovers may fail with: also what fsspec makes of HDFS's exceptions that it has no better word for,
such as a snapshot's of a folder that is to go."""
_RUNS_AT_A_TIME = 1000
"""How many runs are forgotten at most before the next hour; each takes Dagster a tenth of a second or two."""
_FILES_AT_A_TIME = 20_000
"""How many small files are merged at most before the next hour: a few minutes' work."""
_MARGIN = timedelta(hours=1)
"""How much earlier than its message a claim check may be dated: clocks differ, and a message is tried for minutes."""


class MaintenanceConfig(dg.Config):
    """Run config of ``maintenance``."""

    dry_run: bool = Field(False, description="Only say what would be swept and merged.")


@dg.asset(
    group_name="maintenance",
    kinds={"python", "hdfs", "dagster"},
    owners=OWNERS,
    description="Sweeps what nobody needs any more: attempts of killed runs, tables and features that were never "
    "published, candidates of earlier trainings, large clips whose messages are done with, bytes of refused clips that "
    "were judged again, old streaming partitions, and Dagster's records of old runs. The settings GENRES_KEEP_RUNS, "
    "GENRES_KEEP_RUNS_DAYS, GENRES_KEEP_PARTITIONS, GENRES_KEEP_FEATURES_DAYS, GENRES_TOPIC_RETENTION_H and "
    "GENRES_SWEEP_GRACE_H say how old. "
    "Merges small files of stream features into larger ones, GENRES_COMPACT_AFTER_H after their day.",
)
def maintenance(
    context: dg.AssetExecutionContext,
    config: MaintenanceConfig,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
) -> dg.MaterializeResult:
    """Merge and sweep kind by kind; an outage of one is no reason to leave the others."""
    import pyarrow as pa

    from genres.store.compaction import Compacted
    from genres.store.retention import Swept

    database.check_migrated()
    try:
        compacted = _compacted(settings, lake.open(), database, dry_run=config.dry_run)
    except (*_NOT_NOW, pa.ArrowException) as error:
        compacted = Compacted(left=(last_words(error),))
    for line in compacted.left:
        context.log.warning(f"not merged: {line}")
    swept: dict[str, Swept] = {}
    for kind, work in _kinds(context.instance, settings, lake.open(), database, mlflow, dry_run=config.dry_run):
        try:
            swept[kind] = work()
        except _NOT_NOW as error:
            swept[kind] = Swept(kept_because=last_words(error))
        if why := swept[kind].kept_because:
            context.log.warning(f"{kind} stay as they are: {why}")
    return dg.MaterializeResult(metadata=_metadata(swept, compacted, dry_run=config.dry_run))


def build_maintenance_job() -> "UnresolvedAssetJobDefinition":
    """Build the job that sweeps, which a person may launch as well."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(maintenance),
        executor_def=dg.in_process_executor,
        description="Sweeps what nobody needs any more and merges small files; with dry_run it only says what that is.",
    )


def build_maintenance_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Build the schedule that sweeps every hour: a laptop is not on at night."""
    return dg.ScheduleDefinition(
        name="maintenance_schedule",
        job=job,
        cron_schedule="17 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Sweeps every hour what nobody needs any more.",
    )


def _kinds(
    instance: dg.DagsterInstance,
    settings: Settings,
    lake: Lake,
    database: Database,
    mlflow: MlflowResource,
    *,
    dry_run: bool,
) -> "Iterator[tuple[str, Callable[[], Swept]]]":
    """Yield each kind of leftovers and what sweeps it."""
    from genres.store import retention

    now = datetime.now(UTC)
    grace = timedelta(hours=settings.sweep_grace_h)
    before = now - grace
    datasets = [BatchTables(lake, database, entry.dataset) for entry in ledger.registered_datasets(database)]
    streams = [Stream(stream) for stream in settings.streams]

    def swept(leftovers: "Callable[[], list[Entry]]") -> "Callable[[], Swept]":
        return lambda: retention.sweep(lake, leftovers(), dry_run=dry_run)

    def unpublished() -> "list[Entry]":
        of_datasets = [entry for one in datasets for entry in retention.unpublished_tables(one, before=before)]
        return [*of_datasets, *retention.unpublished_stream_features(lake, database, before=before)]

    def candidates() -> "list[Entry]":
        def newest_training(dataset: str) -> str:
            return str(mlflow.open().latest_training(dataset).info.run_id)

        return [
            entry
            for one in datasets
            for entry in retention.unused_candidates(one, newest_training=newest_training, before=before)
        ]

    def claims() -> "Swept":
        # As long as Kafka keeps the messages: until then a range may be computed again.
        sent_before = now - max(timedelta(hours=settings.topic_retention_h), grace)
        old = retention.old_claims(lake, before=sent_before - _MARGIN)
        if old and (why := _unfinished(settings, database, sent_before)):
            return retention.Swept(kept_because=why)
        return retention.sweep(lake, old, dry_run=dry_run)

    def features() -> "Swept":
        if not (days := settings.keep_features_days):
            return retention.Swept()
        # Their files are swept as those that no range names.
        moment = now - timedelta(days=days)
        return retention.Swept(ranges.forget_features(database, committed_before=moment, dry_run=dry_run))

    def runs() -> "Swept":
        there: dict[dg.AssetKey, set[str]] = {}
        for stream in streams:
            # In a dry run those that would go are there still.
            left = set(instance.get_dynamic_partitions(str(stream.offset_ranges.name)))
            left.difference_update(_old_partitions(instance, stream, database, settings))
            there |= {stream.features: left, stream.predictions: left}
        old = run_records.old_runs(
            instance,
            ended_before=now - timedelta(days=settings.keep_runs_days),
            keep=settings.keep_runs,
            young_after=before,
            partitions=there,
        )[:_RUNS_AT_A_TIME]
        size = sum(run_records.bytes_of(instance, run.run_id) for run in old)
        for run in old if not dry_run else ():
            run_records.forget(instance, run.run_id)
        return retention.Swept(len(old), size)

    def partitions() -> "Swept":
        count = 0
        for stream in streams:
            for key in _old_partitions(instance, stream, database, settings):
                count += 1
                if not dry_run:
                    instance.delete_dynamic_partition(str(stream.offset_ranges.name), key)
        return retention.Swept(count)

    yield "attempts", swept(lambda: retention.old_attempts(lake, before=before))
    yield "stream_features", features
    yield "unpublished", swept(unpublished)
    yield "candidates", swept(candidates)
    yield "claim_checks", claims
    yield "quarantined_bytes", swept(lambda: retention.unneeded_quarantine(lake, database, before=before))
    yield "partitions", partitions
    yield "runs", runs  # after the partitions: the runs of those that went may go


def _compacted(settings: Settings, lake: Lake, database: Database, *, dry_run: bool) -> "Compacted":
    """Merge the small files of days that are over for long enough; each is tried whatever becomes of the others."""
    from genres.store import compaction

    moment = datetime.now(UTC) - timedelta(hours=settings.compact_after_h)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    files = compaction.small_files(database, before=midnight, most=_FILES_AT_A_TIME)
    if dry_run:
        return compaction.Compacted(sum(map(len, files)), len(files))
    memory_bytes = settings.compact_memory_mib * 2**20
    return compaction.total([compaction.compact(lake, database, some, memory_bytes=memory_bytes) for some in files])


def _unfinished(settings: Settings, database: Database, moment: datetime) -> str:
    """Return which topic still holds a message from before a moment that is not done with; empty if none does."""
    topics = {stream.topic for stream in settings.streams} | set(ranges.topics_with_planned(database))
    for topic in sorted(topics):
        state, ends = topic_state(settings, topic), offsets_at(settings, topic, moment)
        known = ranges.known(database, topic)
        planned = [found.key for found in known if found.state == "planned"]
        if any(key.topic_id != state.topic_id for key in planned):
            return f"ranges of an earlier topic {topic!r} are planned"
        reached: dict[int, int] = {}
        for key in [found.key for found in known if found.key.topic_id == state.topic_id]:
            reached[key.kafka_partition] = max(key.end_offset, reached.get(key.kafka_partition, 0))
        for key in planned:
            reached[key.kafka_partition] = min(key.start_offset, reached[key.kafka_partition])
        for partition, end in ends.items():
            done = max(reached.get(partition, 0), state.beginnings.get(partition, 0))
            if done < end:
                return f"{topic}, partition {partition}: messages that are as old wait, {done} to {end - 1}"
    return ""


def _old_partitions(instance: dg.DagsterInstance, stream: Stream, database: Database, settings: Settings) -> list[str]:
    """The oldest finished partitions beyond the number that is kept; the ledger keeps their history."""
    keys = instance.get_dynamic_partitions(str(stream.offset_ranges.name))
    surplus = len(keys) - settings.keep_partitions
    if surplus <= 0:
        return []
    return ranges.finished(database, keys, most=surplus)  # Dagster has them in the order in which they came


def _metadata(swept: "dict[str, Swept]", compacted: "Compacted", *, dry_run: bool) -> dict[str, Any]:
    """Return the figures, each kind's as a number that Dagster draws over time, and as a table for people."""
    lines = [f"| kind | {'would go' if dry_run else 'went'} | bytes | |", "|---|---|---|---|"]
    figures: dict[str, Any] = {}
    for kind, found in swept.items():
        lines.append(f"| {kind.replace('_', ' ')} | {found.entries:,} | {found.bytes:,} | {found.kept_because} |")
        figures |= {f"{kind}_entries": found.entries, f"{kind}_bytes": found.bytes}
    total = {"entries": sum(found.entries for found in swept.values()), "bytes": sum(f.bytes for f in swept.values())}
    merged = {
        "merged_small_files": compacted.files,
        "merged_files": compacted.into,
        "merged_bytes": compacted.bytes,
        "not_merged_files": len(compacted.left),
    }
    return {"dry_run": dry_run, **total, "swept": dg.MetadataValue.md("\n".join(lines)), **figures, **merged}

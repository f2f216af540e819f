"""Dagster's records of runs that are over: which may go, and how one goes with all that Dagster keeps of it.

Ticks of sensors and schedules are not here: Dagster itself drops them after the days that ``dagster.yaml`` says.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

_PAGE = 500


def old_runs(
    instance: dg.DagsterInstance,
    *,
    ended_before: datetime,
    keep: int,
    young_after: datetime,
    partitions: Mapping[dg.AssetKey, Collection[str]],
) -> list[dg.DagsterRun]:
    """List the runs that are over and may be forgotten, the oldest first.

    A run stays, however old, while it is the one that made what Dagster shows of an asset: the newest materialization
    of the asset, or of one of its partitions that still exists. Without it the asset would count as never made.

    Parameters
    ----------
    ended_before
        Runs that ended before this go.
    keep
        How many runs are kept at most, those aside that have to stay; the oldest beyond go.
    young_after
        A run that ended after this stays in any case.
    partitions
        The partitions that still exist of the assets that lose old ones; of other assets all do.
    """
    needed = _runs_shown(instance, partitions)
    records = instance.get_run_records(dg.RunsFilter(statuses=list(FINISHED_STATUSES)))  # the newest first
    old = []
    for number, record in enumerate(records):
        ended = record.end_time or record.update_timestamp.timestamp()
        surplus = number >= keep or ended < ended_before.timestamp()
        if surplus and ended < young_after.timestamp() and record.dagster_run.run_id not in needed:
            old.append(record.dagster_run)
    return old[::-1]


def bytes_of(instance: dg.DagsterInstance, run_id: str) -> int:
    """Return what a run's events and output take on this machine's disk, in bytes."""
    return sum(path.stat().st_size for path in _files(instance, run_id) if path.is_file())


def forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Delete a run's record, its events and what its steps printed."""
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    for path in _files(instance, run_id):  # Dagster empties the run's own database, and leaves the file
        path.unlink(missing_ok=True)


def _files(instance: dg.DagsterInstance, run_id: str) -> Iterator[Path]:
    from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

    events, home = instance.event_log_storage, instance.root_directory
    if isinstance(events, SqliteEventLogStorage):
        shard = Path(events.path_for_shard(run_id))
        yield from list(shard.parent.glob(f"{run_id}.db*"))
    if home is not None:
        for folder, _, names in os.walk(Path(home, "storage", run_id)):
            yield from (Path(folder, name) for name in names)


def _runs_shown(instance: dg.DagsterInstance, partitions: Mapping[dg.AssetKey, Collection[str]]) -> set[str]:
    """Return the ids of the runs that made what Dagster shows of its assets."""
    events = instance.event_log_storage
    shown: set[str] = set()
    for asset in instance.all_asset_keys():
        newest = instance.get_latest_materialization_event(asset)
        shown |= {newest.run_id} if newest else set()
        by_partition = events.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION)
        there = partitions.get(asset, by_partition)
        ids = [number for partition, number in by_partition.items() if partition in there]
        for start in range(0, len(ids), _PAGE):
            wanted = dg.EventRecordsFilter(
                dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=asset, storage_ids=ids[start : start + _PAGE]
            )
            shown |= {record.run_id for record in events.get_event_records(wanted)}
    return shown

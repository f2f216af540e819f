"""What ``genres datasets`` does: list, show, choose and delete datasets, and say which one a stream is scored by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from genres.addresses import bypass_proxies
from genres.errors import GenresError
from genres.settings import Settings, StreamSettings
from genres.store import dataset_deletion, ledger
from genres.store.database import Database
from genres.store.dataset_deletion import Holdings
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres_cli.stream_demo import scored_by
from genres_dagster.launch import open_instance
from genres_dagster.partitions import DATASETS
from streaming_sensors.sensors import JOB
from streaming_sensors.stream import Stream

_AT_WORK = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def current(settings: Settings, database: Database) -> str:
    """Return the id of the dataset that commands take which name none."""
    return ledger.dataset_meant(database, **settings.meaning())


def described(settings: Settings, database: Database) -> list[dict[str, Any]]:
    """Return what there is to say about each dataset, the current one among them and the streams that each scores."""
    meant = current(settings, database)
    streams: dict[str, list[str]] = {}
    for stream in settings.streams:
        streams.setdefault(ledger.dataset_meant(database, **settings.scored_by(stream)), []).append(stream.topic)
    return [
        {**row, "is_current": row["dataset"] == meant, "scores_topics": streams.get(row["dataset"], [])}
        for row in ledger.described_datasets(database)
    ]


def scoring_line(stream: StreamSettings, settings: Settings, database: Database, registry: ModelRegistry) -> str:
    """Return a line about which champion scores a stream."""
    dataset = ledger.dataset_meant(database, **settings.scored_by(stream))
    champion = registry.find_champion(dataset)
    if champion:
        return f"stream {stream.topic} scored by {champion.name} v{champion.version}"
    waits = f"stream {stream.topic}: dataset '{dataset}' has no champion yet, clips wait until there is one"
    others = registry.datasets_with_champion()
    if not others:
        return waits
    setting = f"stream '{stream.name}' in GENRES_MORE_STREAMS" if stream.name else "GENRES_STREAM_DATASET"
    return f"{waits}; there is one of {', '.join(others)}: `genres datasets use {others[0]}`, or name it in {setting}"


def delete(settings: Settings, dataset: str, *, confirmed: Callable[[Holdings], bool]) -> Holdings | None:
    """Delete a dataset with what belongs to it, if that is confirmed.

    Parameters
    ----------
    confirmed
        Called with what would go.

    Returns
    -------
    Holdings or None
        What went; None if it was not confirmed.

    Raises
    ------
    GenresError
        If there is no such dataset, its champion scores a stream, or a run works on it.
    """
    bypass_proxies(settings)
    database = Database.opened(settings.database)
    entry = ledger.registered_dataset(database, dataset)
    registry, lake = ModelRegistry(settings.tracking_uri), Lake.of(settings)
    with open_instance(settings) as instance:
        _require_unused(settings, database, registry, instance, dataset)
        found = dataset_deletion.holdings(entry, database, lake, registry)
        if not confirmed(found):
            return None
        # Once more: a person may have taken a while.
        _require_unused(settings, database, registry, instance, dataset)
        dataset_deletion.delete(found, database, lake, registry)
        instance.delete_dynamic_partition(str(DATASETS.name), dataset)
    return found


def _require_unused(
    settings: Settings, database: Database, registry: ModelRegistry, instance: dg.DagsterInstance, dataset: str
) -> None:
    scored = {stream.topic: ledger.dataset_meant(database, **settings.scored_by(stream)) for stream in settings.streams}
    # An open Dagster may have been started with other settings.
    if said := scored_by(settings):
        folder = said["folder"] and ledger.dataset_of_folder(database, Path(said["folder"]))
        scored[f"{settings.topic} of the open Dagster"] = said["dataset"] or folder or scored[settings.topic]
    topics = [topic for topic, meant in scored.items() if meant == dataset]
    if topics and registry.aliases(dataset).get("champion"):
        raise GenresError(
            f"the champion of dataset '{dataset}' scores stream {topics[0]}: let another dataset do that first "
            "(`genres datasets use <id>` makes it the current one, GENRES_STREAM_DATASET names it)"
        )
    # A run that drains a stream may have been launched with other settings, too, and ends soon.
    draining = {Stream(stream).named(JOB) for stream in settings.streams}
    for run in instance.get_runs(dg.RunsFilter(statuses=_AT_WORK)):
        if run.tags.get("dagster/partition") == dataset or run.job_name in draining:
            raise GenresError(
                f"run {run.run_id} ({run.job_name}) may use dataset '{dataset}': wait for its end, or terminate it in "
                "Dagster"
            )

"""The pipeline in the test's own process, for what only that can have: a feature set of the tests', a broken part."""

import threading
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from rich.console import Console

from genre_assets.definitions import build_defs as build_batch
from genres.settings import Settings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_dagster.launch import choose_dataset, open_instance, register
from streaming_sensors.definitions import build_defs as build_streaming
from streaming_sensors.folder_producer.producer import watch
from streaming_sensors.run_tags import ATTEMPT_TAG, DRAIN_TAG
from streaming_sensors.topic import create_topic, topic_state


def run_batch(settings: Settings) -> BatchTables:
    """Register the settings' dataset and run the whole batch pipeline for it."""
    instance = open_instance(settings)
    database = Database(settings.database)
    database.migrate()
    dataset = choose_dataset(settings, database, on_notice=print)
    register(settings, instance, dataset)
    job = build_batch(settings=settings).resolve_job_def("batch_pipeline")
    assert job.execute_in_process(partition_key=dataset.dataset, instance=instance).success
    return BatchTables(Lake.of(settings), Database(settings.database), dataset.dataset)


def send(settings: Settings, clips: Mapping[str, bytes]) -> None:
    """Drop clips in the watched folder and send them to the topic."""
    create_topic(settings, settings.topic)
    for name, data in clips.items():
        path = settings.watch_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    watch(
        settings, settings.watch_folder, settings.topic, once=True, console=Console(stderr=True), stop=threading.Event()
    )


def drain(settings: Settings, *, raise_on_error: bool = True) -> bool:
    """Plan a first range of what waits and run it as the sensor would; the run goes on until the topic is quiet."""
    database = Database(settings.database)
    state = topic_state(settings, settings.topic)
    done = {found.key.kafka_partition: found.key.end_offset for found in ranges.known(database, settings.topic)}
    number, begin = next(
        (number, done.get(number, state.beginnings[number]))
        for number, end in state.ends.items()
        if end > done.get(number, state.beginnings[number])
    )
    key = PartitionKey(settings.topic, state.topic_id, number, begin, state.ends[number])
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    return run_range(settings, key, raise_on_error=raise_on_error)


def run_range(settings: Settings, key: PartitionKey, *, raise_on_error: bool = True) -> bool:
    """Run a planned range as the sensor would."""
    instance = dg.DagsterInstance.get()
    instance.add_dynamic_partitions("offset_range", [str(key)])
    job = build_streaming(settings=settings).resolve_job_def("stream_batch_job")
    tags = {DRAIN_TAG: "true", ATTEMPT_TAG: "1"}
    result = job.execute_in_process(partition_key=str(key), instance=instance, tags=tags, raise_on_error=raise_on_error)
    return bool(result.success)


def file_names(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}

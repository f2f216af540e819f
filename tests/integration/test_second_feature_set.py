"""A second feature set is a module and a line: it goes through extraction, training, prediction and the stream."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from rich.console import Console

from genre_assets.definitions import build_defs as build_batch
from genres.audio import feature_sets
from genres.audio.clip_features import clip_features
from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres_dagster.launch import choose_dataset, open_instance, register
from streaming_sensors.definitions import build_defs as build_streaming
from tests.tiny_features import TINY

GENRES = ("blues", "metal", "disco")
CLIPS = 8
DATASET = "tiny_features"


@pytest.fixture(scope="module")
def settings(
    stack: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    write_clips: Callable[..., None],
    session_monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """Settings of a dataset of its own, whose models are trained on the second set, which this process knows."""
    folder = tmp_path_factory.mktemp("tiny features")
    write_clips(folder, GENRES, CLIPS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(feature_sets.FEATURE_SETS, TINY.name, TINY)
        yield Settings(
            audio=folder,
            dataset=DATASET,
            feature_set=TINY.name,
            topic="test_second_feature_set",
            watch_folder=tmp_path_factory.mktemp("tiny drop"),
            stream_dataset=DATASET,
            settle_s=0.1,
        )


@pytest.fixture(scope="module")
def tables(settings: Settings) -> BatchTables:
    """The dataset's tables, after the whole batch pipeline."""
    instance = open_instance(settings)
    database = Database(settings.database)
    register(settings, instance, choose_dataset(settings, database, on_notice=pytest.fail))
    job = build_batch(settings=settings).resolve_job_def("batch_pipeline")
    assert job.execute_in_process(partition_key=DATASET, instance=instance).success
    return BatchTables(Lake.of(settings), Database(settings.database), DATASET)


def test_extraction_honours_its_columns_and_sample_rate(tables: BatchTables) -> None:
    table = tables.features(TINY.feature_version)
    assert len(table) == CLIPS * len(GENRES)
    assert set(TINY.columns) < set(table.columns)
    assert not set(GTZAN57.columns) & set(table.columns)
    np.testing.assert_allclose(table["tiny_seconds"], 3.0, atol=1e-4)
    clip = tables.accepted().iloc[0]
    alone = clip_features(tables.lake.files.cat_file(clip["path"]), file_suffix=".wav", feature_set=TINY, max_clip_s=60)
    stored = table[table["track_id"] == clip["track_id"]].iloc[0]
    assert {column: stored[column] for column in TINY.columns} == pytest.approx(alone.values)


def test_the_model_carries_its_feature_set(settings: Settings, tables: BatchTables) -> None:
    champion = ModelRegistry(settings.tracking_uri).champion(DATASET)
    assert champion.feature_version == TINY.feature_version == "tiny-v3-numpy2"
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == CLIPS * len(GENRES)
    assert {row["feature_version"] for row in rows} == {TINY.feature_version}


def test_the_stream_computes_what_the_champion_reads(settings: Settings, tables: BatchTables) -> None:
    from genres.store.stream_ledger import ranges, results
    from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
    from streaming_sensors.folder_producer.producer import watch
    from streaming_sensors.run_tags import ATTEMPT_TAG, DRAIN_TAG
    from streaming_sensors.topic import create_topic, topic_state

    create_topic(settings, settings.topic)
    accepted = tables.accepted()
    for path in accepted["path"][:3]:
        (settings.watch_folder / Path(path).name).write_bytes(tables.lake.files.cat_file(path))
    watch(
        settings, settings.watch_folder, settings.topic, once=True, console=Console(stderr=True), stop=threading.Event()
    )
    state = topic_state(settings, settings.topic)
    number = next(partition for partition, end in state.ends.items() if end)
    key = PartitionKey(settings.topic, state.topic_id, number, 0, state.ends[number])
    ranges.record_plan(tables.database, Plan(new=(Attempt(key),)))
    instance = dg.DagsterInstance.get()
    instance.add_dynamic_partitions("offset_range", [str(key)])
    job = build_streaming(settings=settings.model_copy(update={"drain_quiet_s": 0.5})).resolve_job_def(
        "stream_batch_job"
    )
    tags = {DRAIN_TAG: "true", ATTEMPT_TAG: "1"}
    assert job.execute_in_process(partition_key=str(key), instance=instance, tags=tags).success
    rows = [row for row in results.predictions(tables.database) if row["dataset"] == DATASET]
    assert {row["sha256"] for row in rows} == set(accepted["sha256"][:3])
    assert {row["feature_version"] for row in rows} == {TINY.feature_version}
    stored = tables.lake.read_table(
        [found.feature_path for found in ranges.history(tables.database, settings.topic, states={"committed"})]
    ).to_pandas()
    np.testing.assert_allclose(stored["tiny_seconds"], 3.0, atol=1e-4)

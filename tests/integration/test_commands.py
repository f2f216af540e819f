"""Commands on the real daemons: a stream is paused and goes on, a dataset is deleted with all that belongs to it."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pandas as pd
import pytest
from dagster._core.scheduler.instigation import TickStatus

from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.ledger import Dataset
from genres.store.model_registry import ModelRegistry
from genres.store.schemas import RAW_AUDIO
from genres.store.stream_ledger import ranges, results
from genres_dagster.launch import register
from genres_dagster.partitions import DATASETS
from streaming_sensors.topic import topic_state
from tests.stream_rig import DATASET, Stream, running_stream, set_champion, short_clips, wait_until

RunGenres = Callable[..., "subprocess.CompletedProcess[str]"]
TOPIC, GONE = "test_commands", "gone_tests"
_SENSORS = {"audio_clips_sensor", "range_reconciler"}
_PAUSE_S = 12.0
"""Longer than the daemon leaves a sensor alone, and long beside the few seconds that a clip takes."""


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    with running_stream(stack, tmp_path_factory.mktemp("commands") / "drop", TOPIC) as stream:
        set_champion(stream.settings, 1)
        yield stream


def no_tick_is_at_work(stream: Stream) -> bool:
    """Return whether no tick of the stream's sensors is at work."""
    return all(
        tick.status != TickStatus.STARTED
        for state in stream.instance.all_instigator_state()
        if state.name in _SENSORS
        for tick in stream.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    )


def test_a_paused_stream_takes_nothing_until_it_goes_on(stream: Stream, run_genres: RunGenres) -> None:
    before = stream.drop(short_clips(2, seed=91))
    stream.wait_for(before)
    done = run_genres("stream", "pause")
    assert done.returncode == 0, done.stderr
    # The daemon looks every five seconds whether a sensor is on; a tick that it had decided on may launch a run yet.
    time.sleep(6)
    wait_until(lambda: no_tick_is_at_work(stream) and stream.is_at_rest())
    known = ranges.known(stream.database, TOPIC)

    waiting = stream.drop(short_clips(3, seed=92))
    wait_until(lambda: sum(topic_state(stream.settings, TOPIC, timeout_s=30).ends.values()) == 5)
    time.sleep(_PAUSE_S)
    assert ranges.known(stream.database, TOPIC) == known
    assert stream.places(waiting) == (set(), set())
    about = json.loads(run_genres("stream", "status", "--json").stdout)
    assert about["state"].startswith("paused: ") and about["predicted"] == 2

    assert run_genres("stream", "resume").returncode == 0
    stream.wait_for(waiting)
    shown = run_genres("stream", "status").stdout
    assert "clips        5 predicted, 0 refused" in shown
    rows = json.loads(run_genres("predictions", "--dataset", DATASET, "--last", "3", "--json").stdout)
    assert {row["sha256"] for row in rows if row["table"] == "stream_predictions"} == waiting


@pytest.mark.long
def test_a_dataset_goes_with_all_that_belongs_to_it(stream: Stream, run_genres: RunGenres) -> None:
    settings, database, lake = stream.settings, stream.database, stream.lake
    registry = ModelRegistry(settings.tracking_uri)
    rows = len(results.predictions(database))
    dataset = Dataset(GONE, stream.folder, is_synthetic=True, feature_sets=("gtzan57",))
    register(settings, stream.instance, dataset)
    BatchTables(lake, database, GONE).publish_manifest(pd.DataFrame(columns=list(RAW_AUDIO.names)), run_id="tests")
    lake.put_clip(lake.path(GONE, "raw_audio", "blues", "a.wav"), bytes(2**20))
    name = registry.name_for(GONE)
    with registry.run(GONE, run_name="models", stage="genre_classifiers", tags={}):
        pass
    trained = registry.client.get_run(registry.champion(DATASET).run_id)
    assert [registry.register(GONE, run=trained) for _ in range(2)] == [1, 2]
    registry.set_alias(GONE, "champion", 2)
    assert registry.datasets_with_champion() == sorted({DATASET, GONE} | set(registry.datasets_with_champion()))
    wait_until(lambda: not stream.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))

    refused = run_genres("datasets", "delete", DATASET, "--yes")
    assert refused.returncode == 1 and f"scores stream {TOPIC}" in refused.stderr
    asked = run_genres("datasets", "delete", GONE)  # nobody answers
    assert asked.returncode == 1 and f"models    {name}: v1, v2" in asked.stdout
    assert lake.files.exists(lake.path(GONE))

    done = run_genres("datasets", "delete", GONE, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not lake.files.exists(lake.path(GONE))
    assert GONE not in {entry.dataset for entry in ledger.registered_datasets(database)}
    assert ledger.published(database, GONE, "raw_audio") == []
    assert registry.versions(GONE) == [] and registry.find_champion(GONE) is None
    assert registry.find_latest_run(GONE, stage="genre_classifiers") is None
    assert GONE not in stream.instance.get_dynamic_partitions(str(DATASETS.name))

    # Loaded again, it starts from nothing, but for the number of its next version.
    register(settings, stream.instance, dataset)
    with registry.run(GONE, run_name="models", stage="genre_classifiers", tags={}):
        pass
    assert registry.find_latest_run(GONE, stage="genre_classifiers") is not None
    assert registry.register(GONE, run=trained) == 3
    assert registry.champion(DATASET).version == 1, "another dataset is left alone"
    assert len(results.predictions(database)) == rows
    assert run_genres("datasets", "delete", GONE, "--yes").returncode == 0, "a dataset that is almost empty goes, too"

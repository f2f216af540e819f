"""Two streams side by side on one daemon: each has its topic, folder and dataset, and none takes the other's clips."""

import json
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest

from genres.settings import PROJECT_DIR, Settings
from genres.store.ledger import Dataset, register_dataset
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import ranges, results
from streaming_sensors import stream as streams
from streaming_sensors.topic import create_topic
from tests.stream_rig import DATASET, Stream, running_stream, set_champion, short_clips, wait_until

TOPIC, OTHER_TOPIC, OTHER_DATASET = "test_two_streams", "test_two_streams_radio", "radio_tests"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """The default stream and one called radio, both with a champion, of which both have version 1."""
    folders = tmp_path_factory.mktemp("two streams")
    more = [{"name": "radio", "topic": OTHER_TOPIC, "watch_folder": str(folders / "radio"), "dataset": OTHER_DATASET}]
    (folders / "radio").mkdir()
    with running_stream(stack, folders / "drop", TOPIC, MORE_STREAMS=json.dumps(more)) as stream:
        create_topic(stream.settings, OTHER_TOPIC)
        set_champion(stream.settings, 1)
        register_dataset(stream.database, Dataset(OTHER_DATASET, folders, is_synthetic=True, feature_sets=("gtzan57",)))
        registry = ModelRegistry(stream.settings.tracking_uri)
        champion = registry.champion(DATASET)
        run = registry.client.get_run(champion.run_id)
        registry.describe_version(OTHER_DATASET, registry.register(OTHER_DATASET, run=run), champion)
        registry.set_alias(OTHER_DATASET, "champion", 1)
        command = [sys.executable, "-m", "genres_cli", "watch", "--stream", "radio"]
        with subprocess.Popen(command, cwd=PROJECT_DIR) as producer:
            yield stream
            producer.terminate()


def test_each_stream_scores_its_own_clips_with_its_own_champion(stream: Stream) -> None:
    clips = short_clips(8, seed=60)
    both = dict(list(clips.items())[:2])
    stream.drop(clips)
    radio = stream.settings.stream("radio")
    for name, data in {**both, **short_clips(4, seed=61)}.items():
        path = radio.watch_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    def rows(topic: str) -> list[tuple[str, str]]:
        return [(row["dataset"], row["model_name"]) for row in results.predictions(stream.database, topic=topic)]

    wait_until(lambda: len(rows(TOPIC)) == 8 and len(rows(OTHER_TOPIC)) == 6, patience_s=300)
    assert set(rows(TOPIC)) == {(DATASET, f"genres-{DATASET}")}
    assert set(rows(OTHER_TOPIC)) == {(OTHER_DATASET, f"genres-{OTHER_DATASET}")}
    ours, theirs = (
        {row["sha256"] for row in results.predictions(stream.database, topic=topic)} for topic in (TOPIC, OTHER_TOPIC)
    )
    assert len(ours & theirs) == 2, "two clips are in both streams"


def test_assets_and_partitions_are_each_streams_own(stream: Stream) -> None:
    other = streams.Stream(stream.settings.stream("radio"))
    assert other.features == dg.AssetKey(["radio", "stream_features"])
    for names, topic in ((stream.names, TOPIC), (other, OTHER_TOPIC)):
        committed = {str(found.key) for found in ranges.history(stream.database, topic, states={"committed"})}
        for asset in (names.features, names.predictions):
            wait_until(lambda asset=asset, keys=committed: stream.instance.get_materialized_partitions(asset) >= keys)
        materialized = stream.instance.get_materialized_partitions(other.features)
        assert all(key.startswith(f"{OTHER_TOPIC}:") for key in materialized)

"""A champion that is missing, has no folder, reads other features or has wrong tags: clips wait, and everybody is told.

The ledger keeps the reason, the run fails with it, both sensors say it in their ticks, and `genres status` prints it.
"""

import json
import logging
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_facts import ModelFacts, RegisteredModel
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_cli.commands import stack
from genres_dagster.resources import MlflowResource
from local_stack.stack import ServiceStatus
from streaming_sensors import sensors, stream_run
from streaming_sensors.offset_plan import Shard
from streaming_sensors.range_work import RangeWork, StoredFeatures
from streaming_sensors.sensors import build_audio_clips_sensor, build_range_reconciler
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import StreamRun
from streaming_sensors.topic import TopicState
from tests.unit.test_model_facts import FACTS

KEY = PartitionKey("audio_clips", "A" * 22, 0, 0, 3)
TOPIC = TopicState("audio_clips", "A" * 22, {0: 0}, {0: 3})


def version(**changes: str) -> RegisteredModel:
    tags = {**FACTS.to_tags(), "feature_version": "", **changes}
    found: Any = SimpleNamespace(name="genres-mine", version="3", run_id="r", tags=tags)
    return RegisteredModel.of(found)


def present_features(**changes: str) -> RegisteredModel:
    from genres.audio.gtzan57 import GTZAN57

    return version(feature_version=GTZAN57.feature_version, **changes)


CHAMPIONS: dict[str, tuple[Callable[[], RegisteredModel | None], str]] = {
    "missing": (lambda: None, "no champion model for dataset 'mine' yet: the clips wait until there is one"),
    "without a folder": (
        present_features,
        "the directory of genres-mine version 3, hdfs://h/genres/mine/models/v3, is gone; ",
    ),
    "of other features": (lambda: version(feature_version="gtzan57-0"), "features gtzan57-0 are not computed any more"),
    "with wrong tags": (
        lambda: present_features(is_calibrated="perhaps"),
        "genres-mine version 3 has tags that cannot be read: is_calibrated='perhaps'",
    ),
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GENRES_PORT_BASE", "64000")
    monkeypatch.setenv("GENRES_STREAM_DATASET", "mine")
    return Settings()


@pytest.fixture(params=CHAMPIONS)
def champion(request: pytest.FixtureRequest) -> tuple[Callable[[], RegisteredModel | None], str]:
    return CHAMPIONS[request.param]


@pytest.fixture
def database(settings: Settings) -> Database:
    database = Database(settings.database)
    database.migrate()
    ranges.record_plan(database, Plan(new=(Attempt(KEY),)))
    return database


@pytest.fixture
def failed_with(
    settings: Settings,
    database: Database,
    champion: tuple[Callable[[], RegisteredModel | None], str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Have a run try the range; return what it failed with."""
    for place, name, stand_in in (
        (stream_run, "topic_state", lambda settings, topic: TOPIC),
        (ledger, "registered_dataset", lambda database, name: Dataset(name, Path(), False, ("gtzan57",))),
        (RangeWork, "store_features", lambda *_, **__: StoredFeatures("/f", pa.table({"reason": [None] * 3}), 0.0)),
    ):
        monkeypatch.setattr(place, name, stand_in)
    context: Any = SimpleNamespace(run_id="run", log=logging.getLogger("run"), instance=None)
    mlflow: Any = SimpleNamespace(open=lambda: SimpleNamespace(find_champion=lambda dataset: champion[0]()))
    files: Any = SimpleNamespace(isdir=lambda path: False)
    lake = Lake(files, hdfs="hdfs://h", root="/genres")
    spark: Any = SimpleNamespace(spark_session=None)
    stream = Stream(settings.streams[0])
    run = StreamRun(context, stream, settings, lake, database, mlflow, spark)
    with pytest.raises(GenresError) as failed, run.lease(drains=Shard()), closing(run):
        list(run.work(KEY, {stream.features, stream.predictions}, 1))
    return str(failed.value)


@pytest.fixture
def reason(champion: tuple[object, str]) -> str:
    return champion[1]


def test_the_run_fails_with_the_reason_and_the_range_waits(database: Database, failed_with: str, reason: str) -> None:
    assert failed_with.startswith(reason)
    found = ranges.find(database, KEY)
    assert (found.state, found.reason) == ("planned", failed_with)
    waits_without_backing_off = failed_with.startswith(stream_run.NO_CHAMPION)
    assert found.failures == (0 if waits_without_backing_off else 1)


def test_both_sensors_say_why_clips_wait(
    settings: Settings, database: Database, failed_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: TOPIC)
    monkeypatch.setattr(sensors, "wait_for_data", lambda *_, **__: False)
    stream = Stream(settings.streams[0])
    for sensor in (build_audio_clips_sensor(stream), build_range_reconciler(stream)):
        needed = {"settings": settings, "database": database, "mlflow": MlflowResource(tracking_uri="http://h:1")}
        resources = {name: needed[name] for name in sensor.required_resource_keys}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, resources=resources) as context,
        ):
            assert f"3 clips wait: {failed_with}" in (sensor.evaluate_tick(context).skip_message or "")


def test_the_sensor_says_it_too_while_another_run_drains(
    settings: Settings, database: Database, failed_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: TOPIC)
    monkeypatch.setattr(sensors.leases, "holders", lambda *_: {0: "a run"})
    sensor = build_audio_clips_sensor(Stream(settings.streams[0]))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources={"settings": settings, "database": database}) as context,
    ):
        said = sensor.evaluate_tick(context).skip_message or ""
    assert said.startswith(f"a run is draining audio_clips; 3 clips wait: {failed_with}")


@pytest.mark.usefixtures("database")
def test_status_says_why_clips_wait(failed_with: str, capsys: pytest.CaptureFixture[str]) -> None:
    stack._show_status(as_json=False)
    assert f"stream audio_clips: 3 clips wait: {failed_with}\n" in capsys.readouterr().out
    stack._show_status(as_json=True)
    (row,) = [row for row in json.loads(capsys.readouterr().out) if row["service"] == "stream"]
    assert (row["state"], row["reason"]) == ("waiting", f"3 clips wait: {failed_with}")
    assert row.keys() == set(ServiceStatus._fields)


@pytest.mark.usefixtures("failed_with")
def test_nothing_is_said_any_more_once_a_run_is_at_it_again(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    ranges.record_plan(database, Plan(retry=(Attempt(KEY, 2),)), now=datetime.now(UTC) + timedelta(hours=1))
    ranges.begin_attempt(database, KEY, "another run", attempt=2)
    stack._show_status(as_json=False)
    assert "clips wait" not in capsys.readouterr().out


def test_facts_cover_what_these_tests_change() -> None:
    assert {"feature_version", "is_calibrated", "spark_model_path"} <= ModelFacts.model_fields.keys()

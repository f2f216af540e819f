"""Who trains again without being asked: after how much change, for which datasets, and how often."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pandas as pd
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from fsspec.implementations.local import LocalFileSystem

from genre_assets import retraining
from genre_assets.definitions import build_defs
from genre_assets.retraining import changed_share, changed_since_training, drift_check, stays_red
from genres.settings import Settings, StreamSettings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset, register_dataset
from genres.store.schemas import RAW_AUDIO
from genres_dagster.partitions import DATASETS
from streaming_sensors.stream import Stream

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)
CHAIN = {
    *("audio_features", "track_split", "genre_classifiers", "calibrated_classifier", "champion_model"),
    "batch_predictions",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path)


def materialized(instance: dg.DagsterInstance, asset: str, dataset: str) -> None:
    instance.add_dynamic_partitions(str(DATASETS.name), [dataset])
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=dataset))


def test_a_new_manifest_of_which_a_tenth_changed_starts_the_whole_chain(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"changed": 0.11, "same": 0.1, "fresh": None}
    asked = []

    def share(settings: Settings, dataset: str) -> float | None:
        asked.append(dataset)
        return shares[dataset]

    monkeypatch.setattr(retraining, "changed_since_training", share)
    definitions = build_defs(settings=settings)
    for dataset in shares:
        materialized(instance, "raw_audio", dataset)
    selection = dg.AssetSelection.assets(*CHAIN)
    before = dg.evaluate_automation_conditions(definitions, instance=instance, asset_selection=selection)
    assert before.total_requested == 0, "what was there when the sensor was turned on is not new"
    assert asked == []
    for dataset in shares:
        materialized(instance, "raw_audio", dataset)
    result = dg.evaluate_automation_conditions(
        definitions, instance=instance, asset_selection=selection, cursor=before.cursor
    )
    for asset in CHAIN:
        assert result.get_requested_partitions(dg.AssetKey(asset)) == {"changed"}, asset
    again = dg.evaluate_automation_conditions(
        definitions, instance=instance, asset_selection=selection, cursor=result.cursor
    )
    assert again.total_requested == 0, "one manifest is one training, whatever becomes of it"


class Ticks:
    """Evaluates the conditions tick by tick, as the sensor does, while runs of the whole batch half come and go."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self._definitions, self._instance = build_defs(settings=settings), instance
        self._cursor: Any = None

    def __call__(self) -> set[str]:
        """Return the datasets for which all of the chain is asked for; never is it a part."""
        result = dg.evaluate_automation_conditions(
            self._definitions,
            instance=self._instance,
            asset_selection=dg.AssetSelection.assets(*CHAIN),
            cursor=self._cursor,
        )
        self._cursor = result.cursor
        first, *others = (result.get_requested_partitions(dg.AssetKey(asset)) for asset in CHAIN)
        assert all(other == first for other in others)
        return {str(key) for key in first}

    def begun(self, dataset: str) -> dg.DagsterRun:
        """Begin a run in which nothing is made yet."""
        job = self._definitions.resolve_job_def("batch_pipeline")
        tags = {"dagster/partition": dataset}
        return self._instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)

    def made(self, run: dg.DagsterRun, dataset: str, *assets: str) -> None:
        """Have the run make assets."""
        for asset in assets:
            made = StepMaterializationData(dg.AssetMaterialization(asset, partition=dataset))
            self._say(run, DagsterEventType.ASSET_MATERIALIZATION, made)

    def ended(self, run: dg.DagsterRun, how: DagsterEventType = DagsterEventType.RUN_SUCCESS) -> None:
        """End a run."""
        self._say(run, how, None)

    def _say(self, run: dg.DagsterRun, kind: DagsterEventType, data: Any) -> None:
        event = DagsterEvent(kind.value, run.job_name, event_specific_data=data)
        self._instance.report_dagster_event(event, run.run_id)


def test_audio_that_changes_while_a_training_is_under_way_is_trained_on_afterwards(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {"own": 0.5, "other": 0.5}
    looked: list[str] = []
    monkeypatch.setattr(
        retraining, "changed_since_training", lambda _, dataset: looked.append(dataset) or shares[dataset]
    )
    ticks = Ticks(settings, instance)
    for dataset in shares:
        materialized(instance, "raw_audio", dataset)
    assert ticks() == set()
    run = ticks.begun("own")
    materialized(instance, "raw_audio", "own")
    assert ticks() == set()
    # The run makes one asset after the other; of the first it has nothing in progress from now on.
    ticks.made(run, "own", "raw_audio", "audio_features", "track_split", "genre_classifiers")
    assert ticks() == set()
    assert looked == [], "what changed is asked when there is time for it"
    materialized(instance, "raw_audio", "other")
    assert ticks() == {"other"}, "one dataset waits for no other"
    ticks.made(run, "own", "calibrated_classifier", "champion_model", "batch_predictions")
    ticks.ended(run)
    assert ticks() == {"own"}
    assert ticks() == set(), "what waited is served once"
    # A training after whose manifest nothing came has nothing left to do, however it ends.
    looked.clear()
    run = ticks.begun("own")
    assert ticks() == set()
    ticks.ended(run, DagsterEventType.RUN_FAILURE)
    assert ticks() == set()
    assert looked == []
    # What changed little in the meantime is looked at once.
    shares["own"] = 0.05
    run = ticks.begun("own")
    materialized(instance, "raw_audio", "own")
    assert ticks() == set()
    ticks.ended(run)
    assert ticks() == ticks() == set()
    assert looked == ["own"]


def test_the_automation_is_on_and_the_schedule_is_off(settings: Settings) -> None:
    definitions = build_defs(settings=settings)
    for name in ("retrain_on_changed_audio", "retrain_on_drift"):
        assert definitions.resolve_sensor_def(name).default_status == dg.DefaultSensorStatus.RUNNING
    schedule = definitions.resolve_schedule_def("retrain_weekly")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert (schedule.job_name, schedule.cron_schedule) == ("batch_pipeline", "0 3 * * 1")


def test_the_schedule_trains_each_dataset_that_was_trained_on_before(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings=settings)
    schedule = definitions.resolve_schedule_def("retrain_weekly")

    def tick() -> Any:
        context = dg.build_schedule_context(
            instance, scheduled_execution_time=NOW, repository_def=definitions.get_repository_def()
        )
        return schedule.evaluate_tick(context)

    assert tick().skip_message == "no dataset was trained on yet"
    materialized(instance, "raw_audio", "loaded")
    for dataset in ("first", "second", "deleted"):
        materialized(instance, "genre_classifiers", dataset)
    instance.delete_dynamic_partition(str(DATASETS.name), "deleted")
    requests = tick().run_requests
    assert [request.partition_key for request in requests] == ["first", "second"]
    assert len({request.run_key for request in requests}) == 2


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        ("abcdefghij", "abcdefghij", 0.0),
        ("abcdefghij", "abcdefghijk", 0.1),
        ("abcdefghij", "bcdefghij", 0.1),
        ("abcdefghij", "Abcdefghij", 0.2),
        ("", "a", 1.0),
    ],
)
def test_what_came_and_what_went_counts(before: str, now: str, share: float) -> None:
    assert changed_share({(clip, "jazz") for clip in before}, {(clip, "jazz") for clip in now}) == pytest.approx(share)


def test_another_label_is_another_clip() -> None:
    assert changed_share({("a", "jazz")}, {("a", "rock")}) == 2


class Folder(LocalFileSystem):
    """A local folder that stands for HDFS."""

    def rename(self, path: str, to: str) -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)


def manifest(clips: str, refused: str = "") -> pd.DataFrame:
    rows = [
        {
            **{
                column.name: 1 if column.kind in ("int", "bigint", "smallint", "double") else "x"
                for column in RAW_AUDIO.columns
            },
            "track_id": f"jazz.{clip}",
            "genre": "jazz",
            "sha256": clip,
            "status": "quarantined" if clip in refused else "accepted",
        }
        for clip in clips + refused
    ]
    return pd.DataFrame(rows)


def test_change_is_measured_since_the_newest_training_began(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.database)
    database.migrate()
    lake = Lake(cast("Any", Folder(auto_mkdir=True)), hdfs="", root=str(tmp_path / "lake"))
    tables = BatchTables(lake, database, "own")
    trained: list[datetime] = []
    registry = SimpleNamespace(
        find_latest_run=lambda dataset, stage: (
            SimpleNamespace(info=SimpleNamespace(start_time=trained[-1].timestamp() * 1000)) if trained else None
        )
    )
    monkeypatch.setattr(retraining, "ModelRegistry", lambda uri: registry)
    monkeypatch.setattr(Lake, "of", lambda settings: lake)
    tables.publish_manifest(manifest("abcdefghij", refused="x"), run_id="r")
    assert changed_since_training(settings, "own") is None, "it was never trained on"
    trained.append(datetime.now(UTC))
    assert changed_since_training(settings, "own") == 0
    tables.publish_manifest(manifest("abcdefghijk", refused="xyz"), run_id="r")
    assert changed_since_training(settings, "own") == pytest.approx(0.1)
    tables.publish_manifest(manifest("abcdefghijkl"), run_id="r")
    assert changed_since_training(settings, "own") == pytest.approx(0.2), "small changes add up"
    trained.append(datetime.now(UTC))
    assert changed_since_training(settings, "own") == 0


def minutes_ago(*minutes: float, passed: bool = False) -> list[tuple[datetime, bool]]:
    return [(NOW - timedelta(minutes=ago), passed) for ago in minutes]


@pytest.mark.parametrize(
    ("outcomes", "stays"),
    [
        ([], False),
        (minutes_ago(1, 30, 60), True),
        (minutes_ago(1, 30, 59), False),
        (minutes_ago(1, 90), False),
        (minutes_ago(1, 30) + minutes_ago(40, passed=True) + minutes_ago(90, 120), False),
        (minutes_ago(1, 30, 70) + minutes_ago(90, passed=True), True),
        (minutes_ago(1, passed=True) + minutes_ago(30, 60, 90), False),
    ],
)
def test_red_for_long_enough_and_often_enough(outcomes: list[tuple[datetime, bool]], stays: bool) -> None:
    assert stays_red(outcomes, NOW) is stays


@pytest.mark.parametrize("name", ["", "radio"])
def test_the_drift_check_is_the_streams(name: str, tmp_path: Path) -> None:
    stream = StreamSettings(name=name, topic="clips", watch_folder=tmp_path)
    assert drift_check(stream).asset_key == Stream(stream).results


def evaluated(instance: dg.DagsterInstance, stream: StreamSettings, *, passed: bool, compared: bool = True) -> None:
    key = drift_check(stream)
    metadata = {"drifted_share": 0.5} if compared else {}
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=passed, metadata=metadata)
    )


def test_drift_that_stays_trains_once_until_it_is_over(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "_RED_FOR", timedelta(0))
    settings = settings.model_copy(update={"stream_dataset": "own"})
    database = Database(settings.database)
    database.migrate()
    register_dataset(database, Dataset("own", Path("own"), is_synthetic=False, feature_sets=("gtzan57",)))
    sensor = build_defs(settings=settings).resolve_sensor_def("retrain_on_drift")
    cursor = None

    def tick() -> list[str | None]:
        nonlocal cursor
        context = dg.build_sensor_context(
            instance,
            cursor=cursor,
            resources={"settings": settings, "database": database},
        )
        result = cast("dg.SensorResult", sensor(context))
        cursor = result.cursor
        return [request.partition_key for request in result.run_requests or ()]

    (stream,) = settings.streams
    for _ in range(5):
        evaluated(instance, stream, passed=False, compared=False)
    materialized(instance, "genre_classifiers", "own")
    assert tick() == [], "nothing to compare with is no drift"
    for _ in range(2):
        evaluated(instance, stream, passed=False)
    assert tick() == []
    evaluated(instance, stream, passed=False)
    assert tick() == ["own"]
    evaluated(instance, stream, passed=False)
    assert tick() == [], "the same drift is answered once"
    evaluated(instance, stream, passed=True)
    assert tick() == []
    for _ in range(3):
        evaluated(instance, stream, passed=False)
    assert tick() == ["own"]


def test_a_dataset_that_was_never_trained_on_is_not_trained_on_for_drift(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraining, "_RED_FOR", timedelta(0))
    database = Database(settings.database)
    database.migrate()
    sensor = build_defs(settings=settings).resolve_sensor_def("retrain_on_drift")
    for _ in range(3):
        evaluated(instance, settings.streams[0], passed=False)
    context = dg.build_sensor_context(instance, resources={"settings": settings, "database": database})
    assert not sensor.evaluate_tick(context).run_requests

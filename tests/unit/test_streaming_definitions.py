"""The streaming code location as a whole, and what its sensors count: it loads lightly and says what it is."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions import freshness_evaluator
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import create_run_for_test

from genres.audio.gtzan57 import GTZAN57
from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import commits, leases, producers, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.producers import SILENT_S, Producer
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan, Split, StreamRange
from genres_dagster.launch import open_instance
from genres_dagster.resources import MlflowResource
from streaming_sensors import sensors
from streaming_sensors.definitions import build_defs
from streaming_sensors.sensors import (
    _losses,
    build_audio_clips_sensor,
    build_range_reconciler,
    lag,
    with_champion,
)
from streaming_sensors.stream import Stream
from streaming_sensors.stream_checks import build_stream_checks
from streaming_sensors.stream_run import NO_CHAMPION
from streaming_sensors.topic import TopicState

UPSTREAM = {
    "audio_clips": set(),
    "stream_features": {"audio_clips"},
    "stream_predictions": {"stream_features", "champion_model"},
    "streaming_results": {"stream_predictions"},
    "maintenance": set(),
}
SENSORS = {
    "audio_clips_sensor": "stream_batch_job",
    "audio_clips_observer": None,
    "range_reconciler": "stream_batch_job",
    "streaming_results_sensor": "streaming_results_job",
}
CHECKS = {
    ("audio_clips", "nothing_lost"),
    ("audio_clips", "producer_alive"),
    ("audio_clips", "consumer_lag"),
    ("stream_predictions", "complete"),
    ("stream_predictions", "quarantine_rate"),
    *(("streaming_results", name) for name in ("label_set", "feature_drift", "prediction_drift", "batch_checks")),
}
STREAM = Stream(Settings(stream_dataset="mine").streams[0])
HEAVY = (
    *("pyspark.ml", "pyspark.sql.connect", "librosa", "mlflow", "sklearn", "matplotlib", "scipy", "numba", "kafka"),
    *("numpy", "pandas", "pyarrow", "sqlalchemy", "requests", "fsspec"),
)


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_defs(settings=Settings(state_dir=tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    found = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    return {name: spec for name, spec in found.items() if name != "champion_model"}  # it lives in the batch location


def test_the_graph_is_the_one_that_we_know(specs: dict[str, dg.AssetSpec]) -> None:
    assert {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs.items()} == UPSTREAM


def test_the_checks_are_the_ones_that_we_know(definitions: dg.Definitions) -> None:
    keys = definitions.resolve_asset_graph().asset_check_keys
    assert {(key.asset_key.to_user_string(), key.name) for key in keys} == CHECKS


@pytest.mark.parametrize("asset", UPSTREAM)
def test_every_asset_says_what_it_is(specs: dict[str, dg.AssetSpec], asset: str) -> None:
    spec = specs[asset]
    assert spec.group_name == ("maintenance" if asset == "maintenance" else "streaming")
    assert spec.owners == ["team:genres"]
    assert spec.kinds
    assert spec.description and len(spec.description) > 20


def test_offset_ranges_are_the_partitions(specs: dict[str, dg.AssetSpec]) -> None:
    partitioned = {name for name, spec in specs.items() if spec.partitions_def == STREAM.offset_ranges}
    assert partitioned == {"stream_features", "stream_predictions"}


@pytest.mark.parametrize("sensor", SENSORS)
def test_every_sensor_says_what_it_does_and_is_on(definitions: dg.Definitions, sensor: str) -> None:
    found = definitions.resolve_sensor_def(sensor)
    assert found.description and len(found.description) > 20
    assert found.default_status == dg.DefaultSensorStatus.RUNNING
    assert (found.job_name if found.targets else None) == SENSORS[sensor]


def test_maintenance_is_swept_every_hour_and_by_hand(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("maintenance_schedule")
    assert (schedule.job_name, schedule.default_status) == ("maintenance_job", dg.DefaultScheduleStatus.RUNNING)
    job = definitions.resolve_job_def("maintenance_job")
    assert job.asset_layer.selected_asset_keys == {dg.AssetKey("maintenance")}


def test_predictions_have_a_freshness_policy_which_the_daemon_watches(specs: dict[str, dg.AssetSpec]) -> None:
    assert [name for name, spec in specs.items() if spec.freshness_policy] == ["stream_predictions"]


def test_a_backfill_of_many_ranges_is_one_run(definitions: dg.Definitions) -> None:
    batch = definitions.resolve_assets_def("stream_predictions")
    assert batch.backfill_policy == dg.BackfillPolicy.single_run()


def test_a_run_may_make_either_output_alone(definitions: dg.Definitions) -> None:
    batch = definitions.resolve_assets_def("stream_predictions")
    assert batch.can_subset
    assert all(spec.skippable for spec in batch.specs)


def test_described_columns_are_the_stored_ones(specs: dict[str, dg.AssetSpec], database: Database) -> None:
    def described(asset: str) -> set[str]:
        schema = specs[asset].metadata["dagster/column_schema"]
        assert all(column.description and column.type for column in schema.columns)
        return {column.name for column in schema.columns}

    stored = sa.Table("stream_predictions", sa.MetaData(), autoload_with=database.engine)
    assert described("stream_predictions") == {column.name for column in stored.columns}
    assert set(GTZAN57.columns) < described("stream_features")
    lineage = specs["stream_predictions"].metadata["dagster/column_lineage"]
    assert set(lineage.deps_by_column) <= described("stream_predictions")
    sources = {source.column_name for deps in lineage.deps_by_column.values() for source in deps}
    assert sources <= described("stream_features")


def test_loading_the_location_is_light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path))
    program = (
        "import sys, streaming_sensors.definitions\n"
        "streaming_sensors.definitions.defs()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_every_loss_is_a_loud_failed_check() -> None:
    gap = Lost(key(0, 4), "retention took it")
    part = Lost(key(10, 12), "retention took a part")
    whole = Split(key(20, 24), planned=(key(20, 22), key(22, 24)))
    plan = Plan(lost=(gap,), split=(Split(key(10, 15), planned=(key(12, 15),), lost=part), whole))
    found = _losses(STREAM, plan)
    assert [check.metadata["offsets"].value for check in found] == [str(gap.key), str(part.key)]
    for check, entry in zip(found, (gap, part), strict=True):
        assert (check.passed, check.severity, check.check_name) == (False, dg.AssetCheckSeverity.ERROR, "nothing_lost")
        assert check.description == f"{entry.key}: {entry.reason}"
        assert check.metadata["clips"].value == len(entry.key)
    assert _losses(STREAM, Plan()) == []


def test_lag_counts_what_is_neither_committed_nor_lost(database: Database) -> None:
    def state(beginnings: dict[int, int], ends: dict[int, int], topic_id: str = "A") -> TopicState:
        return TopicState("clips", topic_id, beginnings, ends)

    assert lag(database, state({0: 0, 1: 0}, {0: 0, 1: 0})) == 0
    both = {0: 5, 1: 0}, {0: 25, 1: 7}
    assert lag(database, state(*both)) == 27

    first, second = key(5, 15), key(15, 25)
    ranges.record_plan(database, Plan(new=(Attempt(first), Attempt(second))))
    assert lag(database, state(*both)) == 27, "what is planned is not done"
    commits.commit_range(database, RangeResult(first, "run"))
    assert lag(database, state(*both)) == 17

    # Retention takes what was committed long ago: nothing that waits is gone by that.
    assert lag(database, state({0: 15, 1: 0}, both[1])) == 17
    # It takes three of the second range: those are lost, and wait no longer.
    gone, rest = second.between(15, 18), second.between(18, 25)
    ranges.record_plan(database, Plan(split=(Split(second, planned=(rest,), lost=Lost(gone, "retention")),)))
    assert lag(database, state({0: 18, 1: 0}, both[1])) == 14
    commits.commit_range(database, RangeResult(rest, "run"))
    assert lag(database, state({0: 18, 1: 0}, both[1])) == 7

    # A recreated topic begins again, and a partition that was added counts at once.
    assert lag(database, state({0: 0, 1: 0, 2: 0}, {0: 1, 1: 2, 2: 3}, topic_id="B")) == 6


def test_a_silent_producer_fails_its_check(database: Database) -> None:
    (alive,) = [
        found for found in build_stream_checks(STREAM) if [key.name for key in found.check_keys] == ["producer_alive"]
    ]

    def evaluate() -> dg.AssetCheckResult:
        return alive(settings=Settings(stream_dataset="mine"), database=database)

    found = evaluate()
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "not running, and never was" in (found.description or "")
    producer = beat_of(datetime.now(UTC))
    producers.beat(database, producer)
    assert evaluate().passed
    producers.beat(database, beat_of(producer.beat_at - timedelta(seconds=SILENT_S)))
    found = evaluate()
    assert not found.passed
    assert "silent since" in (found.description or "")
    producers.beat(database, producer._replace(ended_at=producer.beat_at, last_error="why it ended"))
    found = evaluate()
    assert not found.passed
    assert "why it ended" in (found.description or "")


def test_the_sensor_says_when_the_producer_is_silent_and_evaluates_its_check(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = TopicState(STREAM.topic, "A" * 22, {0: 0}, {0: 0})
    monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: state)
    monkeypatch.setattr(sensors, "wait_for_data", lambda *_, **__: False)
    sensor = build_audio_clips_sensor(STREAM)
    settings = Settings(state_dir=tmp_path, stream_dataset="mine")

    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> tuple[str, list[bool]]:
            with dg.build_sensor_context(instance, resources={"settings": settings, "database": database}) as context:
                found = sensor.evaluate_tick(context)
            for event in found.asset_events:
                instance.report_runless_asset_event(event)
                assert (event.check_name, event.severity) == ("producer_alive", dg.AssetCheckSeverity.WARN)
            return found.skip_message or "", [event.passed for event in found.asset_events]

        def kafka_is_away(*_: object, **__: object) -> TopicState:
            raise GenresError("Kafka does not answer")

        silent = f"; the producer of {STREAM.settings.watch_folder} is"
        reason, events = tick()
        assert f"{silent} not running, and never was" in reason and events == [False]
        assert tick()[1] == [], "the outcome is the same"
        beat = beat_of(datetime.now(UTC))
        producers.beat(database, beat)
        reason, events = tick()
        assert silent not in reason and events == [True]
        producers.beat(database, beat_of(beat.beat_at - timedelta(seconds=SILENT_S)))
        monkeypatch.setattr(sensors, "topic_state", kafka_is_away)
        reason, events = tick()
        assert reason.startswith(f"Kafka does not answer{silent} silent since") and events == [False]
        monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: state._replace(ends={0: 3}))
        producers.beat(database, beat)
        with dg.build_sensor_context(instance, resources={"settings": settings, "database": database}) as context:
            launched = sensor(context)
        assert isinstance(launched, dg.SensorResult) and len(launched.run_requests or []) == 1
        evaluated = [event for event in launched.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
        assert [event.passed for event in evaluated] == [True]


def beat_of(at: datetime) -> Producer:
    return Producer(STREAM.topic, "here", "/drop", 5, at, at, None, None, 0, 0, 0)


def key(start: int, end: int) -> PartitionKey:
    return PartitionKey("clips", "A", 0, start, end)


def test_a_run_that_never_starts_holds_its_range_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        create_run_for_test(
            instance,
            job_name="stream_batch_job",
            status=dg.DagsterRunStatus.STARTING,
            tags={"dagster/partition": "a range"},
        )
        assert sensors._held(instance, STREAM) == {"a range"}
        monkeypatch.setattr(sensors, "_START_S", -1.0)
        assert not sensors._held(instance, STREAM)


def test_the_reconciler_asks_again_for_what_a_killed_run_left(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path, stream_dataset="mine")
    left = PartitionKey(STREAM.topic, "A" * 22, 0, 0, 3)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    ranges.record_plan(database, Plan(new=(Attempt(left),)), now=long_ago)
    ranges.begin_attempt(database, left, "a run that was killed", attempt=1, now=long_ago)
    monkeypatch.setattr(sensors, "topic_state", lambda *_: TopicState(STREAM.topic, "A" * 22, {0: 0}, {0: 3}))
    resources = {"settings": settings, "database": database, "mlflow": MlflowResource(tracking_uri="http://h:1")}
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources=resources) as context,
    ):
        found = build_range_reconciler(STREAM)(context)
    assert isinstance(found, dg.SensorResult)
    (request,) = found.run_requests or ()
    assert (request.partition_key, request.run_key) == (str(left), f"{left}#2")


class Sharded(NamedTuple):
    """A topic of three partitions with clips in each, and the sensors' ticks."""

    database: Database
    instance: dg.DagsterInstance
    folder: Path
    state: TopicState

    def tick(self, build: Callable[[Stream], dg.SensorDefinition], drains: int) -> tuple[dict[str, str], str]:
        """Return the shard of each partition key that a run was requested for, and the reason to skip."""
        settings = Settings(state_dir=self.folder, stream_dataset="mine", drains=drains)
        mlflow = MlflowResource(tracking_uri="http://h:1")
        resources = {"settings": settings, "database": self.database, "mlflow": mlflow}
        with dg.build_sensor_context(self.instance, resources=resources) as context:
            found = build(STREAM)(context)
        if isinstance(found, dg.SkipReason):
            return {}, found.skip_message or ""
        assert isinstance(found, dg.SensorResult)
        for request in found.run_requests or ():
            key = PartitionKey.parse(str(request.partition_key))
            last = key.end_offset - 1
            assert request.tags["genres/range"] == f"p{key.kafka_partition} offsets {key.start_offset}-{last}"
        shards = {str(request.partition_key): request.tags["genres/shard"] for request in found.run_requests or ()}
        limits = {request.tags["dagster/max_runtime"] for request in found.run_requests or ()}
        assert limits <= {"86400"}, "a host that is lost leaves no run started for ever"
        return shards, found.skip_reason.skip_message or "" if found.skip_reason else ""

    def range_of(self, partition: int, start: int = 0, end: int = 5) -> PartitionKey:
        return PartitionKey(STREAM.topic, self.state.topic_id, partition, start, end)


@pytest.fixture
def sharded(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sharded]:
    state = TopicState(STREAM.topic, "A" * 22, dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 5))
    monkeypatch.setattr(sensors, "topic_state", lambda *_: state)
    producers.beat(database, beat_of(datetime.now(UTC)))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Sharded(database, instance, tmp_path, state)


def test_the_sensor_asks_for_a_run_of_each_shard_that_nobody_drains(
    sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[tuple[float, list[int]]] = []

    def wait(settings: Settings, topic: str, ends: dict[int, int], timeout_s: float, concerns: Any) -> bool:
        waited.append((timeout_s, [number for number in range(9) if concerns(number)]))
        return False

    monkeypatch.setattr(sensors, "wait_for_data", wait)
    assert leases.acquire(sharded.database, STREAM.topic, "a run", 60, shard=1)
    requested, _ = sharded.tick(build_audio_clips_sensor, drains=3)
    assert requested == {str(sharded.range_of(0)): "0/3", str(sharded.range_of(2)): "2/3"}
    assert waited == []
    requested, why = sharded.tick(build_audio_clips_sensor, drains=3)
    assert (requested, "ranges in flight: 1" in why) == ({}, True), "they were asked for just now"
    assert waited == [(sensors._SHORT_POLL_S, [0, 2, 3, 5, 6, 8])], "the third shard's clips are its run's"
    for shard in (0, 2):
        assert leases.acquire(sharded.database, STREAM.topic, "a run", 60, shard=shard)
    assert sharded.tick(build_audio_clips_sensor, drains=3) == ({}, f"3 runs are draining {STREAM.topic}")


def test_more_drains_than_partitions_are_said_in_a_line(sharded: Sharded) -> None:
    requested, _ = sharded.tick(build_audio_clips_sensor, drains=5)
    assert sorted(requested.values()) == ["0/5", "1/5", "2/5"]
    for shard in range(3):
        assert leases.acquire(sharded.database, STREAM.topic, "a run", 60, shard=shard)
    assert sharded.tick(build_audio_clips_sensor, drains=5)[1] == (
        f"3 runs are draining {STREAM.topic}; 2 of 5 drains (GENRES_DRAINS) are idle: the topic has 3 partitions"
    )


def test_the_reconciler_serves_every_shard_in_a_tick(sharded: Sharded) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    left = [sharded.range_of(number, start, start + 2) for number in range(3) for start in (0, 2)]
    ranges.record_plan(sharded.database, Plan(new=tuple(map(Attempt, left))), now=long_ago)
    requested, _ = sharded.tick(build_range_reconciler, drains=3)
    assert requested == {str(sharded.range_of(number, 0, 2)): f"{number}/3" for number in range(3)}
    requested, _ = sharded.tick(build_range_reconciler, drains=1)
    assert requested == {}, "the range that is retried counts against the whole topic's limit now"


@pytest.mark.parametrize("has_champion", [False, True])
def test_what_waits_for_a_champion_is_tried_again_when_there_is_one(
    database: Database, tmp_path: Path, has_champion: bool
) -> None:
    class Registry:
        def open(self) -> "Registry":
            return self

        def find_champion(self, dataset: str) -> str | None:
            return "a model" if has_champion and dataset == "mine" else None

    settings = Settings(state_dir=tmp_path, stream_dataset="mine")
    waiting, killed = (PartitionKey("t", "A" * 22, 0, start, start + 3) for start in (0, 3))
    now = datetime.now(UTC)
    known = [
        StreamRange(waiting, "planned", now, reason=f"{NO_CHAMPION} for dataset 'mine' yet: the clips wait"),
        StreamRange(killed, "planned", now, reason=None),
    ]
    retry = (Attempt(waiting, 2), Attempt(killed, 2))
    left, why = with_champion(retry, known, STREAM, settings, database, Registry())  # type: ignore[arg-type]
    assert left == (retry if has_champion else retry[1:])
    assert why == ("" if has_champion else f"3 clips: {NO_CHAMPION} for dataset 'mine' yet: the clips wait")


def test_an_outage_of_mlflow_leaves_out_what_waits_for_a_champion_and_nothing_else(
    database: Database, tmp_path: Path
) -> None:
    """Else what retention took would not be written down, nor would the other ranges be tried again."""

    class Registry:
        def open(self) -> "Registry":
            return self

        def find_champion(self, dataset: str) -> str | None:
            raise GenresError("MLflow does not answer")

    settings = Settings(state_dir=tmp_path, stream_dataset="mine")
    waiting, killed = (PartitionKey("t", "A" * 22, 0, start, start + 3) for start in (0, 3))
    known = [StreamRange(waiting, "planned", datetime.now(UTC), reason=f"{NO_CHAMPION} for dataset 'mine' yet")]
    retry = (Attempt(waiting, 2), Attempt(killed, 2))
    left, why = with_champion(retry, known, STREAM, settings, database, Registry())  # type: ignore[arg-type]
    assert left == retry[1:]
    assert why == "3 clips: MLflow does not answer"


def test_predictions_go_stale_while_nothing_arrives(
    definitions: dg.Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = definitions.resolve_asset_graph().get(STREAM.predictions)
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back at the end
    with open_instance(Settings(state_dir=tmp_path)) as instance:
        assert instance.freshness_enabled, "the daemon evaluates it"

        def state_after(hours: float) -> str:
            monkeypatch.setattr(freshness_evaluator, "get_current_timestamp", lambda: time.time() + hours * 3600)
            context = LoadingContextForTest(instance)
            return asyncio.run(TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(context, node)).value

        assert state_after(0) == "UNKNOWN", "nothing was ever predicted"
        instance.report_runless_asset_event(dg.AssetMaterialization(STREAM.predictions, partition="a range"))
        assert [state_after(hours) for hours in (0, 5, 7, 49)] == ["PASS", "PASS", "WARN", "FAIL"]

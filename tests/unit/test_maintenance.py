"""The maintenance asset: what waits in a topic holds its claim checks, what Dagster shows holds its runs."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.test_utils import create_run_for_test, freeze_time

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.compaction import Compacted
from genres.store.database import Database
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan
from genres_dagster import run_records
from genres_dagster.resources import LakeResource, MlflowResource
from streaming_sensors import maintenance as module
from streaming_sensors.maintenance import MaintenanceConfig, _unfinished, maintenance
from streaming_sensors.topic import TopicState
from tests.fake_webhdfs import FakeWebHdfs

DAY_S = 24 * 3600.0
ID = "A" * 22
TOPIC = "clips"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, topic=TOPIC, keep_partitions=100, keep_runs=100)


@pytest.fixture
def database(settings: Settings) -> Database:
    made = Database(settings.database)
    made.migrate()
    return made


def key(start: int, end: int, *, topic_id: str = ID) -> PartitionKey:
    return PartitionKey(TOPIC, topic_id, 0, start, end)


def has_topic(monkeypatch: pytest.MonkeyPatch, *, end: int, sent_before: int, beginning: int = 0) -> None:
    """Let the topic reach to `end`; the first `sent_before` messages are old."""
    state = TopicState(TOPIC, ID, {0: beginning}, {0: end})
    monkeypatch.setattr(module, "topic_state", lambda *_, **__: state)
    monkeypatch.setattr(module, "offsets_at", lambda *_, **__: {0: sent_before})


def test_a_message_holds_the_claim_checks_of_its_day_until_it_is_done_with(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held() -> str:
        return _unfinished(settings, database, datetime.now(UTC))

    has_topic(monkeypatch, end=20, sent_before=10)
    assert "clips, partition 0: messages that are as old wait, 0 to 9" in held(), "nobody has planned them yet"
    first, second, third = key(0, 5), key(5, 10), key(10, 20)
    ranges.record_plan(database, Plan(new=tuple(map(Attempt, (first, second, third)))))
    assert "wait, 0 to 9" in held(), "planned is not done"
    commits.commit_range(database, RangeResult(second, "run"))
    assert "wait, 0 to 9" in held(), "the one that is done comes after the one that is not"
    ranges.begin_attempt(database, first, "run")
    assert "wait, 0 to 9" in held(), "a run is at it"
    commits.commit_range(database, RangeResult(first, "run"))
    assert held() == "", "what waits was sent later"
    has_topic(monkeypatch, end=20, sent_before=12)
    assert "wait, 10 to 11" in held()
    # Kafka itself does not have them any more: nobody will ever ask for their claim checks.
    has_topic(monkeypatch, end=20, sent_before=12, beginning=12)
    assert held() == ""


def test_a_range_of_a_topic_that_was_recreated_holds_claim_checks_until_it_is_given_up(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = key(0, 5, topic_id="B" * 22)
    ranges.record_plan(database, Plan(new=(Attempt(earlier),)))
    has_topic(monkeypatch, end=0, sent_before=0)
    assert "earlier topic 'clips'" in _unfinished(settings, database, datetime.now(UTC))
    ranges.record_plan(database, Plan(lost=(Lost(earlier, "recreated"),)))
    assert _unfinished(settings, database, datetime.now(UTC)) == ""


def test_a_stream_that_was_taken_out_of_the_settings_still_holds_its_claim_checks(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges.record_plan(database, Plan(new=(Attempt(PartitionKey("former", ID, 0, 0, 4)),)))
    asked: list[str] = []

    def state(_: Settings, topic: str) -> TopicState:
        asked.append(topic)
        return TopicState(topic, ID, {0: 0}, {0: 4 if topic == "former" else 0})

    monkeypatch.setattr(module, "topic_state", state)
    monkeypatch.setattr(module, "offsets_at", lambda _, topic, __: {0: 4 if topic == "former" else 0})
    assert "former, partition 0: messages that are as old wait, 0 to 3" in _unfinished(
        settings, database, datetime.now(UTC)
    )
    assert asked == ["clips", "former"]


Sweep = Callable[..., dict[str, Any]]


@pytest.fixture
def sweep(settings: Settings, database: Database, instance: dg.DagsterInstance, server: FakeWebHdfs) -> Sweep:
    """Materialize ``maintenance`` and return its figures."""

    def materialized(*, dry_run: bool = False) -> dict[str, Any]:
        with dg.build_asset_context(instance=instance) as context:
            result = maintenance(
                context,
                MaintenanceConfig(dry_run=dry_run),
                settings=settings,
                lake=LakeResource(webhdfs=server.url, hdfs="hdfs://here:1", root="/genres", user="me"),
                database=database,
                mlflow=MlflowResource(tracking_uri="http://127.0.0.1:1"),
            )
        return {name: getattr(value, "value", value) for name, value in result.metadata.items()}

    return materialized


@pytest.mark.parametrize("exception", ["SnapshotException", "IllegalArgumentException"])
def test_what_nobody_has_a_better_word_for_leaves_the_other_kinds(
    sweep: Sweep, server: FakeWebHdfs, monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    """A folder that somebody has taken a snapshot of cannot be deleted, say."""

    def too_large(*_: object, **__: object) -> Compacted:
        raise pa.ArrowCapacityError("array cannot contain more than 2147483646 bytes")

    monkeypatch.setattr(module, "_compacted", too_large)
    has_topic(monkeypatch, end=0, sent_before=0)
    server.files["/genres/stream/claims/2026-01-02/a.wav"] = b"12345"
    server.namenode_faults = [(403, (exception, "it is snapshottable\n\tat org.apache.hadoop"))]
    said = sweep()
    assert "| attempts | 0 | 0 | it is snapshottable |" in said["swept"]
    assert (said["not_merged_files"], said["claim_checks_bytes"]) == (1, 5)


def test_an_outage_of_one_kind_leaves_the_others_and_a_dry_run_leaves_all(
    sweep: Sweep, server: FakeWebHdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = "/genres/stream/claims/2026-01-02"
    files = {f"{day}/a.wav": b"12345", "/genres/_tmp/clips/b": b"123"}
    server.files, server.ages_s = dict(files), {"/genres/_tmp/clips/b": 2 * DAY_S}

    has_topic(monkeypatch, end=0, sent_before=0)
    said = sweep(dry_run=True)
    assert (said["dry_run"], said["entries"], said["bytes"]) == (True, 2, 8)
    assert server.files == files

    def away(*_: object, **__: object) -> TopicState:
        raise GenresError("Kafka does not answer")

    monkeypatch.setattr(module, "topic_state", away)
    said = sweep()
    assert (said["entries"], said["bytes"], said["attempts_bytes"], said["claim_checks_bytes"]) == (1, 3, 3, 0)
    assert "| claim checks | 0 | 0 | Kafka does not answer |" in said["swept"]
    assert set(server.files) == {f"{day}/a.wav"}
    has_topic(monkeypatch, end=3, sent_before=3)
    assert "| claim checks | 0 | 0 | clips, partition 0: messages" in sweep()["swept"]
    has_topic(monkeypatch, end=3, sent_before=0)
    said = sweep()
    assert (said["claim_checks_entries"], said["claim_checks_bytes"]) == (1, 5)
    assert not server.files
    assert sweep()["entries"] == 0


def test_features_are_kept_for_as_long_as_the_settings_say(
    settings: Settings, database: Database, instance: dg.DagsterInstance, server: FakeWebHdfs
) -> None:
    lake = LakeResource(webhdfs=server.url, hdfs="hdfs://here:1", root="/genres", user="me")
    key = PartitionKey(TOPIC, "A", 0, 0, 5)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    result = RangeResult(key, "run", feature_path="/genres/x.parquet", feature_version="gtzan57-1")
    commits.commit_range(database, result, now=datetime.now(UTC) - timedelta(days=400))
    for days, gone in ((0, 0), (500, 0), (300, 1)):
        with dg.build_asset_context(instance=instance) as context:
            said = maintenance(
                context,
                MaintenanceConfig(dry_run=False),
                settings=settings.model_copy(update={"keep_features_days": days}),
                lake=lake,
                database=database,
                mlflow=MlflowResource(tracking_uri="http://127.0.0.1:1"),
            )
        assert said.metadata["stream_features_entries"] == gone
        assert (ranges.find(database, key).feature_path is None) == bool(gone)


def test_runs_that_made_what_dagster_shows_are_kept(instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    shown, parted = dg.AssetKey("shown"), dg.AssetKey("parted")

    def run(ended: float, *made: tuple[dg.AssetKey, str | None], over: bool = True) -> str:
        """A run that ended so many days ago."""
        with freeze_time(now - timedelta(days=ended)):
            status = dg.DagsterRunStatus.STARTED
            run = create_run_for_test(instance, job_name="a_job", status=status)
            for asset, partition in made:
                event = dg.AssetMaterialization(asset, partition=partition)
                instance.report_dagster_event(materialized(event), run.run_id)
            if over:
                instance.report_run_failed(run)
        return run.run_id

    newest_shown_before = run(9, (shown, None))
    run_of_one_that_is_gone = run(8, (parted, "gone too"))
    mixed = run(7, (parted, "gone"), (parted, "there"))
    at_work = run(6, over=False)
    newest_shown = run(5, (shown, None))
    plain = run(4)
    young = run(0.1)

    def old(**changed: Any) -> list[str]:
        given: dict[str, Any] = {
            "ended_before": now - timedelta(days=1),
            "keep": 100,
            "young_after": now - timedelta(days=1),
            "partitions": {parted: {"there"}},
        }
        return [found.run_id for found in run_records.old_runs(instance, **{**given, **changed})]

    assert old() == [newest_shown_before, run_of_one_that_is_gone, plain]
    assert old(partitions={}) == [newest_shown_before, plain], "of other assets all partitions exist"
    assert old(ended_before=now - timedelta(days=8.5)) == [newest_shown_before]
    # By number: of six that are over the newest two stay, and those that have to.
    assert old(ended_before=now - timedelta(days=100), keep=2) == [newest_shown_before, run_of_one_that_is_gone]
    assert young not in old(keep=0), "whatever the number, what is young stays"

    events = Path(instance.root_directory, "history", "runs")
    assert run_records.bytes_of(instance, plain) > 0
    for run_id in old():
        run_records.forget(instance, run_id)
    assert old() == []
    left = {record.dagster_run.run_id for record in instance.get_run_records()}
    assert left == {mixed, at_work, newest_shown, young}
    assert not list(events.glob(f"{plain}*")), "not even an empty file is left"
    newest = instance.get_latest_materialization_event(shown)
    assert newest and newest.run_id == newest_shown
    assert instance.get_materialized_partitions(parted) == {"gone", "there"}


def materialized(event: dg.AssetMaterialization) -> Any:
    from dagster._core.events import DagsterEvent, StepMaterializationData

    return DagsterEvent(
        dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="a_job",
        event_specific_data=StepMaterializationData(event),
    )


def test_what_a_forgotten_run_printed_goes_too(instance: dg.DagsterInstance) -> None:
    run_id = create_run_for_test(instance, job_name="a_job", status=dg.DagsterRunStatus.SUCCESS).run_id
    output = Path(instance.root_directory, "storage", run_id, "compute_logs", "a_step.out")
    output.parent.mkdir(parents=True)
    output.write_bytes(bytes(5000))
    assert run_records.bytes_of(instance, run_id) >= 5000
    run_records.forget(instance, run_id)
    assert not output.exists()
    assert run_records.bytes_of(instance, run_id) == 0


def test_old_partitions_go_and_unfinished_ones_stay(
    settings: Settings, database: Database, instance: dg.DagsterInstance
) -> None:
    stream = module.Stream(settings.streams[0])
    keys = [key(number, number + 1) for number in range(104)]
    ranges.record_plan(database, Plan(new=tuple(map(Attempt, keys))), now=datetime.fromtimestamp(time.time(), UTC))
    instance.add_dynamic_partitions("offset_range", list(map(str, keys)))
    assert module._old_partitions(instance, stream, database, settings) == [], "all of them wait"
    for done in keys[1:]:
        commits.commit_range(database, RangeResult(done, "run"))
    assert module._old_partitions(instance, stream, database, settings) == list(map(str, keys[1:5]))

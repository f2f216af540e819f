"""How a streaming run goes through the topic: what is at work at the same time, and what a failure leaves behind."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import sqlalchemy as sa

from genres.audio.gtzan57 import GTZAN57
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger, tables
from genres.store.champions import ChampionChange
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.stream_ledger import commits, leases, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.leases import FencedError, Resident
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from spark import scoring
from streaming_sensors import offset_plan, stream_run
from streaming_sensors.offset_plan import Shard, next_range
from streaming_sensors.range_work import RangeWork, StoredFeatures
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import StreamRun
from streaming_sensors.topic import TopicState
from tests.stream_rig import wait_until

Commit = Callable[[PartitionKey], None]
TOPIC = TopicState("audio_clips", "A", {0: 0}, {0: 6})
RESIDENT = Resident("h", 7, 1.5)
FIRST, SECOND, THIRD = (PartitionKey("audio_clips", "A", 0, start, start + 2) for start in (0, 2, 4))


def version(number: int) -> SimpleNamespace:
    return SimpleNamespace(name="genres-tests", version=number, feature_version=GTZAN57.feature_version)


class Scorer:
    model = version(1)
    trained_on = Dataset("tests", Path(), is_synthetic=True, feature_sets=("gtzan57",))

    def close(self) -> None:
        pass


class Run:
    """A draining run on a topic of six clips, two a range; features and scores are stand-ins, the ledger is real."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = Settings(state_dir=tmp_path, stream_dataset="tests", max_clips_per_batch=2)
        self.database = Database(self.settings.database)
        self.database.migrate()
        self.begun: dict[PartitionKey, threading.Event] = defaultdict(threading.Event)
        self.before_commit: Commit = lambda key: None
        self.topic: Callable[[], TopicState] = lambda: TOPIC
        self.champion, self.asked = version(1), 0
        self.scored_by: dict[PartitionKey, int] = {}
        self.open_scorers = 0
        self.seconds, self.shard, self.holder = 0.0, Shard(), ""
        self.status = dg.DagsterRunStatus.STARTED
        self.while_waiting: Callable[[], object] = self.ask_to_end
        self.still_knows = True
        for place, name, stand_in in (
            (stream_run, "topic_state", lambda settings, topic: self.topic()),
            (stream_run, "wait_for_data", self._wait),
            (stream_run, "still_knows", lambda session, remote: self.still_knows),
            (ledger, "registered_dataset", lambda database, dataset: Scorer.trained_on),
            (scoring, "Scorer", self._load),
            (RangeWork, "store_features", lambda _, key, feature_set, spark, on_progress: self._features(key)),
            (RangeWork, "predict_and_commit", lambda _, *given, **named: self._commit(*given, **named)),
        ):
            monkeypatch.setattr(place, name, stand_in)

    def ask_to_end(self) -> None:
        self.status = dg.DagsterRunStatus.CANCELING

    def _wait(self, *_: Any, given_up: Callable[[], bool] | None = None, **__: Any) -> bool:
        if given_up is not None:  # as only a resident's run says
            self.while_waiting()
        return False

    def _load(self, model: Any, trained_on: Dataset, lake: Any) -> Scorer:
        loaded = Scorer()
        loaded.model = model
        self.open_scorers += 1
        loaded.close = self._close  # type: ignore[method-assign]
        return loaded

    def _close(self) -> None:
        self.open_scorers -= 1

    def _find_champion(self, dataset: str) -> Any:
        self.asked += 1
        return self.champion

    def _features(self, key: PartitionKey) -> StoredFeatures:
        self.begun[key].set()
        return StoredFeatures(f"/{key}", pa.table({"reason": [None] * len(key)}), self.seconds)

    def _commit(self, key: PartitionKey, features: StoredFeatures, scorer: Scorer, **given: Any) -> Any:
        self.before_commit(key)
        self.scored_by[key] = scorer.model.version
        return commits.commit_range(self.database, RangeResult(key, given["run_id"]), token=given["token"])

    def __call__(self) -> Iterator[tuple[PartitionKey, str]]:
        """Work from the first range on; give the outputs' keys and assets."""
        ranges.record_plan(self.database, Plan(new=(Attempt(FIRST),)))
        context: Any = SimpleNamespace(
            run_id="run",
            log=logging.getLogger("run"),
            instance=SimpleNamespace(
                add_dynamic_partitions=lambda name, keys: None,
                get_run_by_id=lambda run_id: SimpleNamespace(status=self.status),
            ),
        )
        mlflow: Any = SimpleNamespace(open=lambda: SimpleNamespace(find_champion=self._find_champion))
        lake: Any = SimpleNamespace(uri=lambda path: path)
        spark: Any = SimpleNamespace(spark_session=None)
        stream = Stream(self.settings.streams[0])
        run = StreamRun(context, stream, self.settings, lake, self.database, mlflow, spark)
        with run.lease(drains=self.shard, holder=self.holder), closing(run):
            for output in run.work(FIRST, {stream.features, stream.predictions}, 1):
                yield output.key, output.asset.to_user_string()

    def state_of(self, key: PartitionKey) -> tuple[str, int, str | None]:
        found = ranges.find(self.database, key)
        return found.state, found.failures, found.reason


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_every_range_gives_both_assets_in_order(run: Run) -> None:
    assert list(run()) == [
        (key, asset) for key in (FIRST, SECOND, THIRD) for asset in ("stream_features", "stream_predictions")
    ]
    assert {run.state_of(key)[0] for key in (FIRST, SECOND, THIRD)} == {"committed"}


def test_the_next_ranges_features_are_begun_before_a_range_is_committed(run: Run) -> None:
    following = {FIRST: SECOND, SECOND: THIRD}

    def wait_for_the_next(key: PartitionKey) -> None:
        if key in following:
            assert run.begun[following[key]].wait(10)

    run.before_commit = wait_for_the_next
    assert len(list(run())) == 6


def test_a_new_champion_is_taken_at_the_next_range(run: Run) -> None:
    def promote(key: PartitionKey) -> None:
        if key == FIRST:  # while the second range's features are computed for the champion of before
            run.champion = version(2)
            values = ("tests", "genres-tests", 2, 1, "promote", "somebody", "", None, datetime.now(UTC))
            with run.database.writing() as connection:
                connection.execute(sa.insert(tables.CHAMPION_CHANGES).values(ChampionChange(*values)._asdict()))

    run.before_commit = promote
    assert len(list(run())) == 6
    assert run.scored_by == {FIRST: 1, SECOND: 1, THIRD: 2}
    assert run.asked == 2, "MLflow is asked when there was a change, not for each range"
    assert run.open_scorers == 0


def test_mlflow_is_asked_once_where_nothing_changes(run: Run) -> None:
    assert len(list(run())) == 6
    assert (run.asked, set(run.scored_by.values())) == (1, {1})


def test_a_range_whose_attempt_fails_waits_with_the_reason_and_the_one_begun_with_it_does_not(run: Run) -> None:
    def fail(key: PartitionKey) -> None:
        if key == SECOND:
            raise RuntimeError("the disk is full")

    run.before_commit = fail
    with pytest.raises(RuntimeError):
        list(run())
    assert run.state_of(FIRST)[0] == "committed"
    assert run.state_of(SECOND) == ("planned", 1, "the disk is full")
    assert run.state_of(THIRD) == ("planned", 0, f"its run ended with {SECOND}")
    assert not leases.holders(run.database, "audio_clips", run.settings.lease_s)


def test_a_run_whose_outputs_nobody_takes_any_more_gives_the_begun_range_back(run: Run) -> None:
    outputs = run()
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    assert run.state_of(FIRST) == ("planned", 0, "GeneratorExit")
    assert run.state_of(SECOND) == ("planned", 0, f"its run ended with {FIRST}")


def test_an_outage_of_kafka_does_not_keep_stored_features_from_being_committed(run: Run) -> None:
    def down() -> TopicState:
        raise GenresError("Kafka at nowhere does not answer")

    run.topic = down
    with pytest.raises(GenresError, match="Kafka at nowhere"):
        list(run())
    assert run.state_of(FIRST)[0] == "committed"


def test_an_interrupt_is_nobodys_clip(run: Run) -> None:
    def interrupt(key: PartitionKey) -> None:
        raise KeyboardInterrupt

    run.before_commit = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(run())
    assert run.state_of(FIRST) == ("planned", 0, "KeyboardInterrupt")
    assert run.state_of(SECOND) == ("planned", 0, f"its run ended with {FIRST}")


def test_a_run_that_was_overtaken_plans_and_commits_nothing_more(run: Run) -> None:
    def overtaken() -> TopicState:
        later = datetime.now(UTC) + timedelta(seconds=run.settings.lease_s + 1)
        assert leases.acquire(run.database, "audio_clips", "another run", 60, now=later)
        return TOPIC

    run.topic = overtaken
    with pytest.raises(FencedError):
        list(run())
    assert run.state_of(FIRST)[0] == "planned"
    assert [found.key for found in ranges.history(run.database, "audio_clips")] == [FIRST]


def test_a_run_that_makes_no_progress_lets_go_of_the_topic(run: Run) -> None:
    """Its thread beats on; only progress keeps the lease, or a hung clip would hold the topic for ever."""
    run.settings = run.settings.model_copy(update={"range_limit_s": 0.2, "lease_s": 0.3})

    def hang(key: PartitionKey) -> None:
        # At once when it is free: a beat that is late may renew it once more.
        wait_until(lambda: leases.acquire(run.database, "audio_clips", "another run", 60), patience_s=20)

    run.before_commit = hang
    with pytest.raises(FencedError):
        list(run())
    assert run.state_of(FIRST)[0] == "planned"


def test_signs_of_life_go_on_whatever_one_of_them_fails_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them the range of a run at work would count as abandoned, and its lease as free."""
    run.settings = run.settings.model_copy(update={"lease_s": 0.3})
    signs: list[str] = []

    def failing(database: Database, topic: str, run_id: str) -> None:
        signs.append(run_id)
        raise RuntimeError("the driver has a word of its own for it")

    monkeypatch.setattr(ranges, "heartbeat", failing)
    run.before_commit = lambda _: wait_until(lambda: len(signs) > 1, patience_s=20)
    assert len(list(run())) == 6


def test_a_run_goes_on_behind_a_range_that_another_planner_took(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten_to(*given: Any, **more: Any) -> PartitionKey | None:
        key = next_range(*given, **more)
        if key == SECOND:
            ranges.record_plan(run.database, Plan(new=(Attempt(SECOND),)))
        return key

    monkeypatch.setattr(stream_run, "next_range", beaten_to)
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST, THIRD]


def test_ranges_grow_with_the_rate_of_those_before(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clips take a tenth of a second, and two seconds are wanted."""
    run.settings = run.settings.model_copy(update={"max_clips_per_batch": 200})
    monkeypatch.setattr(offset_plan, "FEWEST_CLIPS", 2)
    # A slow machine is not a slow engine: what scoring and committing take here counts for nothing.
    monkeypatch.setattr(stream_run, "time", SimpleNamespace(monotonic=lambda: 0.0))
    run.seconds = 0.1
    run.topic = lambda: TOPIC._replace(ends={0: 90})
    done = [key for key, asset in run() if asset == "stream_predictions"]
    # Each is begun before the one in front of it is committed.
    assert [len(key) for key in done] == [2, 2, 40, 40, 6]
    assert {found.state for found in ranges.history(run.database, "audio_clips")} == {"committed"}


def test_a_shards_run_keeps_to_its_partitions(run: Run) -> None:
    run.topic = lambda: TOPIC._replace(beginnings=dict.fromkeys(range(4), 0), ends=dict.fromkeys(range(4), 3))
    run.shard = Shard(0, 2)
    assert leases.acquire(run.database, "audio_clips", "the other one", 60, shard=1)
    done = [key for key, asset in run() if asset == "stream_predictions"]
    assert sorted((key.kafka_partition, key.start_offset, key.end_offset) for key in done) == [
        *((0, 0, 2), (0, 2, 3)),
        *((2, 0, 2), (2, 2, 3)),
    ]
    assert set(leases.holders(run.database, "audio_clips", 60)) == {1}


def test_a_residents_run_uses_its_lease_and_leaves_it_to_it(run: Run) -> None:
    run.holder = RESIDENT.holder
    token = leases.acquire(run.database, "audio_clips", run.holder, run.settings.lease_s)
    assert len(list(run())) == 6
    assert leases.holders(run.database, "audio_clips", run.settings.lease_s) == {0: run.holder}
    assert leases.acquire(run.database, "audio_clips", run.holder, run.settings.lease_s) == token


def test_a_residents_run_without_its_lease_does_its_range_alone(run: Run) -> None:
    run.holder = RESIDENT.holder
    assert leases.acquire(run.database, "audio_clips", "another", run.settings.lease_s)
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST]


def test_a_residents_run_stays_for_what_comes_next_with_the_model_that_it_has(run: Run) -> None:
    waits = iter([lambda: setattr(run, "topic", lambda: TOPIC._replace(ends={0: 8})), lambda: None, run.ask_to_end])
    run.holder, run.while_waiting = RESIDENT.holder, lambda: next(waits)()
    done = [key for key, asset in run() if asset == "stream_predictions"]
    assert done == [FIRST, SECOND, THIRD, FIRST.between(6, 8)]
    assert next(waits, None) is None
    assert (run.asked, run.open_scorers) == (1, 0)


def test_a_residents_run_ends_when_spark_was_started_again_before_it_takes_a_range(run: Run) -> None:
    def restarted() -> None:
        run.topic = lambda: TOPIC._replace(ends={0: 8})
        run.still_knows = False

    run.holder, run.while_waiting = RESIDENT.holder, restarted
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST, SECOND, THIRD]
    assert {found.key for found in ranges.history(run.database, "audio_clips")} == {FIRST, SECOND, THIRD}


def test_an_outage_while_a_residents_run_waits_is_no_failure(run: Run) -> None:
    def away() -> None:
        raise GenresError("Kafka at nowhere does not answer")

    run.holder, run.while_waiting = RESIDENT.holder, away
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("holder", [RESIDENT.holder, ""])
def test_a_run_that_is_asked_to_end_from_anywhere_finishes_what_it_has_begun(run: Run, holder: str) -> None:
    """Who asks may be on another host, where the run's process cannot be interrupted."""
    run.holder, run.before_commit = holder, lambda key: run.ask_to_end()
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST, SECOND]
    assert {run.state_of(key)[0] for key in (FIRST, SECOND)} == {"committed"}


def test_a_range_that_a_killed_run_left_is_taken_before_new_ones(run: Run) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    ranges.record_plan(run.database, Plan(new=(Attempt(FIRST), Attempt(SECOND))), now=long_ago)
    ranges.begin_attempt(run.database, SECOND, "a run that was killed", attempt=1, now=long_ago)
    assert [key for key, asset in run() if asset == "stream_predictions"] == [FIRST, SECOND, THIRD]
    assert ranges.find(run.database, SECOND).attempts == 2
    assert run.state_of(SECOND)[0] == "committed"

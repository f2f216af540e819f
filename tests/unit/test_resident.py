"""The resident drain: whose turn it is, what makes it wait, and how it ends; runs and the topic are stand-ins."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.test_utils import create_run_for_test

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import commits, leases, producers, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.leases import Resident
from genres.store.stream_ledger.producers import Producer
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres.store.tables import STREAM_LEASES, STREAM_RANGES
from genres_cli import streams
from streaming_sensors import resident, sensors
from streaming_sensors.resident import ResidentDrain
from streaming_sensors.run_tags import DRAIN_TAG, HOLDER_TAG, RANGE_TAG, SHARD_TAG
from streaming_sensors.sensors import build_audio_clips_sensor
from streaming_sensors.stream import Stream
from streaming_sensors.topic import TopicState
from streaming_sensors.warm_launcher import process_of
from tests.stream_rig import wait_until

TOPIC = "audio_clips"
ANOTHER = Resident("elsewhere", 7, 1.5)
DONE = SimpleNamespace(success=True, all_events=[])


class Rig:
    """A topic of three partitions, a ledger, and Dagster's records; what runs do is noted, and committed if good."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(state_dir=tmp_path, stream_dataset="mine", lease_s=20.0, range_grace_s=600)
        self.database = Database(self.settings.database)
        self.database.migrate()
        self.instance = instance
        self.stream = Stream(self.settings.streams[0])
        self.ends = dict.fromkeys(range(3), 0)
        self.switches: dict[str, bool] = {}
        self.runs: list[dg.DagsterRun] = []
        self.work: Callable[[dg.DagsterRun], Any] = self.commit
        self.said: list[str] = []
        self.looks = 0
        """How often the drain has looked whether its sensors are on, as it does once in each of its turns."""
        for place in (resident, sensors):
            monkeypatch.setattr(place, "topic_state", lambda *_: self.state)
            monkeypatch.setattr(place, "wait_for_data", self._wait)
        monkeypatch.setattr(resident, "PRELOADED", ())
        monkeypatch.setattr(resident.sensor_states, "are_running", self._look)
        monkeypatch.setattr(resident.sensor_states, "job_origin", lambda *_: None)
        monkeypatch.setattr(ResidentDrain, "_execute", lambda _, run: self._execute(run))

    @property
    def state(self) -> TopicState:
        return TopicState(TOPIC, "A" * 22, dict.fromkeys(self.ends, 0), dict(self.ends))

    def _wait(self, *_: Any, given_up: Callable[[], bool] = lambda: True, **__: Any) -> bool:
        ends = dict(self.ends)
        deadline = datetime.now(UTC) + timedelta(seconds=0.5)
        while not given_up() and ends == self.ends and datetime.now(UTC) < deadline:
            time.sleep(0.02)
        return ends != self.ends

    def _look(self, *_: Any) -> dict[str, bool]:
        self.looks += 1
        return self.switches

    def wait_for_turns(self, turns: int) -> None:
        """Wait until the drain has begun so many turns more, all but the last of which it has finished."""
        looks = self.looks + turns
        wait_until(lambda: self.looks >= looks, patience_s=30)

    def _execute(self, run: dg.DagsterRun) -> Any:
        self.runs.append(run)
        return self.work(run)

    def status_of(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    def wait_until_asked(self, run: dg.DagsterRun, *, patience_s: float = 30) -> None:
        """Wait until a run is asked to end."""
        wait_until(lambda: self.status_of(run) == dg.DagsterRunStatus.CANCELING, patience_s=patience_s)

    def commit(self, run: dg.DagsterRun) -> Any:
        commits.commit_range(self.database, RangeResult(self.key_of(run), run.run_id))
        return DONE

    def key_of(self, run: dg.DagsterRun) -> PartitionKey:
        return PartitionKey.parse(run.tags["dagster/partition"])

    @contextmanager
    def drain(self, **given: Any) -> Iterator[threading.Event]:
        """Let a resident drain work meanwhile, in a thread; yield what ends it."""
        settings = self.settings.model_copy(update=given.pop("settings", {}))
        drain = ResidentDrain(settings, self.stream, self.instance, say=self.said.append, **{"shard": None, **given})
        stop = threading.Event()
        thread = threading.Thread(target=drain.drain, args=(stop,))
        thread.start()
        try:
            yield stop
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def tick(self) -> str:
        """Let the sensor tick; give its reason to launch nothing."""
        resources = {"settings": self.settings, "database": self.database}
        with dg.build_sensor_context(self.instance, resources=resources) as context:
            found = build_audio_clips_sensor(self.stream)(context)
        assert isinstance(found, dg.SensorResult)
        assert not found.run_requests
        assert found.skip_reason is not None
        return found.skip_reason.skip_message or ""

    def holders(self) -> dict[int, str]:
        return leases.holders(self.database, TOPIC, self.settings.lease_s)

    def holder(self) -> str | None:
        """Return what stands in the lease, whether it runs or not."""
        with self.database.reading() as connection:
            found: str | None = connection.scalar(sa.select(STREAM_LEASES.c.holder))
            return found

    def is_held_by_resident(self) -> bool:
        return any(Resident.parse(holder) for holder in self.holders().values())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Rig(tmp_path, monkeypatch, instance)


def test_a_holder_is_a_run_or_a_resident() -> None:
    assert Resident.parse(ANOTHER.holder) == ANOTHER
    assert Resident.parse("5f2c1a3e-0d5b-4a52-9f4e-5b1f0a1f2f00") is None


def test_it_holds_its_lease_while_nothing_comes_and_the_sensor_says_so(rig: Rig) -> None:
    now = datetime.now(UTC)
    producers.beat(rig.database, Producer(TOPIC, "h", "/f", 1, now, now, None, None, 0, 0, 0))
    rig.settings = rig.settings.model_copy(update={"lease_s": 4.0})
    with rig.drain() as stop:
        wait_until(rig.is_held_by_resident, patience_s=30)
        time.sleep(2 * rig.settings.lease_s)  # in which a lease that nobody renews runs out
        (holder,) = rig.holders().values()
        found = Resident.parse(holder)
        assert found is not None
        assert rig.tick() == f"`genres drain` (pid {found.pid} on {found.host}) is draining {TOPIC}"
        stop.set()
        wait_until(lambda: rig.holder() == "", patience_s=30)  # let go of, not run out: that leaves the name there
    assert rig.runs == []
    assert rig.said == [f"drains {TOPIC}, shard 0/1"]


def test_the_sensor_leaves_a_shard_alone_that_was_taken_while_it_waited(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    producers.beat(rig.database, Producer(TOPIC, "h", "/f", 1, now, now, None, None, 0, 0, 0))

    def clips_come(*_: Any, **__: Any) -> bool:
        leases.acquire(rig.database, TOPIC, ANOTHER.holder, rig.settings.lease_s)
        rig.ends[0] = 3
        return True

    monkeypatch.setattr(sensors, "wait_for_data", clips_come)
    assert rig.tick() == f"`genres drain` (pid 7 on elsewhere) is draining {TOPIC}"


def test_each_range_is_a_run_that_dagster_records_with_its_process(rig: Rig) -> None:
    with rig.drain():
        wait_until(rig.is_held_by_resident, patience_s=30)
        rig.ends[1] = 5
        wait_until(lambda: rig.runs, patience_s=30)
        wait_until(lambda: not ranges.topics_with_planned(rig.database), patience_s=30)
        (run,) = rig.runs
        (holder,) = rig.holders().values()
        assert (str(rig.key_of(run)), run.job_name) == (f"{TOPIC}:{'A' * 22}:1:0-5", "stream_batch_job")
        assert (run.tags["genres/drain"], run.tags[SHARD_TAG], run.tags[HOLDER_TAG]) == ("true", "0/1", holder)
        assert run.tags[RANGE_TAG] == "p1 offsets 0-4"
        assert process_of(run) is not None
        assert rig.instance.get_dynamic_partitions("offset_range") == [str(rig.key_of(run))]


def test_it_stands_by_while_another_holds_the_lease_and_takes_over_when_that_runs_out(rig: Rig) -> None:
    lease_s = rig.settings.lease_s
    assert leases.acquire(rig.database, TOPIC, ANOTHER.holder, lease_s)
    left, forked = (
        create_run_for_test(
            rig.instance, "stream_batch_job", status=dg.DagsterRunStatus.STARTED, tags={SHARD_TAG: "0/1", **tags}
        )
        for tags in ({HOLDER_TAG: ANOTHER.holder}, {})
    )
    with rig.drain():
        # It is renewed until the drain, which imports much first, has looked.
        wait_until(lambda: leases.acquire(rig.database, TOPIC, ANOTHER.holder, lease_s) and rig.said, patience_s=60)
        assert rig.said == [f"stands by: `genres drain` (pid 7 on elsewhere) is draining {TOPIC}"]
        wait_until(lambda: ANOTHER.holder not in rig.holders().values() and rig.holders(), patience_s=90)
        wait_until(lambda: len(rig.said) == 2, patience_s=30)
        states = [rig.instance.get_run_by_id(run.run_id).status for run in (left, forked)]  # type: ignore[union-attr]
        assert states == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]


def test_two_processes_share_the_shards_and_a_third_stands_by(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = iter(("one", "two", "three"))
    monkeypatch.setattr(resident.socket, "gethostname", lambda: next(hosts))
    two = {"drains": 2}
    with rig.drain(settings=two), rig.drain(settings=two):
        wait_until(lambda: len(rig.holders()) == 2, patience_s=30)
        found = {resident.host for resident in map(Resident.parse, rig.holders().values()) if resident}
        assert found == {"one", "two"}
        with rig.drain(settings=two):
            wait_until(lambda: any(line.startswith("stands by: ") for line in rig.said), patience_s=30)
        assert len(rig.holders()) == 2


def test_a_shard_that_is_named_is_the_only_one_it_takes(rig: Rig) -> None:
    with rig.drain(settings={"drains": 3}, shard=1):
        wait_until(rig.is_held_by_resident, patience_s=30)
        rig.ends |= dict.fromkeys(range(3), 4)
        wait_until(lambda: rig.runs, patience_s=30)
        assert list(rig.holders()) == [1]
    assert [rig.key_of(run).kafka_partition for run in rig.runs] == [1]
    with (
        pytest.raises(GenresError, match=r"--shard 3: GENRES_DRAINS is 3, so the shards are 0 to 2"),
        rig.drain(settings={"drains": 3}, shard=3),
    ):
        pass


def test_a_paused_stream_is_left_alone(rig: Rig) -> None:
    rig.switches = {"audio_clips_sensor": False, "range_reconciler": False}
    rig.ends[0] = 3
    with rig.drain():
        wait_until(lambda: rig.said, patience_s=30)
        rig.wait_for_turns(2)
        assert (rig.said, rig.runs) == ([f"waits: stream {TOPIC} is paused (`genres stream resume`)"], [])
        rig.switches = {"audio_clips_sensor": True, "range_reconciler": True}
        wait_until(lambda: rig.runs, patience_s=30)


@pytest.mark.parametrize(("off", "done"), [("audio_clips_sensor", [0]), ("range_reconciler", [1])])
def test_each_sensor_holds_what_it_would_launch(rig: Rig, off: str, done: list[int]) -> None:
    """A range of partition 0 was planned long ago, and clips wait in partition 1."""
    rig.ends |= {0: 3, 1: 3}
    long_ago = datetime.now(UTC) - timedelta(days=1)
    ranges.record_plan(rig.database, Plan(new=(Attempt(PartitionKey(TOPIC, "A" * 22, 0, 0, 3)),)), now=long_ago)
    rig.switches = {"audio_clips_sensor": True, "range_reconciler": True, off: False}
    with rig.drain():
        wait_until(lambda: rig.said, patience_s=30)
        rig.wait_for_turns(2)
    assert [rig.key_of(run).kafka_partition for run in rig.runs] == done
    # With the sensor off, a run does the range that waited, and takes nothing new.
    assert [DRAIN_TAG in run.tags for run in rig.runs] == [off != "audio_clips_sensor"]


def test_a_run_is_asked_to_end_when_the_sensor_is_turned_off(rig: Rig) -> None:
    def until_asked(run: dg.DagsterRun) -> Any:
        rig.switches = {"audio_clips_sensor": False, "range_reconciler": False}
        rig.wait_until_asked(run)
        return rig.commit(run)

    rig.work = until_asked
    rig.ends[0] = 3
    with rig.drain():
        wait_until(lambda: any("is paused" in line for line in rig.said), patience_s=60)
        assert rig.is_held_by_resident()


def test_a_run_that_fails_is_said_in_a_line_and_the_next_one_goes_on(rig: Rig) -> None:
    def fail(run: dg.DagsterRun) -> Any:
        rig.work = rig.commit
        raise GenresError("Spark Connect does not answer at h:1")

    rig.work = fail
    rig.ends[0] = 3
    with rig.drain():
        wait_until(lambda: rig.runs, patience_s=30)
        wait_until(lambda: "Spark Connect does not answer at h:1" in " ".join(rig.said), patience_s=30)
        rig.wait_for_turns(2)
        assert len(rig.runs) == 1, "the range waits for its grace time, and the next one behind it for the outage"
        with rig.database.writing() as connection:
            connection.execute(STREAM_RANGES.update().values(planned_at=datetime.now(UTC) - timedelta(days=1)))
        wait_until(lambda: len(rig.runs) == 2, patience_s=30)
    assert [rig.key_of(run).kafka_partition for run in rig.runs] == [0, 0]


def test_an_outage_does_not_end_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> TopicState:
        raise GenresError("Kafka at nowhere does not answer")

    with monkeypatch.context() as outage:
        outage.setattr(resident, "topic_state", down)
        with rig.drain():
            wait_until(lambda: rig.said, patience_s=30)
            rig.wait_for_turns(3)
            assert rig.said == ["Kafka at nowhere does not answer"], "once, however long it lasts"
            assert rig.is_held_by_resident()
            outage.undo()
            rig.ends[0] = 1
            monkeypatch.setattr(resident, "topic_state", lambda *_: rig.state)
            wait_until(lambda: rig.runs, patience_s=30)


def test_told_to_end_it_asks_its_run_to_and_waits_for_it(rig: Rig) -> None:
    finished = threading.Event()

    def until_asked(run: dg.DagsterRun) -> Any:
        rig.wait_until_asked(run)
        assert rig.is_held_by_resident()
        finished.set()
        return rig.commit(run)

    rig.work = until_asked
    rig.ends[0] = 3
    with rig.drain() as stop:
        wait_until(lambda: rig.runs, patience_s=30)
        stop.set()
    assert finished.is_set()
    assert (rig.holders(), ranges.topics_with_planned(rig.database)) == ({}, [])


def test_a_run_that_was_asked_to_end_before_it_had_started_is_asked_again(rig: Rig) -> None:
    def start_late(run: dg.DagsterRun) -> Any:
        rig.wait_until_asked(run)
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        rig.instance.report_dagster_event(event, run.run_id)
        assert rig.status_of(run) == dg.DagsterRunStatus.STARTED
        rig.wait_until_asked(run, patience_s=15)
        return rig.commit(run)

    rig.work = start_late
    rig.ends[0] = 3
    with rig.drain() as stop:
        wait_until(lambda: rig.runs, patience_s=30)
        stop.set()
        wait_until(lambda: not ranges.topics_with_planned(rig.database), patience_s=30)


def test_the_streams_status_names_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "open_instance", lambda settings: dg.DagsterInstance.ephemeral())
    monkeypatch.setattr(streams.ledger, "dataset_meant", lambda *_, **__: "mine")
    leases.acquire(rig.database, TOPIC, ANOTHER.holder, rig.settings.lease_s)
    leases.acquire(rig.database, TOPIC, "a-run", rig.settings.lease_s, shard=1)
    found = streams.status(rig.settings.model_copy(update={"drains": 2}), "")
    assert found["drains"] == ["shard 0 of 2: `genres drain` (pid 7 on elsewhere)", "shard 1 of 2: run a-run"]

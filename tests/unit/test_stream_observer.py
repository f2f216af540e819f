"""The observer evaluates the stream's checks without a run: at first, while idle, while lag falls, without Kafka."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import commits, leases, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from streaming_sensors import stream_checks
from streaming_sensors.stream import Stream
from streaming_sensors.stream_checks import build_audio_clips_observer
from streaming_sensors.topic import TopicState

STREAM = Stream(Settings(stream_dataset="mine").streams[0])
EVERY = {check.name for check in stream_checks.stream_checks(STREAM)}
Tick = Callable[[], tuple[str, dict[str, bool], list[int]]]


class Kafka:
    """What the topic says."""

    def __init__(self) -> None:
        self.state = TopicState(STREAM.topic, "A", {0: 0}, {0: 0})
        self.is_away = False

    def ask(self, *_: object, **__: object) -> TopicState:
        if self.is_away:
            raise GenresError("Kafka does not answer")
        return self.state


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(stream_checks, "topic_state", kafka.ask)
    return kafka


@pytest.fixture
def tick(database: Database, tmp_path: Path) -> Iterator[Tick]:
    """Evaluate a tick as the daemon does; return what it says, the checks it reports, and the lags."""
    settings = Settings(state_dir=tmp_path, stream_dataset="mine", max_clips_per_batch=4)
    sensor = build_audio_clips_observer(STREAM)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor: str | None = None

        def evaluate() -> tuple[str, dict[str, bool], list[int]]:
            nonlocal cursor
            resources: dict[str, Any] = {"settings": settings, "database": database}
            with dg.build_sensor_context(instance, resources=resources, cursor=cursor) as context:
                found = sensor.evaluate_tick(context)
            assert not found.run_requests
            cursor = found.cursor
            checks, lags = {}, []
            for event in found.asset_events:
                instance.report_runless_asset_event(event)
                if isinstance(event, dg.AssetCheckEvaluation):
                    checks[event.check_name] = event.passed
                else:
                    lags.append(event.metadata["lag_clips"].value)
            return found.skip_message or "", checks, lags

        yield evaluate


def commit(database: Database, start: int, end: int) -> None:
    key = PartitionKey(STREAM.topic, "A", 0, start, end)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    commits.commit_range(database, RangeResult(key, "run"))


@pytest.mark.usefixtures("kafka")
def test_every_check_is_evaluated_at_the_first_start_although_nothing_ever_arrived(tick: Tick) -> None:
    said, checks, lags = tick()
    assert checks.keys() == EVERY
    assert {name for name, passed in checks.items() if not passed} == {"producer_alive"}
    assert (said, lags) == ("0 clips wait", [0])


@pytest.mark.usefixtures("kafka")
def test_what_is_the_same_is_reported_again_only_after_a_while(tick: Tick, monkeypatch: pytest.MonkeyPatch) -> None:
    tick()
    assert tick()[1:] == ({}, [])
    monkeypatch.setattr(stream_checks, "_SAY_AGAIN_S", -1.0)
    _, checks, lags = tick()
    assert (checks.keys(), lags) == (EVERY, [0])


def test_lag_is_seen_while_it_grows_and_while_it_falls_also_under_a_drain(
    tick: Tick, kafka: Kafka, database: Database
) -> None:
    assert tick()[2] == [0]
    kafka.state = kafka.state._replace(ends={0: 12})
    said, checks, lags = tick()
    assert (said, checks["consumer_lag"], lags) == ("12 clips wait", False, [12])
    assert leases.acquire(database, STREAM.topic, "a run", 60)
    for end, is_well in ((3, False), (6, True), (12, True)):
        commit(database, {3: 0, 6: 3, 12: 6}[end], end)
        _, checks, lags = tick()
        assert (checks["consumer_lag"], lags) == (is_well, [12 - end])


def test_a_loss_is_seen_although_no_run_is_asked_for(tick: Tick, kafka: Kafka, database: Database) -> None:
    commit(database, 0, 2)
    kafka.state = kafka.state._replace(ends={0: 5})
    assert tick()[1]["nothing_lost"]
    kafka.state = kafka.state._replace(beginnings={0: 5})
    assert tick()[1] == {"nothing_lost": False}


def test_without_kafka_what_asks_it_fails_and_says_so(tick: Tick, kafka: Kafka) -> None:
    assert tick()[1]["consumer_lag"]
    kafka.is_away = True
    said, checks, lags = tick()
    assert (said, lags) == ("Kafka does not answer", [])
    assert checks == {"nothing_lost": False, "consumer_lag": False}
    assert tick()[1] == {}, "the outage is the same"
    kafka.is_away = False
    assert tick()[1] == {"nothing_lost": True, "consumer_lag": True}

"""The metrics as Prometheus reads them, and the dashboard that shows them."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import commits, producers, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.producers import Producer
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_cli.main import app
from local_stack import stack
from streaming_sensors import metrics
from streaming_sensors.metrics import SERVICE_METRIC, STREAM_METRICS, Metrics
from streaming_sensors.topic import TopicState
from tests.unit.test_stream_ledger import prediction

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "genres.json"


def test_the_command_counts_what_runs_as_up(
    monkeypatch: pytest.MonkeyPatch, database: Database, tmp_path: Path
) -> None:
    """``running`` is an embedded service's state, ``external`` that of one elsewhere."""
    states = ("running", "external", "starting", "stopped", "unhealthy")
    rows = [stack.ServiceStatus(state, state, None, "", None, None, None, None) for state in states]
    served: list[Metrics] = []
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("GENRES_DATABASE_URL", database.url.render_as_string(hide_password=False))
    monkeypatch.setattr(stack, "status", lambda _: rows)
    monkeypatch.setattr(metrics, "topic_state", lambda *_: TopicState("audio_clips", "A", {}, {}))
    monkeypatch.setattr(metrics, "serve", lambda found, port: served.append(found))
    app(["metrics"], standalone_mode=False)
    (found,) = served
    up = {
        one.labels["service"]: one.value
        for family in found.collect()
        for one in family.samples
        if family.name == SERVICE_METRIC
    }
    assert up == {"running": 1, "external": 1, "starting": 0, "stopped": 0, "unhealthy": 0}


def scraped(settings: Settings, database: Database) -> dict[tuple[str, ...], float]:
    """Return what a scrape reads: values by name and labels."""
    registry = CollectorRegistry()
    registry.register(Metrics(settings, database, lambda: {"kafka": True, "mlflow": False}))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    state = TopicState("audio_clips", "A", {0: 0, 1: 0}, {0: 5, 1: 2})
    monkeypatch.setattr(metrics, "topic_state", lambda *_: state)
    return Settings(state_dir=tmp_path, stream_dataset="gtzan")


def test_a_scrape_says_what_waits_what_was_refused_and_how_long_it_took(settings: Settings, database: Database) -> None:
    key = PartitionKey("audio_clips", "A", 0, 0, 3)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    rows = [prediction("ab"[offset] * 64, offset) for offset in range(2)]
    refused = commits.QuarantinedClip("c" * 64, "c.wav", "stream", "no", ".wav", "1", kafka_offset=2)
    commits.commit_range(database, RangeResult(key, "run", predictions=rows, quarantine=[refused]))
    now = datetime.now(UTC)
    producers.beat(database, Producer("audio_clips", "here", "/drop", 7, now, now, None, None, 4, 1, 2))
    found = scraped(settings, database)
    assert found["genres_service_up", "kafka"] == 1
    assert found["genres_service_up", "mlflow"] == 0
    assert found["genres_stream_readable", "audio_clips"] == 1
    assert found["genres_stream_lag_clips", "audio_clips"] == 4  # of seven, three are done
    assert found["genres_stream_end_offset", "1", "audio_clips"] == 2
    assert found["genres_stream_refused_ratio", "audio_clips"] == pytest.approx(1 / 3)
    assert found["genres_stream_latency_seconds", "0.5", "audio_clips"] > 0
    assert found["genres_producer_up", "audio_clips"] == 1
    assert found["genres_producer_waiting_files", "audio_clips"] == 2


def test_clips_are_counted_as_refused_by_who_judges_them_now(settings: Settings, database: Database) -> None:
    """Two were predicted for the dataset of before, and nothing is accepted since the stream has another one."""
    first, second = (PartitionKey("audio_clips", "A", 0, *offsets) for offsets in ((0, 2), (2, 3)))
    ranges.record_plan(database, Plan(new=(Attempt(first), Attempt(second))))
    rows = [prediction("ab"[offset] * 64, offset, dataset="before") for offset in range(2)]
    commits.commit_range(database, RangeResult(first, "run", predictions=rows))
    assert ("genres_stream_refused_ratio", "audio_clips") not in scraped(settings, database)
    refused = commits.QuarantinedClip("c" * 64, "c.wav", "stream", "no", ".wav", "1", kafka_offset=2)
    commits.commit_range(database, RangeResult(second, "run", quarantine=[refused]))
    assert scraped(settings, database)["genres_stream_refused_ratio", "audio_clips"] == 1


def test_what_cannot_be_asked_is_said_and_has_no_value(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> TopicState:
        raise GenresError("Kafka does not answer")

    now = datetime.now(UTC)
    producers.beat(
        database, Producer("audio_clips", "here", "/drop", 7, now, now - timedelta(hours=1), None, None, 4, 1, 2)
    )
    monkeypatch.setattr(metrics, "topic_state", away)
    found = scraped(settings, database)
    assert found["genres_stream_readable", "audio_clips"] == 0
    assert ("genres_stream_lag_clips", "audio_clips") not in found
    assert found["genres_producer_up", "audio_clips"] == 0


def test_the_dashboard_shows_what_there_is() -> None:
    targets = [target for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    shown = {name for target in targets for name in re.findall(r"genres_\w+", target["expr"])}
    assert shown == {SERVICE_METRIC, *STREAM_METRICS}


def test_the_dashboard_shows_latencies_on_a_logarithmic_scale() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    (shown,) = [panel for panel in panels if "genres_stream_latency_seconds" in str(panel["targets"])]
    axis = shown["fieldConfig"]["defaults"]
    assert axis["custom"]["scaleDistribution"]["type"] == "log"
    assert axis["unit"] == "s"
    assert "min" not in axis, "a logarithmic axis has no 0"

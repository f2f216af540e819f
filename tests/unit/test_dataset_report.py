"""The report of a dataset: what it takes from Dagster, and what it does not let out."""

from pathlib import Path

import dagster as dg
import pytest

from genre_assets.dataset_report import dataset_report as report_asset
from genres.settings import Settings, StreamSettings
from genres.store import quarantine
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset, registered_dataset
from genres.store.quarantine import RefusedClip
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult, commit_range
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_dagster.dataset_report import STREAM_CHECKS, dataset_report
from genres_dagster.partitions import provenance
from streaming_sensors.definitions import build_defs

PICTURE = "![figure](data:image/png;base64,iVBORw0KGgo=)"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    return database


@pytest.fixture
def stream(tmp_path: Path) -> StreamSettings:
    return Settings(state_dir=tmp_path / "state", more_streams=()).streams[0]


def materialize(instance: dg.DagsterInstance, name: str, partition: str | None, **metadata: object) -> None:
    event = dg.AssetMaterialization(name, partition=partition, metadata=metadata)  # type: ignore[arg-type]
    instance.report_runless_asset_event(event)


def test_it_shows_the_newest_of_its_dataset_and_of_its_streams(database: Database, stream: StreamSettings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "batch_predictions", "mine", accuracy=0.25)
        materialize(instance, "batch_predictions", "mine", accuracy=0.751234, figure=dg.MetadataValue.md(PICTURE))
        materialize(instance, "batch_predictions", "other", accuracy=0.111)
        materialize(instance, "streaming_results", None, clips=42)
        report = dataset_report(instance, database, "mine", streams=[stream], about="dataset mine")
    assert "<td>0.7512</td>" in report
    assert '<img src="data:image/png;base64,iVBORw0KGgo="' in report
    assert "<td>42</td>" in report
    for other in ("0.25", "0.111"):
        assert other not in report


def test_names_from_outside_stay_text(database: Database) -> None:
    evil = "<script>alert(1)</script>"
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(
            instance, "champion_model", "mine", worst=evil, card=dg.MetadataValue.md(f"| a |\n|---|\n| {evil} |")
        )
        report = dataset_report(instance, database, "mine", streams=[], about=evil)
    assert "<script" not in report
    assert report.count("&lt;script&gt;") == 3
    assert "default-src 'none'" in report


def test_a_dataset_that_has_nothing_yet_says_so(database: Database, stream: StreamSettings) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report = dataset_report(instance, database, "mine", streams=[stream], about="mine")
    assert "Nothing of it was materialized yet" in report


def test_it_shows_what_the_streams_checks_found_last_and_what_was_refused_why(
    database: Database, stream: StreamSettings
) -> None:
    evil = "<img src=x onerror=alert(1)>"
    refused = [
        RefusedClip(
            "a", "a.wav", "a", "raw_audio", "1.5 s long; at most 900 s are read (GENRES_MAX_CLIP_S)", "too_long"
        ),
        RefusedClip(
            "b", "b.wav", "b", "raw_audio", "2,000 s long; at most 900 s are read (GENRES_MAX_CLIP_S)", "too_long"
        ),
        RefusedClip("c", "c.wav", "c", "raw_audio", evil, evil),
    ]
    quarantine.replace(database, "mine", "raw_audio", refused, run_id="run")
    key = PartitionKey(stream.topic, "A", 0, 0, 3)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    reasons = {
        "not a RIFF file: it begins with b'ab'": "not_audio",
        "not a RIFF file: it begins with b'cd'": "not_audio",
        "the file is empty": "",  # from before codes were kept
    }
    bad = [
        QuarantinedClip(f"{n}", f"{n}.wav", "stream", why, ".wav", "gate", reason_code=code)
        for n, (why, code) in enumerate(reasons.items())
    ]
    commit_range(database, RangeResult(key, "run", quarantine=bad))
    with dg.DagsterInstance.ephemeral() as instance:
        for passed, said in ((True, "lost: 0 clips"), (False, f"lost: 2 clips {evil}")):
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey("audio_clips"), check_name="nothing_lost", passed=passed, description=said
                )
            )
        report = dataset_report(instance, database, "mine", streams=[stream], about="dataset mine")
    assert "<tr><th>… s long; at most … s are read (GENRES_MAX_CLIP_S)</th><td>too_long</td><td>2</td></tr>" in report
    assert "<tr><th>not a RIFF file: it begins with …</th><td>not_audio</td><td>2</td></tr>" in report
    assert "<tr><th>the file is empty</th><td></td><td>1</td></tr>" in report
    assert "<tr><th>audio_clips: nothing_lost</th><td>failed (error)</td>" in report
    assert "lost: 2 clips" in report and "lost: 0 clips" not in report
    assert "<tr><th>offset ranges</th><td>1 committed</td></tr>" in report
    assert "<img" not in report


def test_it_shows_every_check_that_a_stream_has(tmp_path: Path) -> None:
    graph = build_defs(settings=Settings(state_dir=tmp_path)).resolve_asset_graph()
    there = {(found.asset_key.to_user_string(), found.name) for found in graph.asset_check_keys}
    assert there == {(asset, name) for asset, names in STREAM_CHECKS.items() for name in names}


def test_the_asset_writes_the_page_and_shows_where_it_lies(tmp_path: Path, database: Database) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    register_dataset(database, Dataset("mine", tmp_path, False, ("gtzan57",)))
    mine = provenance(registered_dataset(database, "mine"))
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "evaluation_figures", "mine", models=dg.MetadataValue.md(PICTURE))
        materialize(instance, "batch_predictions", "mine", accuracy=0.751234)
        materialize(instance, "streaming_results", None, clips=42, data=mine)
        materialize(instance, "other_streaming_results", None, clips=4_711, data="dataset other")
        instance.add_dynamic_partitions("dataset", ["mine"])
        given = {"settings": settings, "database": database}
        result = dg.materialize([report_asset], partition_key="mine", instance=instance, resources=given)
        (event,) = result.asset_materializations_for_node("dataset_report")
    path = settings.reports_dir / "mine.html"
    assert event.metadata["path"].value == str(path) and event.metadata["streams"].value == 1
    assert PICTURE in str(event.metadata["models"].value)
    page = path.read_text()
    assert "<td>0.7512</td>" in page and "<td>42</td>" in page and "4711" not in page
    assert [found.name for found in settings.reports_dir.iterdir()] == ["mine.html"]

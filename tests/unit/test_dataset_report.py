"""The report of a dataset: what it takes from Dagster, and what it does not let out."""

from pathlib import Path

import dagster as dg

from genre_assets.dataset_report import dataset_report as report_asset
from genres.settings import Settings
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset, registered_dataset
from genres_dagster.dataset_report import dataset_report
from genres_dagster.partitions import provenance

PICTURE = "![figure](data:image/png;base64,iVBORw0KGgo=)"


def materialize(instance: dg.DagsterInstance, name: str, partition: str | None, **metadata: object) -> None:
    event = dg.AssetMaterialization(name, partition=partition, metadata=metadata)  # type: ignore[arg-type]
    instance.report_runless_asset_event(event)


def test_it_shows_the_newest_of_its_dataset_and_of_its_streams() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(instance, "batch_predictions", "mine", accuracy=0.25)
        materialize(instance, "batch_predictions", "mine", accuracy=0.751234, figure=dg.MetadataValue.md(PICTURE))
        materialize(instance, "batch_predictions", "other", accuracy=0.111)
        materialize(instance, "streaming_results", None, clips=42)
        key = dg.AssetKey("streaming_results")
        report = dataset_report(instance, "mine", results=[key], about="dataset mine")
    assert "<td>0.7512</td>" in report
    assert '<img src="data:image/png;base64,iVBORw0KGgo="' in report
    assert "<td>42</td>" in report
    for other in ("0.25", "0.111"):
        assert other not in report


def test_names_from_outside_stay_text() -> None:
    evil = "<script>alert(1)</script>"
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(
            instance, "champion_model", "mine", worst=evil, card=dg.MetadataValue.md(f"| a |\n|---|\n| {evil} |")
        )
        report = dataset_report(instance, "mine", results=[], about=evil)
    assert "<script" not in report
    assert report.count("&lt;script&gt;") == 3
    assert "default-src 'none'" in report


def test_a_dataset_that_has_nothing_yet_says_so() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert "Nothing of it was materialized yet" in dataset_report(instance, "mine", results=[], about="mine")


def test_the_asset_writes_the_page_and_shows_where_it_lies(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
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

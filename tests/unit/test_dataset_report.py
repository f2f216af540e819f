"""The report of a dataset: what it takes from Dagster, and what it does not let out."""

import dagster as dg

from genres_dagster.dataset_report import dataset_report

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

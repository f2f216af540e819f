"""``dataset_report``: what is known of a dataset as one page, written again when its predictions or figures are."""

from typing import Any

import dagster as dg

from genres.settings import Settings, StreamSettings
from genres.store import ledger
from genres.store.database import Database
from genres.written_files import replaced
from genres_dagster import dataset_report as page
from genres_dagster.partitions import DATASETS, OWNERS, provenance

_PICTURED = "evaluation_figures", "models"
"""The asset and its figure that stand for the page."""


@dg.asset(
    deps=["batch_predictions", "evaluation_figures"],
    group_name="predictions",
    kinds={"python", "html"},
    owners=OWNERS,
    partitions_def=DATASETS,
    automation_condition=dg.AutomationCondition.eager(),
    description="What is known of the dataset, its champion and the newest of the streams that it scores, what their "
    "checks found and what was refused: one HTML file that needs nothing else. `genres report -o FILE` writes the same "
    "wherever somebody wants it.",
)
def dataset_report(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
) -> dg.MaterializeResult:
    """Write the page from what Dagster remembers."""
    database.check_migrated()
    entry = ledger.registered_dataset(database, context.partition_key)
    data = provenance(entry)
    instance = context.instance
    streams = [stream for stream in settings.streams if _is_of(instance, stream, data)]
    text = page.dataset_report(instance, database, entry.dataset, streams=streams, about=data)
    folder = settings.reports_dir
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{entry.dataset}.html"
    with replaced(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    asset, figure = _PICTURED
    pictured = page.newest(instance, dg.AssetKey(asset), partition=entry.dataset)
    return dg.MaterializeResult(
        metadata={
            "data": data,
            "path": dg.MetadataValue.path(path),
            "bytes": len(text.encode()),
            "streams": len(streams),
            **({figure: pictured[1][figure]} if pictured and figure in pictured[1] else {}),
        }
    )


def _is_of(instance: dg.DagsterInstance, stream: StreamSettings, data: str) -> bool:
    """Return whether a stream's newest results are this dataset's."""
    found: Any = page.newest(instance, page.stream_asset(stream, "streaming_results"))
    return found is not None and "data" in found[1] and found[1]["data"].value == data

"""The report of a dataset: what its newest materializations say and draw, as one HTML file that needs nothing else.

Names of files and genres come from outside: the page takes no HTML of theirs, runs no script and fetches nothing.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; margin: 1rem 0; } h2 { margin-top: 3rem; }
td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: left; vertical-align: top; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PARTS = ("raw_audio", "audio_features", "feature_figures", "track_split", "genre_classifiers", "calibrated_classifier")
_RESULTS = ("champion_model", "batch_predictions", "evaluation_figures")


def dataset_report(instance: dg.DagsterInstance, dataset: str, *, results: Sequence[dg.AssetKey], about: str) -> str:
    """Write the report.

    Parameters
    ----------
    instance
        Dagster's, which remembers the materializations.
    dataset
        The dataset's id.
    results
        The results of the streams that its champion scores.
    about
        Where the clips come from (`genres_dagster.partitions.provenance`).

    Returns
    -------
    str
        HTML. An asset that was never materialized is left out; what it would show is what the first materialization
        of it will.
    """
    found = [(name, newest(instance, dg.AssetKey(name), partition=dataset)) for name in (*_RESULTS, *_PARTS)]
    found += [(key.to_user_string(), newest(instance, key)) for key in results]
    sections = [line for name, event in found if event is not None for line in _section(name, event)]
    title = html.escape(f"Dataset {dataset}")
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head><body>',
            f"<h1>{title}</h1><p>{html.escape(about)}; {now}.</p>",
            *(sections or ["<p>Nothing of it was materialized yet.</p>"]),
            "</body></html>\n",
        ]
    )


def newest(
    instance: dg.DagsterInstance, key: dg.AssetKey, *, partition: str | None = None
) -> tuple[datetime, Mapping[str, dg.MetadataValue]] | None:
    """Return when an asset was last materialized and what that said; None if it never was."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=None if partition is None else [partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    if not records or (event := records[0].asset_materialization) is None:
        return None
    return datetime.fromtimestamp(records[0].timestamp, UTC), event.metadata


def _section(name: str, event: tuple[datetime, Mapping[str, dg.MetadataValue]]) -> Iterator[str]:
    from markdown_it import MarkdownIt

    moment, metadata = event
    # Without "html", what looks like it is text; pictures inside the file are the only links that matter.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    yield f"<h2>{html.escape(name)}</h2><p>{moment:%Y-%m-%d %H:%M} UTC</p>"
    rows = [
        (label, _plain(value)) for label, value in metadata.items() if not isinstance(value, dg.MarkdownMetadataValue)
    ]
    if any(text for _, text in rows):
        cells = ((label.removeprefix("dagster/").replace("_", " "), text) for label, text in rows if text)
        yield "<table>"
        yield from (f"<tr><th>{html.escape(label)}</th><td>{html.escape(text)}</td></tr>" for label, text in cells)
        yield "</table>"
    for label, value in metadata.items():
        if isinstance(value, dg.MarkdownMetadataValue) and value.md_str:
            yield f"<h3>{html.escape(label.replace('_', ' '))}</h3>"
            yield markdown.render(value.md_str)


def _plain(value: dg.MetadataValue[Any]) -> str:
    """Return a value that is a number or a word as text; others are for Dagster's pages."""
    if isinstance(value, dg.FloatMetadataValue) and value.value is not None:
        return f"{value.value:.4g}"
    if isinstance(value, (dg.IntMetadataValue, dg.TextMetadataValue, dg.BoolMetadataValue)):
        return str(value.value)
    return ""

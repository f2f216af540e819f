"""The report of a dataset, as one HTML file that needs nothing else.

What its newest materializations say and draw, what its streams' checks found last, and what was refused, and why.
Names of files and genres come from outside: the page takes no HTML of theirs, runs no script and fetches nothing.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from genres.settings import StreamSettings
from genres.store import quarantine
from genres.store.database import Database
from genres.store.stream_ledger import results
from genres_dagster.checks import outcome_of

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; } table { border-collapse: collapse; margin: 1rem 0; } h2 { margin-top: 3rem; }
td, th { border: 1px solid #ccc; padding: .2rem .6rem; text-align: left; vertical-align: top; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PARTS = ("raw_audio", "audio_features", "feature_figures", "track_split", "genre_classifiers", "calibrated_classifier")
_RESULTS = ("champion_model", "batch_predictions", "evaluation_figures")
STREAM_CHECKS = {
    "audio_clips": ("nothing_lost", "producer_alive", "consumer_lag"),
    "stream_predictions": ("complete", "quarantine_rate"),
    "streaming_results": ("label_set", "feature_drift", "prediction_drift", "batch_checks"),
}
"""The checks of a stream by asset, which its own code location evaluates and this room does not import."""
_REASONS = 30
"""How many reasons are listed; the rest is summed up."""
_PARTICULAR = re.compile(r"b?'[^']*'|b?\"[^\"]*\"|\d[\d,.]*")
"""What is of one clip in a reason: numbers, and what is quoted from its file."""


def stream_asset(stream: StreamSettings, name: str) -> dg.AssetKey:
    """Return the key of one of a stream's assets."""
    return dg.AssetKey([*filter(None, [stream.name]), name])


def dataset_report(
    instance: dg.DagsterInstance, database: Database, dataset: str, *, streams: Sequence[StreamSettings], about: str
) -> str:
    """Write the report.

    Parameters
    ----------
    instance
        Dagster's, which remembers the materializations and what checks found.
    database
        Has what was refused, and what became of the streams' clips.
    dataset
        The dataset's id.
    streams
        Those that its champion scores.
    about
        Where the clips come from (`genres_dagster.partitions.provenance`).

    Returns
    -------
    str
        HTML. An asset that was never materialized is left out.
    """
    found = [(name, newest(instance, dg.AssetKey(name), partition=dataset)) for name in (*_RESULTS, *_PARTS)]
    shown = [stream_asset(stream, "streaming_results") for stream in streams]
    found += [(key.to_user_string(), newest(instance, key)) for key in shown]
    sections = [line for name, event in found if event is not None for line in _section(name, event)]
    if refused := quarantine.refused(database, dataset):
        sections += [
            "<h2>Refused clips of the dataset</h2>",
            *_reasons((clip.reason_code, clip.reason) for clip in refused),
        ]
    for stream in streams:
        sections += _faults(instance, database, stream)
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
        yield from _table((label.removeprefix("dagster/").replace("_", " "), text) for label, text in rows if text)
    for label, value in metadata.items():
        if isinstance(value, dg.MarkdownMetadataValue) and value.md_str:
            yield f"<h3>{html.escape(label.replace('_', ' '))}</h3>"
            yield markdown.render(value.md_str)


def _faults(instance: dg.DagsterInstance, database: Database, stream: StreamSettings) -> Iterator[str]:
    """What went wrong with a stream's clips; nothing of one that has had none and was never checked."""
    checks = [(stream_asset(stream, asset), name) for asset, names in STREAM_CHECKS.items() for name in names]
    keys = [dg.AssetCheckKey(asset, name) for asset, name in checks]
    records = [(key, instance.get_latest_asset_check_evaluation_record(key)) for key in keys]
    outcomes = [(key, record, found) for key, record in records if record and (found := outcome_of(record))]
    summed = results.summary(database, stream.topic)
    if not (outcomes or summed.ranges):
        return
    yield f"<h2>{html.escape(f'Faults of stream {stream.topic}')}</h2>"
    states = ", ".join(f"{count} {state}" for state, count in sorted(summed.ranges.items())) or "none"
    yield from _table(
        [("offset ranges", states), ("predictions", f"{summed.predicted}"), ("refused clips", f"{summed.refused}")]
    )
    if outcomes:
        yield "<h3>Newest outcomes of its checks</h3>"
        yield from _table(
            [
                (
                    f"{key.asset_key.to_user_string()}: {key.name}",
                    "passed" if found.passed else f"failed ({found.severity.value.lower()})",
                    f"{datetime.fromtimestamp(record.create_timestamp, UTC):%Y-%m-%d %H:%M} UTC",
                    found.description or "",
                )
                for key, record, found in outcomes
            ]
        )
    if summed.refused:
        yield "<h3>Refused clips by reason</h3>"
        rows = results.quarantine(database, topic=stream.topic)
        yield from _reasons((row["reason_code"], row["reason"]) for row in rows)


def _reasons(reasons: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Count refusals by code and reason, without what a reason says of its clip alone."""
    counts = Counter((code, _PARTICULAR.sub("…", reason)) for code, reason in reasons).most_common()
    rows = [(reason, code, f"{count}") for (code, reason), count in counts[:_REASONS]]
    if others := counts[_REASONS:]:
        rows.append((f"{len(others)} other reasons", "", f"{sum(count for _, count in others)}"))
    yield from _table([("reason", "code", "clips"), *rows])


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lay rows of text out, the first of each as its heading."""
    yield "<table>"
    for heading, *cells in rows:
        others = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        yield f"<tr><th>{html.escape(heading)}</th>{others}</tr>"
    yield "</table>"


def _plain(value: dg.MetadataValue[Any]) -> str:
    """Return a value that is a number or a word as text; others are for Dagster's pages."""
    if isinstance(value, dg.FloatMetadataValue) and value.value is not None:
        return f"{value.value:.4g}"
    if isinstance(value, (dg.IntMetadataValue, dg.TextMetadataValue, dg.BoolMetadataValue)):
        return str(value.value)
    return ""

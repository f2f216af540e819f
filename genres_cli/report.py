"""What the ``genres`` command prints: tables made from plain rows."""

import contextlib
import time
from collections.abc import Sequence
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from genres.file_names import display_name, display_path

if TYPE_CHECKING:
    from genres.settings import StreamSettings
    from genres.store.database import Database
    from genres.store.stream_ledger.producers import Producer
    from genres.store.stream_ledger.ranges import Waiting
    from local_stack.stack import ServiceStatus

_NAME, _STRIP = 16, 60
"""Columns of a genre's name, and of its digits, in a line of 80."""
_COLOURS = {"running": "green", "external": "green", "starting": "yellow", "stopped": "dim", "unhealthy": "red"}


def status_table(services: "Sequence[ServiceStatus]") -> Table:
    """Lay out how each service is, and the memory of all together."""
    table = Table("service", "state", "pid", "address", "memory", "data folder", "UI", title="Local stack")
    for service in services:
        colour = _COLOURS[service.state]
        table.add_row(
            service.service,
            f"[{colour}]{service.state}[/]" + (f" ({escape(service.reason)})" if service.reason else ""),
            str(service.pid or ""),
            service.address,
            f"{service.memory_bytes / 2**20:.0f} MiB" if service.memory_bytes else "",
            str(service.data_dir or ""),
            service.ui or "",
        )
    table.add_section()
    total = sum(service.memory_bytes or 0 for service in services)
    table.add_row("all", "", "", "", f"{total / 2**20:.0f} MiB", "", "")
    return table


def producer_lines(streams: "Sequence[StreamSettings]", producers: "Sequence[Producer | None]") -> list[str]:
    """Return a line about each stream's producer."""
    from genres.store.stream_ledger.producers import describe

    return [
        f"producer of {stream.topic} ({display_path(stream.watch_folder)}): {describe(producer)}"
        for stream, producer in zip(streams, producers, strict=True)
    ]


def producer_rows(
    streams: "Sequence[StreamSettings]", producers: "Sequence[Producer | None]", logs: Path
) -> list[dict[str, Any]]:
    """Return each stream's producer with the keys of a service."""
    rows = []
    for stream, producer in zip(streams, producers, strict=True):
        is_gone = producer is None or producer.ended_at is not None
        name = "_".join(filter(None, ("folder_producer", stream.name)))
        rows.append(
            {
                "service": name,
                "state": "stopped" if is_gone else "running" if producer and producer.is_alive() else "silent",
                "pid": None if is_gone or producer is None else producer.pid,
                "address": stream.topic,
                "memory_bytes": None,
                "data_dir": stream.watch_folder,
                "log": logs / f"{name}.log",
                "ui": None,
                "reason": (producer and producer.last_error) or "",
            }
        )
    return rows


def waiting_lines(streams: "Sequence[StreamSettings]", waiting: "Sequence[Sequence[Waiting]]") -> list[str]:
    """Return a line about each reason for which clips of a stream wait."""
    return [
        f"stream {stream.topic}: {found.describe()}"
        for stream, reasons in zip(streams, waiting, strict=True)
        for found in reasons
    ]


def stream_rows(streams: "Sequence[StreamSettings]", waiting: "Sequence[Sequence[Waiting]]") -> list[dict[str, Any]]:
    """Return the streams whose clips wait, and for what, with the keys of a service."""
    return [
        {
            "service": "_".join(filter(None, ("stream", stream.name))),
            "state": "waiting",
            **dict.fromkeys(("pid", "memory_bytes", "data_dir", "log", "ui")),
            "address": stream.topic,
            "reason": "; ".join(found.describe() for found in reasons),
        }
        for stream, reasons in zip(streams, waiting, strict=True)
        if reasons
    ]


def predictions_table(rows: list[dict[str, Any]], *, name: str) -> Table:
    """Lay out predictions.

    Parameters
    ----------
    rows
        Stored or fresh predictions.
    name
        The column that names a row: ``track_id`` or ``file_name``.
    """
    columns = [name, "part", "genre", "predicted_genre", "probability", "note", "latency_s", "model", "data"]
    rows = [{**row, "note": note} if (note := _note(row)) else row for row in rows]
    kept = [column for column in columns if column in {"model", "data"} or any(column in row for row in rows)]
    table = Table(*kept, title=f"{len(rows)} predictions")
    for row in rows:
        shown = {
            **row,
            "probability": f"{row['probability']:.3f}" + ("" if row["is_calibrated"] else " (uncalibrated)"),
            "model": f"{row['model_name']} v{row['model_version']}",
            "data": "synthetic" if row["is_synthetic"] else row["dataset"],
        }
        table.add_row(*(escape(display_name(str(shown.get(column, "")))) for column in kept))
    return table


def _note(row: dict[str, Any]) -> str:
    """Return what to know before an answer is believed; empty if it is certain, or nobody knows."""
    if row.get("is_unlike"):
        return f"unlike anything learnt (distance {row['distance']:.1f})"
    return "uncertain" if row.get("is_uncertain") else ""


def over_time_lines(row: dict[str, Any]) -> list[str]:
    """Draw genre over time as text of 80 columns: a line for each genre that is the likeliest somewhere.

    A digit is a window's probability in tenths, or the mean of several windows'; what is below a tenth is blank.

    Parameters
    ----------
    row
        A fresh prediction.
    """
    curve, name = row["over_time"], display_name(row["file_name"])
    if curve is None:
        return [f"{name}: its features say nothing over time"]
    windows = curve["probabilities"]
    together = -(-len(windows) // _STRIP)
    groups = [windows[first : first + together] for first in range(0, len(windows), together)]
    means = [[fsum(values) / len(group) for values in zip(*group, strict=True)] for group in groups]
    leading = dict.fromkeys(max(range(len(mean)), key=mean.__getitem__) for mean in means)
    seconds = curve["start_s"] + (len(windows) - 1) * curve["hop_s"] + curve["window_s"]
    lines = [f"{name}: probability in tenths, {together * curve['hop_s']:.0f} s a digit"]
    for genre in leading:
        digits = "".join(str(min(int(10 * mean[genre]), 9)) if mean[genre] >= 0.1 else " " for mean in means)
        lines.append(f"  {curve['genres'][genre][:_NAME]:<{_NAME}} {digits}".rstrip())
    end = f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    return [*lines, f"  {'':<{_NAME}} 0:00{end:>{max(len(means) - 4, len(end) + 1)}}"]


def models_table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the versions of a dataset's model, each figure with the number of tracks that it is of."""
    name = rows[0]["model_name"] if rows else "no model is registered yet"
    columns = ("version", "alias", "classifier", "valid macro-F1", "valid ECE", "test macro-F1", "test accuracy")
    table = Table(*columns, "registered", "champion since", "why", title=name)
    for row in rows:
        since = row["champion_since"]
        table.add_row(
            str(row["version"]),
            row["alias"],
            row["classifier"],
            _figure(row["valid_macro_f1"], row["valid_tracks"]),
            _figure(row["valid_ece"], row["valid_tracks"]),
            _figure(row["test_macro_f1"], row["test_tracks"]),
            _figure(row["test_accuracy"], row["test_tracks"]),
            f"{row['registered_at']:%Y-%m-%d %H:%M}",
            f"{since:%Y-%m-%d %H:%M} by {row['changed_by']}" if since else "",
            escape(row["why"]),
        )
    return table


def _figure(value: float | None, tracks: int | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f} (n={'?' if tracks is None else tracks})"


def quarantine_table(rows: list[dict[str, Any]]) -> Table:
    """Lay out refused clips of the stream."""
    table = Table("sha256", "file", "reason", "refused", "topic", "by", "kept", title=f"{len(rows)} refused clips")
    for row in rows:
        table.add_row(
            row["sha256"][:12],
            escape(display_name(row["file_name"])),
            escape(row["reason"]) + (" (closed)" if row["closed_at"] else ""),
            f"{row['quarantined_at']:%Y-%m-%d %H:%M}",
            row["topic"],
            row["judged_by"],
            "error/" if row["stage"] == "producer" else "HDFS" if row["kept_path"] else "no",
        )
    return table


def follow_stream(console: Console, database: "Database") -> None:
    """Show the stream's newest predictions, again every second, until Ctrl-C."""
    from genres.store.stream_ledger import results

    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            rows = results.predictions(database, limit=max(console.height - 8, 5))
            live.update(predictions_table(rows, name="file_name"), refresh=True)
            time.sleep(1)

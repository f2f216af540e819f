"""What the ``genres`` command prints: lines and tables made from plain rows, for a terminal of 80 columns or more.

Addresses, paths and reasons stand in lines of their own and are never cut: a terminal that is too narrow breaks them,
and what is copied from it is whole. In tables the columns that matter least are left out where there is no room.
"""

import contextlib
import shlex
import textwrap
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from genres.addresses import without_secrets
from genres.file_names import display_name, display_path
from genres.plurals import counted

if TYPE_CHECKING:
    from genres.settings import Settings, StreamSettings
    from genres.store.batch_tables import ManifestChanges
    from genres.store.database import Database
    from genres.store.dataset_deletion import Holdings
    from genres.store.stream_ledger.producers import Producer
    from genres.store.stream_ledger.ranges import Waiting
    from local_stack.stack import ServiceStatus

_NAME, _STRIP = 16, 60
"""Columns of a genre's name, and of its digits, in a line of 80."""
_COLOURS = {"running": "green", "external": "green", "starting": "yellow", "stopped": "dim", "unhealthy": "red"}
_INDENT = "    "
_NAMED = 5
"""Clips that are named of those that changed."""
_LEAST_NAME = 10
"""Cells of the terminal that are left of a name of a file, genre or dataset, however long its row is."""
_REFRESH_S = 1.0
_OVERLAP = timedelta(minutes=1)
"""How long before the newest row one of another range may have been dated that is committed after it."""
_PAST_ALL = 10_000
"""More columns than any terminal has: how wide a table is that lacks no room."""


def print_lines(console: Console, lines: Iterable[str | Text]) -> None:
    """Print lines as they are: a name is no markup, and a line that is too long is left to the terminal to break."""
    for line in lines:
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def status_lines(services: "Sequence[ServiceStatus]") -> list[Text]:
    """Return a line about each service, and one about the memory of all together."""
    lines = [Text(f"{'service':<14} {'state':<9} {'pid':>7} {'memory':>9}  address", style="bold")]
    for service in services:
        state = Text(f"{service.state:<9}", style=_COLOURS[service.state])
        about = f" {service.pid or '':>7} {_mebibytes(service.memory_bytes):>9}  {service.address}"
        if service.reason:
            lines.append(Text.assemble(f"{service.service:<14} ", state[: len(service.state)], f" ({service.reason})"))
            lines.append(Text(f"{'':<24}{about}"))
        else:
            lines.append(Text.assemble(f"{service.service:<14} ", state, about))
    total = sum(service.memory_bytes or 0 for service in services)
    lines.append(Text(f"{'all':<14} {'':<9} {'':>7} {_mebibytes(total):>9}"))
    return lines


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:,.0f} MiB"


def page_lines(settings: "Settings", *, mlflow: str, page_is_open: bool, dagster_is_open: bool) -> list[str]:
    """Return a line about each page that people look at.

    Parameters
    ----------
    mlflow
        MLflow's page of a dataset's runs, or of all experiments.
    """
    embedded = f"http://127.0.0.1:{settings.ports.spark_ui}"
    spark = embedded if "spark" in settings.embedded else without_secrets(settings.remote)
    closed = "  (closed; `genres ui` opens it)"
    return [
        f"{'to listen':<13} {settings.page_url}{'' if page_is_open else closed}",
        f"{'Dagster':<13} {settings.dagster_url}{'' if dagster_is_open else closed}",
        f"{'MLflow':<13} {mlflow}",
        f"{'Spark UI':<13} {spark}",
    ]


def page_rows(settings: "Settings", *, page_is_open: bool, dagster_is_open: bool) -> list[dict[str, Any]]:
    """Return Dagster and the page to listen on with the keys of a service."""
    return [
        {
            "service": service,
            "state": "running" if is_open else "stopped",
            **dict.fromkeys(("pid", "memory_bytes", "data_dir", "log")),
            "address": address,
            "ui": address,
            "reason": "",
        }
        for service, address, is_open in (
            ("dagster", settings.dagster_url, dagster_is_open),
            ("page", settings.page_url, page_is_open),
        )
    ]


def producer_lines(streams: "Sequence[StreamSettings]", producers: "Sequence[Producer | None]") -> list[str]:
    """Return a line about each stream's producer."""
    from genres.store.stream_ledger.producers import describe

    return [
        f"producer of {stream.topic} ({display_path(stream.watch_folder)}): {describe(producer)}"
        for stream, producer in zip(streams, producers, strict=True)
    ]


def producer_name(stream: "StreamSettings") -> str:
    """Return what a stream's producer is called as a service, and in its log's name."""
    return "_".join(filter(None, ("folder_producer", stream.name)))


def producer_rows(
    streams: "Sequence[StreamSettings]", producers: "Sequence[Producer | None]", logs: Path
) -> list[dict[str, Any]]:
    """Return each stream's producer with the keys of a service."""
    rows = []
    for stream, producer in zip(streams, producers, strict=True):
        is_gone = producer is None or producer.ended_at is not None
        name = producer_name(stream)
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


class PredictionsTable:
    """Predictions, one line a row. What matters least is left out where there is no room, and said.

    Parameters
    ----------
    rows
        Stored or fresh predictions.
    name
        The column that names a row: ``track_id`` or ``file_name``.
    title
        What they are; empty for their number.
    top
        How many genres a row shows, the likeliest first.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], *, name: str, title: str = "", top: int = 1) -> None:
        self._name = name
        self._title = title or counted(len(rows), "prediction")
        # With several genres, each has its probability beside it.
        self._columns = _COLUMNS if top == 1 else (_top_column(top), *_COLUMNS[2:])
        self._rows = [{**row, "note": note} if (note := _note(row)) else row for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as many columns as there is room for; the last to give way are long names, in their middles."""
        shown = [column for column in self._columns if any(column.shown(row, _PAST_ALL) for row in self._rows)]
        wanted, room = shown, options.max_width
        while (is_too_wide := self._width(console, wanted, _PAST_ALL) > room) and any(column.rank for column in wanted):
            least = max(wanted, key=lambda column: column.rank)
            wanted = [column for column in wanted if column is not least]
        # Outside the table: in it, they would be as narrow as it is.
        yield Text(self._title, style="italic")
        if self._rows:
            yield self._table(wanted, self._most(console, wanted, room) if is_too_wide else _PAST_ALL)
        if left_out := [column.head for column in shown if column not in wanted]:
            yield Text(f"no room for: {', '.join(left_out)}; --json has all", style="dim")

    def _most(self, console: Console, columns: "Sequence[_Column]", room: int) -> int:
        """Return how many cells a name may have, of a file or a genre, for the table to fit."""
        sizes = range(_LEAST_NAME, max(room, _LEAST_NAME) + 1)
        fitting = bisect_right(sizes, room, key=lambda most: self._width(console, columns, most))
        return sizes[max(fitting - 1, 0)]

    def _width(self, console: Console, columns: "Sequence[_Column]", most: int) -> int:
        table = self._table(columns, most)
        return Measurement.get(console, console.options.update(max_width=_PAST_ALL), table).maximum

    def _table(self, columns: "Sequence[_Column]", most: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(self._name, overflow="fold")
        for column in columns:
            table.add_column(column.head, justify="right" if column.is_number else "left", overflow="fold")
        for row in self._rows:
            name = shortened(display_name(str(row.get(self._name, ""))), most)
            table.add_row(*map(Text, [name, *(column.shown(row, most) for column in columns)]))
        return table


class _Column(NamedTuple):
    """A column of `PredictionsTable`."""

    head: str
    rank: int
    """The highest is left out first; 0 never is."""
    shown: Callable[[dict[str, Any], int], str]
    """Returns a row's cell, in which a name has at most so many cells of the terminal."""
    is_number: bool = False


def _text(column: str) -> Callable[[dict[str, Any], int], str]:
    return lambda row, most: shortened(display_name(str(row.get(column) or "")), most)


def _probability(row: dict[str, Any], _: int) -> str:
    return f"{row['probability']:.3f}" + ("" if row["is_calibrated"] else " (uncalibrated)")


def _latency(row: dict[str, Any], _: int) -> str:
    return f"{row['latency_s']:.1f} s" if row.get("latency_s") is not None else ""


def _time(row: dict[str, Any], _: int) -> str:
    return f"{row['predicted_at']:%m-%d %H:%M:%S}" if row.get("predicted_at") else ""


_COLUMNS = (
    _Column("predicted", 0, _text("predicted_genre")),
    _Column("p", 0, _probability, is_number=True),
    _Column("true", 0, _text("genre")),
    _Column("note", 0, lambda row, _: row.get("note", "")),
    _Column("data", 0, lambda row, most: "synthetic" if row["is_synthetic"] else shortened(row["dataset"], most)),
    _Column("part", 2, _text("part")),
    _Column("latency", 3, _latency, is_number=True),
    _Column("UTC", 1, _time),
    _Column("model", 4, lambda row, _: f"{row['model_name']} v{row['model_version']}"),
)


def _top_column(top: int) -> _Column:
    def shown(row: dict[str, Any], most: int) -> str:
        genres = ((shortened(display_name(genre), most), value) for genre, value in likeliest(row, top))
        return ", ".join(f"{genre} {value:.3f}" for genre, value in genres)

    return _Column(f"{top} likeliest", 0, shown)


def likeliest(row: dict[str, Any], top: int) -> list[tuple[str, float]]:
    """Return a prediction's likeliest genres with their probabilities, the likeliest first."""
    return sorted(row["probabilities"].items(), key=lambda found: -found[1])[:top]


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many cells of the terminal; of a longer one, beginning and end."""
    if cell_len(name) <= most:
        return name
    end = (most - 1) // 2
    # Of a wide character that would be halved, nothing is left.
    first = set_cell_size(name, most - 1 - end).rstrip()
    last = next(name[at:] for at in range(len(name) + 1) if cell_len(name[at:]) <= end)
    return f"{first}…{last}"


def _note(row: dict[str, Any]) -> str:
    """Return what to know before an answer is believed; empty if it is certain, or nobody knows."""
    if row.get("stale_since"):
        return "stale: the audio is gone"
    if row.get("is_unlike"):
        return "unlike anything learnt"
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
        lines.append(f"  {set_cell_size(display_name(curve['genres'][genre]), _NAME)} {digits}".rstrip())
    end = f"{int(seconds) // 60}:{int(seconds) % 60:02}"
    return [*lines, f"  {'':<{_NAME}} 0:00{end:>{max(len(means) - 4, len(end) + 1)}}"]


def models_lines(rows: Sequence[dict[str, Any]], width: int) -> list[str]:
    """Return some lines about each version of a dataset's model, each figure with the number of its tracks."""
    if not rows:
        return ["no model is registered yet: `genres demo` trains one, or materialize champion_model in Dagster"]
    lines = [f"{rows[0]['model_name']}: {counted(len(rows), 'version')}, the newest first"]
    for row in rows:
        valid, test = row["valid_tracks"], row["test_tracks"]
        head = [f"v{row['version']}", row["alias"], f"registered {_minute(row['registered_at'])}"]
        lines += ["", "  ".join(filter(None, head)), *wrapped(row["classifier"] or "", width, indent=_INDENT)]
        for part, figures in (
            ("valid", (("macro-F1", row["valid_macro_f1"], valid), ("ECE", row["valid_ece"], valid))),
            ("test", (("macro-F1", row["test_macro_f1"], test), ("accuracy", row["test_accuracy"], test))),
        ):
            if said := [f"{name} {_figure(value, n)}" for name, value, n in figures if value is not None]:
                lines.append(f"    {part:<6} {', '.join(said)}")
        if row["champion_since"]:
            lines += wrapped(
                f"champion since {_minute(row['champion_since'])} by {row['changed_by']}", width, indent=_INDENT
            )
        lines += wrapped(row["why"] or "", width, indent=_INDENT)
    return lines


def datasets_lines(rows: Sequence[dict[str, Any]], settings: "Settings") -> list[str]:
    """Return some lines about each dataset, the current one marked, and how another becomes it."""
    if not rows:
        return ["no dataset is loaded yet: `genres load <folder>` loads one, `genres demo` a synthetic one"]
    lines = []
    for row in rows:
        champion = f"champion v{row['champion_version']}" if row["champion_version"] else "no champion yet"
        clips = "no clip is loaded yet" if row["clips"] is None else counted(row["clips"], "clip")
        what = ", ".join([clips, champion, *(["synthetic sound"] if row["is_synthetic"] else [])])
        lines.append(f"{'*' if row['is_current'] else ' '} {row['dataset']:<16}  {what}")
        lines.append(f"{'':<20}{display_path(Path(row['source_folder']))}")
    named = {"GENRES_DATASET": settings.dataset, "GENRES_AUDIO": settings.audio}
    why = [f"{name}={shlex.quote(str(value))}" for name, value in named.items() if value]
    return [*lines, f"* is the current one{' by ' + ' and '.join(why) if why else ''}: what names no dataset takes it"]


def dataset_lines(row: dict[str, Any]) -> list[str]:
    """Return some lines about a dataset."""
    scores = ", ".join(row["scores_topics"])
    return _named(
        {
            "dataset": row["dataset"] + (" (the current one)" if row["is_current"] else ""),
            "folder": display_path(Path(row["source_folder"])),
            "sound": "synthetic" if row["is_synthetic"] else "recorded",
            "features": row["feature_sets"].replace(",", ", "),
            "loaded": _minute(row["registered_at"]),
            "clips": "none yet" if row["clips"] is None else f"{row['clips']:,}, with those that were refused",
            "predictions": f"{row['batch_predictions']:,} of all its models, without the stream's",
            "champion": f"v{row['champion_version']}" if row["champion_version"] else "none yet",
            "scores": f"the stream of {scores}" if scores else "no stream",
        }
    )


def loaded_again_lines(
    dataset: str, changes: "ManifestChanges", stored: Sequence[dict[str, Any]], *, is_used: bool
) -> list[str]:
    """Return what changed when a dataset was loaded again, and what is stale since.

    Parameters
    ----------
    stored
        Its stored predictions.
    is_used
        Whether anything was made of its clips.
    """
    kinds = {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
    if not any(kinds.values()):
        return [f"dataset {dataset}: nothing changed, {counted(changes.kept, 'clip')} as before"]
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items())
    lines = [f"dataset {dataset}: {counts}, {changes.kept} as before"]
    for kind, found in kinds.items():
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            lines.append(f"  {kind}: {', '.join(found[:_NAMED])}{more}")
    outdated = {*changes.changed, *changes.removed}
    rows = sum(row["track_id"] in outdated for row in stored)
    if is_used:
        lines.append("stale now: its features, split, models and predictions; make them again with")
        lines.append(f"  genres retrain --dataset {dataset}")
    if rows:
        lines.append(f"of audio that is no longer in it: {counted(rows, 'stored prediction')}")
    return lines


def stream_lines(about: dict[str, Any]) -> list[str]:
    """Return a line about each thing that `genres_cli.streams.status` says of a stream."""
    return _named(
        {
            "stream": about["topic"],
            "folder": about["watch_folder"],
            "scored by": about["scored_by"],
            "state": about["state"],
            "drained by": "; ".join(about["drains"]) or "nobody now",
            "producer": about["producer"],
            "ranges": ", ".join(f"{count:,} {state}" for state, count in about["ranges"].items()) or "none yet",
            "clips": f"{about['predicted']:,} predicted, {about['refused']:,} refused",
            "newest row": _minute(about["newest_row"]) if about["newest_row"] else "none yet",
            "waiting": "; ".join(about["waiting"]) or "nothing",
        }
    )


def _named(values: dict[str, str]) -> list[str]:
    return [f"{name:<12} {value}" for name, value in values.items()]


def holdings_lines(found: "Holdings") -> list[str]:
    """Return a line about each kind of things that go with a dataset, and one about what stays."""
    rows = ", ".join(f"{table} {count:,}" for table, count in found.rows.items())
    versions = ", ".join(f"v{number}" for number in found.versions) or "none"
    return [
        f"rows      {rows}",
        f"lake      {found.folder} ({_mebibytes(found.folder_bytes)}: clips, features, candidates, models)",
        f"models    {found.model_name}: {versions}",
        f"MLflow    the experiment {found.model_name} goes to MLflow's trash",
        f"stay      {display_path(found.dataset.source_folder)}, and the stream's predictions by its models",
    ]


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Break prose at blanks; a word that is longer than the line, such as an address, stays whole."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _figure(value: float, tracks: int | None) -> str:
    return f"{value:.3f} (n={'?' if tracks is None else tracks})"


def quarantine_lines(rows: Sequence[dict[str, Any]], counts: dict[str, int], width: int) -> list[str]:
    """Return some lines about each refused clip, behind one about how many there are.

    Parameters
    ----------
    rows
        Of ``stream_quarantine`` and ``quarantine``, each with its ``table``.
    counts
        How many there are of what was looked at.
    """
    of_each = ", ".join(f"{what} {count:,}" for what, count in counts.items())
    lines = [f"{counted(len(rows), 'refused clip')}: {of_each}"]
    for row in rows:
        kind, about = _refused_by(row)
        moment, name = _minute(row["quarantined_at"]), display_name(row["file_name"])
        lines.append(f"{row['sha256'][:12]:<12}  {moment}  {kind:<7}  {name}")
        lines += wrapped(row["reason"] + (" (closed)" if row.get("closed_at") else ""), width, indent=_INDENT)
        lines += wrapped(", ".join(f"{what} {value}" for what, value in about.items() if value), width, indent=_INDENT)
    return lines


def _refused_by(row: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return whether a stream or a dataset has a refused clip, and what else there is to say about that."""
    code = {"code": row["reason_code"]}
    if row["table"] == "quarantine":
        track = display_name(row["track_id"])
        return "dataset", {**code, "dataset": row["dataset"], "track": track, "refused by": row["stage"]}
    where = "in error/ beside it" if row["stage"] == "producer" else "in HDFS" if row["kept_path"] else "not kept"
    return "stream", {**code, "topic": row["topic"], "judged by": row["judged_by"], "bytes": where}


def follow_stream(
    console: Console, database: "Database", *, dataset: str | None, wrong: bool, uncertain: bool, last: int | None
) -> None:
    """Show the stream's newest predictions, again every second, until Ctrl-C."""
    from genres.store.stream_ledger import results

    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            most = min(last or console.height, max(console.height - 8, 5))
            rows = results.predictions(database, dataset=dataset, wrong=wrong, uncertain=uncertain, limit=most)
            title = f"{counted(len(rows), 'prediction')} of the stream, the newest last; Ctrl-C ends this"
            live.update(PredictionsTable(rows, name="file_name", title=title), refresh=True)
            time.sleep(_REFRESH_S)


def follow_rows(
    database: "Database", *, dataset: str | None, wrong: bool, uncertain: bool, last: int
) -> Iterator[dict[str, Any]]:
    """Yield the stream's newest predictions, and then each as it comes, for ever."""
    from genres.store.stream_ledger import results

    rows = results.predictions(database, dataset=dataset, wrong=wrong, uncertain=uncertain, limit=last)
    since = max((row["predicted_at"] for row in rows), default=datetime.now(UTC)) - _OVERLAP
    seen: dict[tuple[Any, ...], datetime] = {}
    # What was there before the rows that were asked for is not news.
    before = results.predictions(database, dataset=dataset, wrong=wrong, uncertain=uncertain, since=since)
    seen |= {_key(row): row["predicted_at"] for row in (*before, *rows)}
    yield from rows
    while True:
        time.sleep(_REFRESH_S)
        rows = results.predictions(database, dataset=dataset, wrong=wrong, uncertain=uncertain, since=since)
        yield from (row for row in rows if _key(row) not in seen)
        seen |= {_key(row): row["predicted_at"] for row in rows}
        since = max([since, *(row["predicted_at"] - _OVERLAP for row in rows)])
        seen = {key: moment for key, moment in seen.items() if moment > since}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["sha256"], row["model_name"], row["model_version"]

"""The commands that show what became of clips: predictions and refusals; refused clips are sent again."""

import contextlib
from typing import TYPE_CHECKING, Any

import click

from genres.errors import GenresError
from genres.plurals import counted
from genres_cli.command_line import COUNT, Command, InOrder, dataset_option, json_option, make_console, print_json

if TYPE_CHECKING:
    from datetime import datetime

_LAST_SHOWN = 20
"""Predictions that are shown unless somebody says how many."""


@click.command(cls=Command)
@click.option("--dataset", default="", help="Only those of this dataset's models; by default of all.")
@click.option("--last", type=COUNT, help="How many of the newest; by default 20, and as JSON all.")
@click.option("--wrong", is_flag=True, help="Only those whose true genre is known and another one.")
@click.option("--uncertain", is_flag=True, help="Only those that are uncertain, or unlike anything learnt.")
@click.option("--follow", is_flag=True, help="Show the stream's newest rows as they come; as JSON, a line for each.")
@click.option("--all", "every", is_flag=True, help="Earlier versions' too, and those of audio that is gone.")
@json_option
def predictions(
    dataset: str, last: int | None, wrong: bool, uncertain: bool, follow: bool, every: bool, as_json: bool
) -> None:
    """Show the newest stored predictions, batch and stream.

    The newest stand last; of all datasets unless one is named. Of the batch they are the champion's about the audio
    that a dataset holds now.
    """
    from genres.settings import Settings
    from genres.store import predictions as stored
    from genres.store.database import Database
    from genres.store.ledger import registered_dataset
    from genres.store.stream_ledger import results
    from genres_cli import report

    database = Database.opened(Settings().database)
    if dataset:
        registered_dataset(database, dataset)  # or an unknown one would look like one without predictions
    if follow and as_json:
        rows = report.follow_rows(
            database, dataset=dataset or None, wrong=wrong, uncertain=uncertain, last=last or _LAST_SHOWN
        )
        with contextlib.suppress(KeyboardInterrupt):
            for row in rows:
                print_json({"table": "stream_predictions", **row}, indent=None)
        return
    if follow:
        report.follow_stream(
            make_console(), database, dataset=dataset or None, wrong=wrong, uncertain=uncertain, last=last
        )
        return
    most = last if as_json else last or _LAST_SHOWN
    # One more tells whether there are more.
    limit = None if most is None else most + (not as_json)
    batch = stored.batch_predictions(
        database, dataset or None, current=not every, wrong=wrong, uncertain=uncertain, limit=limit
    )
    stream = results.predictions(database, dataset=dataset or None, wrong=wrong, uncertain=uncertain, limit=limit)
    if as_json:
        print_json(
            [{"table": "batch_predictions", **row} for row in batch]
            + [{"table": "stream_predictions", **row} for row in stream]
        )
        return
    for what, name, found in (("batch", "track_id", batch), ("stream", "file_name", stream)):
        shown = found[-most:] if most else found
        more = "; there are more: --last N" if len(found) > len(shown) else ""
        title = f"{counted(len(shown), f'{what} prediction')}{', the newest last' if shown else ''}{more}"
        make_console().print(report.PredictionsTable(shown, name=name, title=title))


@click.group(cls=InOrder, invoke_without_command=True)
@dataset_option
@json_option
@click.pass_context
def quarantine(context: click.Context, dataset: str, as_json: bool) -> None:
    """Show refused clips, or send a stream's again."""
    if context.invoked_subcommand is None:
        _show_refused(dataset, as_json=as_json)


_sha256 = click.argument("sha256", nargs=-1)
_reason = click.option("--reason", default="", help="Only those whose reason holds this text, or has this code.")
_since = click.option("--since", type=click.DateTime(), help="Only those refused since then (UTC).")
_older = click.option(
    "--older-versions",
    is_flag=True,
    help="Only streams' clips that another version of gate or features refused than today's.",
)


@quarantine.command("list")
@_sha256
@dataset_option
@_reason
@_since
@_older
@click.option("--history", is_flag=True, help="Streams' clips, too, that were accepted or judged again since.")
@json_option
def quarantine_list(
    sha256: tuple[str, ...],
    dataset: str,
    reason: str,
    since: "datetime | None",
    older_versions: bool,
    history: bool,
    as_json: bool,
) -> None:
    """Show refused clips with their reasons, oldest first.

    They are those of all streams, and of a dataset those that its last load or training refused, with its time. SHA256
    may be the beginning of one.
    """
    if dataset and older_versions:
        raise GenresError(
            "--older-versions is about streams: what a dataset has is judged by today's version with each load; leave "
            "--dataset out"
        )
    alike = {"sha256": sha256, "reason": reason, "since": since}
    _show_refused(dataset, as_json=as_json, older_versions=older_versions, history=history, **alike)


def _show_refused(
    dataset: str, *, as_json: bool, older_versions: bool = False, history: bool = False, **alike: Any
) -> None:
    from genres.settings import Settings
    from genres.store.database import Database
    from genres_cli import refusals, report

    settings = Settings()
    database = Database.opened(settings.database)
    streamed = refusals.of_streams(settings, database, older_versions=older_versions, history=history, **alike)
    rows = [{"table": "stream_quarantine", **row} for row in streamed]
    counts = {"streams": len(rows)}
    if not older_versions:
        meant, loaded = refusals.of_dataset(settings, database, dataset, **alike)
        rows += [{"table": "quarantine", **row} for row in loaded]
        counts[f"dataset {meant}"] = len(loaded)
    rows.sort(key=lambda row: row["quarantined_at"])
    if as_json:
        print_json(rows)
    else:
        console = make_console()
        report.print_lines(console, report.quarantine_lines(rows, counts, console.width))


@quarantine.command("retry")
@_sha256
@_reason
@_since
@_older
def quarantine_retry(sha256: tuple[str, ...], reason: str, since: "datetime | None", older_versions: bool) -> None:
    """Send a stream's refused clips to their topic, to be judged again.

    Say which: by SHA256, --reason, --since or --older-versions; several of them narrow the choice. A clip that is
    accepted now gets its prediction; one that the same version refuses again keeps its row. A dataset's clips are
    judged again by `genres load`.
    """
    from genres.settings import Settings
    from genres_cli.refusals import to_send_again
    from genres_cli.report import print_lines
    from streaming_sensors.quarantine_retry import send_again

    rows = to_send_again(Settings(), sha256, reason, since, older_versions=older_versions)
    done = send_again(Settings(), rows)
    print_lines(make_console(), done.left)
    clips = counted(len(rows), "refused clip")
    if not done.sent:
        raise GenresError(f"none of {clips} can be sent again")
    print_lines(
        make_console(),
        [
            f"{done.sent} of {clips} {'is' if len(rows) == 1 else 'are'} sent again; follow them with "
            "`genres predictions --follow`"
        ],
    )

"""The ``genres`` command: arguments in, tables and exit codes out. What it does is done by the other rooms.

Each command imports what it needs, Rich and the settings too: ``--help`` and a mistyped option wait for nothing.
A first sentence of a command's docstring that is longer than 62 characters is cut short in the list of commands.
"""

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from genres.errors import GenresError
from genres.plurals import counted
from genres_cli.signals import ended_in_order, ending_with_the_terminal, stop_on_signals

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from genres.settings import Settings
    from genres.store.dataset_deletion import Holdings
    from genres.store.stream_ledger.producers import Producer
    from genres.store.stream_ledger.ranges import Waiting

NO_CHAMPION = 3
"""Exit code of a run that ended well but found no model worth predicting with."""

_LAST_SHOWN = 20
"""Predictions that are shown unless somebody says how many."""
_NO_SCREEN = 200
"""Columns of what is not written to a terminal."""


class _LocalPath(click.Path):
    """A path of this machine; of a URL, the path's own type would make something else."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from genres.settings import require_local

        try:
            require_local(param.human_readable_name if param else "path", value)
        except ValueError as error:
            raise GenresError(str(error)) from error
        return super().convert(value, param, ctx)


_PATH = _LocalPath(path_type=Path)
_PORT = click.IntRange(1, 65535)
_COUNT = click.IntRange(1, 2**31 - 1)
"""What databases and MLflow take for a number of rows or of a version."""
_SEED = click.IntRange(0, 2**32 - 1)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
_dataset = click.option("--dataset", default="", help="Dataset id; by default the current one.")
_files = click.argument("files", type=_PATH, nargs=-1, required=True)


def main() -> None:
    """Run the command; an error that a user can fix, or that the system reports, is one line and exit code 1."""
    _print_any_character()
    try:
        with ending_with_the_terminal():
            app()
    except GenresError as error:
        _fail(str(error))
    except OSError as error:
        from genres.file_names import display_name, unicode_name

        said = error.strerror or " ".join(str(error).split()) or type(error).__name__
        _fail(f"{display_name(unicode_name(str(error.filename)))}: {said}" if error.filename else said)
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        for problem in error.errors():
            _fail(f"{_setting(problem['loc'], problem['input'])}{problem['msg'].removeprefix('Value error, ')}")


def _print_any_character() -> None:
    """Have what the terminal's encoding lacks spelt with escapes, where it would end the command with a traceback.

    Names come from anywhere, and our own lines have characters that are neither in ASCII nor in ISO 8859-1.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what stands for one may hold any text as it is
            stream.reconfigure(errors="backslashreplace")


def _setting(place: tuple[int | str, ...], value: object) -> str:
    """Return which setting has which value, unless that is a secret; nothing where several do not fit together."""
    from pydantic import SecretStr

    from genres.addresses import without_secrets
    from genres.settings import Settings

    if not place:
        return ""
    name = f"GENRES_{'_'.join(map(str, place)).upper()}"
    field = Settings.model_fields.get(str(place[0]))
    if field is None or field.annotation is SecretStr:
        return f"{name}: "
    # Whoever mistakes one setting for another may have put an address with a password anywhere.
    shown = repr(without_secrets(value)) if isinstance(value, str) else without_secrets(repr(value))
    return f"{name} = {shown}: "


def _require_text(ctx: click.Context) -> None:
    """Refuse words that are not UTF-8, which databases and MLflow do not take; a path may be of any bytes."""
    from genres.file_names import display_name, is_unicode, unicode_name

    for parameter in ctx.command.params:
        given = ctx.params.get(parameter.name or "")
        for word in given if isinstance(given, tuple) else (given,):
            if isinstance(word, str) and not is_unicode(word):
                raise GenresError(
                    f"{parameter.human_readable_name} is {display_name(unicode_name(word))}, which is not UTF-8: check "
                    "what the terminal or script sends"
                )


class _Command(click.Command):
    """A command that asks no proxy for the stack's addresses."""

    def invoke(self, ctx: click.Context) -> Any:
        from genres.addresses import bypass_proxies
        from genres.settings import Settings

        _require_text(ctx)
        bypass_proxies(Settings())
        return super().invoke(ctx)


class _InOrder(click.Group):
    """Lists the commands in the order in which they stand here."""

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        _require_text(ctx)
        return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse options that stand before a subcommand: `models --dataset A promote 2` would mean another dataset."""
        name, command, rest = super().resolve_command(ctx, args)
        for parameter in () if ctx.resilient_parsing else self.params:
            if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"{parameter.opts[0]} stands before '{name}', where it says nothing: write it behind, if "
                    f"`{ctx.command_path} {name} --help` has it",
                    ctx,
                )
        return name, command, rest

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, no_args_is_help=True)
def app() -> None:
    """Music-genre prediction: Dagster, Spark, MLflow, HDFS and Kafka, on this machine or on yours."""


@app.command()
def up() -> None:
    """Start the local stack, or what is missing of it. The database tables are brought up to date."""
    from genres_cli.demo import start

    with ended_in_order():
        start(_console())
    _show_status(as_json=False)


@app.command()
def down() -> None:
    """Stop the local stack. Its data stays."""
    from genres.settings import Settings
    from local_stack.stack import down as stop

    stop(Settings())
    _console().print("stopped; the data stays (make clean-state deletes it)")


@app.command()
@_as_json
def status(as_json: bool) -> None:
    """Show each service, each stream's producer and what waits."""
    _show_status(as_json=as_json)


@app.command()
@click.option("--batch-only", is_flag=True, help="Leave the streaming half out.")
def demo(batch_only: bool) -> None:
    """Run batch pipeline and stream, and print what came out.

    The stack is started if it does not run; the last table says where to look.
    """
    from genres_cli.demo import run_demo

    with ended_in_order():
        has_champion = run_demo(_console(), streams=not batch_only)
    if not has_champion:
        sys.exit(NO_CHAMPION)


@app.command()
@click.argument("folder", type=_PATH)
@_dataset
@click.option("--replace", is_flag=True, help="Take the place of the dataset of this id that another folder gave.")
def load(folder: Path, dataset: str, replace: bool) -> None:
    """Bring a folder of labelled audio to HDFS as a dataset.

    The audio is laid out as <genre>/<track>.wav (.flac, .mp3, .ogg, .m4a …: docs/audio.md).
    """
    from genres_cli.demo import load_folder

    with ended_in_order():
        load_folder(_console(), folder, dataset, replaces=replace)


@app.group(cls=_InOrder, invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List datasets, choose the current one, or delete one."""
    if context.invoked_subcommand is None:
        _list_datasets(as_json=False)


@datasets.command("list")
@_as_json
def datasets_list(as_json: bool) -> None:
    """List the loaded datasets; the current one is marked."""
    _list_datasets(as_json=as_json)


@datasets.command("show")
@click.argument("dataset", required=False, default="")
@_as_json
def datasets_show(dataset: str, as_json: bool) -> None:
    """Show what is known of a dataset, by default the current one."""
    from genres.settings import Settings
    from genres.store.database import Database
    from genres.store.ledger import registered_dataset
    from genres_cli import datasets as found
    from genres_cli import report

    settings = Settings()
    database = Database.opened(settings.database)
    name = registered_dataset(database, dataset or found.current(settings, database)).dataset
    (row,) = (row for row in found.described(settings, database) if row["dataset"] == name)
    if as_json:
        _print_json(row)
    else:
        report.print_lines(_console(), report.dataset_lines(row))


@datasets.command("use")
@click.argument("dataset")
def datasets_use(dataset: str) -> None:
    """Make a dataset the current one.

    Commands and streams that name no dataset take the current one. Loading a dataset makes it the current one, too.
    """
    from genres.settings import Settings
    from genres.store.database import Database
    from genres.store.ledger import use_dataset
    from genres_cli import datasets as found

    settings = Settings()
    database = Database.opened(settings.database)
    use_dataset(database, dataset)
    lines = [f"'{dataset}' is the current dataset now; a stream that names none is scored by it from its next run on"]
    if (meant := found.current(settings, database)) != dataset:
        lines.append(f"but here GENRES_DATASET or GENRES_AUDIO is set and names '{meant}', which goes first")
    _print_prose(lines)


@datasets.command("delete")
@click.argument("dataset")
@click.option("--yes", is_flag=True, help="Do not ask.")
def datasets_delete(dataset: str, yes: bool) -> None:
    """Delete a dataset: its rows, its clips and features, its models.

    What goes is shown before. A dataset whose champion scores a stream is not deleted. Its folder stays.
    """
    from genres.settings import Settings
    from genres_cli import datasets as found
    from genres_cli import report

    def confirmed(held: "Holdings") -> bool:
        report.print_lines(_console(), [f"deleting dataset '{dataset}' takes", *report.holdings_lines(held)])
        return yes or click.confirm("delete all of this?")

    if found.delete(Settings(), dataset, confirmed=confirmed) is None:
        report.print_lines(_console(), ["nothing was deleted"])
    else:
        report.print_lines(_console(), [f"dataset '{dataset}' is deleted"])


def _list_datasets(*, as_json: bool) -> None:
    from genres.settings import Settings
    from genres.store.database import Database
    from genres_cli import datasets as found
    from genres_cli import report

    settings = Settings()
    database = Database.opened(settings.database)
    rows = found.described(settings, database)
    if as_json:
        _print_json(rows)
    else:
        report.print_lines(_console(), report.datasets_lines(rows, settings))


@app.command()
@_dataset
def retrain(dataset: str) -> None:
    """Run the whole batch half for a dataset again.

    Its folder is read again, models are trained and compared with the champion, and predictions are made. The stack is
    started if it does not run.
    """
    from genres_cli.demo import retrain as train

    with ended_in_order():
        has_champion = train(_console(), dataset)
    if not has_champion:
        sys.exit(NO_CHAMPION)


@app.command()
@_files
@click.option("-o", "--output", type=_PATH, required=True, help="A .csv or .parquet file.")
def features(files: tuple[Path, ...], output: Path) -> None:
    """Compute the published GTZAN table's columns for local files.

    FILES are audio files, or folders of them.
    """
    from genres.settings import Settings
    from genres_cli.local_files import write_features

    with ended_in_order():
        write_features(_console(stderr=True), list(files), output, Settings())


@app.command()
@_files
@_dataset
@click.option("--top", type=click.IntRange(min=1), default=1, help="How many genres to show, the likeliest first.")
@click.option("--over-time", is_flag=True, help="Draw the genres over time, too; JSON has them anyway.")
@_as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")
@click.option("--m3u", "as_m3u", is_flag=True, help="Print a playlist, genre by genre, instead of a table.")
@click.option("-o", "--output", type=_PATH, help="Write to a file: .csv, .json, .m3u or .m3u8, unless a flag says so.")
@click.option("--write-tags", is_flag=True, help="Show which genres would be written into the files, and ask.")
@click.option("--yes", is_flag=True, help="With --write-tags: do not ask.")
def predict(
    files: tuple[Path, ...],
    dataset: str,
    top: int,
    over_time: bool,
    as_json: bool,
    as_csv: bool,
    as_m3u: bool,
    output: Path | None,
    write_tags: bool,
    yes: bool,
) -> None:
    """Predict the genre of local files with a dataset's champion.

    FILES are audio files, or folders of them. If any of them is refused, its reason is said and the exit code is 1; the
    others have their answers all the same.
    """
    from genres.file_names import display_path
    from genres.settings import Settings
    from genres_cli import local_files, report

    if yes and not write_tags:
        raise GenresError("--yes goes with --write-tags alone: there is nothing else to agree to")
    kinds = [kind for kind, is_asked in (("csv", as_csv), ("json", as_json), ("m3u", as_m3u)) if is_asked]
    kind = local_files.answers_kind(kinds, output)
    if over_time and kind in ("csv", "m3u"):
        raise GenresError(
            f"--over-time draws beside the table, and {kind.upper()} has no place for it: leave it out, or take "
            "--json, which has the curves anyway"
        )
    log = _console(stderr=True)
    with ended_in_order():
        rows, refused = local_files.predict_files(log, list(files), Settings(), dataset)
    if output:
        local_files.write_answers(output, rows, kind, top=top)
        report.print_lines(log, [f"{counted(len(rows), 'prediction')}: {display_path(output)}"])
    elif kind:
        # As bytes: a path need not be of characters.
        click.echo(local_files.answers_as(kind, rows, top=top).encode(errors="surrogateescape"), nl=False)
    else:
        console = _console()
        console.print(report.PredictionsTable(rows, name="file_name", top=top))
        report.print_lines(console, (line for row in rows if over_time for line in report.over_time_lines(row)))
    if write_tags:
        _write_tags(log, rows, yes=yes)
    if refused:
        report.print_lines(log, refused)
        files_given = counted(len(rows) + len(refused), "file")
        raise GenresError(f"{len(refused)} of {files_given} {'was' if len(refused) == 1 else 'were'} refused")


def _write_tags(log: "Console", rows: list[dict[str, Any]], *, yes: bool) -> None:
    from genres.settings import Settings
    from genres_cli.file_tags import tag_changes, write_tag
    from genres_cli.report import print_lines

    changes, left = tag_changes(rows)
    print_lines(log, [*left, *map(str, changes)])
    what = counted(len(changes), "tag")
    if not changes:
        print_lines(log, ["no tag is to be written"])
        return
    if not yes and not (sys.stdin.isatty() and click.confirm(f"write {what}?", err=True)):
        print_lines(log, [f"nothing is written; --yes writes {what}"])
        return
    failed = []
    for change in changes:
        try:
            write_tag(change, max_clip_s=Settings().max_clip_s)
        except GenresError as error:
            failed.append(str(error))
    print_lines(log, [*failed, f"{counted(len(changes) - len(failed), 'tag')} written"])
    if failed:
        raise GenresError(f"{len(failed)} of {counted(len(changes), 'file')} could not be tagged")


@app.command()
@click.option("--features", "table", type=_PATH, required=True, help="A table as `genres features` writes it.")
@click.option("--split-dir", type=_PATH, help="Folder of train_filtered.txt, valid_filtered.txt and test_filtered.txt.")
@click.option("--random-split", "seeds", type=_SEED, multiple=True, help="Seed of a random split, 80/20; or several.")
@click.option("--groups", type=_PATH, help="CSV of tracks and artists, whose tracks stay in one fold.")
@_as_json
@click.argument("more_seeds", metavar="[SEED]...", type=_SEED, nargs=-1)
def evaluate(
    table: Path,
    split_dir: Path | None,
    seeds: tuple[int, ...],
    groups: Path | None,
    as_json: bool,
    more_seeds: tuple[int, ...],
) -> None:
    """Train the candidates on a table of features and judge them.

    The table has the columns filename, features and label, as CSV or Parquet; any features will do. Without
    --split-dir and --random-split it is split as the pipeline splits a dataset. --random-split takes several seeds:
    --random-split 0 1 2. The Spark Connect server is started if it does not run.
    """
    from genres_cli.evaluate import evaluate_table, figures_table
    from genres_cli.report import print_lines

    if more_seeds and not seeds:
        raise GenresError(f"{more_seeds[0]} is no option: seeds come after --random-split")
    if split_dir is not None and seeds:
        raise GenresError("--split-dir and --random-split are two ways to split: leave one of them out")
    seeds = tuple(dict.fromkeys((*seeds, *more_seeds)))
    log = _console(stderr=True)
    with ended_in_order():
        rows, notices = evaluate_table(log, table, split_dir=split_dir, seeds=seeds, groups=groups)
    console = _console(stderr=as_json)
    print_lines(console, notices)
    if as_json:
        _print_json([{**row, "random_seeds": list(seeds)} for row in rows])
    else:
        console.print(figures_table(rows, table), soft_wrap=False)


@app.command()
@_dataset
@click.option("--last", type=_COUNT, help="How many of the newest; by default 20, and as JSON all.")
@click.option("--wrong", is_flag=True, help="Only those whose true genre is known and another one.")
@click.option("--uncertain", is_flag=True, help="Only those that are uncertain, or unlike anything learnt.")
@click.option("--follow", is_flag=True, help="Show the stream's newest rows as they come; as JSON, a line for each.")
@click.option("--all", "every", is_flag=True, help="Earlier versions' too, and those of audio that is gone.")
@_as_json
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
                _print_json({"table": "stream_predictions", **row}, indent=None)
        return
    if follow:
        report.follow_stream(_console(), database, dataset=dataset or None, wrong=wrong, uncertain=uncertain, last=last)
        return
    most = last if as_json else last or _LAST_SHOWN
    # One more tells whether there are more.
    limit = None if most is None else most + (not as_json)
    batch = stored.batch_predictions(
        database, dataset or None, current=not every, wrong=wrong, uncertain=uncertain, limit=limit
    )
    stream = results.predictions(database, dataset=dataset or None, wrong=wrong, uncertain=uncertain, limit=limit)
    if as_json:
        _print_json(
            [{"table": "batch_predictions", **row} for row in batch]
            + [{"table": "stream_predictions", **row} for row in stream]
        )
        return
    for what, name, found in (("batch", "track_id", batch), ("stream", "file_name", stream)):
        shown = found[-most:] if most else found
        more = "; there are more: --last N" if len(found) > len(shown) else ""
        title = f"{counted(len(shown), f'{what} prediction')}{', the newest last' if shown else ''}{more}"
        _console().print(report.PredictionsTable(shown, name=name, title=title))


@app.command()
@click.argument("folder", type=_PATH, required=False)
@click.option("--stream", "name", default="", help="Stream that it is sent to; the default one unless named.")
@click.option("--once", is_flag=True, help="Send what is there and end.")
def watch(folder: Path | None, name: str, once: bool) -> None:
    """Send the audio dropped in a folder to Kafka; Ctrl-C ends it.

    FOLDER is by default the stream's watch_folder; audio in genre folders in it is sent with its genre.
    """
    from genres.settings import Settings
    from streaming_sensors.folder_producer import producer

    settings = Settings()
    stream = settings.stream(name)
    if folder is None:
        folder = stream.watch_folder
        folder.mkdir(parents=True, exist_ok=True)
    with stop_on_signals() as stop:
        producer.watch(settings, folder, stream.topic, once=once, console=_console(), stop=stop)


@app.command()
@click.option("--stream", "name", default="", help="Stream that is drained; the default one unless named.")
@click.option("--shard", type=int, help="Which of the GENRES_DRAINS shards, from 0; by default one that is free.")
def drain(name: str, shard: int | None) -> None:
    """Predict a stream's clips in this process, on any host.

    Ctrl-C or SIGTERM ends it after the batch at work. It does what the runs do that Dagster's sensors launch, which
    launch none for a shard that it has. Several processes share the shards; one for which there is none stands by.
    """
    from genres.settings import Settings
    from genres_cli import streams

    with stop_on_signals() as stop:
        streams.drain(Settings(), name, shard=shard, console=_console(), stop=stop)


@app.group(cls=_InOrder, invoke_without_command=True)
@_dataset
@_as_json
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
@_dataset
@_reason
@_since
@_older
@click.option("--history", is_flag=True, help="Streams' clips, too, that were accepted or judged again since.")
@_as_json
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
        _print_json(rows)
    else:
        console = _console()
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
    print_lines(_console(), done.left)
    clips = counted(len(rows), "refused clip")
    if not done.sent:
        raise GenresError(f"none of {clips} can be sent again")
    print_lines(
        _console(),
        [
            f"{done.sent} of {clips} {'is' if len(rows) == 1 else 'are'} sent again; follow them with "
            "`genres predictions --follow`"
        ],
    )


@app.command()
@click.option("--stream", "name", default="", help="Stream that is looked at; the default one unless named.")
@click.option("--acknowledge", is_flag=True, help="Say that these are known and cannot be made good.")
def losses(name: str, acknowledge: bool) -> None:
    """Show the clips that a stream lost and that never came again.

    A clip is made good when it is dropped, or sent, again and has its row. The check nothing_lost counts what is shown
    here, until it is acknowledged.
    """
    from genres.settings import Settings
    from genres.store.database import Database
    from genres.store.stream_ledger import losses as ledger
    from genres_cli.report import print_lines
    from streaming_sensors.topic import topic_state

    settings = Settings()
    database = Database.opened(settings.database)
    topic = settings.stream(name).topic
    state = topic_state(settings, topic)
    found = ledger.of_topic(database, topic, state.topic_id, state.beginnings)
    lines = [*(loss.describe() for loss in found.ranges), *(f"{path}: drop it again" for path in found.paths)]
    if acknowledge:
        ledger.acknowledge(database, found)
    counts = f"{counted(len(found.ranges), 'lost range')}, {counted(len(found.paths), 'known file')} without a row"
    print_lines(_console(), [*lines, f"{counts}{'; acknowledged' if acknowledge else ''}"])


_stream = click.option("--stream", "name", default="", help="Name of the stream; the default one unless named.")


@app.group(cls=_InOrder)
def stream() -> None:
    """Show a stream's state, pause it, or let it go on."""


@stream.command("status")
@_stream
@_as_json
def stream_status(name: str, as_json: bool) -> None:
    """Show what scores a stream, whether it goes on, and what waits."""
    from genres.settings import Settings
    from genres_cli import report, streams

    about = streams.status(Settings(), name)
    if as_json:
        _print_json(about)
    else:
        report.print_lines(_console(), report.stream_lines(about))


@stream.command("pause")
@_stream
def stream_pause(name: str) -> None:
    """Let no new run take clips; what is dropped waits in the topic."""
    from genres.settings import Settings
    from genres_cli import streams

    _print_prose(streams.pause(Settings(), name))


@stream.command("resume")
@_stream
def stream_resume(name: str) -> None:
    """Let a paused stream go on; what waits in the topic is taken first."""
    from genres.settings import Settings
    from genres_cli import streams

    _print_prose(streams.resume(Settings(), name))


_why = click.option("--why", default="", help="Why, for the record.")


@app.group(cls=_InOrder, invoke_without_command=True)
@_dataset
@_as_json
@click.pass_context
def models(context: click.Context, dataset: str, as_json: bool) -> None:
    """List a dataset's models, or change its champion."""
    if context.invoked_subcommand is not None:
        return
    from genres.settings import Settings
    from genres_cli.champions import open_champions
    from genres_cli.report import models_lines, print_lines

    rows = open_champions(Settings(), dataset).rows()
    if as_json:
        _print_json(rows)
    else:
        console = _console()
        print_lines(console, models_lines(rows, console.width))


@models.command("promote")
@click.argument("version", type=_COUNT)
@_dataset
@_why
def models_promote(version: int, dataset: str, why: str) -> None:
    """Make a version the champion. Who, when and why is recorded."""
    _change_champion(dataset, "promote", version, why)


@models.command("rollback")
@click.argument("version", type=_COUNT, required=False)
@_dataset
@_why
def models_rollback(version: int | None, dataset: str, why: str) -> None:
    """Make the champion of before the champion again.

    VERSION is one that was champion; by default the last one before the present one.
    """
    _change_champion(dataset, "rollback", version, why)


def _change_champion(dataset: str, action: str, version: int | None, why: str) -> None:
    from genres.settings import Settings
    from genres_cli.champions import open_champions
    from genres_dagster.champion_changes import in_words, tell_dagster

    settings = Settings()
    change = getattr(open_champions(settings, dataset), action)(version, why=why)
    tell_dagster(settings, change)
    _print_prose([in_words(change)])


@app.command()
@click.option("--port", type=_PORT, help="Port on 127.0.0.1; by default one of the stack's block.")
def page(port: int | None) -> None:
    """Open a page to listen on; Ctrl-C closes it."""
    from genres.settings import Settings
    from genres_page.server import serve

    settings = Settings()
    port = port or settings.ports.page
    _console(stderr=True).print(f"http://127.0.0.1:{port}", markup=False, highlight=False)
    serve(settings, port)


@app.command()
@_dataset
@click.option("-o", "--output", type=_PATH, required=True, help="HTML file; replaced when it is there.")
def report(dataset: str, output: Path) -> None:
    """Write what is known of a dataset into one HTML file."""
    from genres_cli.demo import write_report

    write_report(_console(), dataset, output)


@app.command()
@click.option("--port", type=_PORT, default=9464, show_default=True, help="Port on 127.0.0.1.")
def metrics(port: int) -> None:
    """Answer Prometheus about streams and services; Ctrl-C ends it."""
    from genres.addresses import require_addresses
    from genres.settings import Settings
    from genres.store.database import Database
    from local_stack.stack import status as ask
    from streaming_sensors.metrics import Metrics, serve

    settings = Settings()
    require_addresses(settings)
    database = Database.opened(settings.database)

    def services() -> dict[str, bool]:
        return {row.service: row.state in ("running", "external") for row in ask(settings)}

    _console(stderr=True).print(f"http://127.0.0.1:{port}/metrics", markup=False, highlight=False)
    serve(Metrics(settings, database, services), port)


@app.command()
def ui() -> None:
    """Open Dagster and the page; Ctrl-C closes them, not the stack."""
    from genres_cli.demo import open_dagster

    with ended_in_order():
        open_dagster(_console())


def _show_status(*, as_json: bool) -> None:
    from genres.addresses import require_addresses
    from genres.file_names import display_path
    from genres.settings import Settings
    from genres_cli import report
    from genres_cli.stream_demo import page_runs, ui_runs
    from local_stack.stack import status as ask

    settings = Settings()
    require_addresses(settings)
    services = ask(settings)
    streams = settings.streams
    producers, waiting, scorers, dataset = _about_streams(settings)
    is_open = {"page_is_open": page_runs(settings), "dagster_is_open": ui_runs(settings)}
    if as_json:
        rows = [service._asdict() for service in services]
        rows += report.page_rows(settings, **is_open)
        rows += report.producer_rows(streams, producers, settings.state_dir / "logs")
        _print_json([*rows, *report.stream_rows(streams, waiting)])
    else:
        lines = [*report.producer_lines(streams, producers), *scorers, *report.waiting_lines(streams, waiting)]
        pages = report.page_lines(settings, mlflow=_mlflow_page(settings, dataset), **is_open)
        places = [f"{'data and logs':<13} {display_path(settings.state_dir)}"]
        report.print_lines(_console(), [*report.status_lines(services), "", *pages, *places, "", *lines])


def _mlflow_page(settings: "Settings", dataset: str) -> str:
    """Return MLflow's address of a dataset's runs; of all experiments, if it has none or MLflow does not answer."""
    import requests

    from genres.addresses import without_secrets
    from genres.store.model_registry import ModelRegistry, experiments_page

    # MLflow's own client takes three times as long to import as everything else here.
    ask = f"{settings.tracking_uri}/api/2.0/mlflow/experiments/get-by-name"
    try:
        answer = requests.get(ask, {"experiment_name": ModelRegistry.name_for(dataset)}, timeout=5)
        experiment = answer.json()["experiment"]
        found = experiment["experiment_id"], [tag["key"] for tag in experiment.get("tags", [])]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        found = "", []
    return experiments_page(without_secrets(settings.tracking_uri), found[0], tags=found[1])


def _about_streams(settings: "Settings") -> "tuple[list[Producer | None], list[list[Waiting]], list[str], str]":
    """Look up each stream's producer, what its clips wait for and what scores it, and the current dataset.

    Without tables there is none of it.
    """
    from genres.store.champions import scorer
    from genres.store.database import Database
    from genres.store.ledger import dataset_meant
    from genres.store.stream_ledger import ranges
    from genres.store.stream_ledger.producers import newest
    from genres_cli.report import print_lines

    topics = [stream.topic for stream in settings.streams]
    nothing: tuple[list[Producer | None], list[list[Waiting]], list[str], str] = (
        [None for _ in topics],
        [[] for _ in topics],
        [],
        "",
    )
    if settings.database == f"sqlite:///{settings.state_dir / 'genres.db'}" and not settings.state_dir.exists():
        return nothing  # who asks for the status of nothing makes no folder
    database = Database(settings.database)
    try:
        database.check_migrated()
        return (
            [newest(database, topic) for topic in topics],
            [ranges.waiting(ranges.known(database, topic)) for topic in topics],
            [
                f"stream {stream.topic}: scored by "
                + scorer(database, dataset_meant(database, **settings.scored_by(stream)))
                for stream in settings.streams
            ],
            dataset_meant(database, **settings.meaning()),
        )
    except GenresError as error:
        print_lines(_console(stderr=True), [f"producers: {error}"])
        return nothing


def _console(*, stderr: bool = False) -> "Console":
    import shutil

    from rich.console import Console

    is_screen = (sys.stderr if stderr else sys.stdout).isatty()
    # What goes to a file or another program has no screen to fit on, unless COLUMNS says so.
    width = None if is_screen else shutil.get_terminal_size((_NO_SCREEN, 50)).columns
    # Lines are broken by the terminal alone, so that what is copied from it is whole.
    return Console(stderr=stderr, width=width, soft_wrap=True)


def _print_prose(lines: list[str]) -> None:
    from genres_cli.report import print_lines, wrapped

    console = _console()
    for line in lines:
        print_lines(console, wrapped(line, console.width))


def _print_json(found: object, *, indent: int | None = 2) -> None:
    import json

    # Of the encodings that a terminal may have, only Unicode's hold every name.
    as_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(found, default=str, indent=indent, ensure_ascii=as_ascii), flush=True)  # noqa: T201


def _fail(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"genres: {message}", style="red", markup=False)
    sys.exit(1)

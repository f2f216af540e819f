"""The commands about local files: their features, their genres, their tags."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genres.errors import GenresError
from genres.plurals import counted
from genres_cli.command_line import PATH, Command, dataset_option, json_option, make_console
from genres_cli.signals import ended_in_order

if TYPE_CHECKING:
    from rich.console import Console

_files = click.argument("files", type=PATH, nargs=-1, required=True)


@click.command(cls=Command)
@_files
@click.option("-o", "--output", type=PATH, required=True, help="A .csv or .parquet file.")
def features(files: tuple[Path, ...], output: Path) -> None:
    """Compute the published GTZAN table's columns for local files.

    FILES are audio files, or folders of them.
    """
    from genres.settings import Settings
    from genres_cli.local_files import write_features

    with ended_in_order():
        write_features(make_console(stderr=True), list(files), output, Settings())


@click.command(cls=Command)
@_files
@dataset_option
@click.option("--top", type=click.IntRange(min=1), default=1, help="How many genres to show, the likeliest first.")
@click.option("--over-time", is_flag=True, help="Draw the genres over time, too; JSON has them anyway.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")
@click.option("--m3u", "as_m3u", is_flag=True, help="Print a playlist, genre by genre, instead of a table.")
@click.option("-o", "--output", type=PATH, help="Write to a file: .csv, .json, .m3u or .m3u8, unless a flag says so.")
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
    log = make_console(stderr=True)
    with ended_in_order():
        rows, refused = local_files.predict_files(log, list(files), Settings(), dataset)
    if output:
        local_files.write_answers(output, rows, kind, top=top)
        report.print_lines(log, [f"{counted(len(rows), 'prediction')}: {display_path(output)}"])
    elif kind:
        # As bytes: a path need not be of characters.
        click.echo(local_files.answers_as(kind, rows, top=top).encode(errors="surrogateescape"), nl=False)
    else:
        console = make_console()
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

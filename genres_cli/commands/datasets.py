"""The commands about datasets: load one, choose, show, delete, train again, report."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genres_cli.command_line import (
    NO_CHAMPION,
    PATH,
    Command,
    InOrder,
    dataset_option,
    json_option,
    make_console,
    print_json,
    print_prose,
)
from genres_cli.signals import ended_in_order

if TYPE_CHECKING:
    from genres.store.dataset_deletion import Holdings


@click.command(cls=Command)
@click.argument("folder", type=PATH)
@click.option("--dataset", default="", help="Dataset id; by default the one that the folder has, or one of its name.")
@click.option("--replace", is_flag=True, help="Take the place of the dataset of this id that another folder gave.")
def load(folder: Path, dataset: str, replace: bool) -> None:
    """Bring a folder of labelled audio to HDFS as a dataset.

    The audio is laid out as <genre>/<track>.wav (.flac, .mp3, .ogg, .m4a …: docs/audio.md).
    """
    from genres_cli.demo import load_folder

    with ended_in_order():
        load_folder(make_console(), folder, dataset, replaces=replace)


@click.group(cls=InOrder, invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List datasets, choose the current one, or delete one."""
    if context.invoked_subcommand is None:
        _list_datasets(as_json=False)


@datasets.command("list")
@json_option
def datasets_list(as_json: bool) -> None:
    """List the loaded datasets; the current one is marked."""
    _list_datasets(as_json=as_json)


@datasets.command("show")
@click.argument("dataset", required=False, default="")
@json_option
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
        print_json(row)
    else:
        report.print_lines(make_console(), report.dataset_lines(row))


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
    print_prose(lines)


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
        report.print_lines(make_console(), [f"deleting dataset '{dataset}' takes", *report.holdings_lines(held)])
        return yes or click.confirm("delete all of this?")

    if found.delete(Settings(), dataset, confirmed=confirmed) is None:
        report.print_lines(make_console(), ["nothing was deleted"])
    else:
        report.print_lines(make_console(), [f"dataset '{dataset}' is deleted"])


def _list_datasets(*, as_json: bool) -> None:
    from genres.settings import Settings
    from genres.store.database import Database
    from genres_cli import datasets as found
    from genres_cli import report

    settings = Settings()
    database = Database.opened(settings.database)
    rows = found.described(settings, database)
    if as_json:
        print_json(rows)
    else:
        report.print_lines(make_console(), report.datasets_lines(rows, settings))


@click.command(cls=Command)
@dataset_option
def retrain(dataset: str) -> None:
    """Run the whole batch half for a dataset again.

    Its folder is read again, models are trained and compared with the champion, and predictions are made. The stack is
    started if it does not run.
    """
    from genres_cli.demo import retrain as train

    with ended_in_order():
        has_champion = train(make_console(), dataset)
    if not has_champion:
        sys.exit(NO_CHAMPION)


@click.command(cls=Command)
@dataset_option
@click.option("-o", "--output", type=PATH, required=True, help="HTML file; replaced when it is there.")
def report(dataset: str, output: Path) -> None:
    """Write what is known of a dataset into one HTML file."""
    from genres_cli.demo import write_report

    write_report(make_console(), dataset, output)

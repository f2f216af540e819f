"""The commands about models: judge candidates on a table, list versions, change the champion."""

from pathlib import Path

import click

from genres.errors import GenresError
from genres_cli.command_line import (
    COUNT,
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

_SEED = click.IntRange(0, 2**32 - 1)


@click.command(cls=Command)
@click.option("--features", "table", type=PATH, required=True, help="A table as `genres features` writes it.")
@click.option("--split-dir", type=PATH, help="Folder of train_filtered.txt, valid_filtered.txt and test_filtered.txt.")
@click.option("--random-split", "seeds", type=_SEED, multiple=True, help="Seed of a random split, 80/20; or several.")
@click.option("--groups", type=PATH, help="CSV of tracks and artists, whose tracks stay in one fold.")
@json_option
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
    log = make_console(stderr=True)
    with ended_in_order():
        rows, notices = evaluate_table(log, table, split_dir=split_dir, seeds=seeds, groups=groups)
    console = make_console(stderr=as_json)
    print_lines(console, notices)
    if as_json:
        print_json([{**row, "random_seeds": list(seeds)} for row in rows])
    else:
        console.print(figures_table(rows, table), soft_wrap=False)


_why = click.option("--why", default="", help="Why, for the record.")


@click.group(cls=InOrder, invoke_without_command=True)
@dataset_option
@json_option
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
        print_json(rows)
    else:
        console = make_console()
        print_lines(console, models_lines(rows, console.width))


@models.command("promote")
@click.argument("version", type=COUNT)
@dataset_option
@_why
def models_promote(version: int, dataset: str, why: str) -> None:
    """Make a version the champion. Who, when and why is recorded."""
    _change_champion(dataset, "promote", version, why)


@models.command("rollback")
@click.argument("version", type=COUNT, required=False)
@dataset_option
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
    print_prose([in_words(change)])

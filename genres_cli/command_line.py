"""What the commands share: their group and class, the options that several have, and how they print.

Each command imports what it needs, Rich and the settings too: ``--help`` and a mistyped option wait for nothing.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from genres.errors import GenresError

if TYPE_CHECKING:
    from rich.console import Console

NO_CHAMPION = 3
"""Exit code of a run that ended well but found no model worth predicting with."""

_NO_SCREEN = 200
"""Columns of what is not written to a terminal."""


class _LocalPath(click.Path):
    """A path of this machine; of a URL, the path's own type would make something else."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; raise a `GenresError` for an address."""
        from genres.settings import require_local

        try:
            require_local(param.human_readable_name if param else "path", value)
        except ValueError as error:
            raise GenresError(str(error)) from error
        return super().convert(value, param, ctx)


PATH = _LocalPath(path_type=Path)
COUNT = click.IntRange(1, 2**31 - 1)
"""What databases and MLflow take for a number of rows or of a version."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
dataset_option = click.option("--dataset", default="", help="Dataset id; by default the current one.")


class Command(click.Command):
    """A command that asks no proxy for the stack's addresses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        from genres.addresses import bypass_proxies
        from genres.settings import Settings

        _require_text(ctx)
        bypass_proxies(Settings())
        return super().invoke(ctx)


class InOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the group itself and, if one is named, its command."""
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
        """Return the names in the order in which they were added."""
        return list(self.commands)


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


def make_console(*, stderr: bool = False) -> "Console":
    """Return what prints to the screen, or to whatever stands in its place."""
    import shutil

    from rich.console import Console

    is_screen = (sys.stderr if stderr else sys.stdout).isatty()
    # What goes to a file or another program has no screen to fit on, unless COLUMNS says so.
    width = None if is_screen else shutil.get_terminal_size((_NO_SCREEN, 50)).columns
    # Lines are broken by the terminal alone, so that what is copied from it is whole.
    return Console(stderr=stderr, width=width, soft_wrap=True)


def print_prose(lines: list[str]) -> None:
    """Print sentences, broken between words where the screen ends."""
    from genres_cli.report import print_lines, wrapped

    console = make_console()
    for line in lines:
        print_lines(console, wrapped(line, console.width))


def print_json(found: object, *, indent: int | None = 2) -> None:
    """Print rows as JSON; what JSON has no type for is a text."""
    import json

    # Of the encodings that a terminal may have, only Unicode's hold every name.
    as_ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(found, default=str, indent=indent, ensure_ascii=as_ascii), flush=True)  # noqa: T201

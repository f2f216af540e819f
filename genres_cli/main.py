"""The ``genres`` command: the list of its commands, and how it ends. What the commands do is done by the other rooms.

A first sentence of a command's docstring that is longer than 62 characters is cut short in the list of commands.
"""

import io
import sys

import click

from genres.errors import GenresError
from genres_cli.command_line import InOrder
from genres_cli.commands import datasets, files, models, results, stack, streams
from genres_cli.signals import ending_with_the_terminal


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


@click.group(cls=InOrder, no_args_is_help=True)
def app() -> None:
    """Music-genre prediction: Dagster, Spark, MLflow, HDFS and Kafka, on this machine or on yours."""


for _command in (
    *(stack.up, stack.down, stack.status, stack.demo),
    *(datasets.load, datasets.datasets, datasets.retrain),
    *(files.features, files.predict, models.evaluate),
    *(results.predictions, streams.watch, streams.drain, results.quarantine, streams.losses, streams.stream),
    *(models.models, stack.page, datasets.report, stack.metrics, stack.ui),
):
    app.add_command(_command)


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


def _fail(message: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"genres: {message}", style="red", markup=False)
    sys.exit(1)

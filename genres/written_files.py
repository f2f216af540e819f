"""Files that commands and assets write on this machine, for people or for daemons: whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genres.errors import GenresError


def require_place(output: Path) -> None:
    """Refuse what is no name of a file in a folder that there is, before the work that is to be written there.

    Raises
    ------
    GenresError
        If it is a folder, or would be in one that is not there.
    """
    if output.is_dir():
        raise GenresError(f"{output} is a folder: name a file in it")
    if not output.parent.is_dir():
        raise GenresError(f"{output}: there is no folder {output.parent}; make it first")


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """Yield a place beside a file to write to, and rename it at the end: what is there stays until the new is whole."""
    unfinished = output.with_name(f".genres-{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(output)
    except OSError as error:
        raise GenresError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)

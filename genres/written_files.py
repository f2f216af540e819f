"""Files that commands and assets write on this machine, for people or for daemons: whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genres.errors import GenresError


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

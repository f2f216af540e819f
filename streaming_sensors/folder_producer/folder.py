"""The watched folder: which files in it are clips, how they are named, and where refused ones go."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from genres.audio.gate import SUFFIXES
from genres.errors import GenresError
from genres.file_names import display_path

ERROR_FOLDER = "error"
"""Sub-folder of the watched folder that takes the files which are no audio."""


class Stamp(NamedTuple):
    """The size and time by which one state of a file is told from another."""

    size: int
    mtime_ns: int


def watchable(folder: Path) -> Path:
    """Return the folder's real path.

    Raises
    ------
    GenresError
        If it is no folder, or this user may not list it.
    """
    if not folder.exists():
        raise GenresError(f"folder {display_path(folder)} does not exist: make it, or name another to watch")
    if not folder.is_dir():
        raise GenresError(f"{display_path(folder)} is a file: name the folder that it is in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise GenresError(f"folder {display_path(folder)} cannot be listed: give this user the right to")
    return folder.resolve()


def clips(root: Path, complain: Callable[[Path, str], None]) -> Iterator[Path]:
    """Yield the paths of the folder's clips: those in `root` and those in its sub-folders.

    Parameters
    ----------
    root
        The watched folder's real path.
    complain
        Called with each sub-folder that cannot be listed, and why.

    Raises
    ------
    GenresError
        If `root` itself cannot be listed.
    """
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise GenresError(
            f"folder {display_path(root)} cannot be listed any more ({error.strerror}): bring it back and start again"
        ) from error
    for entry in entries:
        if is_clip(entry, root):
            yield entry
        elif _is_genre_folder(entry, root):
            try:
                inside = sorted(entry.iterdir())
            except OSError as error:
                why = f"folder {display_path(entry)} cannot be listed ({error.strerror}): give this user the right to"
                complain(entry, why)
                continue
            yield from (path for path in inside if is_clip(path, root))


def is_clip(path: Path, root: Path) -> bool:
    """Whether a path is a clip's: a regular, visible file in `root` or in a sub-folder, audio by its suffix."""
    return (
        path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and (path.parent == root or _is_genre_folder(path.parent, root))
        and not _leads_out(path, root)
        # A named pipe called x.wav would block whoever opens it.
        and path.is_file()
    )


def _is_genre_folder(path: Path, root: Path) -> bool:
    return (
        path.parent == root
        and not path.name.startswith(".")
        and path.name != ERROR_FOLDER
        and path.is_dir()
        and not _leads_out(path, root)
    )


def _leads_out(path: Path, root: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(root)


def find_stamp(path: Path) -> tuple[Stamp, float] | None:
    """Return a regular file's stamp and for how many seconds it has been there unchanged; None if there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(info.st_mode):
        return None
    # A file moved or copied here may carry an old mtime; the inode's change time is that of its arrival.
    age_s = max(0.0, time.time() - max(info.st_ctime, info.st_mtime))
    return Stamp(info.st_size, info.st_mtime_ns), age_s


def move_aside(path: Path, folder: Path) -> Path:
    """Move the file to `folder`, under another name if there is one of that name, and return where it is."""
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 0
    while target.exists():
        number += 1
        target = folder / f"{path.stem}.{number}{path.suffix}"
    return path.rename(target)


def ledger_key(path: Path) -> str:
    r"""Spell a path as text for the ledger; bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")

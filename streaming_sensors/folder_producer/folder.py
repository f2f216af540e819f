"""The watched folder: which entries are clips and which are passed over, who writes them, where refused files go."""

import contextlib
import errno
import os
import stat
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

from genres.audio.gate import SUFFIXES
from genres.errors import GenresError
from genres.file_names import display_path

ERROR_FOLDER = "error"
"""Sub-folder of the watched folder that takes the files which are no audio."""


_LONGEST_NAME = 255
"""Bytes of a file's name, on every file system in use."""


class Stamp(NamedTuple):
    """What one state of a file is told from another by."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Changes with the content even where `cp -p` sets the other time back."""
    inode: int


class PassedOver(StrEnum):
    """Why an entry of the folder is not sent; its text stands before a number."""

    HIDDEN = "hidden names"
    OTHER_SUFFIX = "other suffixes"
    NESTED = "nested folders"
    LEADS_OUT = "links that lead out"
    NO_FILE = "broken links, pipes and the like"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Listing:
    """What was found in the watched folder at one time."""

    clips: list[Path] = field(default_factory=list)
    passed_over: Counter[PassedOver] = field(default_factory=Counter)
    """How many entries are no clips, by the reason. What lies in an entry that is passed over is not counted."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """The sub-folders that cannot be listed or entered, and why."""

    def passed_over_text(self) -> str:
        """Return the reasons with their numbers as one line for people; empty if there are none."""
        return ", ".join(f"{reason} {count}" for reason, count in sorted(self.passed_over.items()))


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


def list_folder(root: Path) -> Listing:
    """List the folder's clips, those in `root` and those in its sub-folders, and count what is passed over.

    Parameters
    ----------
    root
        The watched folder's real path.

    Raises
    ------
    GenresError
        If `root` itself cannot be listed.
    """
    found = Listing()
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise GenresError(
            f"folder {display_path(root)} cannot be listed any more ({error.strerror}): bring it back"
        ) from error
    for entry in entries:
        if _sort_in(entry, root, found) == "genre folder":
            try:
                inside = sorted(entry.iterdir())
            except OSError as error:
                _note_unreadable(entry, error, found)
                continue
            for path in inside:
                _sort_in(path, root, found)
    return found


def is_clip(path: Path, root: Path) -> bool:
    """Whether a path is a clip's: a regular, visible file in `root` or in a sub-folder, audio by its suffix."""
    try:
        in_place = path.parent == root or (path.parent.parent == root and _kind(path.parent, root) == "genre folder")
        return in_place and _kind(path, root) == "clip"
    except OSError:
        return False


def _sort_in(path: Path, root: Path, found: Listing) -> "_Kind | None":
    try:
        kind = _kind(path, root)
    except FileNotFoundError:
        return None  # it went while we looked
    except OSError as error:
        _note_unreadable(path.parent, error, found)
        return None
    if kind == "clip":
        found.clips.append(path)
    elif isinstance(kind, PassedOver):
        found.passed_over[kind] += 1
    return kind


def _note_unreadable(folder: Path, error: OSError, found: Listing) -> None:
    found.passed_over[PassedOver.UNREADABLE] += 1
    why = f"folder {display_path(folder)} cannot be listed ({error.strerror}): give this user the right to"
    found.unreadable.setdefault(folder, why)


_Kind = PassedOver | Literal["clip", "genre folder", "error folder"]


def _kind(path: Path, root: Path) -> _Kind:
    """Judge an entry of `root` or of a genre folder; raise an OSError if it cannot be looked at."""
    if path.name.startswith("."):
        return PassedOver.HIDDEN
    is_link = path.is_symlink()
    # Unlike Path.resolve this takes a link to itself.
    if is_link and not Path(os.path.realpath(path)).is_relative_to(root):
        return PassedOver.LEADS_OUT
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if is_link and error.errno in (errno.ENOENT, errno.ELOOP):
            return PassedOver.NO_FILE
        raise
    if stat.S_ISDIR(mode):
        if path.parent != root:
            return PassedOver.NESTED
        return "error folder" if path.name == ERROR_FOLDER else "genre folder"
    if not stat.S_ISREG(mode):
        return PassedOver.NO_FILE  # a named pipe called x.wav would block whoever opens it
    return "clip" if path.suffix.lower() in SUFFIXES else PassedOver.OTHER_SUFFIX


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
    # Some file systems use all 64 bits of an inode's number; databases have 63.
    stamp = Stamp(info.st_size, _storable(info.st_mtime_ns), _storable(info.st_ctime_ns), info.st_ino % 2**63)
    return stamp, age_s


def _storable(time_ns: int) -> int:
    """Return a file's time, or the nearest that a database holds: years before 1678 and after 2262 are beyond."""
    return max(-(2**63), min(time_ns, 2**63 - 1))


def came_at(path: Path) -> datetime:
    """Return when the file came into the folder, UTC: the inode's change time, whatever time the file itself carries.

    The present, where that is no time at which it can have come: some file systems have no such time, or show another
    host's clock.
    """
    now = time.time()
    changed = path.stat().st_ctime
    return datetime.fromtimestamp(changed if 0 < changed <= now else now, UTC)


def writer_of(path: Path) -> int | None:
    """Return the id of a process that has the file open for writing, as far as this user can see; None if none has."""
    real = os.path.realpath(path)
    return writers_below(os.path.dirname(real)).get(real)  # noqa: PTH120  (names need not be UTF-8)


def writers_below(folder: str) -> dict[str, int]:
    """Return which files below a folder are open for writing, by their real paths, and a process of each.

    Looks through the open files of every process that this user may look into. Only Linux says what a file is open for.
    """
    inside, found = os.path.join(folder, ""), {}  # noqa: PTH118
    for process in Path("/proc").glob("[0-9]*"):
        # psutil asks for more of each file and takes thirty times as long.
        with contextlib.suppress(OSError):  # it ended, or is another user's
            for opened in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(opened)  # noqa: PTH115
                    if target.startswith(inside) and _is_for_writing(process / "fdinfo" / opened.name):
                        found[target] = int(process.name)
    return found


def _is_for_writing(fdinfo: Path) -> bool:
    flags = next(line for line in fdinfo.read_text().splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY


def shows_writers(path: Path) -> bool:
    """Whether `writer_of` would see who writes the file: on Linux, if it is this user's, or we are root."""
    try:
        return sys.platform == "linux" and os.geteuid() in (0, path.stat().st_uid)
    except OSError:
        return False


def move_aside(path: Path, folder: Path) -> Path:
    """Move the file to `folder`, under another name if there is one of that name, and return where it is."""
    folder.mkdir(exist_ok=True)
    target, number, stem = folder / path.name, 0, path.stem
    while os.path.lexists(target):
        number += 1
        end = f".{number}{path.suffix}"
        while len(os.fsencode(stem + end)) > _LONGEST_NAME:
            stem = stem[:-1]
        target = folder / f"{stem}{end}"
    return path.rename(target)


def ledger_key(path: Path) -> str:
    r"""Spell a path as text for the ledger; bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")

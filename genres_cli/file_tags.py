"""Genres as tags in people's own files: ``genres predict --write-tags``.

Only what a file says about its music is changed, never the music: a copy is tagged, its sound is compared with the
original's, and then it takes the original's place.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError
from genres.file_names import display_path

SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aif", ".aiff")
"""Files whose tags are written."""
_ID3 = (".wav", ".mp3", ".aif", ".aiff")


class TagChange(NamedTuple):
    """A file, the genre that its tag has, and the one that it would get."""

    path: Path
    before: tuple[str, ...]
    after: str

    @property
    def is_needed(self) -> bool:
        """Whether writing would change anything."""
        return self.before != (self.after,)

    def __str__(self) -> str:
        before = ", ".join(self.before) or "no genre"
        return f"{display_path(self.path)}: {before} -> {self.after}"


def tag_changes(rows: Sequence[Mapping[str, Any]]) -> tuple[list[TagChange], list[str]]:
    """Return what would be written for predictions, and a line about each file that is left as it is.

    Parameters
    ----------
    rows
        From `genres_cli.local_files.predict_files`. What is unlike anything learnt or uncertain gets no tag.
    """
    changes, left = [], []
    for row in rows:
        path = Path(row["path"])
        name = display_path(path)
        if row["is_unlike"]:
            left.append(f"{name}: unlike anything learnt, so its tag stays")
        elif row["is_uncertain"]:
            left.append(f"{name}: uncertain, so its tag stays")
        elif path.suffix.lower() not in SUFFIXES:
            left.append(f"{name}: tags are written to {', '.join(SUFFIXES)} alone")
        else:
            try:
                before = tuple(_genres(_opened(path), path.suffix.lower()))
            except GenresError as error:
                left.append(str(error))
            else:
                change = TagChange(path, before, row["predicted_genre"])
                if change.is_needed:
                    changes.append(change)
                else:
                    left.append(f"{name}: its tag says {change.after} already")
    return changes, left


def write_tag(change: TagChange, *, max_clip_s: float) -> None:
    """Write a file's genre.

    The file stays as it is until a tagged copy is whole on the disk beside it; the copy keeps its owner and rights. A
    link is followed: what it leads to is tagged.

    Parameters
    ----------
    max_clip_s
        Longest clip that is read, in seconds.

    Raises
    ------
    GenresError
        If the file cannot be tagged; it is untouched then.
    """
    import mutagen

    path = change.path.resolve()
    suffix = path.suffix.lower()
    try:
        with _beside(path) as copy:
            found = path.stat()
            tagged = _opened(copy, shown=path)
            try:
                _set_genre(tagged, suffix, change.after)
            except (mutagen.MutagenError, ValueError, IndexError) as error:
                raise GenresError(f"{display_path(path)} cannot be tagged: {_words(error)}") from error
            if _sound(copy, max_clip_s) != _sound(path, max_clip_s):
                raise GenresError(f"{display_path(path)}: tagging it would change its sound; it stays as it is")
            if _genres(_opened(copy, shown=path), suffix) != [change.after]:
                raise GenresError(f"{display_path(path)}: its genre cannot be written; it stays as it is")
            copy.chmod(stat.S_IMODE(found.st_mode))
            with copy.open("rb") as file:
                os.fsync(file.fileno())
            now = path.stat()
            if (now.st_mtime_ns, now.st_size) != (found.st_mtime_ns, found.st_size):
                raise GenresError(f"{display_path(path)} was changed meanwhile; it stays as it is")
            copy.replace(path)
    except RejectedAudio as rejection:
        raise GenresError(f"{display_path(path)} cannot be tagged: {rejection.reason}") from rejection
    except OSError as error:
        raise GenresError(f"{display_path(path)} cannot be tagged: {error.strerror or error}") from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a copy of a file in the same folder, which is gone at the end unless it has taken the file's place.

    It may be written to, even if the file may not.
    """
    number, name = tempfile.mkstemp(prefix=".genres-", suffix=path.suffix.lower(), dir=path.parent)
    os.close(number)
    copy = Path(name)
    try:
        shutil.copyfile(path, copy)
        shutil.copystat(path, copy)
        os.utime(copy)  # it is changed now: players look for that
        owner = path.stat()
        with suppress(PermissionError):
            os.chown(copy, owner.st_uid, owner.st_gid)
        copy.chmod(stat.S_IMODE(owner.st_mode) | stat.S_IWUSR)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _opened(path: Path, *, shown: Path | None = None) -> Any:
    """Open a file's tags, by what is in it."""
    import mutagen

    name = display_path(shown or path)
    try:
        found = mutagen.File(path)
    except (mutagen.MutagenError, ValueError, IndexError) as error:
        raise GenresError(f"{name}: its tags cannot be read ({error}); it stays as it is") from error
    if found is None:
        raise GenresError(f"{name}: it has no tags that can be read; it stays as it is")
    return found


def _words(error: Exception) -> str:
    """Return what mutagen says, which wraps what the system says of the copy."""
    cause = error.args[0] if error.args else None
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error) or type(error).__name__


def _genres(file: Any, suffix: str) -> list[str]:
    if file.tags is None:
        return []
    if suffix in _ID3:
        return [str(text) for frame in file.tags.getall("TCON") for text in frame.genres]
    return [str(text) for text in file.tags.get("\xa9gen" if suffix == ".m4a" else "genre", [])]


def _set_genre(file: Any, suffix: str, genre: str) -> None:
    """Write a genre into the file."""
    if file.tags is None:
        file.add_tags()
    if suffix in _ID3:
        from mutagen.id3 import TCON

        # What has tags of version 2.3 is read by programs that know no other.
        version = 3 if file.tags.version[:2] == (2, 3) else 4
        file.tags.setall("TCON", [TCON(encoding=3 if version == 4 else 1, text=[genre])])  # type: ignore[no-untyped-call]
        file.save(v2_version=version)
        return
    if suffix == ".m4a":
        file.tags.pop("gnre", None)  # the same as a number, of the times before text
        file.tags["\xa9gen"] = [genre]
    else:
        file.tags["genre"] = [genre]
    file.save()


def _sound(path: Path, max_clip_s: float) -> str:
    """Return a digest of a file's samples."""
    import hashlib

    from genres.audio.decode import decode
    from genres.audio.gate import inspect

    data = path.read_bytes()
    header = inspect(data, suffix=path.suffix, max_clip_s=max_clip_s)
    samples = decode(data, sample_rate=header.sample_rate, header=header)
    return hashlib.sha256(samples.tobytes()).hexdigest()

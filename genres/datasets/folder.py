"""Reading a folder of labelled audio in GTZAN's layout, ``<genre>/<track>.wav``.

What belongs here: which files are clips, what they are called in the project, and which dataset they are. File
and folder names come from outside; the names that leave this module for paths have passed `safe_name`.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genres.audio.gate import SUFFIXES
from genres.datasets import published_datasets
from genres.datasets.split import MIN_CLIPS_PER_GENRE, require_songs, songs
from genres.errors import GenresError
from genres.file_names import display_name, display_path, is_unicode, safe_name, unicode_name

SYNTHETIC = "synthetic"
"""The id of every dataset that the synthesiser made."""

SYNTHETIC_MARKER = "synthetic.json"
"""The file that says a folder's clips are synthetic; it holds what they were made from."""

SYNTHETIC_PREFIX = "synthetic_"
"""What the name of every synthetic clip begins with."""

_LAYOUT = "lay the audio out as <genre>/<track>.wav"
_OUTSIDE = "audio outside a genre folder"
_LINK = "link that leads out of the folder"
_NOT_AUDIO = "not audio by its suffix"

_MOST_LEVELS = 3
"""How far below a folder genre folders are looked for; published datasets are unpacked into two levels at most."""
_MOST_NAMED = 3
"""Folders that a message names; more of them are no dataset's parts but its albums."""
_MOST_SUFFIXES = 5
"""Suffixes that a message names; a name with a point in it has one that nobody knows."""


@dataclass(frozen=True)
class LabelledFile:
    """One clip and its label."""

    track_id: str
    """Unique within the dataset and safe as one part of a path."""
    genre: str
    """The sub-folder's name, as text; only `safe_name(genre)` may stand in a path."""
    path: Path
    """Where the file is; its name may hold anything that the file system allows."""
    file_name: str
    """The file's name, as text; data, never a path."""

    @property
    def lake_name(self) -> str:
        """``<genre>/<track id>.<suffix>`` in safe characters: the clip's path within its dataset."""
        return f"{safe_name(self.genre)}/{self.track_id}{self.path.suffix.lower()}"


class PassedOverCounts:
    """What is not taken of a folder: how many entries for which reason; a folder counts as one."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unread_suffixes: Counter[str] = Counter()

    def add(self, reason: str, entries: int = 1) -> None:
        """Count entries that are passed over for a reason."""
        self._counts[reason] += entries

    def add_unread(self, file: Path) -> None:
        """Count a file whose suffix is none of `genres.audio.gate.SUFFIXES`."""
        self._unread_suffixes[file.suffix.lower()] += 1

    def by_reason(self) -> dict[str, int]:
        """Return how many entries were passed over, by reason, in the order of the reasons."""
        counts = self._counts + Counter({_NOT_AUDIO: self._unread_suffixes.total()})  # a sum leaves zeros out
        return dict(sorted(counts.items()))

    def line(self) -> str:
        """Return the counts as one line, of files that are not audio by suffix; empty if nothing was passed over."""
        texts = {reason: str(count) for reason, count in self.by_reason().items()}
        if self._unread_suffixes:
            ordered = sorted(self._unread_suffixes.items(), key=lambda found: (-found[1], found[0]))
            named = [f"{count} {_display_suffix(suffix)}" for suffix, count in ordered[:_MOST_SUFFIXES]]
            others = sum(count for _, count in ordered[_MOST_SUFFIXES:])
            texts[_NOT_AUDIO] = ", ".join([*named, *([f"{others} with others"] if others else [])])
        return ", ".join(f"{reason}: {text}" for reason, text in texts.items())


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds."""

    files: list[LabelledFile]
    """The clips, sorted by track id."""
    passed_over: PassedOverCounts
    """What else it holds."""
    empty_genres: list[str]
    """Sub-folders that hold no clip, sorted."""


def scan(folder: Path) -> FolderScan:
    """Find the labelled clips of a folder, in the same order everywhere.

    A clip is a regular file with a suffix of `genres.audio.gate.SUFFIXES` directly in a sub-folder, whose name is the
    genre. Its track id is the file's stem, if that begins with the genre as in ``blues/blues.00000.wav``, and
    ``<genre>.<stem>`` otherwise, both through `safe_name`. Ignored: hidden entries, links that lead out of the
    folder or nowhere, other suffixes, and audio at any other depth.

    Parameters
    ----------
    folder
        The dataset's folder.

    Returns
    -------
    FolderScan
        The clips and what was ignored. The audio itself is not read.

    Raises
    ------
    GenresError
        If there is no such folder, it holds no audio or no genre sub-folders, only one genre, a genre of fewer
        clips than a split needs, or two files that would have the same track id. The last is not
        resolved by renaming, because ``x.wav`` and ``x.mp3`` are nearly always one recording, which would then
        stand on both sides of the split.
    """
    try:
        found = _walk(folder)
        _complain(folder, found)
    except PermissionError as error:
        unreadable = display_path(Path(error.filename))
        raise GenresError(f"cannot read {unreadable}: give this user the right to list its folder") from None
    return replace(found, files=sorted(found.files, key=lambda file: file.track_id))


def notices(found: FolderScan) -> list[str]:
    """Return what a person should know about a folder that can be used: a line each, none if all of it was taken."""
    lines = []
    if passed_over := found.passed_over.line():
        lines.append(f"passed over: {passed_over}")
    if found.empty_genres:
        lines.append(f"sub-folders without a clip: {', '.join(map(repr, found.empty_genres))}")
    genres = sorted({file.genre for file in found.files})
    alike: dict[str, list[str]] = {}
    for genre in genres:
        alike.setdefault(genre.strip().casefold(), []).append(genre)
    lines += [
        f"genres that differ in case or spaces only: {', '.join(map(repr, spellings))}: if they are one, bring their "
        "folders together"
        for spellings in alike.values()
        if len(spellings) > 1
    ]
    if all(genre.isdecimal() for genre in genres):
        lines.append(
            f"all genres are numbers ({', '.join(genres[:5])}{' …' if len(genres) > 5 else ''}): if these folders only "
            "number the files, as FMA's do, sort the audio into folders named by genre first"
        )
    return lines


def _display_suffix(suffix: str) -> str:
    """Return a suffix to be read in a list, in quotes if it holds blanks, which nobody would see."""
    if not suffix:
        return "without one"
    return display_name(suffix) if suffix.split() == [suffix] else repr(suffix)


def dataset_id(folder: Path, files: Sequence[LabelledFile]) -> str:
    """Name the dataset: what stands in lake paths, table keys and the registered model's name.

    Parameters
    ----------
    folder
        The dataset's folder.
    files
        Its clips.

    Returns
    -------
    str
        ``synthetic`` if the folder carries the synthesiser's marker file; a published dataset's name, such as
        ``gtzan``, if every clip has the name and genre of one of its tracks; otherwise the folder's name in lower-case
        letters, digits and underscores, at most 40 of them. A folder that is merely called ``gtzan`` or ``synthetic``
        is ``own_gtzan`` or ``own_synthetic``, and a name without any Latin letter or digit becomes ``audio_`` and eight
        digits of its hash. Two folders of the same name share an id unless the user sets one.
    """
    if (folder / SYNTHETIC_MARKER).is_file():
        return SYNTHETIC
    published = published_datasets.published_dataset((file.track_id, file.genre) for file in files)
    if published is not None:
        return published.name
    name = folder.resolve().name
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", ascii_name).strip("_")[:40]
    if not slug:
        return f"audio_{_digest(name)[:8]}"
    taken = {SYNTHETIC, *(known.name for known in published_datasets.PUBLISHED)}
    return f"own_{slug}" if slug in taken else slug


def _walk(folder: Path) -> FolderScan:
    """Return what a folder holds, its clips in the order of their paths."""
    if not folder.exists():
        raise GenresError(f"audio folder {display_path(folder)} does not exist: check the path, and {_LAYOUT}")
    if not folder.is_dir():
        raise GenresError(f"audio folder {display_path(folder)} is a file: name the folder that holds the genres")
    root = folder.resolve()
    passed_over = PassedOverCounts()
    files: list[LabelledFile] = []
    empty_genres: list[str] = []
    for entry in _entries(root, root, passed_over):
        if entry.is_dir():
            before = len(files)
            for file in _entries(entry, root, passed_over):
                if file.is_dir():
                    passed_over.add("folder inside a genre")
                elif _is_audio(file):
                    files.append(_label(file))
                else:
                    passed_over.add_unread(file)
            if len(files) == before:
                empty_genres.append(unicode_name(entry.name))
        elif _is_audio(entry):
            passed_over.add(_OUTSIDE)
        elif entry.name != SYNTHETIC_MARKER:
            passed_over.add_unread(entry)
    return FolderScan(files, passed_over, sorted(empty_genres))


def _entries(folder: Path, root: Path, passed_over: PassedOverCounts) -> Iterator[Path]:
    """Go through a folder's visible files and folders, sorted by name; the rest is counted in `passed_over`."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            passed_over.add("hidden")
        # Unlike Path.resolve this takes a link to itself.
        elif entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(root):
            passed_over.add(_LINK)
        elif not (entry.is_file() or entry.is_dir()):
            # A named pipe called x.wav would block whoever opens it.
            passed_over.add("neither file nor folder")
        else:
            yield entry


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _label(path: Path) -> LabelledFile:
    genre, stem = unicode_name(path.parent.name), unicode_name(path.stem)
    named_by_genre = stem.startswith((f"{genre}.", f"{SYNTHETIC_PREFIX}{genre}."))
    track_id = safe_name(stem) if named_by_genre else f"{safe_name(genre)}.{safe_name(stem)}"
    return LabelledFile(track_id, genre, path, unicode_name(path.name))


def _complain(folder: Path, found: FolderScan) -> None:
    """Raise the one error that says what is wrong with the whole folder, if anything is."""
    where = f"audio folder {display_path(folder)}"
    files = found.files
    clips = Counter(file.genre for file in files)
    if len(clips) < 2 and (deeper := _folders_of_genres(folder)):
        named = " or ".join(map(display_path, deeper))
        what = f"one genre only, {next(iter(clips))!r}" if clips else "no genre folders"
        todo = "that folder" if len(deeper) == 1 else "one of them, or bring their genres together"
        raise GenresError(f"{where} holds {what}; genre folders are in {named}: name {todo}")
    if not files:
        passed_over = found.passed_over.by_reason()
        if _OUTSIDE in passed_over:
            raise GenresError(f"{where} holds {passed_over[_OUTSIDE]} audio file(s) but no genre folders: {_LAYOUT}")
        if not passed_over:
            raise GenresError(f"{where} is empty: {_LAYOUT}")
        todo = "copy what the links lead to (cp -rL)" if _LINK in passed_over else _LAYOUT
        why = found.passed_over.line()
        raise GenresError(f"{where} holds no {'/'.join(SUFFIXES)} files in genre folders ({why}): {todo}")

    if len(clips) == 1:
        raise GenresError(
            f"{where} holds one genre only, {next(iter(clips))!r}: a classifier needs two; add another genre's folder"
        )
    few = sorted((genre, count) for genre, count in clips.items() if count < MIN_CLIPS_PER_GENRE)
    if few:
        named = ", ".join(f"{genre!r}: {count}" for genre, count in few)
        raise GenresError(
            f"{where} has too few clips of {named}: the split needs {MIN_CLIPS_PER_GENRE} of each genre; "
            f"add clips or take the genre's folder out"
        )
    for genre in sorted(clips):
        try:
            require_songs(songs((file.track_id for file in files if file.genre == genre), genre), genre)
        except GenresError as error:
            raise GenresError(f"{where}: {error}") from None
    by_id: dict[str, LabelledFile] = {}
    for file in files:
        other = by_id.setdefault(file.track_id, file)
        if other is not file:
            raise GenresError(
                f"{where}: {_relative(other)} and {_relative(file)} would both be track {file.track_id!r}"
                f"{_how_alike_names_differ(other, file)}: "
                f"keep one of them or rename it"
            )


def _how_alike_names_differ(one: LabelledFile, other: LabelledFile) -> str:
    """Return in which way two names differ that look the same to a person; empty if they do not."""
    if _relative(one) != _relative(other):
        return ""
    if is_unicode(str(one.path)) and is_unicode(str(other.path)):
        # A Mac writes accents in another form (NFD) than others.
        return ", whose names differ in the form of their accents"
    return ", one of whose names has bytes that are not UTF-8"


def _folders_of_genres(folder: Path) -> list[Path]:
    """Return the nearest folders below that have two genre folders; none if they are more than a person would read."""
    level = [folder.resolve()]
    for _ in range(_MOST_LEVELS):
        level = [entry for above in level for entry in _visible_folders(above)]
        found = [entry for entry in level if sum(map(_holds_audio, _visible_folders(entry))) > 1]
        if found:
            return found if len(found) <= _MOST_NAMED else []
    return []


def _visible_folders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except PermissionError:
        return []
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(".")]


def _holds_audio(folder: Path) -> bool:
    try:
        return any(_is_audio(entry) and not entry.name.startswith(".") for entry in folder.iterdir())
    except PermissionError:
        return False


def _relative(file: LabelledFile) -> str:
    return repr(f"{file.genre}/{file.file_name}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

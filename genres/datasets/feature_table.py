"""A table of features in the layout that GTZAN's are published in: ``filename, length?, features…, label``.

What belongs here: reading such a table, whoever made it, and saying what of it is left out. How its tracks are split is
in `genres.datasets.table_split`.
"""

import csv
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genres.audio.gate import SUFFIXES
from genres.datasets.split import songs
from genres.errors import GenresError
from genres.file_names import display_path
from genres.plurals import counted

if TYPE_CHECKING:
    import pandas as pd

KINDS = (".csv", ".parquet")
"""Suffixes of files that are read."""

_NAME, _LABEL, _LENGTH = "filename", "label", "length"
_ABOUT_THE_ROW = re.compile(
    r"genre|song|digest|artist|album|title|part|((.+_)?(ids?|idx|index|groups?|folds?|splits?))", re.ASCII
)
"""Names of columns that say which clip a row is about, and whose: numbers in them are no features."""
_OTHER_SUFFIXES = frozenset(
    (".csv", ".h5", ".jams", ".jpg", ".json", ".mat", ".mp4", ".npy", ".npz", ".png", ".pt", ".txt", ".webm")
)
"""Suffixes that tools give to what they make of a clip, and to what is no audio by its name."""
_SEPARATORS = ",;\t|"
_LARGEST = 1e100
"""Largest value that counts: the squares of larger ones, summed up, are no numbers any more."""
_ORDERED = 10
"""Rows from which whole numbers that only grow are no chance."""
_LINES = 20
"""Lines by which the separator of a file without a line of names is chosen."""
_SHOWN = 5
"""Most names that a sentence shows."""


@dataclass(frozen=True)
class FeatureTable:
    """A table that has been read."""

    rows: "pd.DataFrame"
    """
    A row for each clip, sorted by ``track_id``: ``track_id``, ``genre``, ``song`` (of which the clip is a part; its own
    name if it is none), ``digest`` (of its features: equal for equal ones), and `columns` as floats, NaN where missing.
    """
    columns: tuple[str, ...]
    """The feature columns."""
    notices: tuple[str, ...]
    """A sentence about each thing that was left out, or is odd."""


def read_feature_table(path: Path) -> FeatureTable:
    """Read a table, leaving out what cannot be used.

    Columns of text, without values or with one value only are left out, as are columns that would tell the genre: of
    row numbers, in a table that is sorted by it, and of codes for the label. Rows without a label or without features
    are left out. Of rows that are there twice, one stays.

    Raises
    ------
    GenresError
        If the file is not there or is no such table; if one file has two different rows; if nothing is left.
    """
    import numpy as np
    import pandas as pd

    shown = display_path(path)
    table = _with_own_names(_read(path), shown)
    notices: list[str] = []
    for column in (_NAME, _LABEL):
        table[column] = [_as_text(value) for value in table[column]]
    unnamed = (table[_NAME] == "") | (table[_LABEL] == "")
    if unnamed.any():
        notices.append(f"{counted(int(unnamed.sum()), 'row')} without a filename or a label left out")
        table = table[~unnamed]
    values = _numbers(table, notices)
    empty = values.isna().all(axis=1)
    if empty.any() and values.shape[1]:
        names = _some(table.loc[empty, _NAME])
        notices.append(f"{counted(int(empty.sum()), 'row')} without any feature left out: {names}")
        table, values = table[~empty], values[~empty]
    if values.shape[1] == 0 or len(values) == 0:
        what = "column of numbers that differ" if values.shape[1] == 0 else "row that can be used"
        left_out = f" ({'; '.join(notices)})" if notices else ""
        raise GenresError(f"{shown} has no {what}{left_out}: name a table with features and labels")
    missing = int(values.isna().to_numpy().sum())
    if missing:
        gaps = values.columns[values.isna().any()]
        notices.append(f"{counted(missing, 'value')} missing, in {_some(gaps)}: they count as the training rows' mean")
    notices += _alike_labels(table[_LABEL])

    tracks, shared = _track_ids(table[_NAME], table[_LABEL])
    if shared:
        names = _some(shared)
        notices.append(f"{counted(len(shared), 'name')} with several labels, a track for each of these: {names}")
    rows = pd.DataFrame(
        {
            "track_id": tracks,
            "genre": table[_LABEL].to_numpy(),
            "digest": [hashlib.sha256(row.tobytes()).hexdigest() for row in np.ascontiguousarray(values.to_numpy())],
        }
    )
    rows = pd.concat([rows, values.reset_index(drop=True)], axis=1)
    rows = _without_copies(rows, shown, notices)
    rows["digest"] = _telling_digests(rows, notices)
    of_song = {
        track: song
        for genre, tracks in rows.groupby("genre")["track_id"]
        for track, song in songs_in_genre(tracks, str(genre)).items()
    }
    rows.insert(2, "song", rows["track_id"].map(of_song))
    return FeatureTable(rows, tuple(values.columns), tuple(notices))


def track_id_of(name: str) -> str:
    """Return the track that a file name in a table or a list means.

    Examples
    --------
    >>> track_id_of("blues.00012.wav"), track_id_of("blues/blues.00012.wav"), track_id_of("./blues/one.mp3")
    ('blues.00012', 'blues.00012', 'blues.one')
    """
    return _in_genre(*_folder_and_track(name))


def _in_genre(genre: str, track: str) -> str:
    """Return a track's name with its genre in front, once; without a genre, as it is."""
    return track if not genre or track.startswith(f"{genre}.") else f"{genre}.{track}"


class TrackNames:
    """A table's tracks and songs by how a list may write them: with another folder, suffix or case.

    Parameters
    ----------
    rows
        ``track_id``, ``song`` and ``genre``, as `FeatureTable` has them.
    """

    def __init__(self, rows: "pd.DataFrame") -> None:
        self.tracks = {*rows["song"], *rows["track_id"]}
        self._genres = {genre.casefold() for genre in rows["genre"]}
        self._bare: dict[str, set[str]] = {}
        self._whole: dict[str, set[str]] = {}
        self._exact: dict[str, str] = {}
        for column in ("song", "track_id"):
            for track, genre in zip(rows[column], rows["genre"], strict=True):
                bare = track.removeprefix(f"{genre}.")
                self._bare.setdefault(bare.casefold(), set()).add(track)
                for name in (f"{genre}.{bare}", track):
                    self._exact[name] = track
                    self._whole.setdefault(name.casefold(), set()).add(track)

    def meant(self, name: str) -> str:
        """Return the track that a name means; if the table has no such track, as `track_id_of` spells it."""
        folder, bare = _folder_and_track(name)
        track = _in_genre(folder, bare)
        if (found := self._exact.get(track) or _only(self._whole, track)) or folder.casefold() in self._genres:
            return found or track
        # A bare number, which each genre has, means no track.
        return self._exact.get(bare) or _only(self._whole, bare) or _only(self._bare, bare) or track


def _only(tracks: dict[str, set[str]], name: str) -> str | None:
    """Return the track of that name in any case, where there is one alone."""
    found = tracks.get(name.casefold(), set())
    return next(iter(found)) if len(found) == 1 else None


def _folder_and_track(name: str) -> tuple[str, str]:
    """Return the name of the folder that a file is in, empty without one, and the file's without its suffix."""
    *folders, base = [part for part in re.split(r"[/\\]", _as_text(name)) if part not in ("", ".", "..")] or [""]
    stem, dot, suffix = base.rpartition(".")
    if stem and f".{suffix.lower()}" in _OTHER_SUFFIXES:  # before it may stand that of the audio
        base = stem
        stem, dot, suffix = base.rpartition(".")
    is_suffix = dot and (f".{suffix.lower()}" in SUFFIXES or (_NUMBERED.fullmatch(stem) and suffix[:1].isalpha()))
    return folders[-1] if folders else "", stem if is_suffix else base


def _track_ids(names: "pd.Series", labels: "pd.Series") -> tuple[list[str], list[str]]:
    """Return each row's track, and the names that stand for a track under each of several labels.

    A folder that stands for no genre, as ``audio/`` does, is no part of its name. Where a name is that of files of
    several genres, as ``01.wav`` may be, the label is.
    """
    apart = [_folder_and_track(name) for name in names]
    tracks = [_in_genre(folder, track) for folder, track in apart]
    bare = [track for _, track in apart]
    of_genres = any(folder.casefold() == label.casefold() for (folder, _), label in zip(apart, labels, strict=True))
    if not of_genres and len(set(bare)) == len(set(tracks)):
        tracks = bare
    of_label = Counter(track for track, _ in set(zip(tracks, labels, strict=True)))
    shared = sorted(track for track, count in of_label.items() if count > 1)
    if not shared:
        return tracks, []
    return [_in_genre(label, track) for track, label in zip(tracks, labels, strict=True)], shared


def songs_in_genre(tracks: Iterable[str], genre: str) -> dict[str, str]:
    """Return the song of each of a genre's tracks; a track that is no part of one is its own.

    Beside `genres.datasets.split.songs`, which needs to see several parts, a part of a GTZAN track is known by its
    name alone: ``blues.00012.3``.
    """
    tracks = list(tracks)
    found = songs(tracks, genre)
    return {track: found.get(track, track) if found.get(track, track) != track else _whole(track) for track in tracks}


def _whole(track: str) -> str:
    part = _NUMBERED_PART.fullmatch(track)
    return part[1] if part else track


_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s-]+")
"""Where the words of a column's name are apart: ``artistId``, ``artist id``."""
_NUMBERED = re.compile(r".+\.\d{5}([._]\d{1,3})?")
_NUMBERED_PART = re.compile(r"(.+\.\d{5})[._]\d{1,3}")


def read_csv(path: Path, *, text: Sequence[str] | None = None) -> "pd.DataFrame":
    """Read a CSV file, whatever is between its cells; decimal commas count where commas are not.

    Parameters
    ----------
    text
        Columns whose cells stay text, in lower case; None for a file without any column's name, all of whose cells do.

    Raises
    ------
    GenresError
        If it cannot be read.
    """
    import pandas as pd

    shown = display_path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(islice((line for line in file if line.strip()), _LINES if text is None else 1)) or [""]
        apart = {separator: _cells(lines[0], separator) for separator in _SEPARATORS}
        # Without a line of names, the cells of a few lines are alike in number: a comma in a name is in few of them.
        separator = max(apart, key=lambda one: (min(len(_cells(line, one)) for line in lines), len(apart[one])))
        how: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig"}
        if text is None:
            return pd.read_csv(path, header=None, dtype=str, keep_default_na=False, **how)
        # The nearest floats, so that a table says the same as CSV and as Parquet.
        how |= {"decimal": "." if separator == "," else ",", "float_precision": "round_trip", "low_memory": False}
        # As text: a genre may be called "null", and pandas would read that as missing.
        how["converters"] = {name: str for name in apart[separator] if name.strip().lower() in text}
        table = pd.read_csv(path, **how)
        # Rows that end in a separator look to pandas as if the first column had no name.
        if not isinstance(table.index, pd.RangeIndex) and (table.iloc[:, -1].isna() | (table.iloc[:, -1] == "")).all():
            table = pd.read_csv(path, index_col=False, **how)
    except FileNotFoundError:
        raise GenresError(f"there is no file {shown}") from None
    except UnicodeDecodeError as error:
        raise GenresError(
            f"{shown} cannot be read as a csv table: it is not UTF-8 ({error.reason}); save it as that"
        ) from error
    except (ValueError, OSError) as error:  # pandas' own errors are kinds of these
        raise GenresError(f"{shown} cannot be read as a csv table: {_reason(error)}") from error
    return table


def _cells(line: str, separator: str) -> list[str]:
    """Return a line's cells; none where one is longer than any name is, as a line of thousands of names may be."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    shown = display_path(path)
    if path.suffix.lower() not in KINDS:
        raise GenresError(f"{shown} is no table: name a file that ends in {' or '.join(KINDS)}")
    if not path.exists():
        raise GenresError(f"there is no file {shown}")
    if path.suffix.lower() == ".csv":
        return read_csv(path, text=(_NAME, _LABEL))
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError, TypeError) as error:  # Arrow's own errors are kinds of these
        raise GenresError(f"{shown} cannot be read as a parquet table: {_reason(error)}") from error
    return table.reset_index([name for name in table.index.names if name is not None and name not in table])


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:200]


def _with_own_names(table: "pd.DataFrame", shown: str) -> "pd.DataFrame":
    """Call the columns of names, labels and lengths what they are called here, whatever their case."""
    own = (_NAME, _LABEL, _LENGTH)
    stripped = [str(column).strip() for column in table.columns]
    names = [
        column.lower() if column.lower() in own and column.lower() not in stripped else column for column in stripped
    ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise GenresError(f"{shown} has several columns of one name: {_some(twice)}; leave one of each")
    if lacking := [column for column in (_NAME, _LABEL) if column not in names]:
        raise GenresError(
            f"{shown} has no column {' and no column '.join(lacking)} (it has: {_some(names)[:200]}): a table has the "
            "columns filename, features…, label, as `genres features` writes them"
        )
    return table.set_axis(names, axis="columns")


def _as_text(value: Any) -> str:
    import pandas as pd

    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return "" if pd.isna(value) else unicodedata.normalize("NFC", str(value)).strip()


def _alike_labels(labels: "pd.Series") -> list[str]:
    spelt: dict[str, list[str]] = {}
    for label in sorted(labels.unique()):
        spelt.setdefault(label.casefold(), []).append(label)
    alike = [" and ".join(same) for same in spelt.values() if len(same) > 1]
    return [f"labels that differ by case alone count as different genres: {_some(alike)}"] if alike else []


def _numbers(table: "pd.DataFrame", notices: list[str]) -> "pd.DataFrame":
    """Return the columns of numbers as floats; say what is no feature."""
    import pandas as pd

    rows = table[_NAME].nunique()
    labels = table[_LABEL]
    table = table.drop(columns=[_NAME, _LABEL, _LENGTH], errors="ignore")
    texts, about, kept = [], [], {}
    for column in map(str, table):
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        is_date = table[column].dtype.kind in "Mm"
        if is_date or numbers.notna().sum() * 2 < table[column].notna().sum():
            texts.append(column)
        elif _ABOUT_THE_ROW.fullmatch(_WORDS.sub("_", column).lower()):
            about.append(column)
        else:
            kept[column] = numbers
    values = pd.DataFrame(kept, index=table.index)
    values = values.where(values.abs() <= _LARGEST)
    numbered = [column for column in map(str, values) if _numbers_rows(column, values[column], rows)]
    empty = [column for column in map(str, values) if column not in numbered and values[column].isna().all()]
    gone = {*numbered, *empty}
    same = [column for column in map(str, values) if column not in gone and values[column].nunique() == 1]
    gone |= {*same}
    by_label = values.groupby(labels).nunique()
    # Of rows that are each of another genre, any column would look like that.
    is_code = (by_label <= 1).all() & (len(values) >= 2 * len(by_label))
    codes = [column for column in map(str, values) if column not in gone and is_code[column]]
    for columns, why in (
        (about, "say which clip a row is about"),
        (numbered, "number the rows"),
        (texts, "hold text"),
        (empty, "hold no value"),
        (same, "are the same in all rows"),
        (codes, "have one value for each label, as a code of it has"),
    ):
        if columns and len(table):
            notices.append(f"columns left out that {why}: {_some(columns)}")
    return values.drop(columns=[*gone, *codes])


def _numbers_rows(column: str, values: "pd.Series", rows: int) -> bool:
    """Return whether a column numbers the rows, of which there are so many different ones."""
    if column == "" or column.startswith("Unnamed: "):
        return True
    once = values.dropna().drop_duplicates()
    if len(once) < max(rows, _ORDERED) or (once % 1 != 0).any():
        return False
    return bool(once.max() - once.min() == len(once) - 1 or once.is_monotonic_increasing)


def _telling_digests(rows: "pd.DataFrame", notices: list[str]) -> "pd.Series":
    """Return the digests, or others that are all different where equal features say nothing of equal audio."""
    labels = rows.groupby("digest")["genre"].transform("nunique")
    if (count := int((labels > 1).sum())) * 10 <= len(rows):
        return rows["digest"]
    notices.append(
        f"{counted(count, 'row')} of {len(rows)} have features that rows of other labels have too: they are too coarse "
        "to tell copies by, and none are looked for"
    )
    return rows["track_id"]


def _without_copies(rows: "pd.DataFrame", shown: str, notices: list[str]) -> "pd.DataFrame":
    copies = rows.duplicated(["track_id", "genre", "digest"])
    if copies.any():
        names = _some(rows.loc[copies, "track_id"])
        notices.append(f"{counted(int(copies.sum()), 'row')} twice in the table, taken once: {names}")
        rows = rows[~copies]
    twice = rows["track_id"].duplicated(keep=False)
    if twice.any():
        names = _some(rows.loc[twice, "track_id"].unique())
        raise GenresError(
            f"{shown} has several different rows of one file, or of files of one name: {names}; leave one of each, or "
            "name them apart"
        )
    return rows.sort_values("track_id", ignore_index=True)


def _some(names: Iterable[object]) -> str:
    """Return the first few names, and how many more there are."""
    shown = list(map(str, names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more

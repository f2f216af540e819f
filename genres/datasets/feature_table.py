"""A table of features in the layout that GTZAN's are published in: ``filename, length?, features…, label``.

What belongs here: reading such a table, whoever made it, and saying what of it is left out. How its tracks are split is
in `genres.datasets.table_split`.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genres.audio.gate import SUFFIXES
from genres.datasets.split import songs
from genres.errors import GenresError
from genres.file_names import display_path

if TYPE_CHECKING:
    import pandas as pd

KINDS = (".csv", ".parquet")
"""Suffixes of files that are read."""

_NAME, _LABEL, _LENGTH = "filename", "label", "length"
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

    Columns of text, without values or with one value only are left out, as is a column of row numbers, which would
    tell the genre in a table that is sorted by it. Rows without a label or without features are left out. Of rows that
    are there twice, one stays.

    Raises
    ------
    GenresError
        If the file is not there or is no such table; if one file has two different rows; if nothing is left.
    """
    import numpy as np
    import pandas as pd

    shown = display_path(path)
    table = _read(path)
    table = table.rename(columns={column: str(column).strip() for column in table.columns})
    lacking = [column for column in (_NAME, _LABEL) if column not in table]
    if lacking:
        there = ", ".join(map(str, table.columns[:_SHOWN])) + (", …" if table.shape[1] > _SHOWN else "")
        raise GenresError(
            f"{shown} has no column {' and no column '.join(lacking)} (it has: {there}): a table has the columns "
            "filename, features…, label, as `genres features` writes them"
        )
    notices: list[str] = []
    for column in (_NAME, _LABEL):
        table[column] = table[column].map(lambda value: "" if pd.isna(value) else str(value).strip())
    unnamed = (table[_NAME] == "") | (table[_LABEL] == "")
    if unnamed.any():
        notices.append(f"{_count(int(unnamed.sum()), 'row')} without a filename or a label left out")
        table = table[~unnamed]
    values = _numbers(table.drop(columns=[_NAME, _LABEL]), notices)
    empty = values.isna().all(axis=1)
    if empty.any() and values.shape[1]:
        names = _some(table.loc[empty, _NAME])
        notices.append(f"{_count(int(empty.sum()), 'row')} without any feature left out: {names}")
        table, values = table[~empty], values[~empty]
    if values.shape[1] == 0 or len(values) == 0:
        what = "column of numbers that differ" if values.shape[1] == 0 else "row that can be used"
        left_out = f" ({'; '.join(notices)})" if notices else ""
        raise GenresError(f"{shown} has no {what}{left_out}: name a table with features and labels")
    missing = int(values.isna().to_numpy().sum())
    if missing:
        gaps = values.columns[values.isna().any()]
        notices.append(f"{_count(missing, 'value')} missing, in {_some(gaps)}: they count as the training rows' mean")

    rows = pd.DataFrame(
        {
            "track_id": [track_id_of(name) for name in table[_NAME]],
            "genre": table[_LABEL].to_numpy(),
            "digest": [hashlib.sha256(row.tobytes()).hexdigest() for row in np.ascontiguousarray(values.to_numpy())],
        }
    )
    rows = pd.concat([rows, values.reset_index(drop=True)], axis=1)
    rows = _without_copies(rows, shown, notices)
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
    >>> track_id_of("blues.00012.wav"), track_id_of("blues/blues.00012.wav"), track_id_of("blues/one.mp3")
    ('blues.00012', 'blues.00012', 'blues.one')
    """
    *folders, base = re.split(r"[/\\]", name.strip())
    stem, dot, suffix = base.rpartition(".")
    track = stem if dot and f".{suffix.lower()}" in SUFFIXES else base
    genre = folders[-1] if folders else ""
    return track if not genre or track.startswith(f"{genre}.") else f"{genre}.{track}"


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


_NUMBERED_PART = re.compile(r"(.+\.\d{5})[._]\d{1,3}")


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    shown = display_path(path)
    if path.suffix.lower() not in KINDS:
        raise GenresError(f"{shown} is no table: name a file that ends in {' or '.join(KINDS)}")
    if not path.exists():
        raise GenresError(f"there is no file {shown}")
    try:
        if path.suffix.lower() == ".csv":
            # As text: a genre may be called "null", and pandas would read that as missing.
            return pd.read_csv(path, converters={_NAME: str, _LABEL: str}, low_memory=False, encoding="utf-8-sig")
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pandas' and Arrow's own errors are kinds of these
        reason = " ".join(str(error).split())[:200]
        raise GenresError(f"{shown} cannot be read as a {path.suffix[1:]} table: {reason}") from error


def _numbers(table: "pd.DataFrame", notices: list[str]) -> "pd.DataFrame":
    """Return the columns of numbers as floats; say what is no feature."""
    import numpy as np
    import pandas as pd

    table = table.drop(columns=[_LENGTH], errors="ignore")
    numbered = [column for column in map(str, table) if column == "" or column.startswith("Unnamed: ")]
    texts, kept = [], {}
    for column in table.columns.difference(numbered, sort=False):
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        if numbers.notna().sum() * 2 < table[column].notna().sum():
            texts.append(column)
        else:
            kept[column] = numbers
    values = pd.DataFrame(kept, index=table.index).replace([np.inf, -np.inf], np.nan)
    empty = [column for column in map(str, values) if values[column].isna().all()]
    same = [column for column in map(str, values) if column not in empty and values[column].nunique() == 1]
    for columns, why in (
        (numbered, "number the rows"),
        (texts, "hold text"),
        (empty, "hold no value"),
        (same, "are the same in all rows"),
    ):
        if columns and len(table):
            notices.append(f"columns left out that {why}: {_some(columns)}")
    return values.drop(columns=[*empty, *same])


def _without_copies(rows: "pd.DataFrame", shown: str, notices: list[str]) -> "pd.DataFrame":
    copies = rows.duplicated(["track_id", "genre", "digest"])
    if copies.any():
        names = _some(rows.loc[copies, "track_id"])
        notices.append(f"{_count(int(copies.sum()), 'row')} twice in the table, taken once: {names}")
        rows = rows[~copies]
    twice = rows["track_id"].duplicated(keep=False)
    if twice.any():
        names = _some(rows.loc[twice, "track_id"].unique())
        raise GenresError(f"{shown} has several different rows of one file: {names}; leave one of each")
    return rows.sort_values("track_id", ignore_index=True)


def _some(names: Iterable[object]) -> str:
    """Return the first few names, and how many more there are."""
    shown = list(map(str, names))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

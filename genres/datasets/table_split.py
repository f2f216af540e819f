"""How the rows of a feature table are split: by somebody's lists, at random, or as the pipeline splits a dataset.

What belongs here: who goes where in a table that has no audio. The pipeline's own split is `genres.datasets.split`.
"""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from genres.datasets.feature_table import FeatureTable, TrackNames, read_csv
from genres.datasets.split import EXCLUDED, PARTS, split_tracks
from genres.errors import GenresError
from genres.file_names import display_path
from genres.plurals import counted

if TYPE_CHECKING:
    import pandas as pd

LISTS = {part: f"{part}_filtered.txt" for part in PARTS}
"""The file that lists each part's tracks, by part."""

_OF_GROUPS = re.compile(r"(artist|group)s?([_ ](name|id|group))?")
"""Names of a column that says whose tracks belong together."""
_TEST_FOLDS = 5
"""One of so many folds is the test part of a random split: 80/20."""


def listed_parts(table: FeatureTable, folder: Path) -> "tuple[pd.Series, list[str]]":
    """Return each row's part by the lists of a folder, and sentences about what does not fit.

    A list has a file name in each line, as ``blues/blues.00000.wav``; folder, suffix and case may be other than in the
    table. Parts of a track are where the track is.

    Returns
    -------
    Series
        The part of each row of the table; missing if no list names it.
    list of str
        Sentences.

    Raises
    ------
    GenresError
        If a list is missing, a track is in two of them, or they name none of the table's.
    """
    notices: list[str] = []
    listed: dict[str, str] = {}
    if not folder.is_dir():
        raise GenresError(f"there is no folder {display_path(folder)}: name one that holds {', '.join(LISTS.values())}")
    names = TrackNames(table.rows)
    for part, name in LISTS.items():
        try:
            lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise GenresError(
                f"{display_path(folder)} holds no {name}: a split is three lists, {', '.join(LISTS.values())}; an "
                "empty one is a part without tracks"
            ) from None
        except (OSError, ValueError) as error:
            raise GenresError(f"{display_path(folder / name)} cannot be read: {error}") from error
        counts = Counter(names.meant(line) for line in lines if line.strip())
        if twice := [track for track, count in counts.items() if count > 1]:
            notices.append(f"{name} names {counted(len(twice), 'track')} twice, the first being {twice[0]}")
        if lacking := [track for track in counts if track not in names.tracks]:
            notices.append(
                f"of the {counted(len(counts), 'track')} in {name} the table lacks {len(lacking)}, the first being "
                f"{lacking[0]}"
            )
        for track in counts:
            if track in listed:
                raise GenresError(f"{track} is in {LISTS[listed[track]]} and in {name}: leave it in one of them")
            listed[track] = part
    if listed and names.tracks.isdisjoint(listed):
        raise GenresError(
            f"the lists in {display_path(folder)} name none of the table's tracks: {next(iter(listed))} is one of "
            f"theirs, {table.rows['track_id'].iloc[0]} of the table's; name the folder of its split"
        )
    parts = table.rows["track_id"].map(listed)
    parts = parts.where(parts.notna(), table.rows["song"].map(listed))
    if left := int(parts.isna().sum()):
        first = table.rows.loc[parts.isna(), "track_id"].iloc[0]
        notices.append(f"left out, since no list names them: {counted(left, 'row')}, the first being {first}")
    return parts, notices


def random_parts(table: FeatureTable, seed: int) -> "pd.Series":
    """Return ``train`` or ``test`` for each row, 80/20 at random within each genre.

    Parts of one track, and rows with equal features, stay together; nothing is known of artists here.
    """
    import pandas as pd

    folds = assign_folds(table.rows["genre"], together(table.rows, ["song", "digest"]), n=_TEST_FOLDS, seed=seed)
    return pd.Series(["test" if fold == 0 else "train" for fold in folds], index=table.rows.index)


def pipeline_parts(table: FeatureTable) -> "tuple[pd.Series, list[str]]":
    """Return each row's part as the pipeline splits a dataset, and sentences about it.

    Without audio, a hash of the track's name stands for that of its bytes, and equal features for equal bytes.
    """
    rows = table.rows
    first = rows.drop_duplicates("digest").set_index("digest")["track_id"]
    split = split_tracks(rows.assign(sha256=rows["digest"].map(first)))
    parts = rows["track_id"].map(dict(zip(split.table["track_id"], split.table["part"], strict=True)))
    excluded = split.table[split.table["part"] == EXCLUDED]
    notices = [split.why]
    if len(excluded):
        row = excluded.iloc[0]
        notices.append(f"left out: {counted(len(excluded), 'row')}, the first being {row['track_id']}: {row['reason']}")
    return parts.where(parts != EXCLUDED), notices


def read_artists(table: FeatureTable, path: Path) -> "tuple[pd.Series, list[str]]":
    """Return the group of tracks (by one artist, say) that each row belongs to, and sentences about it.

    Parameters
    ----------
    path
        CSV of two columns, track and group, in either order, with or without a line of their names. Of more columns,
        those are taken that name the most tracks and that is named as the artist's or the group's.

    Returns
    -------
    Series
        Group of each row; missing where the file does not name the track.
    list of str
        Sentences.

    Raises
    ------
    GenresError
        If the file is not such a CSV, names a track in two groups, or names none of the table's.
    """
    shown = display_path(path)
    cells = read_csv(path).fillna("").apply(lambda column: column.str.strip())
    names = TrackNames(table.rows)
    meant = cells.apply(lambda column: column.map(names.meant))
    is_known = meant.isin(list(names.tracks))
    # Groups may have numbers that are names of tracks, too; but there are fewer of them.
    place = int(meant.where(is_known).nunique().argmax())
    if not is_known.any(axis=None):
        raise GenresError(
            f"{shown} names none of the table's tracks, as {table.rows['track_id'].iloc[0]} is one; name a CSV of two "
            "columns, track and group"
        )
    others = [column for column in cells if column != place]
    if len(others) > 1:
        others = [column for column in others if _OF_GROUPS.fullmatch(cells[column].iloc[0].lower())]
    if len(others) != 1:
        raise GenresError(
            f"{shown} has {counted(cells.shape[1], 'column')}, {', '.join(cells.iloc[0])}: groups are a CSV of two, "
            "track and group; of more, one has to be called artist or group"
        )
    groups = cells.assign(track=meant[place], group=cells[others[0]])
    groups = groups.loc[is_known[place] & (groups["group"] != ""), ["track", "group"]].drop_duplicates()
    if (twice := groups["track"].duplicated()).any():
        raise GenresError(f"{shown} names {groups.loc[twice, 'track'].iloc[0]} in two groups: leave one")
    of_track = dict(zip(groups["track"], groups["group"], strict=True))
    found = table.rows["track_id"].map(of_track)
    found = found.where(found.notna(), table.rows["song"].map(of_track))
    unknown = int(found.isna().sum())
    said = f"in no group of {shown}: {counted(unknown, 'row')}, whose tracks stand each for itself"
    return found, [said] if unknown else []


def together(rows: "pd.DataFrame", keys: list[str]) -> "list[int]":
    """Number the groups of rows that are linked by an equal value in any of some columns.

    Parameters
    ----------
    keys
        Columns; a missing value links to nothing.
    """
    import numpy as np
    import pandas as pd
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links, size = [], len(rows)
    for key in keys:
        codes, values = pd.factorize(rows[key])
        known = np.flatnonzero(codes >= 0)
        links.append((known, codes[known] + size))
        size += len(values)
    ends = [np.concatenate(side) for side in zip(*links, strict=True)]
    graph = coo_matrix((np.ones(len(ends[0])), (ends[0], ends[1])), shape=(size, size))
    return [int(group) for group in connected_components(graph, directed=False)[1][: len(rows)]]


def assign_folds(genres: "pd.Series", groups: "list[int]", *, n: int, seed: int) -> "list[int]":
    """Return each row's fold: groups stay whole, and the genres are spread alike as far as that goes.

    Parameters
    ----------
    genres, groups
        Genre and group of each row.
    n
        Wanted folds; there are fewer if there are fewer groups.

    Raises
    ------
    GenresError
        If all rows are in one group.
    """
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    n = min(n, len(set(groups)), int(genres.value_counts().max()))
    if n < 2:
        raise GenresError(
            f"{len(genres)} rows are all of one track or artist, or each of another genre: they cannot be split; "
            "add other tracks"
        )
    folds = [0] * len(genres)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a genre of fewer rows than folds is no reason to stop
        splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
        for fold, (_, held_out) in enumerate(splitter.split(genres, genres, groups)):
            for row in held_out:
                folds[row] = fold
    return folds

"""Genre over time: a clip's windows are scored beside the clip, by the same model and in the same query.

How a clip is cut into windows is `genres.audio.feature_set.window_starts`; what is measured of them lies beside its
features. A window's probabilities are those that the model has for a clip of these features. Models learn from whole
clips: the spread of a feature over 3 s is less than over 30, which moves the answers of sets that measure it.
"""

from collections.abc import Hashable, Iterable, Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from genres.audio.feature_set import WINDOW_S, AnyFeatureSet

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row

WINDOW = "window"
"""Column of a window's number within its clip; null for the clip itself."""


def with_windows(features: "DataFrame", feature_set: AnyFeatureSet, *, keep: Sequence[str]) -> "DataFrame":
    """Return a row for each clip, and one for each of its windows.

    Parameters
    ----------
    features
        With the columns `keep`, and those of the feature set and of its windows; these may be null.
    keep
        Columns handed through, which together name a clip.

    Returns
    -------
    DataFrame
        `keep`, ``window`` and the columns of `feature_set`. Of joined sets, the windows that all of them have.
    """
    from pyspark.sql import functions as sf

    clips = features.select(*keep, sf.lit(None).cast("int").alias(WINDOW), *feature_set.columns)
    of_sets = feature_set.windows_columns
    windows = features.select(*keep, sf.posexplode(sf.arrays_zip(*of_sets)).alias(WINDOW, "values"))
    # Where one set has fewer windows than another, its values of the last ones are null.
    windows = windows.filter(reduce(and_, [sf.col(f"values.{name}").isNotNull() for name in of_sets]))
    columns = {
        column: sf.col(f"values.{part.windows_column}")[place].cast("double").alias(column)
        for part in feature_set.parts
        for place, column in enumerate(part.columns)
    }
    return clips.unionByName(windows.select(*keep, WINDOW, *(columns[column] for column in feature_set.columns)))


def window_rows(features: "pa.Table", feature_set: AnyFeatureSet, *, keep: Sequence[str]) -> "pa.Table":
    """Return what `with_windows` returns, of a table in this process: to Spark it is then rows like any others.

    A stream's batch is scored in less time so, as most of that goes into Spark's planning.

    Parameters
    ----------
    features
        With the columns `keep` and those of the feature set; those of windows may be null or lacking.
    feature_set, keep
        As for `with_windows`.
    """
    import numpy as np
    import pyarrow as pa

    windows, counts = {}, np.full(len(features), np.iinfo(np.int64).max)
    for part in feature_set.parts:
        lists = pa.nulls(len(features), pa.list_(pa.list_(pa.float32())))
        if part.windows_column in features.column_names:
            lists = pa.concat_arrays(features[part.windows_column].chunks or [lists])
        lengths = lists.value_lengths().fill_null(0).to_numpy()
        values = lists.flatten().flatten().to_numpy().reshape(-1, len(part.columns))
        windows[part.name] = values, np.cumsum(lengths) - lengths
        counts = np.minimum(counts, lengths)
    clips = np.repeat(np.arange(len(features)), counts)
    numbers = np.arange(len(clips)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns: dict[str, Any] = {}
    for part in feature_set.parts:
        values, firsts = windows[part.name]
        rows = values[firsts[clips] + numbers].astype(np.float64)
        columns |= {column: rows[:, place] for place, column in enumerate(part.columns)}

    kept = features.select(keep).take(np.concatenate([np.arange(len(features)), clips]))
    number = pa.concat_arrays([pa.nulls(len(features), pa.int32()), pa.array(numbers, pa.int32())])
    table = kept.append_column(WINDOW, number)
    for column in feature_set.columns:
        table = table.append_column(column, pa.chunked_array([*features[column].chunks, pa.array(columns[column])]))
    return table


def over_time(scored: "Iterable[Row]", genres: Sequence[str], *, keep: Sequence[str]) -> dict[Hashable, dict[str, Any]]:
    """Gather the scored windows of each clip.

    Parameters
    ----------
    scored
        Rows with the columns `keep`, ``window`` and ``probabilities``.
    genres
        The genres, in the order of the probabilities.
    keep
        As for `with_windows`.

    Returns
    -------
    dict
        By the values of `keep`, what the column ``over_time`` of a prediction holds; clips without windows have none.
    """
    found: dict[Hashable, dict[int, list[float]]] = {}
    for row in scored:
        if row[WINDOW] is not None:
            clip = found.setdefault(tuple(row[column] for column in keep), {})
            clip[row[WINDOW]] = [round(probability, 3) for probability in row["probabilities"]]
    return {
        clip: {
            "window_s": WINDOW_S,
            "hop_s": WINDOW_S,
            "start_s": 0.0,
            "genres": list(genres),
            "probabilities": [windows[number] for number in sorted(windows)],
        }
        for clip, windows in found.items()
    }

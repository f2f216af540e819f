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

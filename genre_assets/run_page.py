"""What a training's runs show on MLflow's page: a handful of metrics, and every genre's figures in one table."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

GENRE_TABLE = "by_genre.json"
"""The artifact that holds each genre's figures; MLflow shows it as a table."""

_FIRST = ("_accuracy", "_macro_f1")
_OF_A_GENRE = re.compile(r"(valid|test)_(precision|recall|f1)_")


def headline(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are of no single genre, those first that say most; MLflow shows them as they come."""
    chosen = [name for name in scores if not _OF_A_GENRE.match(name)]
    return {name: scores[name] for name in sorted(chosen, key=lambda name: not name.endswith(_FIRST))}


def genre_table(confusions: "Mapping[str, npt.NDArray[np.int64]]", genres: Sequence[str]) -> dict[str, list[Any]]:
    """Return each genre's tracks, precision, recall and F1 in each part, a row for each, for ``mlflow.log_table``.

    Parameters
    ----------
    confusions
        Counts by part; row: true genre, column: predicted genre, both in the order of `genres`.
    """
    from spark.evaluation import figures_of_genres

    table: dict[str, list[Any]] = {name: [] for name in ("genre", "part", "tracks", "precision", "recall", "f1")}
    for part, confusion in confusions.items():
        table["genre"] += genres
        table["part"] += [part] * len(genres)
        table["tracks"] += confusion.sum(axis=1).tolist()
        for name, values in figures_of_genres(confusion).items():
            table[name] += values.tolist()
    return table

"""The rows that models are trained and judged on, as Spark has them, and the folds of the training part."""

from typing import TYPE_CHECKING

from genres.audio.feature_set import AnyFeatureSet
from genres.datasets.split import songs_of
from genres.store.batch_tables import BatchTables

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

_FOLDS, _FOLDS_OF_FEW = 5, 3
_FEW_TRACKS = 100
"""Training tracks below which there are fewer folds, since each costs as long as of many tracks."""


def training_rows(
    spark: "SparkSession", tables: BatchTables, feature_set: AnyFeatureSet, *, split_path: str
) -> "tuple[DataFrame, list[str]]":
    """Return the labelled features of all parts of a split, and the genres in the order of their index.

    The session is set to what training needs.
    """
    from spark.classifiers import TRAINING_CONF, index_genres
    from spark.labelled_features import labelled_features

    for name, value in TRAINING_CONF.items():
        spark.conf.set(name, value)
    labelled = labelled_features(
        spark,
        feature_uris=[tables.lake.uri(path) for path in tables.feature_paths(feature_set.feature_version)],
        split_uri=tables.lake.uri(split_path),
        columns=feature_set.columns,
    )
    # Training runs hundreds of small jobs over these rows. A checkpoint, unlike a cache, also forgets how they came
    # about: the scheduler otherwise walks the whole join again for each job (LinearSVC took four times as long).
    indexed, genres = index_genres(labelled.filter("part != 'excluded'").coalesce(1).localCheckpoint())
    return indexed.localCheckpoint(), genres


def song_folds(tracks: "pd.DataFrame") -> "list[int]":
    """Return the fold of each track; a song's parts are in one. If there are too few to leave any out, all are.

    Parameters
    ----------
    tracks
        Columns ``track_id`` and ``genre``.
    """
    from genres.datasets.table_split import assign_folds

    groups = _songs(tracks)
    if tracks["genre"].value_counts().max() < 2 or len(set(groups)) < 2:
        return [0] * len(tracks)
    return assign_folds(tracks["genre"], groups, n=_FOLDS_OF_FEW if len(tracks) < _FEW_TRACKS else _FOLDS, seed=0)


def folds_of_any_genre(tracks: "pd.DataFrame") -> "list[int]":
    """Return the fold of each track where a genre may be in one fold alone; a song's parts are in one.

    Parameters
    ----------
    tracks
        Columns ``track_id`` and ``genre``.
    """
    return [song % _FOLDS_OF_FEW for song in _songs(tracks)]


def _songs(tracks: "pd.DataFrame") -> "list[int]":
    """Number the songs; a song's name is its own within its genre alone."""
    of_songs = tracks["track_id"].map(songs_of(tracks))
    return tracks.groupby(["genre", of_songs]).ngroup().tolist()

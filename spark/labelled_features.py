"""The table that models are trained and judged on: stored features joined with the split."""

from collections.abc import Sequence
from itertools import groupby
from posixpath import dirname
from typing import TYPE_CHECKING

from genres.errors import GenresError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def labelled_features(
    spark: "SparkSession",
    *,
    feature_uris: Sequence[str],
    split_uri: str,
    columns: Sequence[str],
    windows: Sequence[str] = (),
) -> "DataFrame":
    """Join the published features with the split.

    Parameters
    ----------
    spark
        The session that reads them.
    feature_uris
        Published parts of the feature tables, in a folder for each feature set; a part may hold clips that the split
        no longer knows.
    split_uri
        The published split: ``track_id``, ``genre``, ``sha256``, ``part``.
    columns
        The feature columns, of one set or of several.
    windows
        Columns of windows; null where a part is older than they are.

    Returns
    -------
    pyspark.sql.DataFrame
        One row a track of the split that has all features: ``track_id``, ``genre``, ``sha256``, ``part``, `columns` and
        `windows`.

    Raises
    ------
    GenresError
        If no table has one of the columns.
    """
    from pyspark.sql import functions as sf

    labelled = spark.read.parquet(split_uri)
    lacking = [*columns, *windows]
    for _, uris in groupby(sorted(feature_uris, key=dirname), key=dirname):
        # Each part is partitioned by genre on its own, which Spark takes for a conflict between them; the genre comes
        # from the split, so that no partition needs to be discovered.
        parts = spark.read.option("recursiveFileLookup", True)
        # Else one file's columns are taken for all.
        stored = parts.option("mergeSchema", bool(windows)).parquet(*uris)
        there = [column for column in lacking if column in stored.columns]
        lacking = [column for column in lacking if column not in there]
        features = stored.select("track_id", "sha256", *there)
        # A clip that a killed run extracted and a later run extracted again stands in two parts, with equal values.
        labelled = labelled.join(features.dropDuplicates(["track_id", "sha256"]), ["track_id", "sha256"])
    for name in {*lacking} & {*windows}:
        labelled = labelled.withColumn(name, sf.lit(None).cast("array<array<float>>"))
        lacking.remove(name)
    if lacking:
        raise GenresError(f"the feature tables have no {', '.join(lacking[:3])}: materialize audio_features again")
    return labelled

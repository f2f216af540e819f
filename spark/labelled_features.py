"""The table that models are trained and judged on: stored features joined with the split."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def labelled_features(
    spark: "SparkSession", *, feature_uris: Sequence[str], split_uri: str, columns: Sequence[str]
) -> "DataFrame":
    """Join the published features with the split.

    Parameters
    ----------
    spark
        The session that reads them.
    feature_uris
        Published parts of the feature table; a part may hold clips that the split no longer knows.
    split_uri
        The published split: ``track_id``, ``genre``, ``sha256``, ``part``.
    columns
        The feature columns.

    Returns
    -------
    pyspark.sql.DataFrame
        One row a track of the split: ``track_id``, ``genre``, ``sha256``, ``part`` and `columns`.
    """
    # Each part is partitioned by genre on its own, which Spark takes for a conflict between them; the genre comes from
    # the split, so that no partition needs to be discovered.
    stored = spark.read.option("recursiveFileLookup", True).parquet(*feature_uris)
    features = stored.select("track_id", "sha256", *columns)
    # A clip that a killed run extracted and a later run extracted again stands in two parts, with equal values.
    features = features.dropDuplicates(["track_id", "sha256"])
    return spark.read.parquet(split_uri).join(features, ["track_id", "sha256"])

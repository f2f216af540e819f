"""The table that models are trained and judged on: stored features joined with the split."""

from collections.abc import Sequence
from typing import Any


def labelled_features(spark: Any, *, feature_uris: Sequence[str], split_uri: str, columns: Sequence[str]) -> Any:
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
    # Not as one table partitioned by genre: each part is one of its own, and Spark reads no two of these at once.
    files = spark.read.option("recursiveFileLookup", "true").parquet(*feature_uris)
    features = files.select("track_id", "sha256", *columns)
    # A clip that a killed run extracted and a later run extracted again stands in two parts, with equal values.
    features = features.dropDuplicates(["track_id", "sha256"])
    return spark.read.parquet(split_uri).join(features, ["track_id", "sha256"])

"""Scoring: a registered model and a table of its features give predicted genres with probabilities, as rows."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import feature_set_of
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_directory import require_intact
from genres.store.model_facts import RegisteredModel
from genres.store.schemas import Column, arrow_schema, feature_columns, window_columns
from spark.calibration import CALIBRATED
from spark.classifiers import probabilities, softmax
from spark.distance import DISTANCES, distance
from spark.over_time import WINDOW, over_time, window_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.ml import PipelineModel
    from pyspark.ml.feature import IndexToString
    from pyspark.sql import DataFrame, Row, SparkSession


class Scorer:
    """A registered model, loaded once, so that no table mixes two versions; a context manager.

    A process that still holds a model from a Connect session hangs when it ends: `close`, or the end of the ``with``
    block, drops it, and has to come before the session is stopped. Connect's MLlib finds the session by the thread
    that opened it, so a scorer is used in one thread.

    Parameters
    ----------
    model
        The version, as the alias pointed at it.
    trained_on
        The dataset of its tracks.
    lake
        Where its native Spark directory lies.

    Raises
    ------
    GenresError
        If the model reads features that this code does not compute, or its directory is not the one that was
        registered (`genres.store.model_directory.UnusableModelError`).
    """

    def __init__(self, model: RegisteredModel, *, trained_on: Dataset, lake: Lake) -> None:
        self.model = model
        self.trained_on = trained_on
        self.feature_set = feature_set_of(model.feature_version)
        """The features that it reads."""
        require_intact(model, lake)
        # JSON and Parquet, no pickle.
        self._pipeline: PipelineModel = _load(lake.uri(model.spark_model_path))
        self.genres: list[str] = list(cast("IndexToString", self._pipeline.stages[-1]).getLabels())
        """The genres that it tells apart, in the order of its probabilities."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the model; the scorer is of no use afterwards."""
        self.__dict__.pop("_pipeline", None)

    def scored(self, features: "DataFrame", *, keep: Sequence[str]) -> "DataFrame":
        """Predict the genre of each row, still in Spark.

        Parameters
        ----------
        features
            With the columns of `feature_set` and the columns `keep`.
        keep
            Columns handed through.

        Returns
        -------
        DataFrame
            `keep`, ``predicted_genre``, ``probabilities`` (array of doubles in the order of `genres`) and ``distance``
            (null if the model knows none). The probabilities are calibrated if the model is; those of a version of
            before calibration are the classifier's own, or the softmax of its raw scores.
        """
        return answers_of(self._pipeline, features).select(*keep, "predicted_genre", "probabilities", "distance")

    def rows(self, features: "DataFrame", *, keep: Sequence[str]) -> list[dict[str, Any]]:
        """Predict the genre of each clip, as a whole and over time.

        Parameters
        ----------
        features
            Clips and their windows, as `spark.over_time` has them.
        keep
            As for `scored`; together they name a clip.

        Returns
        -------
        list of dict
            For each clip the columns `keep` and what every prediction table has: ``predicted_genre``, ``probability``,
            ``probabilities`` (by genre), ``over_time``, ``is_calibrated``, ``is_uncertain``, ``distance``,
            ``is_unlike``, ``model_name``, ``model_version``, ``feature_version``, ``dataset`` and ``is_synthetic``.
            What a version of before calibration does not know is None, and so is ``over_time`` of features without
            windows.
        """
        return self.answers(self.scored(features, keep=[*keep, WINDOW]).collect(), keep=keep)

    def answers(self, scored: "Sequence[Row]", *, keep: Sequence[str]) -> list[dict[str, Any]]:
        """Return what `rows` does, of rows that `scored` has made of clips and their windows."""
        curves = over_time(scored, self.genres, keep=keep)
        certain_from = self.model.certain_from
        about = {
            "model_name": self.model.name,
            "model_version": self.model.version,
            "is_calibrated": self.model.is_calibrated,
            "feature_version": self.model.feature_version,
            "dataset": self.trained_on.dataset,
            "is_synthetic": self.trained_on.is_synthetic,
        }
        return [
            {
                **{column: row[column] for column in keep},
                "predicted_genre": row["predicted_genre"],
                "probability": max(row["probabilities"]),
                "probabilities": dict(zip(self.genres, row["probabilities"], strict=True)),
                "over_time": curves.get(tuple(row[column] for column in keep)),
                "is_uncertain": None if certain_from is None else max(row["probabilities"]) < certain_from,
                "distance": row["distance"],
                "is_unlike": None if row["distance"] is None else row["distance"] > 1,
                **about,
            }
            for row in scored
            if row[WINDOW] is None
        ]


def score_clips(
    scorer: Scorer, clips: Sequence[Mapping[Any, Any]], *, spark: "SparkSession"
) -> dict[int, dict[str, Any]]:
    """Predict the genre of clips whose features are in this process.

    Parameters
    ----------
    clips
        Values by the columns of the scorer's feature set, and windows by its `windows_columns`.
    spark
        The session that the scorer was loaded into.

    Returns
    -------
    dict
        What `Scorer.rows` has of each, by its place in `clips`.
    """
    frame = spark.createDataFrame(clip_rows(scorer.feature_set, clips))
    return {row.pop("clip"): row for row in scorer.rows(frame, keep=["clip"])}


def clip_rows(feature_set: AnyFeatureSet, clips: Sequence[Mapping[Any, Any]]) -> "pa.Table":
    """Return the rows of clips and of their windows, as `spark.over_time.window_rows` does.

    Parameters
    ----------
    clips
        As `score_clips` takes them.

    Returns
    -------
    pyarrow.Table
        ``clip``, the place among the clips, ``window`` and the columns of the feature set.
    """
    import pyarrow as pa

    columns = (
        Column("clip", "bigint", "Its place among the clips."),
        *feature_columns(feature_set.columns),
        *window_columns(feature_set.windows_columns),
    )
    numbered = [{**values, "clip": number} for number, values in enumerate(clips)]
    return window_rows(pa.Table.from_pylist(numbered, schema=arrow_schema(columns)), feature_set, keep=["clip"])


def answers_of(pipeline: "PipelineModel", features: "DataFrame") -> "DataFrame":
    """Return the rows with ``predicted_genre``, ``probabilities`` and ``distance``, as `Scorer.scored` has them."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    scored = pipeline.transform(features)
    # Asking for the result's columns instead costs a round trip to the server, as much time as a batch's scores.
    added = {stage.getOrDefault("outputCol") for stage in pipeline.stages if stage.hasParam("outputCol")}
    if CALIBRATED in added:
        found = softmax(vector_to_array(sf.col(CALIBRATED)))
    else:
        gives_probability = any(stage.hasParam("probabilityCol") for stage in pipeline.stages)
        found = probabilities(gives_probability=gives_probability)
    away = distance() if DISTANCES in added else sf.lit(None).cast("double")
    return scored.withColumns({"probabilities": found, "distance": away})


def _load(uri: str) -> "PipelineModel":
    from pyspark.ml import PipelineModel

    return PipelineModel.load(uri)

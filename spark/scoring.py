"""Scoring: a model's native Spark directory and a feature table give predicted genres with probabilities."""

from collections.abc import Sequence
from typing import Any


def load_model(uri: str) -> Any:
    """Load a fitted pipeline from its native Spark directory (JSON and Parquet, no pickle).

    Works in a classic and in a Connect session. A process that still holds a model from a Connect session hangs
    when it ends: drop every reference before the session is stopped.
    """
    from pyspark.ml import PipelineModel

    return PipelineModel.load(uri)


def score(model: Any, features: Any, *, keep: Sequence[str]) -> Any:
    """Predict the genre of each row.

    Parameters
    ----------
    model
        From `load_model`.
    features
        DataFrame with the model's feature columns and the columns `keep`.
    keep
        Columns handed through.

    Returns
    -------
    pyspark.sql.DataFrame
        `keep`, ``predicted_genre`` and ``probabilities`` (array of doubles in the order of `model_genres`). A
        one-versus-rest model has raw scores only; theirs are the softmax of the scores, which orders the genres
        rightly but is calibrated to nothing.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    scored = model.transform(features)
    # Asking for the result's columns instead costs a round trip to the server, as much time as a batch's scores.
    if any(stage.hasParam("probabilityCol") for stage in model.stages):
        probabilities = vector_to_array(sf.col("probability"))
    else:
        raw = vector_to_array(sf.col("rawPrediction"))
        # The largest score is taken off first, so that exp cannot overflow.
        powers = sf.transform(raw, lambda score: sf.exp(score - sf.array_max(raw)))
        total = sf.aggregate(powers, sf.lit(0.0), lambda total, power: total + power)
        probabilities = sf.transform(powers, lambda power: power / total)
    return scored.select(*keep, "predicted_genre", probabilities.alias("probabilities"))


def model_genres(model: Any) -> list[str]:
    """The genres a model tells apart, in the order of its probabilities."""
    return list(model.stages[-1].getLabels())

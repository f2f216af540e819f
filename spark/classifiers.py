"""The candidate classifiers: MLlib pipelines from feature columns to a predicted genre.

A pipeline takes the feature columns alone, so that a fitted one also scores clips whose genre nobody knows; the
genre is indexed outside, by ``index_genres``, and named again by the pipeline's last stage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from genres.errors import GenresError


@dataclass(frozen=True)
class Candidate:
    """A classifier to be trained and compared.

    Attributes
    ----------
    name
        MLlib's name for it; the name of the MLflow run.
    params
        Its hyperparameters, as logged.
    gives_probability
        Whether the model gives probabilities; the others give raw scores only.
    build
        From (number of features, number of genres) to the unfitted MLlib estimator.
    """

    name: str
    params: dict[str, Any]
    gives_probability: bool
    build: Callable[[int, int], Any]


def candidates(chosen: str = "", *, seed: int = 0) -> list[Candidate]:
    """Give the candidates, in the order in which they are trained.

    Parameters
    ----------
    chosen
        Names, separated by commas; empty for all six.

    Raises
    ------
    GenresError
        If a name is not one of the six.
    """
    every = _candidates(seed)
    names = chosen.split(",") if chosen else [candidate.name for candidate in every]
    unknown = sorted(set(names) - {candidate.name for candidate in every})
    if unknown:
        known = ", ".join(candidate.name for candidate in every)
        raise GenresError(f"GENRES_CLASSIFIERS names {', '.join(unknown)}; there are: {known}")
    return [candidate for candidate in every if candidate.name in names]


def _candidates(seed: int) -> list[Candidate]:
    from pyspark.ml import classification as ml

    logistic = {"maxIter": 100, "regParam": 0.01}
    tree = {"maxDepth": 8, "seed": seed}
    forest = {"numTrees": 100, "maxDepth": 8, "seed": seed}
    svc = {"maxIter": 20, "regParam": 0.01, "tol": 1e-3}
    gbt = {"maxIter": 10, "maxDepth": 3, "seed": seed}
    perceptron = {"maxIter": 200, "seed": seed}
    return [
        Candidate("LogisticRegression", logistic, True, lambda _f, _g: ml.LogisticRegression(**logistic)),
        Candidate("DecisionTree", tree, True, lambda _f, _g: ml.DecisionTreeClassifier(**tree)),
        Candidate("RandomForest", forest, True, lambda _f, _g: ml.RandomForestClassifier(**forest)),
        Candidate("OneVsRestLinearSVC", svc, False, lambda _f, _g: _one_vs_rest(ml.LinearSVC(**svc))),
        Candidate("OneVsRestGBT", gbt, False, lambda _f, _g: _one_vs_rest(ml.GBTClassifier(**gbt))),
        Candidate(
            "MultilayerPerceptron",
            {**perceptron, "hidden": 64},
            True,
            lambda features, genres: ml.MultilayerPerceptronClassifier(layers=[features, 64, genres], **perceptron),
        ),
    ]


def pipeline(candidate: Candidate, *, columns: Sequence[str], genres: Sequence[str]) -> Any:
    """Build the unfitted pipeline: assemble a vector, standardise it, classify, name the genre.

    Parameters
    ----------
    columns
        The feature columns, in the vector's order.
    genres
        The genres, in the order of their indices (``index_genres``).

    Returns
    -------
    pyspark.ml.Pipeline
        Wants `columns` and, to be fitted, ``label``; adds ``predicted_genre``, ``rawPrediction`` and, where the
        classifier gives it, ``probability``.
    """
    from pyspark.ml import Pipeline

    return Pipeline(stages=[*_preparing(columns), *_classifying(candidate, len(columns), genres)])


@dataclass(frozen=True)
class Prepared:
    """Parts of a dataset, standardised by what the training part is like: what all candidates have in common."""

    parts: dict[str, Any]
    """Checkpointed DataFrame of each part: ``genre``, ``label`` and the vector ``features``."""
    columns: tuple[str, ...]
    genres: list[str]
    stages: list[Any]
    """The fitted stages that lead from the feature columns to the vector."""

    def fit(self, candidate: Candidate) -> tuple[Any, Any]:
        """Fit a candidate to the part ``train``.

        Returns
        -------
        pyspark.ml.PipelineModel
            The same as `pipeline` fitted to the feature columns: it reads these.
        pyspark.ml.PipelineModel
            Its last stages alone, which read `parts`.
        """
        from pyspark.ml import Pipeline, PipelineModel

        classifying = Pipeline(stages=_classifying(candidate, len(self.columns), self.genres)).fit(self.parts["train"])
        return PipelineModel([*self.stages, *classifying.stages]), classifying


def prepare(parts: dict[str, Any], *, columns: Sequence[str], genres: Sequence[str]) -> Prepared:
    """Assemble and standardise the parts once, for all candidates.

    A fit runs dozens of small jobs; with the assembled vector they no longer plan, compile and read 57 columns each.

    Parameters
    ----------
    parts
        DataFrame of each part, one of them ``train``: `columns`, ``genre`` and ``label``.
    """
    from pyspark.ml import Pipeline

    model = Pipeline(stages=_preparing(columns)).fit(parts["train"])
    ready = {
        part: model.transform(rows).select("genre", "label", "features").localCheckpoint()
        for part, rows in parts.items()
    }
    return Prepared(ready, tuple(columns), list(genres), model.stages)


def _preparing(columns: Sequence[str]) -> list[Any]:
    from pyspark.ml.feature import StandardScaler, VectorAssembler

    assembler = VectorAssembler(inputCols=list(columns), outputCol="vector")
    return [assembler, StandardScaler(inputCol="vector", outputCol="features", withMean=True, withStd=True)]


def _classifying(candidate: Candidate, features: int, genres: Sequence[str]) -> list[Any]:
    from pyspark.ml.feature import IndexToString

    name = IndexToString(inputCol="prediction", outputCol="predicted_genre", labels=list(genres))
    return [candidate.build(features, len(genres)), name]


def index_genres(labelled: Any) -> tuple[Any, list[str]]:
    """Add the column ``label``: the genre's index in alphabetical order.

    Parameters
    ----------
    labelled
        DataFrame with the column ``genre``.

    Returns
    -------
    pyspark.sql.DataFrame
        `labelled` with ``label``.
    list[str]
        The genres in the order of their indices.
    """
    from pyspark.ml.feature import StringIndexer

    model = StringIndexer(inputCol="genre", outputCol="label", stringOrderType="alphabetAsc").fit(labelled)
    return model.transform(labelled), list(model.labels)


def _one_vs_rest(binary: Any) -> Any:
    from pyspark.ml.classification import OneVsRest

    return OneVsRest(classifier=binary, parallelism=2)

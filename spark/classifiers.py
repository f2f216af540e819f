"""The candidate classifiers: their hyperparameters, and MLlib pipelines from feature columns to a predicted genre.

A pipeline takes the feature columns alone, so that a fitted one also scores clips whose genre nobody knows; the
genre is indexed outside, by ``index_genres``, and named again by the pipeline's last stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from genres.errors import GenresError

if TYPE_CHECKING:
    from pyspark.ml import Estimator, Pipeline, PipelineModel, Transformer
    from pyspark.ml.classification import Classifier
    from pyspark.sql import DataFrame


class Candidate(BaseModel):
    """A classifier to be trained and compared; its fields are its hyperparameters, by MLlib's names for them."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]
    """The name of its MLflow run."""
    gives_probability: ClassVar[bool] = True
    """Whether the model gives probabilities; the others give raw scores only."""

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return the unfitted MLlib estimator for vectors of `features` numbers and so many `genres`."""
        raise NotImplementedError


class LogisticRegression(Candidate):
    """Multinomial logistic regression."""

    name = "LogisticRegression"
    maxIter: int = Field(100, ge=1, description="Most iterations of the optimiser.")
    regParam: float = Field(0.01, ge=0, description="Strength of the L2 penalty.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.LogisticRegression``."""
        from pyspark.ml import classification

        return classification.LogisticRegression(**self.model_dump())


class DecisionTree(Candidate):
    """One decision tree."""

    name = "DecisionTree"
    maxDepth: int = Field(8, ge=0, le=30, description="Depth of the tree.")
    seed: int = Field(0, description="Of its random choices.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.DecisionTreeClassifier``."""
        from pyspark.ml import classification

        return classification.DecisionTreeClassifier(**self.model_dump())


class RandomForest(Candidate):
    """A forest of trees, each on a sample of clips and features."""

    name = "RandomForest"
    numTrees: int = Field(100, ge=1, description="Trees of the forest.")
    maxDepth: int = Field(8, ge=0, le=30, description="Depth of each tree.")
    seed: int = Field(0, description="Of its random choices.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.RandomForestClassifier``."""
        from pyspark.ml import classification

        return classification.RandomForestClassifier(**self.model_dump())


class OneVsRestLinearSVC(Candidate):
    """A linear support vector machine for each genre against the rest."""

    name = "OneVsRestLinearSVC"
    gives_probability = False
    maxIter: int = Field(20, ge=1, description="Most iterations of the optimiser, for each genre.")
    regParam: float = Field(0.01, ge=0, description="Strength of the L2 penalty.")
    tol: float = Field(1e-3, ge=0, description="Relative improvement below which the optimiser stops.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.OneVsRest`` of ``LinearSVC``."""
        from pyspark.ml import classification

        return _one_vs_rest(classification.LinearSVC(**self.model_dump()))


class OneVsRestGBT(Candidate):
    """Gradient-boosted trees for each genre against the rest."""

    name = "OneVsRestGBT"
    gives_probability = False
    maxIter: int = Field(10, ge=1, description="Trees for each genre.")
    maxDepth: int = Field(3, ge=0, le=30, description="Depth of each tree.")
    seed: int = Field(0, description="Of its random choices.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.OneVsRest`` of ``GBTClassifier``."""
        from pyspark.ml import classification

        return _one_vs_rest(classification.GBTClassifier(**self.model_dump()))


class MultilayerPerceptron(Candidate):
    """A perceptron with one hidden layer."""

    name = "MultilayerPerceptron"
    maxIter: int = Field(200, ge=1, description="Most iterations of the optimiser.")
    hidden: int = Field(64, ge=1, description="Units of the hidden layer.")
    seed: int = Field(0, description="Of the first weights.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.MultilayerPerceptronClassifier``."""
        from pyspark.ml import classification

        return classification.MultilayerPerceptronClassifier(
            layers=[features, self.hidden, genres], maxIter=self.maxIter, seed=self.seed
        )


CANDIDATES: tuple[Candidate, ...] = (
    LogisticRegression(),
    DecisionTree(),
    RandomForest(),
    OneVsRestLinearSVC(),
    OneVsRestGBT(),
    MultilayerPerceptron(),
)
"""Every candidate with the hyperparameters that it has by default, in the order in which they are trained."""


def choose(names: Sequence[str], *, among: Sequence[Candidate] = CANDIDATES) -> list[Candidate]:
    """Return the candidates of these names, in the order in which they are trained; all of them for no names.

    Raises
    ------
    GenresError
        If there is no candidate of a name.
    """
    unknown = sorted(set(names) - {candidate.name for candidate in among})
    if unknown:
        known = ", ".join(candidate.name for candidate in among)
        raise GenresError(f"GENRES_CLASSIFIERS names {', '.join(unknown)}; there are: {known}")
    return [candidate for candidate in among if candidate.name in names or not names]


def pipeline(candidate: Candidate, *, columns: Sequence[str], genres: Sequence[str]) -> "Pipeline":
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
    """A dataset standardised by what its training part is like: what all candidates have in common."""

    train: "DataFrame"
    """Checkpointed DataFrame of the training part: ``genre``, ``part``, ``label`` and the vector ``features``."""
    judged: "DataFrame"
    """The same of the other parts."""
    columns: tuple[str, ...]
    genres: list[str]
    stages: "list[Transformer]"
    """The fitted stages that lead from the feature columns to the vector."""

    def fit(self, candidate: Candidate) -> "tuple[PipelineModel, PipelineModel]":
        """Fit a candidate to the training part.

        Returns
        -------
        pyspark.ml.PipelineModel
            The same as `pipeline` fitted to the feature columns: it reads these.
        pyspark.ml.PipelineModel
            Its last stages alone, which read `train` and `judged`.
        """
        from pyspark.ml import Pipeline, PipelineModel

        classifying = Pipeline(stages=_classifying(candidate, len(self.columns), self.genres)).fit(self.train)
        return PipelineModel([*self.stages, *classifying.stages]), classifying


def prepare(rows: "DataFrame", *, columns: Sequence[str], genres: Sequence[str]) -> Prepared:
    """Assemble and standardise the rows once, for all candidates.

    A fit runs dozens of small jobs; with the assembled vector they no longer plan, compile and read 57 columns each.

    Parameters
    ----------
    rows
        Checkpointed DataFrame: `columns`, ``genre``, ``label`` and ``part``, which is ``train`` or another one.
    """
    from pyspark.ml import Pipeline

    # In one partition, every job is one task and needs no shuffle.
    train, judged = (rows.filter(which).coalesce(1) for which in ("part = 'train'", "part != 'train'"))
    model = Pipeline(stages=_preparing(columns)).fit(train)
    train, judged = (
        model.transform(part).select("genre", "part", "label", "features").localCheckpoint() for part in (train, judged)
    )
    return Prepared(train, judged, tuple(columns), list(genres), model.stages)


def _preparing(columns: Sequence[str]) -> "list[Estimator | Transformer]":
    from pyspark.ml.feature import StandardScaler, VectorAssembler

    assembler = VectorAssembler(inputCols=list(columns), outputCol="vector")
    return [assembler, StandardScaler(inputCol="vector", outputCol="features", withMean=True, withStd=True)]


def _classifying(candidate: Candidate, features: int, genres: Sequence[str]) -> "list[Estimator | Transformer]":
    from pyspark.ml.feature import IndexToString

    name = IndexToString(inputCol="prediction", outputCol="predicted_genre", labels=list(genres))
    return [candidate.estimator(features=features, genres=len(genres)), name]


def index_genres(labelled: "DataFrame") -> "tuple[DataFrame, list[str]]":
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


def _one_vs_rest(binary: "Classifier") -> "Estimator":
    from pyspark.ml.classification import OneVsRest

    return OneVsRest(classifier=binary, parallelism=2)

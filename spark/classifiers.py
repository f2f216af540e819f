"""The candidate classifiers: their hyperparameters, and MLlib pipelines from feature columns to a predicted genre.

All stages are Spark's own, also where a classifier needs a map that Spark has no stage for: stages written in Python
can neither be fitted nor saved over Spark Connect, and whoever loads a model would need this project. A pipeline takes
the feature columns alone, so that a fitted one also scores clips whose genre nobody knows; the genre is indexed
outside, by ``index_genres``, and named again by the pipeline's last stage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from genres.errors import GenresError
from spark.session import INTERPRETED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyspark.ml import Estimator, PipelineModel, Transformer
    from pyspark.ml.classification import Classifier
    from pyspark.ml.feature import PCAModel
    from pyspark.sql import Column, DataFrame

TRAINING_CONF = {
    # The samples that a forest draws depend on the order of the rows, which comes out of a join: it must not hang on
    # how many cores the server has.
    "spark.sql.shuffle.partitions": "2",
    # Each fit and each judgement is a plan of its own, and most of the work is done outside of plans anyway.
    **INTERPRETED,
}
"""What a session that trains is set to."""


class Candidate(BaseModel):
    """A classifier to be trained and compared; its fields are its hyperparameters, by MLlib's names for them."""

    model_config = ConfigDict(frozen=True)

    name: ClassVar[str]
    """The name of its MLflow run."""
    by_default: ClassVar[bool] = True
    """Whether a dataset's models are trained with it without its being named."""
    gives_probability: ClassVar[bool] = True
    """Whether the model gives probabilities; the others give raw scores only."""
    grid: ClassVar[Mapping[str, Sequence[float]]] = {}
    """Values that ``hyperparameter_search`` tries, by hyperparameter; each is tried with each of the others."""

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return the unfitted MLlib estimator for vectors of `features` numbers and so many `genres`."""
        raise NotImplementedError

    def fit(self, prepared: "Prepared") -> "list[Transformer]":
        """Fit to the training part; return the stages from the vector ``features`` to a prediction."""
        estimator = self.estimator(features=len(prepared.columns), genres=len(prepared.genres))
        return [estimator.fit(prepared.train)]


class LogisticRegression(Candidate):
    """Multinomial logistic regression."""

    name = "LogisticRegression"
    grid: ClassVar = {"regParam": (0.005, 0.02, 0.05, 0.1)}
    maxIter: int = Field(100, ge=1, description="Most iterations of the optimiser.")
    regParam: float = Field(0.02, ge=0, description="Strength of the L2 penalty.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.LogisticRegression``, which takes the features' scale as it is."""
        from pyspark.ml import classification

        return classification.LogisticRegression(
            maxIter=self.maxIter, regParam=self.regParam, standardization=False, family="multinomial"
        )


class WhitenedLogisticRegression(LogisticRegression):
    """Multinomial logistic regression where the features vary alike within the genres.

    The features are rotated to the principal axes of their covariance within the genres, and each axis is divided by
    its standard deviation to a power: within-class covariance normalisation [1]_, the first half of linear
    discriminant analysis. Directions in which clips of one genre differ from each other count for less.

    References
    ----------
    .. [1] A. O. Hatch, S. Kajarekar and A. Stolcke, "Within-class covariance normalization for SVM-based speaker
       recognition", Interspeech 2006.
    """

    name = "WhitenedLogisticRegression"
    by_default = False  # linear discriminant analysis takes as much from the same covariance, and is done at once
    grid: ClassVar = {"regParam": (0.02, 0.05, 0.1), "whitening": (0.3, 0.5, 0.7)}
    regParam: float = Field(0.05, ge=0, description="Strength of the L2 penalty.")
    whitening: float = Field(0.5, ge=0, le=1, description="0 leaves the axes' scale as it is, 1 makes them equal.")

    def fit(self, prepared: "Prepared") -> "list[Transformer]":
        """Fit rotation, scale and regression."""
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import ElementwiseProduct
        from pyspark.ml.linalg import Vectors

        rotation, variances = prepared.within_genres
        scale = variances ** (-self.whitening / 2)
        scaling = ElementwiseProduct(scalingVec=Vectors.dense(scale), inputCol="rotated", outputCol="whitened")
        whitened = PipelineModel([rotation, scaling]).transform(prepared.train).localCheckpoint()
        estimator = self.estimator(features=len(scale), genres=len(prepared.genres)).setFeaturesCol("whitened")  # type: ignore[attr-defined]
        return [rotation, scaling, estimator.fit(whitened)]


class FourierLogisticRegression(WhitenedLogisticRegression):
    """Multinomial logistic regression on random Fourier features.

    These stand for a Gaussian kernel [1]_, and are of the whitened features. Spark has no stage that maps a vector
    entry by entry, so the map is SQL on the standardised columns; its matrix, which whitens too, stands in the
    statement as JSON, which is read once a query.

    References
    ----------
    .. [1] A. Rahimi and B. Recht, "Random features for large-scale kernel machines", NIPS 2007.
    """

    name = "FourierLogisticRegression"
    grid: ClassVar = {"regParam": (1e-4, 3e-4, 1e-3), "gamma": (0.2, 0.45, 0.9)}
    by_default = False  # no better than can be told from the default ones, and four times as slow to score a batch
    regParam: float = Field(3e-4, ge=0, description="Strength of the L2 penalty.")
    gamma: float = Field(0.45, gt=0, description="Kernel exp(-gamma |x - y|² / columns); 0.45 is .008 for 57 columns.")
    numFeatures: int = Field(512, ge=1, description="Random features.")
    seed: int = Field(0, description="Of the random features.")

    def fit(self, prepared: "Prepared") -> "list[Transformer]":
        """Draw the map and fit the regression."""
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import SQLTransformer, VectorAssembler

        names = [f"fourier_{number}" for number in range(self.numFeatures)]
        mapping: list[Transformer] = [
            SQLTransformer(statement=self._statement(prepared, names)),
            VectorAssembler(inputCols=names, outputCol="fourier"),
        ]
        mapped = PipelineModel(mapping).transform(prepared.train).select("label", "fourier").localCheckpoint()
        estimator = self.estimator(features=len(names), genres=len(prepared.genres)).setFeaturesCol("fourier")  # type: ignore[attr-defined]
        return [*mapping, estimator.fit(mapped)]

    def _statement(self, prepared: "Prepared", names: Sequence[str]) -> str:
        import json

        import numpy as np

        columns = prepared.standardised
        rotation, variances = prepared.within_genres
        random = np.random.default_rng(self.seed)
        weights = random.normal(size=(len(names), len(columns))) * math.sqrt(2 * self.gamma / len(columns))
        weights = (weights * variances ** (-self.whitening / 2)) @ rotation.pc.toArray().T
        phases = random.uniform(0, 2 * math.pi, size=len(names))
        rows = [
            {"w": [round(weight, 6) for weight in row], "b": round(phase, 6)}
            for row, phase in zip(weights.tolist(), phases.tolist(), strict=True)
        ]
        directions = json.dumps(rows, separators=(",", ":"))
        projected = (
            f"transform(from_json('{directions}', 'array<struct<w:array<double>,b:double>>'), d -> "
            f"{math.sqrt(2 / len(names))!r}D * cos(aggregate(zip_with(d.w, array({', '.join(columns)}), "
            "(weight, value) -> weight * value), d.b, (sum, term) -> sum + term)))"
        )
        apart = ", ".join(f"fourier[{number}] AS {name}" for number, name in enumerate(names))
        return f"SELECT * EXCEPT (fourier), {apart} FROM (SELECT *, {projected} AS fourier FROM __THIS__)"  # noqa: S608


class LinearDiscriminantAnalysis(Candidate):
    """The genre whose mean is nearest, measured by how features vary within the genres.

    Linear discriminant analysis with a shrunk covariance [1]_: normal distributions with one covariance, a part of
    which is replaced by the mean variance in all directions. The covariance of few clips is too small in most
    directions, which would make every answer certain: it grows by the columns for each degree of freedom, which orders
    genres of equal size as before. Solved in closed form. Spark has no such classifier, but
    a perceptron without a hidden layer is the same map, from features to the genres' log-likelihoods, and takes the
    weights that it is given when it is allowed no iteration.

    References
    ----------
    .. [1] J. H. Friedman, "Regularized discriminant analysis", Journal of the American Statistical Association 84,
       1989.
    """

    name = "LinearDiscriminantAnalysis"
    grid: ClassVar = {"shrinkage": (0.03, 0.1, 0.3, 0.5)}
    shrinkage: float = Field(0.1, ge=0, le=1, description="Part of the covariance that is alike in all directions.")

    def fit(self, prepared: "Prepared") -> "list[Transformer]":
        """Take means and covariance, and return the perceptron that has their weights."""
        import numpy as np
        from pyspark.ml.classification import MultilayerPerceptronClassifier
        from pyspark.ml.linalg import Vectors

        rotation, variances = prepared.within_genres
        axes = rotation.pc.toArray()
        shrunk = (1 - self.shrinkage) * variances + self.shrinkage * variances.mean()
        counts, means = prepared.genre_means
        freedom = counts.sum() - np.count_nonzero(counts) + 1
        shrunk = shrunk * (1 + len(variances) / freedom)
        weights = means @ (axes / shrunk) @ axes.T
        # A genre that the training part lacks is as good as never answered.
        biases = np.log(np.maximum(counts, 1e-9) / counts.sum()) - (weights * means).sum(axis=1) / 2
        given = np.concatenate([weights.ravel(order="F"), biases])
        perceptron = MultilayerPerceptronClassifier(
            layers=[len(prepared.columns), len(prepared.genres)], initialWeights=Vectors.dense(given), maxIter=0
        )
        return [perceptron.fit(prepared.train)]


class DecisionTree(Candidate):
    """One decision tree."""

    name = "DecisionTree"
    by_default = False  # it teaches nothing that the forest does not, and never wins
    maxDepth: int = Field(8, ge=0, le=30, description="Depth of the tree.")
    seed: int = Field(0, description="Of its random choices.")

    def estimator(self, *, features: int, genres: int) -> "Estimator":
        """Return ``pyspark.ml.classification.DecisionTreeClassifier``."""
        from pyspark.ml import classification

        return classification.DecisionTreeClassifier(**self.model_dump())


class RandomForest(Candidate):
    """A forest of trees, each on a sample of clips and features."""

    name = "RandomForest"
    grid: ClassVar = {"maxDepth": (6, 8, 12), "numTrees": (100, 300)}
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
    grid: ClassVar = {"regParam": (0.001, 0.01, 0.1)}
    by_default = False  # it takes longer than all others together and is less sure of what it knows
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
    by_default = False  # it takes as long as all others and came last on every table
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
    grid: ClassVar = {"hidden": (32, 64, 128), "maxIter": (100, 200)}
    by_default = False  # it is sure of what it does not know: the largest log-loss on every table
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
    WhitenedLogisticRegression(),
    FourierLogisticRegression(),
    LinearDiscriminantAnalysis(),
    DecisionTree(),
    RandomForest(),
    OneVsRestLinearSVC(),
    OneVsRestGBT(),
    MultilayerPerceptron(),
)
"""Every candidate with the hyperparameters that it has by default, in the order in which they are trained."""


def rebuilt(parameters: Mapping[str, str]) -> Candidate:
    """Return the candidate that an MLflow run's parameters are of.

    Parameters
    ----------
    parameters
        ``classifier``, its name, and its hyperparameters as text; others are passed over.

    Raises
    ------
    GenresError
        If there is no candidate of that name.
    """
    known = {candidate.name: candidate for candidate in CANDIDATES}
    candidate = known.get(parameters["classifier"])
    if candidate is None:
        raise GenresError(
            f"the classifier {parameters['classifier']} is not known any more (there are: {', '.join(known)}): "
            "materialize genre_classifiers again"
        )
    fields = type(candidate).model_fields
    return type(candidate).model_validate({name: parameters[name] for name in fields if name in parameters})


def choose(names: Sequence[str], *, among: Sequence[Candidate] = CANDIDATES) -> list[Candidate]:
    """Return the candidates of these names, in the order in which they are trained; for no names, the default ones.

    Raises
    ------
    GenresError
        If there is no candidate of a name.
    """
    unknown = sorted(set(names) - {candidate.name for candidate in among})
    if unknown:
        known = ", ".join(candidate.name for candidate in among)
        raise GenresError(f"GENRES_CLASSIFIERS names {', '.join(unknown)}; there are: {known}")
    return [candidate for candidate in among if candidate.name in names or (not names and candidate.by_default)]


@dataclass(frozen=True)
class Prepared:
    """A dataset standardised by what its training part is like: what all candidates have in common."""

    train: "DataFrame"
    """Checkpointed DataFrame of the training part: ``genre``, ``part``, ``label``, what was to be kept, the columns
    `standardised`, and the vector ``features`` of them."""
    judged: "DataFrame"
    """The same of the other parts."""
    columns: tuple[str, ...]
    standardised: tuple[str, ...]
    """The standardised columns, in the order of `columns`."""
    scales: "tuple[Scale, ...]"
    """How each of `columns` was standardised."""
    genres: list[str]
    stages: "list[Transformer]"
    """The fitted stages that lead from the feature columns to the vector."""

    @cached_property
    def within_genres(self) -> "tuple[PCAModel, NDArray[np.float64]]":
        """How the training part varies within its genres.

        The rotation of ``features`` to the principal axes of the covariance within genres, as ``rotated``, and the
        variance along each axis; 1 along those where nothing varies.
        """
        import numpy as np
        from pyspark.ml.feature import PCA, VectorAssembler
        from pyspark.sql import Window
        from pyspark.sql import functions as sf

        genre = Window.partitionBy("label")
        within = [(sf.col(name) - sf.avg(name).over(genre)).alias(name) for name in self.standardised]
        residuals = self.train.select(*within).coalesce(1).localCheckpoint()
        vectors = VectorAssembler(inputCols=list(self.standardised), outputCol="features").transform(residuals)
        rotation = PCA(k=len(self.columns), inputCol="features", outputCol="rotated").fit(vectors)
        total = residuals.agg(*(sf.var_samp(name) for name in self.standardised)).first()
        assert total is not None  # noqa: S101 - an aggregate has a row
        variances = rotation.explainedVariance.toArray() * sum(value or 0.0 for value in total)
        return rotation, np.where(variances > NEGLIGIBLE * variances.max(), variances, 1.0)

    @cached_property
    def genre_means(self) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """The training part's clips by genre, shape (n_genres,), and their means, shape (n_genres, n_columns).

        Zeros for a genre that has no clips.
        """
        import numpy as np
        from pyspark.sql import functions as sf

        counts, means = np.zeros(len(self.genres)), np.zeros((len(self.genres), len(self.standardised)))
        by_genre = self.train.groupBy("label").agg(sf.count("*"), *(sf.avg(name) for name in self.standardised))
        for label, count, *mean in by_genre.collect():
            counts[int(label)], means[int(label)] = count, mean
        return counts, means

    def fit(self, candidate: Candidate) -> "tuple[PipelineModel, PipelineModel]":
        """Fit a candidate to the training part.

        Returns
        -------
        pyspark.ml.PipelineModel
            Reads the feature columns; adds ``predicted_genre``, ``rawPrediction`` and, where the classifier gives it,
            ``probability``.
        pyspark.ml.PipelineModel
            Its last stages alone, which read `train` and `judged`.
        """
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import IndexToString

        name = IndexToString(inputCol="prediction", outputCol="predicted_genre", labels=self.genres)
        classifying = [*candidate.fit(self), name]
        return PipelineModel([*self.stages, *classifying]), PipelineModel(classifying)


class Scale(NamedTuple):
    """How a feature column is standardised; learnt from training clips alone."""

    mean: float
    """Of the values, or of their logarithms."""
    deviation: float
    """Standard deviation of the same; 0 where it does not vary, so that it tells nothing."""
    offset: float | None
    """``ln(x + offset)`` is taken first, of columns whose spread goes over orders of magnitude; None: the value is."""


def prepare(rows: "DataFrame", *, columns: Sequence[str], genres: Sequence[str], keep: Sequence[str] = ()) -> Prepared:
    """Standardise and assemble the rows once, for all candidates.

    Of variances and of tags (`logarithm_offset`) the logarithm is taken. Each column is centred and divided by its
    standard deviation in the training part, and clipped to ±3, so that no clip is far from all others for one odd
    value; a value that is missing counts as the mean.

    A fit runs dozens of small jobs; with the assembled vector they no longer plan, compile and read each column.

    Parameters
    ----------
    rows
        Checkpointed DataFrame: `columns`, `keep`, ``genre``, ``label`` and ``part``, which is ``train`` or another one.
    """
    from pyspark.ml import PipelineModel
    from pyspark.ml.feature import SQLTransformer, VectorAssembler

    scales = learn_scales(rows.filter("part = 'train'"), columns)
    standardised = tuple(f"standardised_{number}" for number in range(len(columns)))
    statement = standardising(columns, scales, standardised, limit=_CLIP)
    stages: list[Transformer] = [
        SQLTransformer(statement=statement),
        VectorAssembler(inputCols=list(standardised), outputCol="features"),
    ]
    kept = (*keep, "genre", "part", "label", "features", *standardised)
    # In one partition, every job is one task and needs no shuffle.
    whole = PipelineModel(stages).transform(rows).select(*kept).coalesce(1).localCheckpoint()
    train, judged = (whole.filter(which).localCheckpoint() for which in ("part = 'train'", "part != 'train'"))
    return Prepared(train, judged, tuple(columns), standardised, scales, list(genres), stages)


def learn_scales(rows: "DataFrame", columns: Sequence[str]) -> tuple[Scale, ...]:
    """Learn from some clips how each column is standardised, in one job."""
    from pyspark.sql import functions as sf

    wanted: list[Column] = []
    for column in columns:
        value = sf.expr(_value(column, offset=None))
        wanted += [sf.avg(value), sf.stddev_samp(value), sf.min(value)]
        offset = logarithm_offset(column)
        logarithm = sf.expr(_value(column, offset=offset))
        wanted += [sf.lit(0.0)] * 2 if offset is None else [sf.avg(logarithm), sf.stddev_samp(logarithm)]
    found = rows.agg(*(one.alias(f"_{number}") for number, one in enumerate(wanted))).first()
    assert found is not None  # noqa: S101 - an aggregate has a row
    scales = []
    for number, column in enumerate(columns):
        mean, deviation, least, log_mean, log_deviation = found[5 * number : 5 * number + 5]
        # A column that is negative somewhere is no variance, whatever its name.
        offset = logarithm_offset(column) if least is not None and least >= 0 else None
        if offset is not None:
            mean, deviation = log_mean, log_deviation
        varies = deviation is not None and deviation > NEGLIGIBLE * abs(mean)
        scales.append(Scale(mean or 0.0, deviation if varies else 0.0, offset))
    return tuple(scales)


def fit_pipeline(
    candidate: Candidate, labelled: "DataFrame", *, columns: Sequence[str], genres: Sequence[str]
) -> "PipelineModel":
    """Fit one candidate to all rows.

    Parameters
    ----------
    labelled
        DataFrame: `columns`, ``genre`` and ``label``.
    columns
        The feature columns, in the vector's order.
    genres
        The genres, in the order of their indices (``index_genres``).

    Returns
    -------
    pyspark.ml.PipelineModel
        From `Prepared.fit`.
    """
    from pyspark.sql import functions as sf

    rows = labelled.withColumn("part", sf.lit("train")).localCheckpoint()
    return prepare(rows, columns=columns, genres=genres).fit(candidate)[0]


_CLIP = 3.0
"""Standardised values are cut off here."""

NEGLIGIBLE = 1e-9
"""Relative to the largest one: what is smaller is rounding."""

_VARIANCE, _PROBABILITY = "_var", "tag_"
"""How the names of columns end or begin of which the logarithm is taken."""


def logarithm_offset(column: str) -> float | None:
    """Return what is added to a column before its logarithm is taken; None if none is, as its name says.

    Variances end in ``_var``; a tagger's probabilities begin with ``tag_``, and below a thousandth one says no more
    than another.
    """
    return 1e-9 if column.endswith(_VARIANCE) else 1e-3 if column.startswith(_PROBABILITY) else None


def neutral_name(number: int, column: str) -> str:
    """Return a name for a stranger's column, which says no more of its own name than `logarithm_offset` reads.

    Those of a stranger's table may hold anything, or differ by case alone.

    Parameters
    ----------
    number
        Of the column in its table, by which names differ.
    column
        What it is called there.
    """
    start = _PROBABILITY if column.startswith(_PROBABILITY) else ""
    return f"{start}feature_{number}{_VARIANCE if column.endswith(_VARIANCE) else ''}"


def probabilities(*, gives_probability: bool) -> "Column":
    """Return the column of a model's probabilities by genre, as an array of doubles.

    Parameters
    ----------
    gives_probability
        Whether the model gives them. Otherwise they are the softmax of its raw scores, which orders the genres rightly
        but is calibrated to nothing.
    """
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    if gives_probability:
        return vector_to_array(sf.col("probability"))
    return softmax(raw_scores())


def raw_scores() -> "Column":
    """Return the column of a model's raw scores by genre, as an array of doubles."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    return vector_to_array(sf.col("rawPrediction"))


def softmax(scores: "Column") -> "Column":
    """Return the softmax of a column of arrays."""
    from pyspark.sql import functions as sf

    # The largest score is taken off first, so that exp cannot overflow.
    powers = sf.transform(scores, lambda score: sf.exp(score - sf.array_max(scores)))
    total = sf.aggregate(powers, sf.lit(0.0), lambda total, power: total + power)
    return sf.transform(powers, lambda power: power / total)


def _value(column: str, *, offset: float | None) -> str:
    """Return SQL for a column's value or its logarithm (`Scale.offset`), null if it is missing."""
    quoted = "`" + column.replace("`", "``") + "`"
    value = f"nanvl({quoted}, NULL)"
    # Not with greatest(), which passes over a value that is missing.
    return value if offset is None else f"ln(CASE WHEN {value} < 0D THEN 0D ELSE {value} END + {offset!r}D)"


def standardising(columns: Sequence[str], scales: Sequence[Scale], names: Sequence[str], *, limit: float) -> str:
    """Return an SQLTransformer's statement that adds the standardised columns under `names`, cut off at ± `limit`."""
    terms = []
    for column, scale, name in zip(columns, scales, names, strict=True):
        value = _value(column, offset=scale.offset)
        inside = f"({value} - ({scale.mean!r}D)) / {scale.deviation!r}D"
        cut = f"least(greatest(coalesce({inside}, 0D), -{limit}D), {limit}D)"
        terms.append(f"{cut if scale.deviation else '0D'} AS {name}")
    return f"SELECT *, {', '.join(terms)} FROM __THIS__"  # noqa: S608 - names of columns, quoted


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

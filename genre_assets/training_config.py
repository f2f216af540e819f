"""What a person may choose when launching ``genre_classifiers``: which candidates, with which hyperparameters."""

from enum import Enum

import dagster as dg
from pydantic import Field

from spark import classifiers
from spark.classifiers import CANDIDATES, Candidate

ClassifierName = Enum("ClassifierName", {candidate.name: candidate.name for candidate in CANDIDATES})  # type: ignore[misc]


class LogisticRegressionConfig(classifiers.LogisticRegression, dg.Config):
    """Multinomial logistic regression."""


class WhitenedLogisticRegressionConfig(classifiers.WhitenedLogisticRegression, dg.Config):
    """Multinomial logistic regression where the features vary alike within the genres."""


class FourierLogisticRegressionConfig(classifiers.FourierLogisticRegression, dg.Config):
    """Multinomial logistic regression on random Fourier features."""


class DecisionTreeConfig(classifiers.DecisionTree, dg.Config):
    """One decision tree."""


class RandomForestConfig(classifiers.RandomForest, dg.Config):
    """A forest of trees, each on a sample of clips and features."""


class OneVsRestLinearSVCConfig(classifiers.OneVsRestLinearSVC, dg.Config):
    """A linear support vector machine for each genre against the rest."""


class OneVsRestGBTConfig(classifiers.OneVsRestGBT, dg.Config):
    """Gradient-boosted trees for each genre against the rest."""


class MultilayerPerceptronConfig(classifiers.MultilayerPerceptron, dg.Config):
    """A perceptron with one hidden layer."""


class Hyperparameters(dg.Config):
    """The hyperparameters of each candidate, by MLlib's names; what is left out keeps its default."""

    LogisticRegression: LogisticRegressionConfig = LogisticRegressionConfig()
    WhitenedLogisticRegression: WhitenedLogisticRegressionConfig = WhitenedLogisticRegressionConfig()
    FourierLogisticRegression: FourierLogisticRegressionConfig = FourierLogisticRegressionConfig()
    DecisionTree: DecisionTreeConfig = DecisionTreeConfig()
    RandomForest: RandomForestConfig = RandomForestConfig()
    OneVsRestLinearSVC: OneVsRestLinearSVCConfig = OneVsRestLinearSVCConfig()
    OneVsRestGBT: OneVsRestGBTConfig = OneVsRestGBTConfig()
    MultilayerPerceptron: MultilayerPerceptronConfig = MultilayerPerceptronConfig()


class TrainingConfig(dg.Config):
    """Run config of ``genre_classifiers``; empty, it trains what the settings say as it was trained before."""

    classifiers: list[ClassifierName] = Field(
        [], description="Candidates to train; none: those of the setting GENRES_CLASSIFIERS, or three by default."
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="Hyperparameters of each candidate, by MLlib's names for them."
    )

    def candidates(self, default: str) -> list[Candidate]:
        """Return the candidates to train.

        Parameters
        ----------
        default
            Names of candidates, separated by commas, for a config that names none; empty for all.

        Raises
        ------
        GenresError
            If `default` names a candidate that there isn't.
        """
        names = [name.value for name in self.classifiers] or [name for name in default.split(",") if name]
        return classifiers.choose(names, among=[candidate for _, candidate in self.hyperparameters])

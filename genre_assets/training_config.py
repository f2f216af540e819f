"""What a person may choose when launching ``genre_classifiers``: which candidates, with which hyperparameters."""

from collections.abc import Mapping, Sequence
from enum import Enum

import dagster as dg
from pydantic import Field

from spark import classifiers
from spark.classifiers import CANDIDATES, Candidate

ClassifierName = Enum("ClassifierName", {candidate.name: candidate.name for candidate in CANDIDATES})  # type: ignore[misc]


class Preset(Enum):
    """Candidates by how much time there is."""

    USUAL = "usual"
    QUICK = "quick"
    EVERY = "every"


class LogisticRegressionConfig(classifiers.LogisticRegression, dg.Config):
    """Multinomial logistic regression."""


class WhitenedLogisticRegressionConfig(classifiers.WhitenedLogisticRegression, dg.Config):
    """Multinomial logistic regression where the features vary alike within the genres."""


class FourierLogisticRegressionConfig(classifiers.FourierLogisticRegression, dg.Config):
    """Multinomial logistic regression on random Fourier features."""


class LinearDiscriminantAnalysisConfig(classifiers.LinearDiscriminantAnalysis, dg.Config):
    """The genre whose mean is nearest, measured by how features vary within the genres."""


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
    LinearDiscriminantAnalysis: LinearDiscriminantAnalysisConfig = LinearDiscriminantAnalysisConfig()
    DecisionTree: DecisionTreeConfig = DecisionTreeConfig()
    RandomForest: RandomForestConfig = RandomForestConfig()
    OneVsRestLinearSVC: OneVsRestLinearSVCConfig = OneVsRestLinearSVCConfig()
    OneVsRestGBT: OneVsRestGBTConfig = OneVsRestGBTConfig()
    MultilayerPerceptron: MultilayerPerceptronConfig = MultilayerPerceptronConfig()


class TrainingConfig(dg.Config):
    """Run config of ``genre_classifiers``; empty, it trains what the settings say as it was trained before."""

    preset: Preset = Field(
        Preset.USUAL,
        description="USUAL: the candidates of the setting GENRES_CLASSIFIERS, or three by default. QUICK: logistic "
        "regression alone, to see that data and graph work. EVERY: all candidates, which takes several times as long.",
    )
    classifiers: list[ClassifierName] = Field(
        [], description="Candidates to train, by name; none: those of the preset."
    )
    hyperparameters: Hyperparameters = Field(
        Hyperparameters(), description="Hyperparameters of each candidate, by MLlib's names for them."
    )

    searched: bool = Field(
        True,
        description="Take what hyperparameter_search found for the dataset, if it was materialized; a hyperparameter "
        "that is set here to another value than its default is left as it is set.",
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
        among: list[Candidate] = [one for _, one in self.hyperparameters]
        names = {
            Preset.USUAL: default,
            Preset.QUICK: classifiers.LogisticRegression.name,
            Preset.EVERY: ",".join(candidate.name for candidate in among),
        }
        return chosen_candidates(self.classifiers, names[self.preset], among=among)


def chosen_candidates(
    named: Sequence[ClassifierName], default: str, *, among: Sequence[Candidate] = CANDIDATES
) -> list[Candidate]:
    """Return the candidates that a launch names, or else a setting.

    Parameters
    ----------
    named
        What was chosen in the launchpad.
    default
        Names of candidates, separated by commas, for a launch that names none; empty for those trained by default.

    Raises
    ------
    GenresError
        If `default` names a candidate that there isn't.
    """
    names = [name.value for name in named] or [name for name in default.split(",") if name]
    return classifiers.choose(names, among=among)


def with_found(candidate: Candidate, found: Mapping[str, float]) -> Candidate:
    """Return a candidate with hyperparameters that were searched for, but for those that somebody set.

    Parameters
    ----------
    found
        Value by hyperparameter; names that the candidate does not have, of an older version's search, are passed over.
    """
    fields = type(candidate).model_fields
    free = {
        name: value
        for name, value in found.items()
        if name in fields and getattr(candidate, name) == fields[name].default
    }
    return candidate.model_copy(update=free)

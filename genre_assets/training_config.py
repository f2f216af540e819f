"""What a person may choose when launching ``genre_classifiers``: which candidates, with which hyperparameters."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from spark import classifiers
from spark.classifiers import CANDIDATES, Candidate

ClassifierName = Enum("ClassifierName", {candidate.name: candidate.name for candidate in CANDIDATES})  # type: ignore[misc]


class Preset(Enum):
    """Candidates by how much time there is."""

    USUAL = "usual"
    QUICK = "quick"
    EVERY = "every"


def _hyperparameters_model(candidates: Sequence[Candidate]) -> type[dg.Config]:
    """Return a config with a field for each candidate, whose fields are the candidate's hyperparameters."""
    fields: dict[str, Any] = {}
    for candidate in candidates:
        kind = type(candidate)
        # The launchpad shows the docstring: of a candidate's, the line that says what it is.
        line = (kind.__doc__ or candidate.name).strip().partition("\n")[0]
        config = create_model(f"{candidate.name}Config", __base__=(kind, dg.Config), __doc__=line, __module__=__name__)
        fields[candidate.name] = (config, config())
    return create_model("_Hyperparameters", __base__=dg.Config, __module__=__name__, **fields)


class Hyperparameters(_hyperparameters_model(CANDIDATES)):  # type: ignore[misc]
    """The hyperparameters of each candidate, by MLlib's names; what is left out keeps its default."""


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

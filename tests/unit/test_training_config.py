"""The launchpad's choices: what is left out is as it was, and a mistake is refused before anything is trained."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from genre_assets.definitions import build_defs
from genre_assets.training_config import ClassifierName, Hyperparameters, TrainingConfig
from genres.errors import GenresError
from genres.settings import Settings
from spark.classifiers import CANDIDATES

DEFAULTS = {
    "LogisticRegression": {"maxIter": 100, "regParam": 0.02},
    "WhitenedLogisticRegression": {"maxIter": 100, "regParam": 0.05, "whitening": 0.5},
    "FourierLogisticRegression": {
        "maxIter": 100,
        "regParam": 3e-4,
        "whitening": 0.5,
        "gamma": 0.45,
        "numFeatures": 512,
        "seed": 0,
    },
    "LinearDiscriminantAnalysis": {"shrinkage": 0.1},
    "DecisionTree": {"maxDepth": 8, "seed": 0},
    "RandomForest": {"numTrees": 100, "maxDepth": 8, "seed": 0},
    "OneVsRestLinearSVC": {"maxIter": 20, "regParam": 0.01, "tol": 1e-3},
    "OneVsRestGBT": {"maxIter": 10, "maxDepth": 3, "seed": 0},
    "MultilayerPerceptron": {"maxIter": 200, "hidden": 64, "seed": 0},
}


def validated(config: dict[str, Any], folder: Path) -> Any:
    """What Dagster makes of the config when the batch job is launched with it."""
    job = build_defs(settings=Settings(state_dir=folder)).resolve_job_def("batch_pipeline")
    run_config = dg.validate_run_config(job, {"ops": {"genre_classifiers": {"config": config}}})
    return run_config["ops"]["genre_classifiers"]["config"]


def test_every_candidate_can_be_tuned_and_has_its_present_defaults(tmp_path: Path) -> None:
    config = validated({}, tmp_path)
    assert config["hyperparameters"] == DEFAULTS
    assert list(Hyperparameters.model_fields) == list(DEFAULTS) == [candidate.name for candidate in CANDIDATES]
    trained = TrainingConfig().candidates("")
    worth_it = {name: DEFAULTS[name] for name in ("LogisticRegression", "LinearDiscriminantAnalysis", "RandomForest")}
    assert {candidate.name: candidate.model_dump() for candidate in trained} == worth_it
    assert [candidate.name for candidate in CANDIDATES if not candidate.gives_probability] == [
        "OneVsRestLinearSVC",
        "OneVsRestGBT",
    ]
    asked_for = TrainingConfig().candidates(",".join(DEFAULTS))
    assert [candidate.name for candidate in asked_for] == list(DEFAULTS)


def test_every_hyperparameter_is_described() -> None:
    for candidate in CANDIDATES:
        assert all(field.description for field in type(candidate).model_fields.values())


def test_the_setting_says_which_unless_the_config_does() -> None:
    config = TrainingConfig()
    assert [candidate.name for candidate in config.candidates("RandomForest,DecisionTree")] == [
        "DecisionTree",
        "RandomForest",
    ]
    mine = TrainingConfig(classifiers=[ClassifierName.OneVsRestGBT])  # type: ignore[attr-defined]
    assert [candidate.name for candidate in mine.candidates("RandomForest")] == ["OneVsRestGBT"]
    assert [candidate.name for candidate in mine.candidates("")] == ["OneVsRestGBT"]
    with pytest.raises(GenresError, match="GENRES_CLASSIFIERS names KMeans; there are: LogisticRegression, "):
        config.candidates("KMeans,DecisionTree")


def test_what_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    config = validated({"hyperparameters": {"RandomForest": {"numTrees": 7}}}, tmp_path)
    assert config["hyperparameters"] == {**DEFAULTS, "RandomForest": {"numTrees": 7, "maxDepth": 8, "seed": 0}}


@pytest.mark.parametrize(
    "config",
    [
        {"classifiers": ["KMeans"]},
        {"hyperparameters": {"KMeans": {}}},
        {"hyperparameters": {"RandomForest": {"trees": 7}}},
        {"hyperparameters": {"RandomForest": {"numTrees": "many"}}},
    ],
)
def test_what_there_is_not_cannot_be_launched(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError):
        validated(config, tmp_path)


def test_a_value_out_of_range_is_named() -> None:
    with pytest.raises(ValidationError, match="maxDepth"):
        Hyperparameters(RandomForest={"maxDepth": 31})  # type: ignore[arg-type]

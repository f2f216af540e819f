"""The launchpad's choices: what is left out is as it was, and a mistake is refused before anything is trained."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from genre_assets.definitions import build_defs
from genre_assets.training_config import ClassifierName, Hyperparameters, Preset, TrainingConfig
from genres.errors import GenresError
from genres.settings import Settings
from genres_dagster import resources
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


def test_presets_choose_candidates_and_names_go_before_them(tmp_path: Path) -> None:
    def names(preset: Preset, *classifiers: ClassifierName) -> list[str]:
        config = TrainingConfig(preset=preset, classifiers=list(classifiers))
        return [candidate.name for candidate in config.candidates("RandomForest")]

    assert names(Preset.USUAL) == ["RandomForest"]
    assert names(Preset.QUICK) == ["LogisticRegression"]
    assert names(Preset.EVERY) == list(DEFAULTS)
    assert names(Preset.EVERY, ClassifierName.DecisionTree) == ["DecisionTree"]  # type: ignore[attr-defined]
    assert validated({}, tmp_path)["preset"] == "usual"
    assert validated({"preset": "QUICK"}, tmp_path)["preset"] == "quick"
    for field in TrainingConfig.model_fields.values():
        assert field.description


def test_the_launchpad_shows_none_of_sparks_settings(tmp_path: Path) -> None:
    job = build_defs(settings=Settings(state_dir=tmp_path)).resolve_job_def("batch_pipeline")
    shown = str(dg.validate_run_config(job, {})["resources"])
    assert "spark.sql" not in shown and "spark.remote" not in shown, shown


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


ROOT = Path(__file__).resolve().parents[2]
AS_ITS_AUTHOR_WOULD = """
import json, sys, types
from pathlib import Path

source, written, folder = Path("spark/classifiers.py").read_text(), sys.stdin.read(), Path(sys.argv[1])
before, tuple_ = source.split("CANDIDATES: tuple[Candidate, ...] = (")
module = sys.modules["spark.classifiers"] = types.ModuleType("spark.classifiers")
edited = f"{before}{written}\\n\\nCANDIDATES: tuple[Candidate, ...] = (\\n    NaiveBayes(),{tuple_}"
exec(compile(edited, "spark/classifiers.py", "exec"), module.__dict__)

import dagster as dg
from genre_assets.definitions import build_defs
from genre_assets.training_config import TrainingConfig
from genres.settings import Settings

def launched(**config):
    run_config = {"ops": {"genre_classifiers": {"config": config}}}
    found = dg.validate_run_config(job, run_config)["ops"]["genre_classifiers"]["config"]
    return found["hyperparameters"]["NaiveBayes"]

job = build_defs(settings=Settings(state_dir=folder)).resolve_job_def("batch_pipeline")
by_setting = TrainingConfig().candidates("LogisticRegression,NaiveBayes")
rebuilt = module.rebuilt({"classifier": "NaiveBayes", "smoothing": "0.5"})
print(json.dumps({
    "by_setting": [candidate.name for candidate in by_setting],
    "by_default": [candidate.name for candidate in TrainingConfig().candidates("")],
    "left_out": launched(classifiers=["NaiveBayes"]),
    "set": launched(hyperparameters={"NaiveBayes": {"smoothing": 2.0}}),
    "rebuilt": rebuilt.smoothing,
}))
"""


def test_a_model_of_ones_own_is_chosen_as_the_how_to_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "own-model.md").read_text()
    (written,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    asked = subprocess.run(
        [sys.executable, "-c", AS_ITS_AUTHOR_WOULD, tmp_path],
        input=written,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    found = json.loads(asked.stdout)
    assert found == {
        "by_setting": ["NaiveBayes", "LogisticRegression"],
        "by_default": ["LogisticRegression", "LinearDiscriminantAnalysis", "RandomForest"],
        "left_out": {"smoothing": 1.0},
        "set": {"smoothing": 2.0},
        "rebuilt": 0.5,
    }


def test_a_step_gets_a_spark_resource_that_is_closed_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Session:
        def __init__(self, config: dict[str, str], *, shared_as: str) -> None:
            happened.append(f"opened {config['spark.remote']} {shared_as}")

    monkeypatch.setattr(resources, "open_session", Session)
    monkeypatch.setattr(resources, "stop_session", lambda session, *, remote: happened.append(f"stopped {remote}"))

    @contextmanager
    def starved(session: Session, *, engine: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Stand for what looks at the session's jobs: it finds one that gets no cores."""
        tell(f"no cores at {engine}")
        yield
        happened.append("watched until here")

    monkeypatch.setattr(resources, "starvation_told", starved)

    @dg.asset
    def step(spark_connect: resources.SparkResource) -> None:
        assert isinstance(spark_connect.spark_session, Session)
        happened.append("worked")

    given = {"spark_connect": resources.spark_resource({"spark.remote": "sc://here:1"}, shared_as="all")}
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([step], resources=given, instance=instance)
        said = [entry.user_message for entry in instance.all_logs(done.run_id) if entry.level == logging.WARNING]
    assert happened == ["opened sc://here:1 all", "worked", "watched until here", "stopped sc://here:1"]
    assert said == ["no cores at sc://here:1"], "it stands in the run's log"

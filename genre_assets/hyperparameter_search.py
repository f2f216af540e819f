"""``hyperparameter_search``: each candidate's hyperparameters, tried on a small grid by grouped cross-validation.

It sees the training part only: the validation part is kept for the choice among candidates, the test part for nobody.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from genre_assets.training_config import ClassifierName, chosen_candidates
from genre_assets.training_rows import song_folds, training_rows
from genre_assets.training_tracks import dataset_fingerprint
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import training_sets
from genres.datasets.split import songs_of
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres_dagster.figures import figure_metadata, new_figure
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from spark.classifiers import Candidate
from spark.job_names import named_jobs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pyspark.sql import SparkSession

    from spark.classifiers import Prepared

FOUND = "hyperparameters.json"
"""The artifact with what was found: values by feature version, classifier and hyperparameter."""
_ANSWERS = "out_of_fold.json"
_TRIAL = "trial"
_COMPLETE = "is_complete"
_AT_A_TIME = 2
"""Trials at work: one's small jobs leave the cores idle half of the time."""


class SearchConfig(dg.Config):
    """Run config of ``hyperparameter_search``; empty, it looks at what ``genre_classifiers`` trains by default."""

    classifiers: list[ClassifierName] = Field(
        [], description="Candidates to look at; none: those of the setting GENRES_CLASSIFIERS, or three by default."
    )
    minutes: float = Field(
        10, gt=0, description="No trial begins later than this; launched again, the search goes on with those left."
    )


@dataclass
class Trial:
    """One point of a candidate's grid on one feature set, and what cross-validation said of it."""

    candidate: Candidate
    feature_version: str
    is_default: bool
    right: dict[str, bool] = field(default_factory=dict)
    """Whether the answer was right, by track; empty for a trial that was not begun."""
    losses: dict[str, float] = field(default_factory=dict)
    """``-ln`` of the true genre's probability, by track."""
    is_complete: bool = False
    """False for a trial that was stopped early: it was told apart from a better one before its last fold."""
    url: str = ""
    """Of its MLflow run."""

    @property
    def accuracy(self) -> float:
        """Share of right answers among those that were asked for."""
        return sum(self.right.values()) / max(len(self.right), 1)

    @property
    def log_loss(self) -> float:
        """Mean of the losses."""
        return sum(self.losses.values()) / max(len(self.losses), 1)

    @property
    def values(self) -> dict[str, float]:
        """The grid's hyperparameters, as they are tried."""
        return {name: getattr(self.candidate, name) for name in self.candidate.grid}

    @property
    def point(self) -> str:
        """The values as text."""
        return ", ".join(f"{name} {value:g}" for name, value in self.values.items())

    @property
    def params(self) -> dict[str, str]:
        """What its MLflow run has for parameters: the same for the same trial in another launch."""
        named = {"classifier": self.candidate.name, "feature_set": self.feature_version, **self.candidate.model_dump()}
        return {name: str(value) for name, value in named.items()}


@dg.asset(
    deps=["audio_features", "track_split"],
    group_name="models",
    kinds={"spark", "mlflow"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="Hyperparameters of the candidates: each point of a small grid, cross-validated on the training part "
    "with songs kept whole, as a nested MLflow run. A point is stopped as soon as it is told apart from a better one. "
    "genre_classifiers takes what is found; where no other point is told apart from the default, that stays. Launched "
    "again, it goes on where it ended. It is in no job, since it takes minutes: materialize it when you have them.",
)
def hyperparameter_search(
    context: dg.AssetExecutionContext,
    config: SearchConfig,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> dg.MaterializeResult:
    """Cross-validate the grids and log what came of it."""
    from pyspark.util import inheritable_thread_target

    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    candidates = [one for one in chosen_candidates(config.classifiers, settings.classifiers) if one.grid]
    split = tables.split()
    songs = songs_of(split)
    ends = time.monotonic() + 60 * config.minutes
    trials: list[Trial] = []
    tags = {"data": provenance(dataset), "dagster_run_id": context.run_id}
    with registry.run(
        dataset.dataset, run_name=f"search {context.run_id[:8]}", stage="hyperparameter_search", tags=tags
    ) as parent:
        for feature_set in training_sets(dataset.feature_sets):
            own_tags = {**tags, "dataset_fingerprint": dataset_fingerprint(split, feature_set.feature_version)}
            wanted = [trial for one in candidates for trial in grid_trials(one, feature_set.feature_version)]
            _recall(wanted, mlflow, dataset.dataset, own_tags["dataset_fingerprint"])
            trials += wanted
            unknown = [trial for trial in wanted if not trial.right]
            context.log.info(f"{feature_set.name}: {len(wanted)} points, {len(wanted) - len(unknown)} known already")
            if not unknown or time.monotonic() > ends:
                continue
            spark = spark_connect.spark_session
            with named_jobs(spark, f"search of {dataset.dataset}"):
                folds = _folds(tables, feature_set, split, spark)

            def attempt(
                trial: Trial,
                wanted: list[Trial] = wanted,
                folds: "list[Prepared]" = folds,
                tags: dict[str, str] = own_tags,
            ) -> Trial:
                if time.monotonic() > ends:
                    return trial
                name = f"{trial.candidate.name} on {trial.feature_version}, {trial.point}"
                with (
                    named_jobs(spark_connect.spark_session, f"{trial.candidate.name} in search of {dataset.dataset}"),
                    registry.run(dataset.dataset, run_name=name, stage=_TRIAL, tags=tags, parent=parent) as run,
                ):
                    trial.url = mlflow.run_url(run)
                    _cross_validate(trial, folds, rivals=wanted, songs=songs)
                return trial

            # MLlib asks for the session of the thread that it is called in.
            in_session = inheritable_thread_target(spark)
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                for number, trial in enumerate(pool.map(in_session(attempt), unknown), 1):
                    if trial.right:
                        context.log.info(
                            f"{number} of {len(unknown)}: {trial.candidate.name} on {feature_set.name}, {trial.point}: "
                            f"accuracy {trial.accuracy:.3f}, log-loss {trial.log_loss:.3f} (n={len(trial.right)})"
                            + ("" if trial.is_complete else ", stopped early")
                        )
        found = choose_points(trials, songs)
        registry.client.log_dict(parent.info.run_id, found, FOUND)
        figure = grid_figure(trials, data=provenance(dataset))
        registry.log_figure(parent, figure, "hyperparameter_search.png")
    left = sum(not trial.right for trial in trials)
    if left:
        context.log.warning(f"{left} points are left after {config.minutes:g} minutes: launch it again to go on")
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "points": dg.MetadataValue.md(_table(trials, found)),
            "accuracy": figure_metadata(figure),
            "hyperparameters": dg.MetadataValue.json(found),
            "points_left": left,
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(parent)),
        }
    )


def grid_trials(candidate: Candidate, feature_version: str) -> list[Trial]:
    """Return the points of a candidate's grid, its default first, which others are compared with."""
    from sklearn.model_selection import ParameterGrid

    points = [candidate.model_copy(update=point) for point in ParameterGrid(dict(candidate.grid))]
    return [
        Trial(candidate, feature_version, is_default=True),
        *(Trial(point, feature_version, is_default=False) for point in points if point != candidate),
    ]


def choose_points(trials: Sequence[Trial], songs: Mapping[str, str]) -> dict[str, dict[str, dict[str, float]]]:
    """Choose each candidate's hyperparameters on each feature set.

    The point with the most right answers, of equals the one with the least log-loss, is taken if it is told apart from
    the default: if the 95 % bootstrap interval of the difference of their accuracies, over whole songs, is above 0. A
    grid is looked at for its best point, which is one of many: without that condition chance alone would choose.

    Parameters
    ----------
    trials
        What was found.
    songs
        Song by track.

    Returns
    -------
    dict
        Values of the grid's hyperparameters by feature version and classifier; nothing where the default stays.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for default in trials:
        if not default.is_default:
            continue
        best = best_of(_rivals(default, trials))
        if best is None or not is_better(best, default, songs):
            continue
        found.setdefault(default.feature_version, {})[default.candidate.name] = best.values
    return found


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the complete trial with the most right answers, of equals the one with the least log-loss."""
    complete = [trial for trial in trials if trial.is_complete]
    return min(complete, key=lambda trial: (-trial.accuracy, trial.log_loss), default=None)


def is_better(one: Trial, other: Trial, songs: Mapping[str, str]) -> bool:
    """Return whether a trial's accuracy is told apart from another's, on the tracks that both have answered."""
    import numpy as np

    from spark.evaluation import accuracy_interval

    both = sorted(one.right.keys() & other.right.keys())
    if not both:
        return False
    difference = np.array([float(one.right[track]) - float(other.right[track]) for track in both])
    numbers = {song: number for number, song in enumerate(sorted({songs[track] for track in both}))}
    low, _ = accuracy_interval(difference, [numbers[songs[track]] for track in both])
    return low > 0


def _rivals(trial: Trial, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the same candidate on the same features, itself among them."""
    kind = (type(trial.candidate), trial.feature_version)
    return [other for other in trials if (type(other.candidate), other.feature_version) == kind]


def _cross_validate(
    trial: Trial, folds: "Sequence[Prepared]", *, rivals: Sequence[Trial], songs: Mapping[str, str]
) -> None:
    """Fill a trial in, and log it to the open MLflow run; it ends early where a complete rival is better."""
    import mlflow
    import numpy as np

    from spark.evaluation import collect_answers

    mlflow.log_params(trial.params)
    for number, fold in enumerate(folds, 1):
        _, model = fold.fit(trial.candidate)
        tracks, answers, _ = collect_answers(
            model.transform(fold.judged),
            gives_probability=trial.candidate.gives_probability,
            n_genres=len(fold.genres),
            keep="track_id",
        )
        own = np.take_along_axis(answers.probabilities, answers.true[:, None], axis=1)[:, 0]
        trial.losses |= dict(zip(tracks, (-np.log(np.maximum(own, 1e-15))).tolist(), strict=True))
        trial.right |= dict(zip(tracks, answers.right.tolist(), strict=True))
        mlflow.log_metrics({"cv_accuracy": trial.accuracy, "cv_log_loss": trial.log_loss}, step=number)
        best = best_of(_rivals(trial, rivals))
        if number < len(folds) and best is not None and is_better(best, trial, songs):
            break
    else:
        trial.is_complete = True
    mlflow.log_metrics({"cv_rows": len(trial.right)})
    mlflow.set_tag(_COMPLETE, str(trial.is_complete).lower())
    mlflow.log_dict({"right": trial.right, "losses": trial.losses}, _ANSWERS)


def _recall(trials: Sequence[Trial], mlflow: MlflowResource, dataset: str, fingerprint: str) -> None:
    """Fill those trials in that an earlier launch finished on the same tracks and features."""
    registry = mlflow.open()
    finished = registry.runs_on(dataset, stage=_TRIAL, fingerprint=fingerprint)
    runs = {tuple(sorted(run.data.params.items())): run for run in finished}
    for trial in trials:
        run = runs.get(tuple(sorted(trial.params.items())))
        if run is None:
            continue
        answers = registry.read_json(run, _ANSWERS)
        trial.right, trial.losses = answers["right"], answers["losses"]
        trial.is_complete = run.data.tags[_COMPLETE] == "true"
        trial.url = mlflow.run_url(run)


def _folds(
    tables: BatchTables,
    feature_set: AnyFeatureSet,
    split: "pd.DataFrame",
    spark: "SparkSession",
) -> "list[Prepared]":
    """Prepare the training part once without each of its folds."""
    from pyspark.sql import functions as sf

    from spark.classifiers import prepare

    rows, genres = training_rows(spark, tables, feature_set, split_path=tables.split_path())
    train = split[split["part"] == "train"].sort_values("track_id")
    folds = song_folds(train)
    if len(set(folds)) < 2:
        raise GenresError(
            f"dataset '{tables.dataset}' has too few training tracks to leave some of each genre out: add tracks"
        )
    numbered = spark.createDataFrame(list(zip(train["track_id"], folds, strict=True)), "track_id string, fold int")
    indexed = rows.join(numbered, "track_id").localCheckpoint()
    return [
        prepare(
            indexed.withColumn("part", sf.when(sf.col("fold") == fold, "valid").otherwise("train")).localCheckpoint(),
            columns=feature_set.columns,
            genres=genres,
            keep=["track_id"],
        )
        for fold in sorted(set(folds))
    ]


def grid_figure(trials: Sequence[Trial], *, data: str) -> "Figure":
    """Draw the accuracy of each point, by candidate, with an axis for each feature set."""
    versions = list(dict.fromkeys(trial.feature_version for trial in trials))
    most = max((len(trial.right) for trial in trials), default=0)
    figure, axes = new_figure(
        10,
        max(3.0, 0.22 * len(trials) + 1.2),
        title=f"Cross-validated accuracy of the points (n = {most} training tracks)",
        data=data,
        ncols=len(versions),
        sharex=True,
        squeeze=False,
    )
    for axis, version in zip(axes.flat, versions, strict=True):
        own = [trial for trial in trials if trial.feature_version == version and trial.right][::-1]
        names = list(dict.fromkeys(trial.candidate.name for trial in own))
        for place, trial in enumerate(own):
            colour = f"C{names.index(trial.candidate.name)}"
            axis.plot(
                trial.accuracy,
                place,
                marker="D" if trial.is_default else "o" if trial.is_complete else "x",
                color=colour,
                markersize=7 if trial.is_default else 5,
            )
        axis.set_yticks(range(len(own)), [f"{trial.candidate.name}\n{trial.point}" for trial in own], fontsize=6)
        axis.set_title(version, fontsize=8)
        axis.set_xlabel("accuracy; diamond: the default, cross: stopped early", fontsize=8)
        axis.set_ylabel("candidate and its hyperparameters", fontsize=8)
        axis.grid(axis="x", linewidth=0.4)
    return figure


def _table(trials: Sequence[Trial], found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        "| features | classifier | point | accuracy | log-loss | n | | MLflow |",
        "|---|---|---|--:|--:|--:|---|---|",
    ]
    for trial in trials:
        about = f"| {trial.feature_version} | {trial.candidate.name} | {trial.point} |"
        if not trial.right:
            lines.append(f"{about} | | 0 | left | |")
            continue
        notes = ["default"] if trial.is_default else []
        notes += [] if trial.is_complete else ["stopped early"]
        taken = found.get(trial.feature_version, {}).get(trial.candidate.name)
        if taken is not None and trial.candidate == trial.candidate.model_copy(update=taken):
            notes.append("**taken**")
        lines.append(
            f"{about} {trial.accuracy:.3f} | {trial.log_loss:.3f} | {len(trial.right)} | {', '.join(notes)} | "
            f"[run]({trial.url}) |"
        )
    return "\n".join(lines)

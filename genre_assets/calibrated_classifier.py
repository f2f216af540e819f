"""``calibrated_classifier``: the best candidate with probabilities that hold, and a distance to what it learnt from."""

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import dagster as dg

from genre_assets.calibration_figures import coverage_figure, distance_figure, reliability_figure
from genre_assets.candidate_directory import save_candidate
from genre_assets.training_rows import folds_of_any_genre, song_folds, training_rows
from genre_assets.training_tracks import split_of_training
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import feature_set_of, feature_sets_named
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.model_registry import CALIBRATED
from genres_dagster.figures import figure_metadata
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from spark.classifiers import Candidate, rebuilt
from spark.job_names import named_jobs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow.entities import Run
    from pyspark.ml import PipelineModel, Transformer
    from pyspark.ml.feature import IndexToString
    from pyspark.sql import DataFrame

    from spark.calibration import Coverage
    from spark.distance import LearntClips
    from spark.evaluation import Answers


class Calibration(NamedTuple):
    """What the answers about tracks that were not learnt from say about a candidate."""

    whose: str
    """Which answers these are: `spark.calibration.OUT_OF_FOLD` or `VALIDATION`."""

    before: "Answers"
    """With the classifier's own probabilities."""
    answers: "Answers"
    """With those of the temperature."""
    temperature: float
    curve: "Coverage"
    certain_from: float


class Distances(NamedTuple):
    """What the training clips are like, and how far they are from those of the other folds."""

    learnt: "LearntClips"
    held_out: "npt.NDArray[np.float64]"
    """In units of the threshold, of each clip of which the other folds say something."""


@dg.asset(
    deps=["genre_classifiers"],
    group_name="models",
    kinds={"spark", "mlflow"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="The best candidate, calibrated: it is trained again on folds of the training part, and its answers "
    "about the tracks that were left out, or about the validation part, say by which temperature its scores become "
    "probabilities that hold, and from which probability on an answer is certain. Besides, it learns how far from the "
    "training tracks music may be, so that noise, silence and speech can be told.",
)
def calibrated_classifier(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> dg.MaterializeResult:
    """Calibrate the best of the newest candidates; save and log it as they are."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    parent = registry.latest_training(dataset.dataset)
    best = registry.child_runs(parent)[0]
    own = feature_set_of(best.data.tags["feature_version"])
    reads = sets_to_read(own, dataset)
    candidate_path = tables.candidate_path(parent.info.run_id, best.info.run_id)
    if not tables.lake.files.exists(candidate_path):
        raise GenresError(
            f"{best.info.run_name} of dataset '{tables.dataset}' is not at {tables.lake.uri(candidate_path)}: it was "
            "swept after a later training; materialize genre_classifiers again"
        )
    split_path = split_of_training(parent, tables).path
    rows, genres = training_rows(spark_connect.spark_session, tables, reads, split_path=split_path)
    training = rows.filter("part = 'train'").localCheckpoint()
    sounds = sound_columns(reads)
    tracks = training.select("track_id", "genre", *sounds).toPandas().sort_values("track_id", ignore_index=True)
    folds = song_folds(tracks)
    validation = rows.filter("part = 'valid'").localCheckpoint()
    candidate_model = _load(tables.lake.uri(candidate_path), genres)
    jobs = f"calibrated_classifier of {dataset.dataset}"
    with named_jobs(spark_connect.spark_session, jobs):
        calibration = _calibration(
            _Asked(rebuilt(best.data.params), candidate_model, own.columns, genres),
            training,
            validation,
            dict(zip(tracks["track_id"], folds, strict=True)),
            accuracy=settings.certain_accuracy,
        )
    # What music sounds like is learnt without regard to its genre: of each, one track is enough.
    apart = folds if len(set(folds)) > 1 else folds_of_any_genre(tracks)
    distances = _distances(tracks, validation.select(*sounds).toPandas(), sounds, apart)
    said = "" if calibration is None else describe(calibration)
    certain_from = math.inf if calibration is None else calibration.certain_from
    told = said or "too few training tracks to calibrate it"
    context.log.info(f"{best.info.run_name}: {told}")
    tags = {
        **{name: best.data.tags[name] for name in ("data", "dataset_fingerprint", "gives_probability")},
        "feature_version": reads.feature_version,
        "dagster_run_id": context.run_id,
        "candidate": best.info.run_name,
        "calibration": said,
        "certain_from": repr(certain_from),
    }
    data = provenance(dataset)
    with (
        named_jobs(spark_connect.spark_session, jobs),
        registry.run(
            dataset.dataset, run_name=f"{best.info.run_name}, calibrated", stage=CALIBRATED, tags=tags, parent=parent
        ) as run,
    ):
        model = _calibrated(candidate_model, genres, calibration, distances, training)
        path = tables.candidate_path(parent.info.run_id, run.info.run_id)
        save_candidate(model, path, tables=tables, registry=registry, columns=reads.columns)
        metrics = _metrics(calibration, distances) | _judged(model, rows, genres, certain_from)
        figures = _figures(calibration, distances, settings.certain_accuracy, data=data)
        if best.inputs is not None:
            registry.client.log_inputs(run.info.run_id, best.inputs.dataset_inputs)
        _log(best, metrics, figures, folds=len(set(folds)))
    return dg.MaterializeResult(
        metadata={
            "data": data,
            "classifier": best.info.run_name,
            "calibration": told,
            "features": reads.feature_version,
            **({"certain_from": "no probability is enough"} if math.isinf(certain_from) else {}),
            **dict(sorted(metrics.items())),
            **{name: figure_metadata(figure) for name, figure in figures.items()},
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(run)),
        }
    )


def sets_to_read(own: AnyFeatureSet, dataset: Dataset) -> AnyFeatureSet:
    """Return the sets that a calibrated model reads: the candidate's, and one that measures the sound if none does.

    Of several that the dataset has, it is the one of the most columns; if it has none, the model knows no distances.
    """
    measuring = [part for part in feature_sets_named(dataset.feature_sets).parts if part.measures_sound]
    if not measuring or sound_columns(own):
        return own
    names = {max(measuring, key=lambda one: len(one.columns)).name, *(part.name for part in own.parts)}
    return feature_sets_named([name for name in dataset.feature_sets if name in names])


def sound_columns(feature_set: AnyFeatureSet) -> tuple[str, ...]:
    """Return the columns that distances are taken among."""
    measuring = [part.columns for part in feature_set.parts if part.measures_sound]
    return tuple(dict.fromkeys(column for columns in measuring for column in columns))


def describe(calibration: Calibration) -> str:
    """Return a sentence on how probabilities were made, for people."""
    return f"temperature {calibration.temperature:.3g} from {len(calibration.answers.true)} {calibration.whose} answers"


class _Asked(NamedTuple):
    """A candidate that is asked about tracks, untrained and trained."""

    candidate: Candidate
    model: "PipelineModel"
    columns: tuple[str, ...]
    genres: list[str]


def _calibration(
    asked: _Asked, training: "DataFrame", validation: "DataFrame", folds: dict[str, int], *, accuracy: float
) -> Calibration | None:
    """Learn from a candidate's answers about training tracks while others are learnt from, and about validation tracks.

    Tracks of a genre that had no other track tell nothing and do not count; None if no track is left.
    """
    import numpy as np

    from spark.calibration import OUT_OF_FOLD, VALIDATION, HeldOutScores, cautious_temperature, coverage, tempered
    from spark.evaluation import Answers, collect_answers
    from spark.out_of_fold import out_of_fold_answers

    if len(set(folds.values())) < 2:
        return None
    found = out_of_fold_answers(
        training.select("track_id", "genre", "label", *asked.columns),
        columns=asked.columns,
        genres=asked.genres,
        candidate=asked.candidate,
        key="track_id",
        folds=folds,
    )
    answerable = np.isfinite(found.scores[np.arange(len(found.scores)), found.answers.true])
    if not answerable.any():
        return None
    about_valid = collect_answers(
        asked.model.transform(validation),
        gives_probability=asked.candidate.gives_probability,
        n_genres=len(asked.genres),
        keep="track_id",
    )
    own = Answers(found.answers.true[answerable], found.answers.probabilities[answerable])
    sources = {
        OUT_OF_FOLD: (own, HeldOutScores(found.scores[answerable], own.true)),
        VALIDATION: (about_valid.answers, HeldOutScores(about_valid.scores, about_valid.answers.true)),
    }
    whose, temperature = cautious_temperature(sources[OUT_OF_FOLD][1], sources[VALIDATION][1])
    before, (scores, true) = sources[whose]
    answers = Answers(true, tempered(scores, temperature))
    curve = coverage(answers)
    return Calibration(whose, before, answers, temperature, curve, curve.certain_from(accuracy))


def _distances(
    tracks: "pd.DataFrame", validation: "pd.DataFrame", columns: tuple[str, ...], folds: "list[int]"
) -> Distances | None:
    """Learn what the training tracks are like; None if nothing is measured of their sound, or they are too few."""
    import numpy as np

    from spark.distance import LearntClips, held_out_distances

    values = tracks[list(columns)].to_numpy(float)
    learnt = LearntClips.of(values, columns) if columns and len(set(folds)) > 1 else None
    if learnt is None:
        return None
    held_out = held_out_distances(values, columns, np.array(folds))
    held_out = held_out[~np.isnan(held_out)]
    if not len(held_out):
        return None
    learnt = learnt.with_threshold(held_out, learnt.distances(validation[list(columns)].to_numpy(float)))
    # Of tracks that are all as the mean is, no distance can be the unit.
    return Distances(learnt, held_out / learnt.threshold) if learnt.threshold > 0 else None


def _load(uri: str, genres: list[str]) -> "PipelineModel":
    """Load a candidate's pipeline, which tells these genres apart."""
    from pyspark.ml import PipelineModel

    model = PipelineModel.load(uri)
    labels = list(cast("IndexToString", model.stages[-1]).getLabels())
    if labels != genres:
        raise GenresError(
            f"the model at {uri} tells {', '.join(labels)} apart, and its training tracks are of {', '.join(genres)}: "
            "materialize genre_classifiers again"
        )
    return model


def _calibrated(
    model: "PipelineModel",
    genres: list[str],
    calibration: Calibration | None,
    distances: Distances | None,
    training: "DataFrame",
) -> "PipelineModel":
    """Return the candidate's pipeline with the stages that are new, in front of the last one, which names the genre."""
    from pyspark.ml import PipelineModel

    from spark.calibration import calibrating

    *classifying, naming = model.stages
    added: list[Transformer] = []
    if calibration is not None:
        added.append(calibrating(calibration.temperature, genres=len(genres)))
    if distances is not None:
        added += distances.learnt.stages(training)
    return PipelineModel([*classifying, *added, naming])


def _metrics(calibration: Calibration | None, distances: Distances | None) -> dict[str, float]:
    found: dict[str, float] = {}
    if calibration is not None:
        before, answers = calibration.before, calibration.answers
        share, accuracy = calibration.curve.at(calibration.certain_from)
        found = {
            "calibration_rows": len(answers.true),
            "calibration_accuracy": answers.accuracy,
            "calibration_ece_before": before.calibration_error(),
            "calibration_ece": answers.calibration_error(),
            "calibration_log_loss_before": before.log_loss(),
            "calibration_log_loss": answers.log_loss(),
            "temperature": calibration.temperature,
            "certain_share": share,
            **({"certain_from": calibration.certain_from, "certain_accuracy": accuracy} if share else {}),
        }
    if distances is not None:
        found |= {
            "distance_threshold": distances.learnt.threshold,
            "out_of_fold_unlike_share": float((distances.held_out > 1).mean()),
        }
    return {name: float(value) for name, value in found.items()}


def _judged(model: "PipelineModel", rows: "DataFrame", genres: list[str], certain_from: float) -> dict[str, float]:
    """Return the figures of validation and test part that calibration changes, and those that are new."""
    import numpy as np

    from spark.evaluation import Answers
    from spark.scoring import answers_of

    judged = rows.filter("part != 'train'")
    table = answers_of(model, judged).select("part", "label", "probabilities", "distance").toPandas()
    found: dict[str, float] = {}
    for part, own in table.groupby("part"):
        answers = Answers(
            own["label"].to_numpy(np.int64), np.array(list(own["probabilities"])).reshape(-1, len(genres))
        )
        is_certain = answers.probabilities.max(axis=1) >= certain_from
        found |= {
            f"{part}_log_loss": answers.log_loss(),
            f"{part}_ece": answers.calibration_error(),
            f"{part}_certain_share": float(is_certain.mean()),
        }
        if is_certain.any():
            found[f"{part}_certain_accuracy"] = float(answers.right[is_certain].mean())
        if own["distance"].notna().any():
            found[f"{part}_unlike_share"] = float((own["distance"] > 1).mean())
    return found


def _figures(
    calibration: Calibration | None, distances: Distances | None, accuracy: float, *, data: str
) -> "dict[str, Figure]":
    found = {}
    if calibration is not None:
        whose, before, answers, temperature, curve, certain_from = calibration
        found = {
            "reliability": reliability_figure(before, answers, temperature, whose, data=data),
            "coverage": coverage_figure(curve, certain_from, accuracy, whose, n=len(answers.true), data=data),
        }
    if distances is not None:
        found["distances"] = distance_figure(distances.held_out, data=data)
    return found


def _log(best: "Run", metrics: dict[str, float], figures: "dict[str, Figure]", *, folds: int) -> None:
    """Log to the open MLflow run what the candidate's run says of it, and what is new."""
    import mlflow

    mlflow.log_params({**best.data.params, "calibration_folds": folds})
    mlflow.log_metrics({**best.data.metrics, **metrics})
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"{name}.png")

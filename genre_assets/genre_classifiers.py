"""``genre_classifiers``: the candidate models, trained, judged and logged, each its own MLflow run under one parent."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from genre_assets.candidate_directory import save_candidate
from genre_assets.hyperparameter_search import FOUND
from genre_assets.run_page import GENRE_TABLE, genre_table, headline
from genre_assets.training_config import TrainingConfig, with_found
from genre_assets.training_rows import training_rows
from genre_assets.training_tracks import dataset_fingerprint
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import feature_sets_named, training_sets
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.model_registry import CANDIDATE, TRAINING, ModelRegistry
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from spark.classifiers import Candidate
from spark.job_names import named_jobs

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure
    from mlflow.entities import Metric
    from pyspark.sql import SparkSession

    from spark.classifiers import Prepared

PARTS = ("valid", "test")
"""The parts that models are judged on; the validation part decides, the test part is only reported."""

_COMPARED = ("valid_macro_f1", "valid_accuracy", "valid_log_loss", "test_macro_f1", "test_accuracy")
"""The metrics of a candidate that stand in the asset's table."""

_AT_A_TIME = 2
"""Candidates in training: one's small jobs and its model's many small files leave the cores idle half of the time.
The metric ``train_s`` holds what a candidate waited for the other one, too."""


class TrainingData(NamedTuple):
    """What every candidate is trained and judged on."""

    prepared: "Prepared"
    genres: list[str]
    feature_set: AnyFeatureSet
    counts: "dict[str, npt.NDArray[np.int64]]"
    """Tracks of each genre, by part."""


@dg.asset(
    deps=["audio_features", "track_split", "hyperparameter_search"],
    group_name="models",
    kinds={"spark", "mlflow"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="MLlib pipelines, trained on the training part and judged on the validation and test parts. Each "
    "is an MLflow run with its parameters, metrics, confusion matrix and model. Which of them, and with which "
    "hyperparameters, can be chosen in the launchpad.",
)
def genre_classifiers(
    context: dg.AssetExecutionContext,
    config: TrainingConfig,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> dg.MaterializeResult:
    """Train and log the candidates."""
    from pyspark.util import inheritable_thread_target

    database.check_migrated()
    everything = config.candidates(settings.classifiers)
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    every_set = feature_sets_named(dataset.feature_sets)
    trained_on = training_sets(dataset.feature_sets)
    spark = spark_connect.spark_session
    with named_jobs(spark, f"genre_classifiers of {dataset.dataset}"):
        datas = [_training_data(tables, found, spark) for found in trained_on]
    fingerprint = dataset_fingerprint(tables.split(), every_set.feature_version)
    search = registry.find_latest_run(dataset.dataset, stage="hyperparameter_search") if config.searched else None
    found = {} if search is None else registry.read_json(search, FOUND)
    trainings = [
        (with_found(candidate, found.get(data.feature_set.feature_version, {}).get(candidate.name, {})), data)
        for data in datas
        for candidate in everything
    ]
    baseline = _baseline(datas[0])
    tags = {
        "data": provenance(dataset),
        "dataset_fingerprint": fingerprint,
        "feature_version": every_set.feature_version,
        "dagster_run_id": context.run_id,
        "mlflow.note.content": f"[Dagster run]({settings.dagster_url}/runs/{context.run_id}), {provenance(dataset)}",
    }
    logged: dict[str, Any] = {
        "dataset": dataset.dataset,
        "fingerprint": fingerprint,
        "uri": tables.lake.uri(tables.lake.path(dataset.dataset, "audio_features")),
        "tracks": {part: int(count.sum()) for part, count in datas[0].counts.items()},
    }
    rows = []
    with (
        registry.run(dataset.dataset, run_name=f"candidates {context.run_id[:8]}", stage=TRAINING, tags=tags) as parent,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        registry.log_dataset(parent, columns=every_set.columns, **logged)

        def train(training: tuple[Candidate, TrainingData]) -> tuple[str, dict[str, float], float, str]:
            candidate, data = training
            started = time.monotonic()
            # With one set to train on, the candidate's name says it all.
            name = candidate.name if len(datas) == 1 else f"{candidate.name} on {data.feature_set.name}"
            own_tags = {**tags, "feature_version": data.feature_set.feature_version}
            with (
                named_jobs(spark, f"{candidate.name} on {data.feature_set.name} of {dataset.dataset}"),
                registry.run(dataset.dataset, run_name=name, stage=CANDIDATE, tags=own_tags, parent=parent) as child,
            ):
                registry.log_dataset(child, columns=data.feature_set.columns, **logged)
                path = tables.candidate_path(parent.info.run_id, child.info.run_id)
                scores = _train(candidate, data, tables, registry, path)
            return name, scores, time.monotonic() - started, mlflow.run_url(child)

        # MLlib asks for the session of the thread that it is called in.
        in_session = inheritable_thread_target(spark)
        for number, row in enumerate(pool.map(in_session(train), trainings), 1):
            name, scores, took, _ = row
            context.log.info(
                f"{number} of {len(trainings)}: {name}: validation macro-F1 {scores['valid_macro_f1']:.3f}, "
                f"accuracy {scores['valid_accuracy']:.3f}, {took:.1f} s"
            )
            rows.append(row)
        registry.show_best(parent, metrics=headline(rows[0][1]))
        registry.client.log_batch(parent.info.run_id, metrics=_as_metrics(baseline))
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "candidates": dg.MetadataValue.md(_table(rows, baseline)),
            **best_figures({name: scores for name, scores, *_ in rows}),
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(parent)),
            "mlflow_run_id": parent.info.run_id,
            "dataset_fingerprint": fingerprint,
            "genres": dg.MetadataValue.json(datas[0].genres),
            **({} if search is None else {"hyperparameter_search": dg.MetadataValue.url(mlflow.run_url(search))}),
            "train_rows": int(baseline["train_rows"]),
            "valid_rows": int(baseline["valid_rows"]),
            "test_rows": int(baseline["test_rows"]),
            **({"few_clips": few} if (few := _few(baseline)) else {}),
            **({"tie": tie} if (tie := ties({name: scores for name, scores, *_ in rows})) else {}),
        }
    )


def _training_data(tables: BatchTables, feature_set: AnyFeatureSet, spark: "SparkSession") -> TrainingData:
    """Prepare the rows for candidates that are trained on one of the dataset's sets, or on some that are joined."""
    import numpy as np

    from spark.classifiers import prepare

    indexed, genres = training_rows(spark, tables, feature_set, split_path=tables.split_path())
    prepared = prepare(indexed, columns=feature_set.columns, genres=genres)
    counts = {part: np.zeros(len(genres), dtype=np.int64) for part in ("train", *PARTS)}
    for row in indexed.groupBy("part", "genre").count().collect():
        counts[row["part"]][genres.index(row["genre"])] = row["count"]
    return TrainingData(prepared, genres, feature_set, counts)


def _baseline(data: TrainingData) -> dict[str, float]:
    """Metrics of always answering the most frequent genre, under ``baseline_`` names, and the parts' sizes."""
    from spark.evaluation import majority_confusion, metrics

    baseline = {f"{part}_rows": float(count.sum()) for part, count in data.counts.items()}
    for part in PARTS:
        values = metrics(majority_confusion(data.counts["train"], data.counts[part]), data.genres, part=part)
        baseline |= {f"baseline_{name}": values[name] for name in (f"{part}_accuracy", f"{part}_macro_f1")}
    return baseline


def _train(
    candidate: Candidate, data: TrainingData, tables: BatchTables, registry: ModelRegistry, path: str
) -> dict[str, float]:
    """Train a candidate, save it at `path`, log everything about it to the open MLflow run; return its metrics."""
    import mlflow

    from spark.evaluation import Answers, collect_answers, metrics

    mlflow.log_params(
        {
            "classifier": candidate.name,
            "feature_set": data.feature_set.feature_version,
            "genres": len(data.genres),
            **candidate.model_dump(),
        }
    )
    mlflow.set_tags({"gives_probability": str(candidate.gives_probability).lower()})
    started = time.monotonic()
    model, classifying = data.prepared.fit(candidate)
    scores = {"train_s": time.monotonic() - started}
    of_parts, answers, _ = collect_answers(
        classifying.transform(data.prepared.judged),
        gives_probability=candidate.gives_probability,
        n_genres=len(data.genres),
        keep="part",
    )
    of_part = {part: Answers(answers.true[of_parts == part], answers.probabilities[of_parts == part]) for part in PARTS}
    confusions = {part: own.confusion() for part, own in of_part.items()}
    for part, confusion in confusions.items():
        scores |= metrics(confusion, data.genres, part=part)
        scores |= {
            f"{part}_log_loss": of_part[part].log_loss(),
            f"{part}_ece": of_part[part].calibration_error(),
            f"{part}_top3_accuracy": of_part[part].top_accuracy(3),
        }
        mlflow.log_dict({"genres": data.genres, "confusion": confusion.tolist()}, f"confusion_{part}.json")
        mlflow.log_figure(confusion_figure(candidate.name, part, confusion, data.genres), f"confusion_{part}.png")
    mlflow.log_metrics(headline(scores))
    mlflow.log_table(genre_table(confusions, data.genres), GENRE_TABLE)
    save_candidate(model, path, tables=tables, registry=registry, columns=data.feature_set.columns)
    return scores


def confusion_figure(name: str, part: str, confusion: "npt.NDArray[np.int64]", genres: list[str]) -> "Figure":
    """Draw a candidate's confusion matrix on a part of the split."""
    from genres_dagster.figures import draw_confusion, new_figure

    figure, axes = new_figure(
        6, 5.4, title=f"{name}, {part} part (n = {confusion.sum()})", data="rows: true genre; columns: predicted genre"
    )
    draw_confusion(axes, confusion, genres)
    return figure


def _as_metrics(values: dict[str, float]) -> "list[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, value, now, 0) for key, value in values.items()]


def best_figures(scores: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the figures of the best candidate as numbers, which Dagster draws from materialization to materialization.

    It is the one that is calibrated and registered: the best by validation macro-F1, at a tie by log-loss.

    Parameters
    ----------
    scores
        Metrics by candidate.
    """
    best, found = max(scores.items(), key=lambda entry: (entry[1]["valid_macro_f1"], -entry[1]["valid_log_loss"]))
    return {"best": best, **{f"best_{name}": found[name] for name in _COMPARED}}


def ties(scores: dict[str, dict[str, float]]) -> str:
    """Return a sentence if several candidates have the best validation macro-F1; empty otherwise.

    Parameters
    ----------
    scores
        Metrics by candidate.
    """
    best = max(found["valid_macro_f1"] for found in scores.values())
    losses = {name: found["valid_log_loss"] for name, found in scores.items() if found["valid_macro_f1"] == best}
    if len(losses) < 2:
        return ""
    named = ", ".join(f"{name} {loss:.3f}" for name, loss in sorted(losses.items(), key=lambda entry: entry[1]))
    return f"tie at validation macro-F1 {best:.3f}; the least log-loss decides: {named}"


def _few(baseline: dict[str, float]) -> str:
    """Return a sentence if the validation part is too small to tell candidates apart."""
    from spark.evaluation import FEW

    count = int(baseline["valid_rows"])
    return f"the validation part has {count} clips: below {FEW} its figures mean little" if count < FEW else ""


def _table(rows: list[tuple[str, dict[str, float], float, str]], baseline: dict[str, float]) -> str:
    valid, test = (f"(n={baseline[f'{part}_rows']:.0f})" for part in PARTS)
    heads = [f"valid {name} {valid}" for name in ("macro-F1", "accuracy", "log-loss")]
    heads += [f"test {name} {test}" for name in ("macro-F1", "accuracy")]
    lines = [f"| classifier | {' | '.join(heads)} | took | MLflow |", "|---" * (len(heads) + 3) + "|"]
    for classifier, scores, took, url in rows:
        figures = " | ".join(f"{scores[name]:.3f}" for name in _COMPARED)
        lines.append(f"| {classifier} | {figures} | {took:.1f} s | [run]({url}) |")
    figures = " | ".join(f"{baseline['baseline_' + name]:.3f}" if "loss" not in name else "" for name in _COMPARED)
    lines.append(f"| *majority baseline* | {figures} | | |")
    return "\n".join(lines)

"""``genre_classifiers``: the candidate models, trained, judged and logged, each its own MLflow run under one parent."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from genres.audio.feature_set import FeatureSet
from genres.audio.feature_sets import feature_set_named
from genres.datasets.split import fingerprint as split_fingerprint
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.model_registry import ModelRegistry
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from spark.classifiers import Candidate, Prepared

PARTS = ("valid", "test")
"""The parts that models are judged on; the validation part decides, the test part is only reported."""

_AT_A_TIME = 2
"""Candidates in training: one's small jobs and its model's many small files leave the cores idle half of the time.
The metric ``train_s`` holds what a candidate waited for the other one, too."""


class TrainingData(NamedTuple):
    """What every candidate is trained and judged on."""

    prepared: "Prepared"
    genres: list[str]
    feature_set: FeatureSet
    fingerprint: str
    """Of the tracks, their genres and parts, and the feature version."""


@dg.asset(
    deps=["audio_features", "track_split"],
    group_name="models",
    kinds={"spark", "mlflow"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="Six MLlib pipelines, trained on the training part and judged on the validation and test parts. Each "
    "is an MLflow run with its parameters, metrics, confusion matrix and model.",
)
def genre_classifiers(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_classic: SparkResource,
) -> dg.MaterializeResult:
    """Train and log the candidates."""
    from spark.classifiers import candidates

    database.check_migrated()
    everything = candidates(settings.classifiers)
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    feature_set = feature_set_named(dataset.feature_set)
    data = _training_data(tables, feature_set, spark_classic)
    baseline = _baseline(data)
    tags = {
        "data": provenance(dataset),
        "dataset_fingerprint": data.fingerprint,
        "feature_version": feature_set.feature_version,
        "dagster_run_id": context.run_id,
        "mlflow.note.content": f"[Dagster run]({settings.dagster_url}/runs/{context.run_id}), {provenance(dataset)}",
    }
    rows = []
    with (
        registry.run(
            dataset.dataset, run_name=f"candidates {context.run_id[:8]}", stage="genre_classifiers", tags=tags
        ) as parent,
        ThreadPoolExecutor(_AT_A_TIME) as pool,
    ):
        registry.client.log_batch(parent.info.run_id, metrics=_as_metrics(baseline))
        tmp_uri = tables.lake.uri(f"{tables.lake.root}/_tmp/mlflow")

        def train(candidate: "Candidate") -> tuple[str, dict[str, float], float, str]:
            started = time.monotonic()
            with registry.run(
                dataset.dataset, run_name=candidate.name, stage="candidate", tags=tags, parent=parent
            ) as child:
                found = _train(candidate, data, registry, tmp_uri=tmp_uri)
            return candidate.name, found, time.monotonic() - started, mlflow.run_url(child)

        for number, row in enumerate(pool.map(train, everything), 1):
            name, found, took, _ = row
            context.log.info(
                f"{number} of {len(everything)}: {name}: validation macro-F1 {found['valid_macro_f1']:.3f}, "
                f"accuracy {found['valid_accuracy']:.3f}, {took:.1f} s"
            )
            rows.append(row)
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "candidates": dg.MetadataValue.md(_table(rows, baseline)),
            "mlflow_run": dg.MetadataValue.url(mlflow.run_url(parent)),
            "mlflow_run_id": parent.info.run_id,
            "dataset_fingerprint": data.fingerprint,
            "genres": dg.MetadataValue.json(data.genres),
            "train_rows": int(baseline["train_rows"]),
            "valid_rows": int(baseline["valid_rows"]),
            "test_rows": int(baseline["test_rows"]),
        }
    )


def _training_data(tables: BatchTables, feature_set: FeatureSet, spark_classic: SparkResource) -> TrainingData:
    from spark.classifiers import index_genres, prepare
    from spark.labelled_features import labelled_features

    labelled = labelled_features(
        spark_classic.spark_session,
        feature_uris=[tables.lake.uri(path) for path in tables.feature_paths(feature_set.feature_version)],
        split_uri=tables.lake.uri(tables.split_path()),
        columns=feature_set.columns,
    )
    # Training runs hundreds of small jobs over these rows. A checkpoint, unlike a cache, also forgets how they came
    # about: the scheduler otherwise walks the whole join again for each job (LinearSVC took four times as long).
    indexed, genres = index_genres(labelled.filter("part != 'excluded'").localCheckpoint())
    parts = {part: indexed.filter(indexed.part == part).coalesce(1) for part in ("train", *PARTS)}
    prepared = prepare(parts, columns=feature_set.columns, genres=genres)
    split = split_fingerprint(tables.split())
    return TrainingData(prepared, genres, feature_set, ledger.fingerprint([split, feature_set.feature_version]))


def _baseline(data: TrainingData) -> dict[str, float]:
    """Metrics of always answering the most frequent genre, under ``baseline_`` names, and the parts' sizes."""
    import numpy as np

    from spark.evaluation import majority_confusion, metrics

    counts: dict[str, npt.NDArray[np.int64]] = {}
    for part, rows in data.prepared.parts.items():
        by_genre = {row["genre"]: row["count"] for row in rows.groupBy("genre").count().collect()}
        counts[part] = np.array([by_genre.get(genre, 0) for genre in data.genres])
    found = {f"{part}_rows": float(count.sum()) for part, count in counts.items()}
    for part in PARTS:
        values = metrics(majority_confusion(counts["train"], counts[part]), data.genres, part=part)
        found |= {f"baseline_{name}": values[name] for name in (f"{part}_accuracy", f"{part}_macro_f1")}
    return found


def _train(candidate: "Candidate", data: TrainingData, registry: ModelRegistry, *, tmp_uri: str) -> dict[str, float]:
    """Train a candidate and log everything about it to the open MLflow run; give its metrics."""
    import mlflow

    from spark.evaluation import confusion_matrix, metrics

    mlflow.log_params(
        {
            "classifier": candidate.name,
            "feature_set": data.feature_set.feature_version,
            "genres": len(data.genres),
            **candidate.params,
        }
    )
    mlflow.set_tags({"gives_probability": str(candidate.gives_probability).lower()})
    started = time.monotonic()
    model, classifying = data.prepared.fit(candidate)
    found = {"train_s": time.monotonic() - started}
    for part in PARTS:
        confusion = confusion_matrix(classifying.transform(data.prepared.parts[part]), data.genres)
        found |= metrics(confusion, data.genres, part=part)
        mlflow.log_dict({"genres": data.genres, "confusion": confusion.tolist()}, f"confusion_{part}.json")
        mlflow.log_figure(_confusion_figure(candidate.name, part, confusion, data.genres), f"confusion_{part}.png")
    mlflow.log_metrics(found)
    registry.log_spark_model(model, columns=data.feature_set.columns, tmp_uri=tmp_uri)
    return found


def _confusion_figure(name: str, part: str, confusion: "npt.NDArray[np.int64]", genres: list[str]) -> Any:
    from genres_dagster.figures import draw_confusion, new_figure

    figure, axes = new_figure(6, 5.4, title=f"{name}, {part} part", data="rows: true genre; columns: predicted genre")
    draw_confusion(axes, confusion, genres)
    return figure


def _as_metrics(values: dict[str, float]) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, value, now, 0) for key, value in values.items()]


def _table(rows: list[tuple[str, dict[str, float], float, str]], baseline: dict[str, float]) -> str:
    lines = [
        "| classifier | valid macro-F1 | valid accuracy | test macro-F1 | test accuracy | took | MLflow |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("valid_macro_f1", "valid_accuracy", "test_macro_f1", "test_accuracy")
    for classifier, found, took, url in rows:
        figures = " | ".join(f"{found[name]:.3f}" for name in names)
        lines.append(f"| {classifier} | {figures} | {took:.1f} s | [run]({url}) |")
    figures = " | ".join(f"{baseline['baseline_' + name]:.3f}" for name in names)
    lines.append(f"| *majority baseline* | {figures} | | |")
    return "\n".join(lines)

"""``champion_model``: the best candidate, registered; the champion only if it is better than what there is."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from genres.audio.feature_set import JOINT
from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.model_facts import ModelFacts, RegisteredModel
from genres.store.model_registry import directory_digest
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource

if TYPE_CHECKING:
    from mlflow.entities import Run


class Verdict(NamedTuple):
    """Whether a candidate becomes the champion, and why."""

    is_champion: bool
    why: str


@dg.asset(
    deps=["genre_classifiers"],
    group_name="models",
    kinds={"mlflow", "hdfs"},
    owners=OWNERS,
    partitions_def=DATASETS,
    output_required=False,
    description="The best candidate by validation macro-F1, registered in MLflow. It gets the alias champion only if "
    "it beats the majority baseline and the present champion on the same validation tracks; else it is the "
    "challenger. Its native Spark directory is published to HDFS. Without a champion nothing is "
    "materialized, and what follows is skipped.",
)
def champion_model(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
    """Compare, register, publish, and set the alias last."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    parent = registry.latest_run(dataset.dataset, stage="genre_classifiers")
    best = registry.child_runs(parent)[0]
    present = registry.find_champion(dataset.dataset)
    present_f1 = _present_f1(present, parent, dataset, tables, spark_connect) if present else None
    verdict = judge(
        valid_macro_f1=best.data.metrics["valid_macro_f1"],
        baseline=parent.data.metrics["baseline_valid_macro_f1"],
        present=present_f1,
    )
    context.log.info(f"{best.info.run_name}: {verdict.why}")
    version = registry.register(dataset.dataset, run=best)
    path, digest = publish(best, version, tables)
    facts = ModelFacts(
        spark_model_path=path,
        spark_model_digest=digest,
        spark_model_uri=tables.lake.uri(path),
        classifier=best.info.run_name,
        feature_version=best.data.tags["feature_version"],
        is_calibrated=best.data.tags["gives_probability"] == "true",
        fingerprint=best.data.tags["dataset_fingerprint"],
        valid_macro_f1=best.data.metrics["valid_macro_f1"],
        data=provenance(dataset),
        why=verdict.why,
        dagster_run_id=context.run_id,
    )
    registry.describe_version(dataset.dataset, version, facts)
    # The alias comes last: whoever resolves it finds a version that is complete.
    registry.set_alias(dataset.dataset, "champion" if verdict.is_champion else "challenger", version)
    metadata: dict[str, Any] = {
        "data": provenance(dataset),
        "registered": f"{registry.name_for(dataset.dataset)} version {version}",
        "alias": "champion" if verdict.is_champion else "challenger",
        "why": verdict.why,
        "classifier": best.info.run_name,
        "valid_macro_f1": best.data.metrics["valid_macro_f1"],
        "test_macro_f1": best.data.metrics["test_macro_f1"],
        "test_accuracy": best.data.metrics["test_accuracy"],
        "spark_model_uri": facts.spark_model_uri,
        "mlflow_run": dg.MetadataValue.url(mlflow.run_url(best)),
    }
    if verdict.is_champion or present is not None:
        champion = registry.champion(dataset.dataset)
        yield dg.MaterializeResult(
            metadata={**metadata, "champion_version": champion.version},
            data_version=dg.DataVersion(f"{champion.name}-{champion.version}"),
        )
    else:
        context.log.warning(f"no champion: {verdict.why}")
        yield dg.AssetObservation(asset_key=context.asset_key, partition=context.partition_key, metadata=metadata)


def judge(*, valid_macro_f1: float, baseline: float, present: float | None) -> Verdict:
    """Decide whether the best candidate becomes the champion.

    Parameters
    ----------
    valid_macro_f1, baseline
        Macro-F1 of the candidate and of the majority baseline on the validation tracks.
    present
        Macro-F1 of the present champion on the same tracks; None if there is none that can be judged on them.
    """
    if valid_macro_f1 <= baseline:
        return Verdict(
            False, f"validation macro-F1 {valid_macro_f1:.3f} does not beat the majority baseline's {baseline:.3f}"
        )
    if present is not None and valid_macro_f1 <= present:
        return Verdict(
            False, f"validation macro-F1 {valid_macro_f1:.3f} does not beat the present champion's {present:.3f}"
        )
    beaten = f"the majority baseline's {baseline:.3f}"
    if present is not None:
        beaten += f" and the present champion's {present:.3f}"
    return Verdict(True, f"validation macro-F1 {valid_macro_f1:.3f} beats {beaten}")


def _present_f1(
    present: RegisteredModel, parent: "Run", dataset: Dataset, tables: BatchTables, spark_connect: SparkResource
) -> float | None:
    """Macro-F1 of the present champion on the validation tracks that the candidates were judged on."""
    if present.fingerprint == parent.data.tags["dataset_fingerprint"]:
        return present.valid_macro_f1  # judged on these very rows
    if not {*present.feature_version.split(JOINT)} <= {*parent.data.tags["feature_version"].split(JOINT)}:
        return None  # it reads other features than the dataset's present ones, which it may not have any more
    from spark.evaluation import confusion_matrices, metrics
    from spark.labelled_features import labelled_features
    from spark.scoring import Scorer

    spark = spark_connect.spark_session
    with Scorer(present, trained_on=dataset, lake=tables.lake) as scorer:
        labelled = labelled_features(
            spark,
            feature_uris=[tables.lake.uri(path) for path in tables.feature_paths(present.feature_version)],
            split_uri=tables.lake.uri(tables.split_path()),
            columns=scorer.feature_set.columns,
        ).filter("part = 'valid'")
        genres = sorted({*scorer.genres, *(row["genre"] for row in labelled.select("genre").distinct().collect())})
        confusions = confusion_matrices(scorer.scored(labelled, keep=["genre", "part"]), genres, parts=["valid"])
    return metrics(confusions["valid"], genres, part="valid")["valid_macro_f1"]


def publish(run: "Run", version: int, tables: BatchTables) -> tuple[str, str]:
    """Copy a candidate's native Spark directory to the place of a registered version.

    Parameters
    ----------
    run
        The candidate's MLflow run.

    Returns
    -------
    str
        The version's path in the lake.
    str
        Its `directory_digest`.

    Raises
    ------
    GenresError
        If the candidate's directory is not on HDFS.
    """
    candidate = tables.candidate_path(run.data.tags["mlflow.parentRunId"], run.info.run_id)
    target = tables.lake.path(tables.dataset, "models", f"v{version}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        try:
            tables.lake.fetch_directory(candidate, folder)
        except FileNotFoundError as error:
            raise GenresError(
                f"{run.info.run_name} of dataset '{tables.dataset}' is not at {tables.lake.uri(candidate)}: it was "
                "trained by an older version, or swept after a later training; materialize genre_classifiers again"
            ) from error
        tables.lake.put_directory(folder, target)
        return target, directory_digest(folder)

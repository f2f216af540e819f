"""``champion_model``: the best candidate, registered; the champion only if it is better than what there is."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.model_facts import ModelFacts, RegisteredModel
from genres.store.model_registry import ModelRegistry, directory_digest
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from pyspark.sql import DataFrame


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
    "it beats the majority baseline, and the present champion on those validation tracks that neither was trained on; "
    "else it is the challenger. Its native Spark directory is published to HDFS. Without a champion nothing is "
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
    best, *others = registry.child_runs(parent)
    present = registry.find_champion(dataset.dataset)
    duel = _duel(best, present, parent, dataset, tables, registry, spark_connect)
    verdict = judge(
        valid_macro_f1=best.data.metrics["valid_macro_f1"],
        baseline=parent.data.metrics["baseline_valid_macro_f1"],
        present=duel.present,
        on_the_same=duel.candidate,
    )
    verdict = verdict._replace(why="; ".join(filter(None, (duel.note, _ties(best, others), verdict.why))))
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
        "valid_rows": int(best.data.metrics["valid_rows"]),
        "test_rows": int(best.data.metrics["test_rows"]),
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


def judge(
    *, valid_macro_f1: float, baseline: float, present: float | None, on_the_same: float | None = None
) -> Verdict:
    """Decide whether the best candidate becomes the champion.

    Parameters
    ----------
    valid_macro_f1, baseline
        Macro-F1 of the candidate and of the majority baseline on the validation tracks.
    present
        Macro-F1 of the present champion on tracks that neither has seen; None if there is none that can be judged.
    on_the_same
        Macro-F1 of the candidate on the tracks that the present champion is judged on; None if these are all
        validation tracks.
    """
    if valid_macro_f1 <= baseline:
        return Verdict(
            False, f"validation macro-F1 {valid_macro_f1:.3f} does not beat the majority baseline's {baseline:.3f}"
        )
    rival = valid_macro_f1 if on_the_same is None else on_the_same
    if present is not None and rival <= present:
        return Verdict(False, f"validation macro-F1 {rival:.3f} does not beat the present champion's {present:.3f}")
    beaten = f"the majority baseline's {baseline:.3f}"
    if present is not None and rival != valid_macro_f1:
        beaten += f", and with {rival:.3f} on those tracks the present champion's {present:.3f}"
    elif present is not None:
        beaten += f" and the present champion's {present:.3f}"
    return Verdict(True, f"validation macro-F1 {valid_macro_f1:.3f} beats {beaten}")


class Duel(NamedTuple):
    """What the best candidate and the present champion are worth on the same tracks."""

    present: float | None = None
    """Macro-F1 of the present champion; None if there is none that can be compared."""
    candidate: float | None = None
    """Macro-F1 of the candidate on the same tracks; None if these are all validation tracks."""
    note: str = ""
    """On which tracks they are compared, or why they are not; empty if on all validation tracks."""


def _ties(best: "Run", others: "list[Run]") -> str:
    """Return a sentence if other candidates have the best one's macro-F1."""
    same = [run for run in others if run.data.metrics["valid_macro_f1"] == best.data.metrics["valid_macro_f1"]]
    names = ", ".join(str(run.info.run_name) for run in same)
    return f"tie of {best.info.run_name} with {names}, decided by the least validation log-loss" if same else ""


def unseen(split: "pd.DataFrame", learnt: "frozenset[str]") -> "list[str]":
    """Return the sha256 of the validation tracks that are not among those that a model has learnt from."""
    return sorted(set(split.loc[split["part"] == "valid", "sha256"]) - learnt)


def _duel(
    best: "Run",
    present: RegisteredModel | None,
    parent: "Run",
    dataset: Dataset,
    tables: BatchTables,
    registry: ModelRegistry,
    spark_connect: SparkResource,
) -> Duel:
    """Judge the present champion and the candidate on the validation tracks that neither was trained on."""
    if present is None:
        return Duel()
    if present.fingerprint == parent.data.tags["dataset_fingerprint"]:
        return Duel(present.valid_macro_f1)  # judged on these very rows
    if present.feature_version != parent.data.tags["feature_version"]:
        return Duel(
            note=f"not compared with the present champion, which reads other features, {present.feature_version}"
        )
    learnt = registry.training_tracks(present)
    if learnt is None:
        return Duel(note="not compared with the present champion: nobody noted which tracks it was trained on")
    split = tables.split()
    tracks, n_valid = unseen(split, learnt), int((split["part"] == "valid").sum())
    if not tracks:
        return Duel(
            note=f"not compared with the present champion, which was trained on all {n_valid} validation tracks"
        )
    from pyspark.ml import PipelineModel
    from pyspark.sql import functions as sf

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
        ).filter(sf.col("part") == "valid")
        if len(tracks) < n_valid:
            labelled = labelled.join(spark.createDataFrame([(track,) for track in tracks], ["sha256"]), "sha256")
        genres = sorted({*scorer.genres, *(row["genre"] for row in labelled.select("genre").distinct().collect())})

        def macro_f1(predictions: "DataFrame") -> float:
            confusion = confusion_matrices(predictions, genres, parts=["valid"])["valid"]
            return metrics(confusion, genres, part="valid")["valid_macro_f1"]

        theirs = macro_f1(scorer.scored(labelled, keep=["genre", "part"]))
        if len(tracks) == n_valid:
            return Duel(theirs)
        path = tables.candidate_path(parent.info.run_id, best.info.run_id)
        model = PipelineModel.load(tables.lake.uri(path))
        ours = macro_f1(model.transform(labelled))
        del model  # held over a Connect session, it keeps the process from ending
    note = f"compared with the present champion on the {len(tracks)} of {n_valid} validation tracks new to both"
    return Duel(theirs, ours, note)


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

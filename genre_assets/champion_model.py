"""``champion_model``: the best candidate, registered; the champion only if it is fairly better than what there is."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg

from genre_assets.model_card import answers_of, cut, model_card
from genre_assets.promotion import Comparison, Verdict, calibration_error, compare, f1_by_genre, judge
from genre_assets.training_tracks import keep_split, split_of_training, training_tracks, unseen
from genres.audio.feature_sets import feature_set_of
from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.champions import Champions
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.model_directory import UnusableModelError, directory_digest
from genres.store.model_facts import ModelFacts, RegisteredModel
from genres.store.model_registry import LONGEST_DESCRIPTION
from genres_dagster.checks import DATASET, check_spec, judged
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from spark.job_names import named_jobs

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from pyspark.sql import SparkSession

_KEY = ["track_id", "sha256"]


class Judged(NamedTuple):
    """What a model answers about the validation and test tracks."""

    genres: list[str]
    rows: "pd.DataFrame"
    """``track_id``, ``sha256``, ``genre``, ``part`` and ``probabilities``, in the order of `genres`."""


@dg.asset(
    deps=["calibrated_classifier"],
    group_name="models",
    kinds={"mlflow", "hdfs"},
    owners=OWNERS,
    partitions_def=DATASETS,
    output_required=False,
    description="The best candidate by validation macro-F1, as calibrated, registered in MLflow with its card. It gets "
    "the alias champion only if it beats the majority baseline and, on the validation tracks that neither was trained "
    "on, the present champion; else it is the challenger. Its native Spark directory is published to HDFS. Without a "
    "champion nothing is materialized, and what follows is skipped.",
    check_specs=[
        check_spec(
            "champion_model",
            "promotion",
            "The new version became the champion: better macro-F1 in nine of ten resamples, no genre much worse, as "
            "well calibrated, the same genres. If not, the present champion goes on; if that cannot be used, what "
            "follows is blocked.",
            blocking=True,
        )
    ],
)
def champion_model(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> Iterator[dg.MaterializeResult | dg.AssetObservation | dg.AssetCheckResult]:
    """Compare, register, publish, and set the alias last."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    registry = mlflow.open()
    parent = registry.latest_training(dataset.dataset)
    calibrated = registry.calibrated_run(parent)
    classifier = calibrated.data.tags["candidate"]
    split = split_of_training(parent, tables).table
    present = registry.find_champion(dataset.dataset)
    version = registry.register(dataset.dataset, run=calibrated)
    title = f"{registry.name_for(dataset.dataset)} version {version}"
    path, digest = publish(calibrated, version, tables)
    metrics = calibrated.data.metrics
    facts = ModelFacts(
        spark_model_path=path,
        spark_model_digest=digest,
        spark_model_uri=tables.lake.uri(path),
        classifier=classifier,
        feature_version=calibrated.data.tags["feature_version"],
        is_calibrated=bool(calibrated.data.tags["calibration"]) or calibrated.data.tags["gives_probability"] == "true",
        calibration=calibrated.data.tags["calibration"],
        certain_from=float(calibrated.data.tags["certain_from"]),
        fingerprint=calibrated.data.tags["dataset_fingerprint"],
        valid_macro_f1=metrics["valid_macro_f1"],
        valid_tracks=int(metrics["valid_rows"]),
        test_macro_f1=metrics["test_macro_f1"],
        test_accuracy=metrics["test_accuracy"],
        test_tracks=int(metrics["test_rows"]),
        split_path=keep_split(tables, split, version),
        data=provenance(dataset),
        dagster_run_id=context.run_id,
    )
    model = RegisteredModel(
        **facts.model_dump(), name=registry.name_for(dataset.dataset), version=version, run_id=calibrated.info.run_id
    )
    judged = _judged(model, facts.split_path, dataset, tables, spark_connect.spark_session)
    rival, no_rival = _rival(present, facts.split_path, dataset, tables, spark_connect)
    comparison: Comparison | None = None
    if present is not None and rival is not None:
        comparison, baseline, lacking = _compared(model, judged, present, rival, split, tables)
        no_rival = no_rival or lacking
    verdict = judge(
        valid_macro_f1=comparison.macro_f1 if comparison else metrics["valid_macro_f1"],
        baseline=baseline if comparison else parent.data.metrics["baseline_valid_macro_f1"],
        comparison=comparison,
        tracks=int(metrics["valid_rows"]),
        no_rival=no_rival,
    )
    context.log.info(f"{classifier}: {verdict.reason}")
    valid = judged.rows[judged.rows["part"] == "valid"]
    facts = facts.model_copy(
        update={
            "why": verdict.reason,
            "valid_ece": calibration_error(list(valid["genre"]), answers_of(valid, judged.genres)),
        }
    )
    card = model_card(
        title=title,
        facts=facts,
        dataset=dataset,
        feature_set=feature_set_of(facts.feature_version),
        split=split,
        judged=judged.rows,
        genres=judged.genres,
        verdict=verdict,
        metrics=metrics,
    )
    registry.describe_version(dataset.dataset, version, facts, card=cut(card, LONGEST_DESCRIPTION))
    registry.log_text(calibrated, card, "model_card.md")
    # The alias comes last: whoever resolves it finds a version that is complete.
    if verdict.is_champion:
        champions = Champions(registry, tables.lake, database, dataset.dataset)
        champions.set_by_training(version, why=verdict.reason, run_id=context.run_id)
    else:
        registry.set_alias(dataset.dataset, "challenger", version)
    metadata: dict[str, Any] = {
        "data": provenance(dataset),
        "registered": title,
        "alias": "champion" if verdict.is_champion else "challenger",
        "why": verdict.reason,
        "classifier": classifier,
        "calibration": facts.calibration or "too few training tracks to calibrate it",
        "valid_macro_f1": metrics["valid_macro_f1"],
        "test_macro_f1": metrics["test_macro_f1"],
        "test_accuracy": metrics["test_accuracy"],
        "spark_model_uri": facts.spark_model_uri,
        "mlflow_run": dg.MetadataValue.url(mlflow.run_url(calibrated)),
        "model_card": dg.MetadataValue.md(card),
    }
    if verdict.is_champion or present is not None:
        champion = registry.champion(dataset.dataset)
        yield dg.MaterializeResult(
            metadata={**metadata, "champion_version": champion.version},
            data_version=dg.DataVersion(f"{champion.name}-{champion.version}"),
        )
    else:
        context.log.warning(f"no champion: {verdict.reason}")
        yield dg.AssetObservation(asset_key=context.asset_key, partition=context.partition_key, metadata=metadata)
    serves = present is None or rival is not None
    yield _promotion(verdict, comparison, dataset=dataset.dataset, present_serves=serves)


def _promotion(
    verdict: Verdict, comparison: Comparison | None, *, dataset: str, present_serves: bool
) -> dg.AssetCheckResult:
    """Return the check's result; what follows is blocked only where the alias is left at a version that cannot serve.

    A champion that goes on is no reason to leave a dataset's new tracks without predictions, and without any champion
    there is nothing to block.
    """
    lines = ["| condition | met | expected | found |", "|---|---|---|---|"]
    for condition in verdict.conditions:
        found = "it is" if condition.passed and condition.name in {"baseline", "macro_f1"} else condition.actual
        lines.append(f"| {condition.name} | {'yes' if condition.passed else 'no'} | {condition.expected} | {found} |")
    figures: dict[str, Any] = {}
    if comparison is not None:
        figures = {
            "tracks": comparison.tracks,
            "macro_f1": comparison.macro_f1,
            "champion_macro_f1": comparison.champion_macro_f1,
            "better_share": comparison.better_share,
            "calibration_error": comparison.ece,
            "champion_calibration_error": comparison.champion_ece,
        }
    return dg.AssetCheckResult(
        check_name="promotion",
        passed=verdict.is_champion,
        severity=dg.AssetCheckSeverity.WARN if present_serves else dg.AssetCheckSeverity.ERROR,
        description=judged(dataset, verdict.reason),
        metadata={DATASET: dataset, "conditions": dg.MetadataValue.md("\n".join(lines)), **figures},
    )


def _judged(
    model: RegisteredModel, split_path: str, dataset: Dataset, tables: BatchTables, spark: "SparkSession"
) -> Judged:
    """Score the validation and test tracks of a split that the dataset has the model's features of."""
    from spark.labelled_features import labelled_features
    from spark.scoring import Scorer

    name = f"champion_model of {dataset.dataset}: version {model.version}"
    with named_jobs(spark, name), Scorer(model, trained_on=dataset, lake=tables.lake) as scorer:
        labelled = labelled_features(
            spark,
            feature_uris=[tables.lake.uri(path) for path in tables.feature_paths(model.feature_version)],
            split_uri=tables.lake.uri(split_path),
            columns=scorer.feature_set.columns,
        ).filter("part in ('valid', 'test')")
        scored = scorer.scored(labelled, keep=[*_KEY, "genre", "part"])
        columns = [*_KEY, "genre", "part", "probabilities"]
        rows = scored.select(*columns).toArrow().to_pandas()
        return Judged(scorer.genres, rows.sort_values(_KEY, ignore_index=True))


def _rival(
    present: RegisteredModel | None, split_path: str, dataset: Dataset, tables: BatchTables, spark: SparkResource
) -> tuple[Judged | None, str]:
    """Score the same tracks with the present champion; without one that can be used, say why there is no rival."""
    if present is None:
        return None, "there is no champion yet to compare with"
    named = f"the present champion, version {present.version}, is no rival"
    try:
        feature_set_of(present.feature_version)
    except GenresError as error:
        return None, f"{named}: {error}"
    if not tables.feature_paths(present.feature_version):
        return None, f"{named}: it reads features {present.feature_version}, which the dataset does not have"
    try:
        return _judged(present, split_path, dataset, tables, spark.spark_session), ""
    except UnusableModelError as error:
        return None, f"{named}: {error}"


def _compared(
    model: RegisteredModel,
    judged: Judged,
    present: RegisteredModel,
    rival: Judged,
    split: "pd.DataFrame",
    tables: BatchTables,
) -> tuple[Comparison, float, str]:
    """Compare both models on the validation tracks that neither was trained on.

    Returns
    -------
    Comparison
        Of no tracks, if nobody knows what the present champion was trained on.
    float
        Macro-F1 of the majority baseline on the same tracks.
    str
        Why there is no track, if it is not that both know all of them.
    """
    import numpy as np

    lacking = ""
    both = judged.rows.merge(rival.rows[[*_KEY, "probabilities"]], on=_KEY, suffixes=("", "_rival"))
    both = both[both["part"] == "valid"]
    train = split[split["part"] == "train"]
    known = training_tracks(present, tables)
    if known is None:
        both = both.iloc[:0]
        lacking = (
            f"version {present.version} was registered before training tracks were kept, and its split is no longer in "
            "the lake"
        )
    else:
        both = unseen(unseen(both, train), known)
    truth = list(both["genre"])
    comparison = compare(
        truth,
        answers_of(both, judged.genres),
        answers_of(both.assign(probabilities=both["probabilities_rival"]), rival.genres),
    )
    if not truth:
        return comparison, 0.0, lacking
    majority = str(train["genre"].value_counts().sort_index().idxmax())
    f1 = f1_by_genre(truth, [majority] * len(truth), sorted(set(truth)), np.ones((1, len(truth))))
    return comparison, float(f1.mean()), lacking


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

"""``batch_predictions``: the champion's prediction for each track, in the SQL table of that name."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.audio.feature_sets import every_column, every_windows_column
from genres.errors import GenresError
from genres.store import ledger, predictions, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.ledger import Dataset
from genres.store.model_facts import RegisteredModel
from genres_dagster.checks import check, check_label_set, check_spec
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.figures import figure_metadata, over_time_figure
from genres_dagster.outages import TRY_AGAIN, final_if_a_persons
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from spark.job_names import named_jobs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_FROM_FEATURES = [("audio_features", name) for name in every_column()]


@dg.asset(
    deps=["audio_features", "track_split", "champion_model"],
    group_name="predictions",
    kinds={"spark", "sql"},
    owners=OWNERS,
    partitions_def=DATASETS,
    retry_policy=TRY_AGAIN,
    description="A row for each track, its audio and champion version. The first write of a key wins: running twice "
    "changes nothing. Audio that was replaced gets another row; those of the audio before stay, and are stale.",
    metadata={
        "dagster/column_schema": column_schema(schemas.BATCH_PREDICTIONS),
        "dagster/column_lineage": column_lineage(
            {
                "track_id": [("audio_features", "track_id")],
                "sha256": [("audio_features", "sha256")],
                "genre": [("audio_features", "genre")],
                "feature_version": [("audio_features", "feature_version")],
                "part": [("track_split", "part")],
                **dict.fromkeys(
                    ("predicted_genre", "probability", "probabilities", "is_uncertain", "distance", "is_unlike"),
                    _FROM_FEATURES,
                ),
                "over_time": [("audio_features", name) for name in every_windows_column()],
            }
        ),
    },
    check_specs=[
        check_spec(
            "batch_predictions", "complete", "Every clip that the manifest accepts and that has features has a row."
        ),
        check_spec("batch_predictions", "label_set", "The model's genres are the dataset's; no other is predicted."),
        check_spec("batch_predictions", "stale", "No row of this version is of audio that is not the dataset's now."),
    ],
)
@final_if_a_persons
def batch_predictions(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_connect: SparkResource,
) -> dg.MaterializeResult:
    """Score the feature table with the champion and store what is new."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    champion = mlflow.open().champion(dataset.dataset)
    spark = spark_connect.spark_session
    with named_jobs(spark, f"batch_predictions of {dataset.dataset}"):
        rows, known_to_model = _scored(champion, dataset, tables, spark)
    stamp = {"run_id": context.run_id, "predicted_at": datetime.now(UTC)}
    rows = [{**row, **stamp} for row in rows]
    added = predictions.add_batch_predictions(database, rows)
    context.log.info(f"{added} rows added, {len(rows) - added} were there already")

    stored = predictions.batch_predictions(database, dataset.dataset, model_version=champion.version)
    # What should have rows is read without Spark and without the split, by which the scored rows came about.
    present = tables.features(champion.feature_version, columns=[])
    audio = dict(zip(present["track_id"], present["sha256"], strict=True))
    stored, stale, unknown = by_audio(stored, audio)
    test = [row for row in stored if row["part"] == "test"]
    one_a_genre = list({row["genre"]: row for row in reversed(test)}.values())[::-1]
    curves = over_time_figure(one_a_genre, name="track_id", title="test tracks, one a genre", data=provenance(dataset))
    certain = [row for row in test if row["is_uncertain"] is False]
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "dagster/row_count": len(stored),
            "rows_added": added,
            "rows_stale": len(stale),
            "rows_of_unknown_audio": len(unknown),
            "model": f"{champion.name} version {champion.version}",
            "test_accuracy": _accuracy(test),
            "test_accuracy_of_certain": _accuracy(certain),
            "test_certain_share": len(certain) / len(test) if test else None,
            "uncertain": sum(bool(row["is_uncertain"]) for row in stored),
            "unlike_anything_learnt": sum(bool(row["is_unlike"]) for row in stored),
            **({"over_time": figure_metadata(curves)} if curves else {}),
            "table": f"batch_predictions in {database.url.render_as_string(hide_password=True)}",
            "sample": dg.MetadataValue.md(_sample(stored)),
        },
        check_results=[
            check_complete(stored, audio, dataset=dataset.dataset),
            check_label_set(
                dataset=dataset.dataset,
                predicted={row["predicted_genre"] for row in stored},
                known_to_model=known_to_model,
                in_dataset=set(tables.accepted()["genre"]),
            ),
            check_stale(stale, dataset=dataset.dataset),
        ],
    )


def by_audio(
    stored: list[dict[str, Any]], audio: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Separate the rows of the dataset's present audio from those of audio that was replaced or taken out.

    Parameters
    ----------
    stored
        Stored predictions of one dataset and model version.
    audio
        The sha256 of each of its tracks now.

    Returns
    -------
    current, stale, unknown : list of dict
        Rows of the audio that is there, of other audio, and those that are older than the column.
    """
    current = [row for row in stored if row["sha256"] and audio.get(row["track_id"]) == row["sha256"]]
    stale = [row for row in stored if row["sha256"] and audio.get(row["track_id"]) != row["sha256"]]
    return current, stale, [row for row in stored if not row["sha256"]]


def check_complete(stored: list[dict[str, Any]], audio: Mapping[str, str], *, dataset: str) -> dg.AssetCheckResult:
    """Look for clips without a prediction, such as those that no split knows yet.

    Parameters
    ----------
    stored
        The rows of the dataset's present audio.
    audio
        The sha256 of each track that the manifest accepts and that has features.
    dataset
        The dataset's id.
    """
    lacking = sorted(audio.keys() - {row["track_id"] for row in stored})
    return check(
        "complete",
        not lacking,
        dataset=dataset,
        expected=f"a row for each of the {len(audio)} accepted clips that have features",
        actual=f"{len(lacking)} have none",
        tracks=dg.MetadataValue.json(lacking[:50]),
    )


def check_stale(stale: list[dict[str, Any]], *, dataset: str) -> dg.AssetCheckResult:
    """Warn of predictions for audio that is not the dataset's any more."""
    return check(
        "stale",
        not stale,
        dataset=dataset,
        expected="every row is of audio that the dataset holds",
        actual=f"{len(stale)} rows are of audio that was replaced or taken out since",
        warn=True,
        tracks=dg.MetadataValue.json(sorted(row["track_id"] for row in stale)[:50]),
    )


def _scored(
    champion: RegisteredModel, dataset: Dataset, tables: BatchTables, spark: "SparkSession"
) -> tuple[list[dict[str, Any]], list[str]]:
    """Score the labelled features; return the rows, and the genres that the model tells apart."""
    from spark.labelled_features import labelled_features
    from spark.over_time import with_windows
    from spark.scoring import Scorer

    with Scorer(champion, trained_on=dataset, lake=tables.lake) as scorer:
        paths = tables.feature_paths(champion.feature_version)
        if not paths:
            raise GenresError(
                f"{champion.name} version {champion.version} reads features {champion.feature_version}, which dataset "
                f"'{dataset.dataset}' does not have: materialize audio_features, genre_classifiers and champion_model"
            )
        features = labelled_features(
            spark,
            feature_uris=[tables.lake.uri(path) for path in paths],
            split_uri=tables.lake.uri(tables.split_path()),
            columns=scorer.feature_set.columns,
            windows=scorer.feature_set.windows_columns,
        )
        keep = ["track_id", "sha256", "genre", "part"]
        return scorer.rows(with_windows(features, scorer.feature_set, keep=keep), keep=keep), scorer.genres


def _accuracy(rows: list[dict[str, Any]]) -> float | None:
    return sum(row["genre"] == row["predicted_genre"] for row in rows) / len(rows) if rows else None


def _sample(stored: list[dict[str, Any]]) -> str:
    import pandas as pd

    shown = pd.DataFrame(
        stored, columns=["track_id", "part", "genre", "predicted_genre", "probability", "is_uncertain"]
    )
    return shown.head(10).to_markdown(index=False, floatfmt=".3f")

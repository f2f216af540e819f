"""The work on one offset range, without Dagster: features to HDFS, the champion's predictions, one commit.

The features of a range lie on HDFS as one Parquet folder that says everything about the range: a row for each
offset, with the features or with the reason why the clip was refused. Predicting reads only that folder, so that
stored features can be scored again by a later champion.
"""

import time
from datetime import UTC
from typing import Any, NamedTuple

from genres.errors import GenresError
from genres.settings import Settings
from spark.feature_sets import DEFAULT_FEATURE_SET
from store import stream_ledger
from store.database import Database
from store.lake import Lake
from store.model_registry import RegisteredModel
from store.stream_ledger import CommitResult, QuarantinedClip, RangeCheck
from store.stream_ranges import PartitionKey
from streaming_sensors.kafka_clips import KafkaClips

_OFFSETS_PER_TASK = 4
_STREAM = "stream"
"""The lake's folder for what comes from the topic; no dataset can have this id."""
_KEPT_COLUMNS = ["kafka_offset", "sha256", "file_name", "genre", "created_at"]
_READ_SCHEMA = (
    "kafka_offset long, sha256 string, file_name string, genre string, created_at timestamp, "
    + "".join(f"{column} double, " for column in DEFAULT_FEATURE_SET.columns)
    + "reason string"
)
"""What predicting reads of a range's features. Left to itself Spark runs a job on every batch to find it out."""


class StoredFeatures(NamedTuple):
    """A range's features on HDFS."""

    path: str
    clips: int
    refused: int
    seconds: float


class Scorer:
    """A champion, loaded once for a run, so that no batch mixes two versions.

    Parameters
    ----------
    champion
        The version that the alias pointed at when the run began.
    is_synthetic
        Whether it was trained on synthetic sound.
    dataset
        The dataset that it was trained on.

    Raises
    ------
    GenresError
        If the champion reads other features than this code computes.
    """

    def __init__(self, champion: RegisteredModel, *, dataset: str, is_synthetic: bool, lake: Lake) -> None:
        from spark.scoring import load_model, model_genres

        if champion.feature_version != DEFAULT_FEATURE_SET.feature_version:
            raise GenresError(
                f"{champion.name} version {champion.version} reads features {champion.feature_version}, the stream "
                f"has {DEFAULT_FEATURE_SET.feature_version}: materialize genre_classifiers and champion_model"
            )
        self.champion = champion
        self.dataset = dataset
        self.is_synthetic = is_synthetic
        self._model = load_model(lake.uri(champion.spark_model_path))
        self.genres = model_genres(self._model)

    def score(self, features: Any, keep: list[str]) -> list[Any]:
        """Score a DataFrame of features; give its rows."""
        from spark.scoring import score

        return score(self._model, features, keep=keep).collect()

    def close(self) -> None:
        """Let go of the model: held over a Connect session, it keeps the process from ending."""
        del self._model


def store_features(key: PartitionKey, *, spark: Any, lake: Lake, settings: Settings) -> StoredFeatures:
    """Compute the features of a range's clips in Spark and commit them to HDFS with one rename.

    Returns
    -------
    StoredFeatures
        Where they lie; nobody reads them before the path stands in the ledger.
    """
    import pandas as pd

    from spark.extraction import extract_features

    started = time.monotonic()
    rows = pd.DataFrame(
        [
            (key.topic, key.kafka_partition, start, min(start + _OFFSETS_PER_TASK, key.end_offset))
            for start in range(key.start_offset, key.end_offset, _OFFSETS_PER_TASK)
        ],
        columns=["topic", "kafka_partition", "start_offset", "end_offset"],
    )
    extracted = extract_features(
        spark.createDataFrame(rows),
        source=KafkaClips.of(settings),
        feature_set=DEFAULT_FEATURE_SET,
        max_clip_s=settings.max_clip_s,
        tasks=len(rows),
    )
    version = DEFAULT_FEATURE_SET.feature_version
    folder = lake.path(_STREAM, "features", version, key.topic, key.topic_id, str(key.kafka_partition))
    attempt = lake.attempt_path(folder)
    extracted.write.parquet(lake.uri(attempt))
    written = lake.read_table([attempt], columns=["kafka_offset", "reason"])
    if sorted(written["kafka_offset"].to_pylist()) != list(range(key.start_offset, key.end_offset)):
        raise RuntimeError(f"{key}: {len(key)} offsets gave {len(written)} rows")
    path = f"{folder}/{key.start_offset}-{key.end_offset}-{attempt.rsplit('/', 1)[-1]}"
    lake.files.rename(attempt, path)
    refused = len(written) - written["reason"].null_count
    return StoredFeatures(path, len(written), refused, time.monotonic() - started)


def predict_and_commit(
    key: PartitionKey,
    feature_path: str,
    scorer: Scorer,
    *,
    spark: Any,
    lake: Lake,
    database: Database,
    settings: Settings,
    run_id: str,
    token: int | None,
) -> CommitResult:
    """Score a range's stored features and commit predictions, refused clips and the range in one transaction.

    Parameters
    ----------
    token
        Fencing token of a draining run; None for a run that does exactly its range.

    Raises
    ------
    FencedError
        If the run has lost its lease; nothing is written.
    """
    from pyspark.sql import functions as sf

    stored = spark.read.schema(_READ_SCHEMA).parquet(lake.uri(feature_path))
    scored = scorer.score(stored.filter(sf.col("reason").isNull()), _KEPT_COLUMNS)
    refused = []
    if len(scored) < len(key):
        refused = stored.filter(sf.col("reason").isNotNull()).select(*_KEPT_COLUMNS, "reason").collect()
    champion = scorer.champion
    predictions = [
        {
            "sha256": row["sha256"],
            "model_version": champion.version,
            "model_name": champion.name,
            "file_name": row["file_name"],
            "genre": row["genre"],
            "predicted_genre": row["predicted_genre"],
            "probability": max(row["probabilities"]),
            "probabilities": dict(zip(scorer.genres, row["probabilities"], strict=True)),
            "is_calibrated": champion.is_calibrated,
            "is_synthetic": scorer.is_synthetic,
            "feature_version": champion.feature_version,
            "kafka_offset": row["kafka_offset"],
            "event_time": row["created_at"].replace(tzinfo=UTC),
            "dataset": scorer.dataset,
        }
        for row in scored
    ]
    quarantine = [
        QuarantinedClip(
            row["sha256"],
            row["file_name"],
            "stream",
            row["reason"],
            kafka_offset=row["kafka_offset"],
            kept_path=_keep(key, row["kafka_offset"], row["sha256"], lake, settings),
        )
        for row in refused
    ]
    strange = sorted({row["predicted_genre"] for row in predictions} - set(scorer.genres))
    return stream_ledger.commit_range(
        database,
        key,
        run_id=run_id,
        token=token,
        predictions=predictions,
        quarantine=quarantine,
        checks=[
            RangeCheck(
                "complete",
                len(predictions) + len(quarantine) == len(key),
                f"{len(key)} clips",
                f"{len(predictions)} predicted, {len(quarantine)} refused",
            ),
            RangeCheck("label_set", not strange, f"one of {len(scorer.genres)} genres", f"others: {strange or 'none'}"),
        ],
        feature_path=feature_path,
        feature_version=champion.feature_version,
        model_name=champion.name,
        model_version=champion.version,
    )


def quarantine_poison(key: PartitionKey, *, lake: Lake, database: Database, settings: Settings) -> None:
    """Give a single clip up that broke every attempt: keep its bytes, say so, and let the topic go on."""
    import hashlib

    clip = _message(key, key.start_offset, settings)
    sha256 = hashlib.sha256(clip.data).hexdigest()
    reason = stream_ledger.find_range(database, key).reason or "every attempt ended without a word"
    stream_ledger.quarantine_poison(
        database,
        key,
        [
            QuarantinedClip(
                sha256,
                clip.about["file_name"],
                "stream",
                f"broke every attempt: {reason}",
                kafka_offset=key.start_offset,
                kept_path=_keep(key, key.start_offset, sha256, lake, settings),
            )
        ],
    )


def _keep(key: PartitionKey, offset: int, sha256: str, lake: Lake, settings: Settings) -> str:
    """Keep a refused clip's bytes on HDFS under its hash; give the path."""
    path = lake.path(_STREAM, "quarantine", sha256)
    if not lake.files.exists(path):
        lake.put_clip(path, _message(key, offset, settings).data)
    return path


def _message(key: PartitionKey, offset: int, settings: Settings) -> Any:
    import pandas as pd

    row = {"topic": [key.topic], "kafka_partition": [key.kafka_partition]}
    row |= {"start_offset": [offset], "end_offset": [offset + 1]}
    return next(KafkaClips.of(settings).clips(pd.DataFrame(row)))

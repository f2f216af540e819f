"""The work on one offset range, without Dagster: features to HDFS, the champion's predictions, one commit.

The features of a range lie on HDFS as one Parquet file that says everything about the range: a row for each
offset, with the features or with the reason why the clip was refused. Predicting needs only that table, so that
stored features can be scored again by a later champion. A range's table is small (at most 128 rows at the defaults):
this process writes it and hands it to Spark, which saves the jobs of writing, checking and reading it there.
"""

import time
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

from genres.audio.feature_sets import DEFAULT_FEATURE_SET
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import stream_ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_facts import RegisteredModel
from genres.store.stream_ledger import CommitResult, QuarantinedClip, RangeCheck
from genres.store.stream_ranges import PartitionKey
from streaming_sensors.kafka_clips import KafkaClips
from streaming_sensors.topic import topic_state

if TYPE_CHECKING:
    import pyarrow as pa

_OFFSETS_PER_TASK = 8
_STREAM = "stream"
"""The lake's folder for what comes from the topic; no dataset can have this id."""


class StoredFeatures(NamedTuple):
    """A range's features on HDFS."""

    path: str
    table: "pa.Table"
    """A row for each offset: the source's columns, length, features, sha256, feature_version and reason."""
    seconds: float
    """What computing and storing them took."""


class Scorer:
    """A champion, loaded once for a run, so that no batch mixes two versions.

    Parameters
    ----------
    champion
        The version that the alias pointed at when the run began.
    trained_on
        The dataset of its clips.

    Raises
    ------
    GenresError
        If the champion reads other features than this code computes.
    """

    def __init__(self, champion: RegisteredModel, *, trained_on: Dataset, lake: Lake) -> None:
        from spark.scoring import load_model, model_genres

        if champion.feature_version != DEFAULT_FEATURE_SET.feature_version:
            raise GenresError(
                f"{champion.name} version {champion.version} reads features {champion.feature_version}, the stream "
                f"has {DEFAULT_FEATURE_SET.feature_version}: materialize genre_classifiers and champion_model"
            )
        self.champion = champion
        self.trained_on = trained_on
        self._model = load_model(lake.uri(champion.spark_model_path))
        self.genres = model_genres(self._model)

    def score(self, features: Any) -> dict[int, Any]:
        """Score a DataFrame of features; give a row for each ``kafka_offset``."""
        from spark.scoring import score

        return {row["kafka_offset"]: row for row in score(self._model, features, keep=["kafka_offset"]).collect()}

    def close(self) -> None:
        """Let go of the model: held over a Connect session, it keeps the process from ending."""
        del self._model


def store_features(key: PartitionKey, *, spark: Any, lake: Lake, settings: Settings) -> StoredFeatures:
    """Compute the features of a range's clips in Spark and commit them to HDFS with one rename.

    Returns
    -------
    StoredFeatures
        Where they lie; nobody reads them before the path stands in the ledger.

    Raises
    ------
    GenresError
        If the topic was recreated since the range was planned: its offsets mean other clips now.
    """
    import pandas as pd

    from spark.extraction import extract_features

    started = time.monotonic()
    # Two clips are done at the same time, a few on two cores.
    step = min(_OFFSETS_PER_TASK, -(-len(key) // 2))
    rows = pd.DataFrame(
        [
            (key.topic, key.kafka_partition, start, min(start + step, key.end_offset))
            for start in range(key.start_offset, key.end_offset, step)
        ],
        columns=["topic", "kafka_partition", "start_offset", "end_offset"],
    )
    table = extract_features(
        spark.createDataFrame(rows),
        source=KafkaClips.of(settings),
        feature_set=DEFAULT_FEATURE_SET,
        max_clip_s=settings.max_clip_s,
        tasks=len(rows),
    ).toArrow()
    if sorted(table["kafka_offset"].to_pylist()) != list(range(key.start_offset, key.end_offset)):
        raise RuntimeError(f"{key}: {len(key)} offsets gave {len(table)} rows")
    if (topic_id := topic_state(settings).topic_id) != key.topic_id:
        raise GenresError(f"topic '{key.topic}' was recreated (its id is {topic_id} now): the clips of {key} are lost")
    version = DEFAULT_FEATURE_SET.feature_version
    folder = lake.path(_STREAM, "features", version, key.topic, key.topic_id, str(key.kafka_partition))
    path = lake.write_table(table, folder, name=f"{key.start_offset}-{key.end_offset}")
    return StoredFeatures(path, table, time.monotonic() - started)


def read_features(path: str, *, lake: Lake) -> StoredFeatures:
    """Read the features that an earlier run stored."""
    return StoredFeatures(path, lake.read_table([path]), 0.0)


def predict_and_commit(
    key: PartitionKey,
    features: StoredFeatures,
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
    clips = features.table.sort_by("kafka_offset")
    is_good = clips["reason"].is_null()
    good = clips.filter(is_good)
    scores = {}
    if len(good):
        scores = scorer.score(spark.createDataFrame(good.select(["kafka_offset", *DEFAULT_FEATURE_SET.columns])))
    about = ["kafka_offset", "sha256", "file_name", "genre", "created_at", "reason"]
    champion = scorer.champion
    predictions = []
    quarantine = []
    for clip in clips.select(about).to_pylist():
        if clip["reason"] is not None:
            quarantine.append(
                QuarantinedClip(
                    clip["sha256"],
                    clip["file_name"],
                    "stream",
                    clip["reason"],
                    kafka_offset=clip["kafka_offset"],
                    kept_path=_keep(key, clip["kafka_offset"], clip["sha256"], lake, settings),
                )
            )
            continue
        score = scores[clip["kafka_offset"]]
        predictions.append(
            {
                "sha256": clip["sha256"],
                "model_version": champion.version,
                "model_name": champion.name,
                "file_name": clip["file_name"],
                "genre": clip["genre"],
                "predicted_genre": score["predicted_genre"],
                "probability": max(score["probabilities"]),
                "probabilities": dict(zip(scorer.genres, score["probabilities"], strict=True)),
                "is_calibrated": champion.is_calibrated,
                "is_synthetic": scorer.trained_on.is_synthetic,
                "feature_version": champion.feature_version,
                "kafka_offset": clip["kafka_offset"],
                "event_time": clip["created_at"].astimezone(UTC),
                "dataset": scorer.trained_on.dataset,
            }
        )
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
        feature_path=features.path,
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
    row = {"topic": key.topic, "kafka_partition": key.kafka_partition, "start_offset": offset, "end_offset": offset + 1}
    return next(KafkaClips.of(settings).clips([row]))

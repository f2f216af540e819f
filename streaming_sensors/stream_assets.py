"""``audio_clips``, ``stream_features`` and ``stream_predictions``, as Dagster sees them."""

import contextlib
from collections.abc import Iterator

import dagster as dg

from genres.audio.feature_sets import DEFAULT_FEATURE_SET
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import PartitionKey
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.partitions import OWNERS
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from streaming_sensors import range_work
from streaming_sensors.names import ATTEMPT_TAG, DRAIN_TAG, FEATURES, OFFSET_RANGES, POISON_TAG, PREDICTIONS
from streaming_sensors.stream_run import StreamRun

_CLIP_COLUMNS = {
    "sha256": ("string", "Of the clip's bytes."),
    "file_name": ("string", "As the producer found it; data, never a path."),
    "genre": ("string", "The true genre, where the folder named one."),
    "kafka_partition": ("int", "Partition of the topic."),
    "kafka_offset": ("bigint", "Offset in it."),
}
_FEATURE_COLUMNS = {
    **_CLIP_COLUMNS,
    "created_at": ("timestamp", "When the clip came into the watched folder, UTC."),
    "length": ("bigint", "Samples at 22,050 Hz; empty for a refused clip."),
    **dict.fromkeys(DEFAULT_FEATURE_SET.columns, ("double", "As in audio_features.")),
    "feature_version": ("string", "Feature set, its version and the library it relies on."),
    "reason": ("string", "Why the clip was refused; empty for a good one."),
}
_PREDICTION_COLUMNS = {
    **_CLIP_COLUMNS,
    "model_version": ("int", "Version in the model registry; with sha256 the key."),
    "predicted_genre": ("string", "The champion's answer."),
    "probability": ("double", "Of the predicted genre."),
    "probabilities": ("json", "Of each genre."),
    "event_time": ("timestamp", "When the clip came into the watched folder, UTC."),
    "predicted_at": ("timestamp", "When the row was committed, UTC."),
    "latency_s": ("double", "Seconds between the two."),
}

audio_clips = dg.AssetSpec(
    "audio_clips",
    group_name="streaming",
    kinds={"kafka"},
    owners=OWNERS,
    description="The Kafka topic that the folder producer fills. Its lag is observed by the sensor.",
)


@dg.asset_check(asset=audio_clips.key, description="Retention and recreated topics took no clip that nobody had read.")
def nothing_lost(settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]) -> dg.AssetCheckResult:
    """Look for lost ranges in the ledger. The sensor reports a failure of this check as soon as it sees one."""
    lost = ranges.history(database, settings.topic, states={"lost"})
    return dg.AssetCheckResult(
        passed=not lost,
        metadata={
            "clips_lost": sum(len(found.key) for found in lost),
            "ranges": dg.MetadataValue.json({str(found.key): found.reason for found in lost[-100:]}),
        },
    )


@dg.multi_asset(
    name="stream_batch",
    can_subset=True,
    partitions_def=OFFSET_RANGES,
    specs=[
        dg.AssetSpec(
            FEATURES,
            deps=[audio_clips],
            skippable=True,
            group_name="streaming",
            kinds={"spark", "hdfs", "parquet"},
            owners=OWNERS,
            code_version=DEFAULT_FEATURE_SET.feature_version,
            description="Features of one offset range's clips, computed by the same kernel as audio_features.",
            metadata={"dagster/column_schema": column_schema(_FEATURE_COLUMNS, nullable=list(_FEATURE_COLUMNS))},
        ),
        dg.AssetSpec(
            PREDICTIONS,
            deps=[FEATURES, "champion_model"],
            skippable=True,
            group_name="streaming",
            kinds={"spark", "sql"},
            owners=OWNERS,
            description="The champion's prediction for each clip of the range; rows and the range's commit are one "
            "transaction, and the first write of a key wins.",
            metadata={
                "dagster/column_schema": column_schema(_PREDICTION_COLUMNS, nullable=["genre"]),
                "dagster/column_lineage": column_lineage(
                    {
                        **{name: [("stream_features", name)] for name in _CLIP_COLUMNS},
                        **{
                            name: [("stream_features", column) for column in DEFAULT_FEATURE_SET.columns]
                            for name in ("predicted_genre", "probability", "probabilities")
                        },
                    }
                ),
            },
        ),
    ],
)
def stream_batch(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    mlflow: MlflowResource,
    spark_stream: SparkResource,
) -> Iterator[dg.MaterializeResult]:
    """Work on the run's own range, then, if a sensor launched it, on what has arrived since."""
    database.check_migrated()
    tags = context.run.tags
    key = PartitionKey.parse(context.partition_key)
    opened = lake.open()
    if tags.get(POISON_TAG) == "true":
        range_work.quarantine_poison(key, lake=opened, database=database, settings=settings)
        context.log.error(f"{key} was given up as poison; see stream_quarantine")
        return
    run = StreamRun(context, settings, opened, database, mlflow, spark_stream)
    with run.lease(drains=tags.get(DRAIN_TAG) == "true"), contextlib.closing(run):
        attempt = int(tags.get(ATTEMPT_TAG, 0)) or None
        for output in run.work(key, context.selected_asset_keys, attempt):
            if output.key == key:
                version = dg.DataVersion(output.data_version)
                yield dg.MaterializeResult(asset_key=output.asset, metadata=output.metadata, data_version=version)
            else:
                context.log_event(
                    dg.AssetMaterialization(
                        output.asset,
                        metadata=output.metadata,
                        partition=str(output.key),
                        tags={"dagster/data_version": output.data_version},
                    )
                )

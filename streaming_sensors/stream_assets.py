"""The topic, ``stream_features`` and ``stream_predictions`` of a stream, as Dagster sees them."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from genres.audio.feature_sets import every_column, every_version, every_windows_column
from genres.settings import Settings
from genres.store import schemas
from genres.store.database import Database
from genres.store.stream_ledger.values import PartitionKey
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.partitions import OWNERS
from genres_dagster.resources import LakeResource, MlflowResource, SparkResource
from streaming_sensors.offset_plan import WHOLE_TOPIC, Shard
from streaming_sensors.run_tags import ATTEMPT_TAG, DRAIN_TAG, HOLDER_TAG, SHARD_TAG
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import Output, StreamRun

_FROM_THE_CLIP = ("sha256", "file_name", "genre", "kafka_partition", "kafka_offset")
"""Columns that predictions take over from the features as they are."""


_QUIET, _QUIET_FOR_LONG = timedelta(hours=6), timedelta(days=2)
"""How long a stream may go without a prediction before Dagster warns, and before it calls the predictions stale."""


def build_audio_clips(stream: Stream, settings: Settings) -> dg.AssetSpec:
    """Build the asset that stands for the stream's topic; its metadata say what chooses the champion."""
    scored_by = {what: str(value or "") for what, value in settings.scored_by(stream.settings).items()}
    return dg.AssetSpec(
        stream.clips,
        group_name=stream.group,
        kinds={"kafka"},
        owners=OWNERS,
        description=f"The Kafka topic {stream.topic}, which the folder producer fills. An observer measures its lag.",
        metadata={"scored_by": dg.MetadataValue.json(scored_by)},
    )


def build_stream_batch(stream: Stream) -> dg.AssetsDefinition:
    """Build the stream's features and predictions, a partition for each offset range."""
    features = dg.AssetSpec(
        stream.features,
        deps=[stream.clips],
        skippable=True,
        group_name=stream.group,
        kinds={"spark", "hdfs", "parquet"},
        owners=OWNERS,
        code_version=every_version(),
        description="Features of one offset range's clips, computed by the same kernel as audio_features.",
        metadata={
            "dagster/column_schema": column_schema(schemas.stream_features(every_column(), every_windows_column()))
        },
    )
    lineage = {
        **{name: [(stream.features, name)] for name in _FROM_THE_CLIP},
        **{
            name: [(stream.features, column) for column in every_column()]
            for name in ("predicted_genre", "probability", "probabilities")
        },
        "over_time": [(stream.features, column) for column in every_windows_column()],
    }
    predictions = dg.AssetSpec(
        stream.predictions,
        deps=[stream.features, "champion_model"],
        skippable=True,
        group_name=stream.group,
        kinds={"spark", "sql"},
        owners=OWNERS,
        description="The champion's prediction for each clip of the range; rows and the range's commit are one "
        "transaction, and the first write of a key wins.",
        # Evaluated by Dagster's daemon, also while nothing arrives. What waits unread shows in the lag.
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=_QUIET_FOR_LONG, warn_window=_QUIET),
        metadata={
            "dagster/column_schema": column_schema(schemas.STREAM_PREDICTIONS),
            "dagster/column_lineage": column_lineage(lineage),
        },
    )

    @dg.multi_asset(
        name=stream.named("stream_batch"),
        can_subset=True,
        partitions_def=stream.offset_ranges,
        # Scoring thousands of ranges again is one run, which loads the model once, not a process for each.
        backfill_policy=dg.BackfillPolicy.single_run(),
        specs=[features, predictions],
    )
    def stream_batch(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        lake: LakeResource,
        database: dg.ResourceParam[Database],
        mlflow: MlflowResource,
        spark_stream: SparkResource,
    ) -> Iterator[dg.MaterializeResult]:
        """Work on the run's own ranges, then, if a sensor launched it, on what has arrived since."""
        database.check_migrated()
        tags = context.run.tags
        keys = [PartitionKey.parse(key) for key in context.partition_keys]
        opened = lake.open()
        run = StreamRun(context, stream, settings, opened, database, mlflow, spark_stream)
        attempt = int(tags.get(ATTEMPT_TAG, 0)) or None
        shard = Shard.parse(tags[SHARD_TAG]) if SHARD_TAG in tags else WHOLE_TOPIC
        drains = shard if tags.get(DRAIN_TAG) == "true" else None
        with run.lease(drains=drains, holder=tags.get(HOLDER_TAG, "")), contextlib.closing(run):
            for key in keys:
                for output in run.work(key, context.selected_asset_keys, attempt):
                    if [output.key] == keys:
                        version = dg.DataVersion(output.data_version)
                        yield dg.MaterializeResult(
                            asset_key=output.asset, metadata=output.metadata, data_version=version
                        )
                    else:
                        context.log_event(_materialization(output))

    return stream_batch


def _materialization(output: Output) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        output.asset,
        metadata=output.metadata,
        partition=str(output.key),
        tags={"dagster/data_version": output.data_version},
    )

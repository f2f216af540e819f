"""``track_split``: which tracks models are trained on, chosen by and judged on."""

import dagster as dg

from genres.audio.feature_sets import feature_sets_named
from genres.datasets.split import EXCLUDED, split_tracks
from genres.store import ledger, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres_dagster.checks import check, check_spec
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource


@dg.asset(
    deps=["audio_features"],
    group_name="features",
    kinds={"python", "hdfs", "parquet"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="Train, validation and test part of each track: the fault-filtered split where the names are GTZAN's, "
    "otherwise stratified by genre. Identical audio never stands in two parts.",
    metadata={
        "dagster/column_schema": column_schema(schemas.TRACK_SPLIT),
        "dagster/column_lineage": column_lineage(
            {column.name: [("audio_features", column.name)] for column in schemas.TRACK}
        ),
    },
    check_specs=[
        check_spec("track_split", "no_leak", "No track and no sha256 is in two parts.", blocking=True),
    ],
)
def track_split(
    context: dg.AssetExecutionContext, lake: LakeResource, database: dg.ResourceParam[Database]
) -> dg.MaterializeResult:
    """Split the tracks that have features."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    feature_version = feature_sets_named(dataset.feature_sets).feature_version
    split = split_tracks(tables.features(feature_version, columns=[]))
    context.log.info(f"{split.method} split: {split.why}")
    commit = tables.publish_split(split.table, run_id=context.run_id)

    used = split.table[split.table["part"] != EXCLUDED]
    crossing = [key for key in ("track_id", "sha256") if (used.groupby(key)["part"].nunique() > 1).any()]
    by_genre = used.pivot_table(index="genre", columns="part", values="track_id", aggfunc="count")
    excluded = split.table[split.table["part"] == EXCLUDED]
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "dagster/row_count": len(split.table),
            "method": split.method,
            "why": split.why,
            "parts": dg.MetadataValue.md(by_genre[["train", "valid", "test"]].to_markdown()),
            "excluded": dg.MetadataValue.json(dict(zip(excluded["track_id"], excluded["reason"], strict=True))),
            "parquet": tables.lake.uri(commit.path),
            "fingerprint": commit.fingerprint,
        },
        check_results=[
            check(
                "no_leak",
                not crossing,
                expected="every track and every sha256 in one part",
                actual=f"crossing parts by: {', '.join(crossing) or 'nothing'}",
            )
        ],
        data_version=dg.DataVersion(commit.fingerprint),
    )

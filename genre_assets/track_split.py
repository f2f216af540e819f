"""``track_split``: which tracks models are trained on, chosen by and judged on."""

from typing import TYPE_CHECKING

import dagster as dg

from genres.audio.feature_sets import feature_sets_named
from genres.datasets.leaks import find_leaks
from genres.datasets.split import EXCLUDED, songs_of, split_tracks
from genres.store import ledger, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres_dagster.checks import check, check_spec
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource

if TYPE_CHECKING:
    import pandas as pd


@dg.asset(
    deps=["audio_features"],
    group_name="features",
    kinds={"python", "hdfs", "parquet"},
    owners=OWNERS,
    partitions_def=DATASETS,
    description="Train, validation and test part of each track: the fault-filtered split where the names are GTZAN's, "
    "otherwise by a hash of the audio, so that a track keeps its part when others come or go. Neither identical audio "
    "nor a song's parts stand in two parts.",
    metadata={
        "dagster/column_schema": column_schema(schemas.TRACK_SPLIT),
        "dagster/column_lineage": column_lineage(
            {column.name: [("audio_features", column.name)] for column in schemas.TRACK}
        ),
    },
    check_specs=[
        check_spec("track_split", "no_leak", "No track, no sha256 and no song is in two parts.", blocking=True),
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
        check_results=[check_no_leak(tables.split(), tables.accepted(), dataset=dataset.dataset)],
        data_version=dg.DataVersion(commit.fingerprint),
    )


def check_no_leak(published: "pd.DataFrame", accepted: "pd.DataFrame", *, dataset: str) -> dg.AssetCheckResult:
    """Look for tracks, audio and songs on two sides of the published split.

    Parameters
    ----------
    published
        The split as it is read back.
    accepted
        The manifest's accepted clips, whose hashes count: a split that goes by others is no split of this audio.
    dataset
        The dataset's id.
    """
    used = (
        published[published["part"] != EXCLUDED]
        .drop(columns="sha256")
        .merge(accepted[["track_id", "sha256"]], how="left")
    )
    faults = ["a track stands twice"] if used["track_id"].duplicated().any() else []
    faults += map(str, find_leaks(used.assign(digest=used["sha256"], song=used["track_id"].map(songs_of(published)))))
    unknown = int(used["sha256"].isna().sum())
    if unknown:
        faults.append(f"tracks that the manifest does not accept: {unknown}")
    return check(
        "no_leak",
        not faults,
        dataset=dataset,
        expected="every track once; every sha256 of the manifest and every song in one part",
        actual="; ".join(faults) or "so it is",
    )

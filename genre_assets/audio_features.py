"""``audio_features``: features computed in Spark, as Parquet on HDFS: a table a feature set, a row an accepted clip."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import every_column, every_version, every_windows_column, feature_sets_named
from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger, quarantine, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.hdfs_access import HdfsAccess
from genres_dagster.checks import check, check_spec
from genres_dagster.columns import column_lineage, column_schema
from genres_dagster.outages import TRY_AGAIN, final_if_a_persons
from genres_dagster.partitions import DATASETS, OWNERS, provenance
from genres_dagster.resources import LakeResource, SparkResource
from spark.job_names import named_jobs

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.connect.shell.progress import StageInfo

_CLIPS_PER_COMMIT = 256
"""A killed run loses at most the commit it was at; a commit costs about a second."""

_REFUSED = ("track_id", "sha256", "reason", "reason_code")
"""What extraction says of a clip that it refuses."""

_FROM_BYTES = [("raw_audio", "path"), ("raw_audio", "sha256")]


@dg.asset(
    deps=["raw_audio"],
    group_name="features",
    kinds={"spark", "hdfs", "parquet"},
    owners=OWNERS,
    partitions_def=DATASETS,
    retry_policy=TRY_AGAIN,
    code_version=every_version(),
    description="The features of the dataset's feature sets for each accepted clip, computed by the Python workers of "
    "Spark in one decode of a clip; each set is a table of its own. Computes only what has no features of a set's "
    "version yet.",
    metadata={
        "dagster/column_schema": column_schema(schemas.audio_features(every_column(), every_windows_column())),
        "dagster/column_lineage": column_lineage(
            {
                **{column.name: [("raw_audio", column.name)] for column in schemas.TRACK},
                **dict.fromkeys(("length", *every_column(), *every_windows_column()), _FROM_BYTES),
            }
        ),
    },
    check_specs=[
        check_spec("audio_features", "schema", "The table has exactly its columns.", blocking=True),
        check_spec("audio_features", "finite", "No feature is NaN or infinite.", blocking=True),
        check_spec("audio_features", "complete", "Every accepted clip has one row, or a reason.", blocking=True),
    ],
)
@final_if_a_persons
def audio_features(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
    spark_connect: SparkResource,
) -> dg.MaterializeResult:
    """Compute the features that are missing, commit them and check the whole table."""
    database.check_migrated()
    dataset = ledger.registered_dataset(database, context.partition_key)
    tables = BatchTables(lake.open(), database, dataset.dataset)
    feature_set = feature_sets_named(dataset.feature_sets)

    accepted = tables.accepted()
    refused: list[quarantine.RefusedClip] = []
    computed = 0
    for sets, missing in _missing(accepted, feature_set, tables):
        context.log.info(f"{len(missing)} of {len(accepted)} clips have no {sets.name} yet, which is computed now")
        computed += len(missing)
        for start in range(0, len(missing), _CLIPS_PER_COMMIT):
            clips = missing.iloc[start : start + _CLIPS_PER_COMMIT]
            spark = spark_connect.spark_session
            with named_jobs(spark, f"audio_features of {dataset.dataset}"):
                refused += compute_features(context, clips, tables, spark, sets, settings)
    quarantine.replace(database, dataset.dataset, "audio_features", refused, run_id=context.run_id)

    table = tables.features(feature_set.feature_version)
    if table.empty:
        raise GenresError(
            f"no clip of dataset '{dataset.dataset}' gave features "
            f"(the first: {refused[0].file_name}: {refused[0].reason})"
        )
    paths = tables.feature_paths(feature_set.feature_version)
    content = ledger.fingerprint(f"{row.track_id} {row.sha256}" for row in table.itertuples())
    return dg.MaterializeResult(
        metadata={
            "data": provenance(dataset),
            "dagster/column_schema": column_schema(
                schemas.audio_features(feature_set.columns, feature_set.windows_columns)
            ),
            "dagster/row_count": len(table),
            "clips_computed": computed - len(refused),
            "clips_quarantined": len(refused),
            "feature_version": feature_set.feature_version,
            "parquet": dg.MetadataValue.json([tables.lake.uri(path) for path in paths]),
            "fingerprint": content,
            "sample": dg.MetadataValue.md(table.iloc[:5, :9].to_markdown(index=False)),
        },
        check_results=list(_checks(table, accepted, refused, feature_set, dataset=dataset.dataset)),
        data_version=dg.DataVersion(content),
    )


def _missing(
    accepted: "pd.DataFrame", feature_set: AnyFeatureSet, tables: BatchTables
) -> "Iterator[tuple[AnyFeatureSet, pd.DataFrame]]":
    """Yield the clips that lack features, together with the sets that they lack: mostly all clips and all sets."""
    present = {part.name: tables.features(part.feature_version, columns=[])["track_id"] for part in feature_set.parts}
    lacking = {name: ~accepted["track_id"].isin(track_ids) for name, track_ids in present.items()}
    names = accepted["track_id"].map(lambda _: "")
    for name, lacks in lacking.items():
        names = names.where(~lacks, names + f",{name}")
    for group, clips in accepted.groupby(names, sort=True):
        if group:
            yield feature_sets_named(str(group).strip(",").split(",")), clips


def compute_features(
    context: dg.AssetExecutionContext,
    clips: "pd.DataFrame",
    tables: BatchTables,
    spark: "SparkSession",
    feature_set: AnyFeatureSet,
    settings: Settings,
) -> list[quarantine.RefusedClip]:
    """Compute the features of some clips in Spark and commit them as one part of each set's table.

    If a worker dies at a clip, the clips are computed again in parts to find out at which; see `spark.isolation`.

    Parameters
    ----------
    clips
        Rows of the manifest.

    Returns
    -------
    list of RefusedClip
        Clips that could not be decoded, gave no finite features or killed their worker.
    """
    from spark.isolation import is_workers_death

    names = dict(zip(clips["track_id"], clips["file_name"], strict=True))
    try:
        bad = _compute_part(context, clips, tables, spark, feature_set, settings)
    except Exception as error:
        if not is_workers_death(error):
            raise
        context.log.warning(f"a worker died or hung; its {len(clips)} clips are computed in parts to find out why")
        bad = _killers(clips, spark, feature_set, settings)
        rest = clips[~clips["track_id"].isin([clip["track_id"] for clip in bad])]
        if len(rest):
            bad += _compute_part(context, rest, tables, spark, feature_set, settings)
    return [quarantine.RefusedClip(file_name=names[clip["track_id"]], stage="audio_features", **clip) for clip in bad]


def _compute_part(
    context: dg.AssetExecutionContext,
    clips: "pd.DataFrame",
    tables: BatchTables,
    spark: "SparkSession",
    feature_set: AnyFeatureSet,
    settings: Settings,
) -> list[dict[str, str]]:
    """Compute clips in one job and commit them; return `_REFUSED` of those that were refused."""
    from pyspark.sql import functions as sf

    from spark.isolation import interrupted_when_stuck

    attempts = {}
    # Both the good and the bad rows are wanted; without this, every clip would be decoded twice.
    extracted = _extracted(clips, spark, feature_set, settings).persist()
    try:
        with _progress_logged(context, spark), interrupted_when_stuck(spark, limit_s=settings.range_limit_s):
            good = extracted.filter(sf.col("reason").isNull())
            for part in feature_set.parts:
                attempts[part] = tables.lake.attempt_path(tables.feature_folder(part.feature_version))
                length = sf.col(feature_set.length_columns[part.sample_rate]).alias("length")
                version = sf.lit(part.feature_version).alias("feature_version")
                rows = good.select("track_id", "genre", length, *part.columns, part.windows_column, "sha256", version)
                # One file a genre instead of one a task and genre.
                writer = rows.repartition("genre").write
                if all(map(_can_be_partition, clips["genre"].unique())):
                    writer = writer.partitionBy("genre")
                writer.parquet(tables.lake.uri(attempts[part]))
            bad = extracted.filter(sf.col("reason").isNotNull()).select(*_REFUSED).collect()
    finally:
        extracted.unpersist()

    for part, attempt in attempts.items() if len(bad) < len(clips) else ():
        written = tables.lake.read_table([attempt], columns=["sha256"])
        if len(written) + len(bad) != len(clips):
            raise RuntimeError(f"{len(clips)} clips gave {len(written)} rows and {len(bad)} refusals")
        path = f"{tables.feature_folder(part.feature_version)}/{attempt.rsplit('/', 1)[-1]}"
        tables.lake.files.rename(attempt, path)
        content = ledger.fingerprint(written["sha256"].to_pylist())
        commit = ledger.Commit(path, len(written), content, context.run_id)
        ledger.publish(tables.database, tables.dataset, "audio_features", commit)
    return [row.asDict() for row in bad]


def _killers(
    clips: "pd.DataFrame", spark: "SparkSession", feature_set: AnyFeatureSet, settings: Settings
) -> list[dict[str, str]]:
    """Find the clips that kill their worker alone; return `_REFUSED` of each."""
    from spark.isolation import check_engine, interrupted_when_stuck, isolated

    def compute(places: Sequence[int]) -> "pa.Table":
        part = clips.iloc[list(places)]
        with interrupted_when_stuck(spark, limit_s=settings.range_limit_s):
            return _extracted(part, spark, feature_set, settings).toArrow()

    found = isolated(
        range(len(clips)), compute=compute, check_engine=lambda seconds: check_engine(spark, feature_set, for_s=seconds)
    )
    refused = [(clips.iloc[places[0]], given) for places, given in found if isinstance(given, RejectedAudio)]
    return [{"track_id": clip["track_id"], "sha256": clip["sha256"], **given.columns} for clip, given in refused]


def _can_be_partition(genre: str) -> bool:
    """Return whether a genre can be a Hive partition's folder; else it stands in the files alone.

    A folder's name has 255 bytes on HDFS, and a byte may be spelt as three; and one name stands for no value at all.
    """
    return genre != "__HIVE_DEFAULT_PARTITION__" and len("genre=") + 3 * len(genre.encode()) <= 255


def _extracted(
    clips: "pd.DataFrame", spark: "SparkSession", feature_set: AnyFeatureSet, settings: Settings
) -> "DataFrame":
    from spark.clip_source import WebHdfsClips
    from spark.extraction import extract_features, spread, tasks_for

    return extract_features(
        spread(spark, clips[["track_id", "genre", "path", "sha256"]], tasks=tasks_for(len(clips))),
        source=WebHdfsClips(HdfsAccess.of(settings)),
        feature_set=feature_set,
        max_clip_s=settings.max_clip_s,
        clip_limit_s=settings.clip_limit_s,
    )


@contextmanager
def _progress_logged(context: dg.AssetExecutionContext, spark: "SparkSession") -> Iterator[None]:
    """Log the share of finished Spark tasks every tenth of the way."""
    logged = 0

    def report(stages: "Iterable[StageInfo] | None", inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        nonlocal logged
        stages = list(stages or ())
        total = sum(stage.num_tasks for stage in stages)
        finished = sum(stage.num_completed_tasks for stage in stages)
        tenths = 10 * finished // total if total else 0
        if tenths > logged:
            logged = tenths
            context.log.info(f"Spark: {finished} of {total} tasks done, {inflight_tasks} at work")

    spark.registerProgressHandler(report)  # type: ignore[arg-type]  # a function will do
    try:
        yield
    finally:
        spark.removeProgressHandler(report)  # type: ignore[arg-type]


def _checks(
    table: "pd.DataFrame",
    accepted: "pd.DataFrame",
    refused: list[quarantine.RefusedClip],
    feature_set: AnyFeatureSet,
    *,
    dataset: str,
) -> Iterator[dg.AssetCheckResult]:
    import numpy as np

    columns = schemas.audio_features(feature_set.columns).names
    surplus, lacking = sorted(set(table.columns) - set(columns)), sorted(set(columns) - set(table.columns))
    yield check(
        "schema",
        not surplus and not lacking,
        dataset=dataset,
        expected=f"{len(columns)} columns",
        actual=f"{table.shape[1]} columns, lacking {lacking}, surplus {surplus}",
    )
    finite = np.isfinite(table.reindex(columns=feature_set.columns).to_numpy(dtype=float))
    yield check(
        "finite",
        bool(finite.all()),
        dataset=dataset,
        expected="every value finite",
        actual=f"{int((~finite).sum())} of {finite.size} values are not",
        tracks=dg.MetadataValue.json(table.loc[~finite.all(axis=1), "track_id"].tolist()[:50]),
    )
    stored = table["track_id"]
    clips = zip(accepted["track_id"], accepted["sha256"], strict=True)
    bad = {(clip.track_id, clip.sha256) for clip in refused}
    wanted: set[str] = {track_id for track_id, sha256 in clips if (track_id, sha256) not in bad}
    lacking, surplus = sorted(wanted - set(stored)), sorted(set(stored) - wanted)
    yield check(
        "complete",
        not lacking and not surplus and stored.is_unique,
        dataset=dataset,
        expected=f"a row for each of {len(wanted)} clips (the manifest accepts {len(accepted)}, {len(refused)} of "
        "them were refused since)",
        actual=f"{len(stored)} rows; {len(lacking)} clips have none, {len(surplus)} rows are of no such clip, "
        f"{int(stored.duplicated().sum())} are second ones",
        lacking=dg.MetadataValue.json(lacking[:50]),
    )

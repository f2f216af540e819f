"""The work on one offset range, without Dagster: features to HDFS, the champion's predictions, one commit.

The features of a range lie on HDFS as one Parquet file that says everything about the range: a row for each
offset, with the features or with the reason why the clip was refused. Predicting needs only that table, so that
stored features can be scored again by a later champion. A range's table is small (two seconds' work, and at most 2,048
rows at the defaults): this process writes it and hands it to Spark, which saves the jobs of writing, checking and
reading it there.
"""

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any, NamedTuple

from genres.audio import gate
from genres.audio.feature_set import AnyFeatureSet
from genres.audio.rejections import RejectedAudio
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import stream_features
from genres.store.database import Database
from genres.store.lake import STREAM, Lake
from genres.store.stream_ledger import commits, sent_files
from genres.store.stream_ledger.commits import CommitResult, QuarantinedClip, RangeCheck, RangeResult
from genres.store.stream_ledger.values import PartitionKey, StreamRange
from spark.isolation import check_engine, interrupted_when_stuck, is_workers_death, isolated
from spark.job_names import named_jobs
from streaming_sensors.kafka_clips import KafkaClips
from streaming_sensors.run_tags import short_name
from streaming_sensors.topic import topic_state

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from genres.audio.clip_features import Clip
    from spark.scoring import Scorer

_OFFSETS_PER_TASK = 8
"""A task costs some 11 ms beside its clips (two shared cores), eight clips of 30 s some 250."""
_SCORED_BYTES = 16 * 2**20
"""Of features, as they are stored, that are scored in one job: what goes to Spark is twice as large and has to fit into
a message and, here as there, into memory. A range of the longest clips takes several jobs."""
_SCORED_ROWS_PER_TASK = 8192


class StoredFeatures(NamedTuple):
    """A range's features on HDFS."""

    path: str
    table: "pa.Table"
    """A row for each offset: the source's columns, length, features, sha256, feature_version, reason and its code."""
    seconds: float
    """What computing and storing them took."""


class RangeWork:
    """The steps of the work on a range, with what all of them need.

    Parameters
    ----------
    settings
        Addresses and limits.
    lake, database
        Where features and refused clips, and rows, are kept.
    """

    def __init__(self, settings: Settings, lake: Lake, database: Database) -> None:
        self._settings = settings
        self._lake = lake
        self._database = database

    def store_features(
        self,
        key: PartitionKey,
        feature_set: AnyFeatureSet,
        *,
        spark: "SparkSession",
        on_progress: Callable[[], None] = lambda: None,
    ) -> StoredFeatures:
        """Compute the features of a range's clips in Spark and commit them to HDFS with one rename.

        If a worker dies or runs out of time, the clips are computed again in parts; see `spark.isolation`.

        Parameters
        ----------
        on_progress
            Called whenever something was done.

        Returns
        -------
        StoredFeatures
            Where they lie; nobody reads them before the path stands in the ledger.

        Raises
        ------
        GenresError
            If the topic was recreated since the range was planned: its offsets mean other clips now.
        """
        started = time.monotonic()
        try:
            table = self._extract(key, feature_set, spark, on_progress=on_progress)
        except Exception as error:
            if not is_workers_death(error):
                raise
            table = self._isolated(key, feature_set, spark, on_progress)
        offsets = table["kafka_offset"].to_pylist()
        if len(set(offsets)) != len(offsets) or not set(offsets) <= set(range(key.start_offset, key.end_offset)):
            raise RuntimeError(f"{key}: its rows have offsets {sorted(offsets)[:20]} …")
        if (topic_id := topic_state(self._settings, key.topic).topic_id) != key.topic_id:
            raise GenresError(
                f"topic '{key.topic}' was recreated (its id is {topic_id} now): the clips of {key} are lost"
            )
        folder = stream_features.folder_of(self._lake, key, feature_set.feature_version)
        path = self._lake.write_table(table, folder, name=f"{key.start_offset}-{key.end_offset}")
        return StoredFeatures(path, table, time.monotonic() - started)

    def read_features(self, offset_range: StreamRange) -> StoredFeatures:
        """Read the features that an earlier run stored, which may lie in a file with those of other ranges by now."""
        if offset_range.feature_path is None:
            raise ValueError(f"{offset_range.key} has no features")
        table = stream_features.read(self._lake, [offset_range])
        return StoredFeatures(offset_range.feature_path, table, 0.0)

    def predict_and_commit(
        self,
        key: PartitionKey,
        features: StoredFeatures,
        scorer: "Scorer",
        *,
        spark: "SparkSession",
        run_id: str,
        token: int | None,
        shard: int = 0,
    ) -> CommitResult:
        """Score a range's stored features and commit predictions, refused clips and the range in one transaction.

        Parameters
        ----------
        token
            Fencing token of a draining run; None for a run that does exactly its range.
        shard
            The one that the token is of.

        Raises
        ------
        FencedError
            If the run has lost its lease; nothing is written.
        """
        clips = features.table.sort_by("kafka_offset")
        is_good = clips["reason"].is_null()
        predictions = self._predictions(key, clips.filter(is_good), scorer, spark)
        about = ["kafka_offset", "sha256", "file_name", "suffix", "genre", "reason", "reason_code"]
        refused = clips.filter(clips["reason"].is_valid()).select(about)
        quarantine = [
            QuarantinedClip(
                clip["sha256"],
                clip["file_name"],
                "stream",
                clip["reason"],
                clip["suffix"],
                judged_by(scorer.model.feature_version),
                genre=clip["genre"],
                kafka_offset=clip["kafka_offset"],
                kept_path=self._keep(key, clip["kafka_offset"], clip["sha256"]),
                reason_code=clip["reason_code"] or "",
            )
            for clip in refused.to_pylist()
        ]
        return commits.commit_range(
            self._database,
            RangeResult(
                key,
                run_id,
                predictions=predictions,
                quarantine=quarantine,
                checks=[self._complete(key, set(clips["sha256"].to_pylist()))],
                feature_path=features.path,
                feature_version=scorer.model.feature_version,
                model_name=scorer.model.name,
                model_version=scorer.model.version,
            ),
            token=token,
            shard=shard,
        )

    def _extract(
        self,
        key: PartitionKey,
        feature_set: AnyFeatureSet,
        spark: "SparkSession",
        *,
        on_progress: Callable[[], None] = lambda: None,
    ) -> "pa.Table":
        """Compute a range's features in one Spark job of many small tasks.

        Raises
        ------
        OutOfTimeError
            If no task ended for ``range_limit_s``; the job is interrupted.
        """
        import pandas as pd

        from spark.extraction import extract_features, parallelism, spread

        # A few clips are done at the same time on as many cores as there are.
        step = min(_OFFSETS_PER_TASK, -(-len(key) // parallelism(spark))) if len(key) > 1 else 1
        rows = pd.DataFrame(
            [
                (key.topic, key.kafka_partition, start, min(start + step, key.end_offset))
                for start in range(key.start_offset, key.end_offset, step)
            ],
            columns=["topic", "kafka_partition", "start_offset", "end_offset"],
        )
        with (
            named_jobs(spark, f"{short_name(key)} {key.topic}: features"),
            interrupted_when_stuck(spark, limit_s=self._settings.range_limit_s, on_progress=on_progress),
        ):
            return extract_features(
                spread(spark, rows, tasks=len(rows)),
                source=KafkaClips.of(self._settings),
                feature_set=feature_set,
                max_clip_s=self._settings.max_clip_s,
                clip_limit_s=self._settings.clip_limit_s,
            ).toArrow()

    def _isolated(
        self, key: PartitionKey, feature_set: AnyFeatureSet, spark: "SparkSession", on_progress: Callable[[], None]
    ) -> "pa.Table":
        """Compute a range's clips in parts, and refuse those that kill their worker alone."""
        import pyarrow as pa

        outcomes = isolated(
            range(key.start_offset, key.end_offset),
            compute=lambda part: self._extract(key.between(part[0], part[-1] + 1), feature_set, spark),
            check_engine=lambda seconds: check_engine(spark, feature_set, for_s=seconds),
            on_progress=on_progress,
        )
        return pa.concat_tables(
            self._refused(key.between(part[0], part[0] + 1), feature_set, given)
            if isinstance(given, RejectedAudio)
            else given
            for part, given in outcomes
        )

    def _refused(self, one: PartitionKey, feature_set: AnyFeatureSet, rejection: RejectedAudio) -> "pa.Table":
        """Return the row of a clip that is refused without its worker's verdict."""
        import pyarrow as pa

        from spark.extraction import feature_schema

        clip = self._message(one, one.start_offset)
        row = {
            **clip.about,
            "sha256": clip.sha256 or hashlib.sha256(clip.data).hexdigest(),
            "feature_version": feature_set.feature_version,
            **rejection.columns,
        }
        return pa.Table.from_pylist([row], schema=feature_schema(KafkaClips.of(self._settings), feature_set))

    def _predictions(
        self, key: PartitionKey, good: "pa.Table", scorer: "Scorer", spark: "SparkSession"
    ) -> list[dict[str, Any]]:
        """Return the rows of ``stream_predictions`` for the clips that have features, in their order.

        Raises
        ------
        OutOfTimeError
            If no task of a job ended for ``range_limit_s``; the job is interrupted.
        """
        from spark.over_time import window_rows

        if not len(good):
            return []
        scored: dict[int, dict[str, Any]] = {}
        clips_at_once = max(1, len(good) * _SCORED_BYTES // max(good.nbytes, _SCORED_BYTES))
        for begin in range(0, len(good), clips_at_once):
            some = good.slice(begin, clips_at_once)
            rows = window_rows(some, scorer.feature_set, keep=["kafka_offset"])
            # In a plan of local rows alone the optimiser evaluates the whole model itself, interpreting it row by row.
            frame = spark.createDataFrame(rows).coalesce(-(-len(rows) // _SCORED_ROWS_PER_TASK))
            with (
                named_jobs(spark, f"{short_name(key)} {key.topic}: scores"),
                interrupted_when_stuck(spark, limit_s=self._settings.range_limit_s),
            ):
                scored |= {row["kafka_offset"]: row for row in scorer.rows(frame, keep=["kafka_offset"])}
        about = good.select(["kafka_offset", "sha256", "file_name", "genre", "created_at"]).to_pylist()
        return [
            {"event_time": clip.pop("created_at").astimezone(UTC), **clip, **scored[clip["kafka_offset"]]}
            for clip in about
        ]

    def _complete(self, key: PartitionKey, hashes: Collection[str]) -> RangeCheck:
        """Compare a range's rows with the clips that the broker confirmed to the producers to lie there."""
        confirmed = sent_files.within(self._database, key)
        lacking = sorted({file.path for file in confirmed if file.sha256 not in hashes})
        return RangeCheck(
            "complete",
            not lacking,
            f"a row for each file that the broker confirmed there, {len(confirmed):,} in all",
            f"{len(lacking):,} {'has' if len(lacking) == 1 else 'have'} none{': ' if lacking else ''}"
            f"{', '.join(lacking[:5])}",
        )

    def _keep(self, key: PartitionKey, offset: int, sha256: str) -> str | None:
        """Keep a refused clip's bytes on HDFS under its hash; return the path, or None if that is not possible."""
        path = self._lake.path(STREAM, "quarantine", sha256)
        try:
            if not self._lake.files.exists(path):
                clip = self._message(key, offset)
                if hashlib.sha256(clip.data).hexdigest() != sha256:
                    return None  # the bytes that were promised are not there
                self._lake.put_clip(path, clip.data)
        except (GenresError, OSError, RuntimeError):
            # A full lake, or one that is away: the clip's row does not wait for its bytes.
            return None
        return path

    def _message(self, key: PartitionKey, offset: int) -> "Clip":
        one = key.between(offset, offset + 1)
        return next(KafkaClips.of(self._settings).clips([asdict(one)]))


def judged_by(feature_version: str) -> str:
    """Name the version that judges clips whose features have this version: the gate's has a part in it."""
    return f"{gate.VERSION}+{feature_version}"

"""A scorer for one clip at a time, whose query is prepared: what Spark makes of it once serves every clip after it.

A model's pipeline has some hundred columns and ten stages. To analyse that takes Spark several times as long as to
score a clip, and it does so for each new DataFrame; of one that is asked again, Connect keeps what it analysed. So the
DataFrame stays, and a worker reads its rows, at each query, from one file on HDFS, where the clip was written before.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genres.errors import GenresError
from genres.store.hdfs_access import HdfsAccess
from genres.store.lake import Lake
from spark.over_time import WINDOW
from spark.scoring import Scorer, clip_rows
from spark.session import INTERPRETED

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

    from genres.settings import Settings


class PreparedScorer:
    """Scores clips, one after the other, with a registered model, in one thread as `Scorer`.

    Parameters
    ----------
    scorer
        The model, loaded.
    spark
        The session that it was loaded into, which interprets its plans from now on.
    lake, settings
        Where the clips' features are handed over, for as long as it is open, and how workers get there.
    """

    def __init__(self, scorer: Scorer, *, spark: "SparkSession", lake: Lake, settings: "Settings") -> None:
        for name, value in INTERPRETED.items():
            spark.conf.set(name, value)
        self.scorer = scorer
        self._lake = lake
        self._path = lake.attempt_path("answers")
        rows = _Rows(HdfsAccess.of(settings), self._path)
        columns = ", ".join(f"`{name}` double" for name in scorer.feature_set.columns)
        frame = spark.range(0, 1, 1, 1).mapInArrow(rows, f"clip bigint, {WINDOW} int, {columns}")
        self._scored = scorer.scored(frame, keep=["clip", WINDOW])

    def score(self, clip: Mapping[Any, Any]) -> dict[str, Any]:
        """Predict the genre of a clip.

        Parameters
        ----------
        clip
            As `spark.scoring.score_clips` takes them.

        Returns
        -------
        dict
            What `Scorer.rows` has of it.

        Raises
        ------
        GenresError
            If HDFS does not take its features.
        """
        import pyarrow as pa

        table = clip_rows(self.scorer.feature_set, [clip])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        self._lake.files.pipe_file(self._path, sink.getvalue().to_pybytes())
        (row,) = self.scorer.answers(self._scored.collect(), keep=["clip"])
        del row["clip"]
        return row

    def close(self) -> None:
        """Drop the model and the file."""
        self.__dict__.pop("_scored", None)
        self.scorer.close()
        with suppress(GenresError, OSError):  # what stays there is swept as any attempt that was killed
            if self._lake.files.exists(self._path):
                self._lake.files.rm(self._path)


@dataclass(frozen=True)
class _Rows:
    """What a worker runs: the rows of a clip, read when they are asked for."""

    hdfs: HdfsAccess
    path: str

    def __call__(self, asked: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for _ in asked:
            with closing(self.hdfs.open()) as hdfs:
                data = hdfs.cat_file(self.path)
            with pa.ipc.open_stream(data) as stream:
                yield from stream

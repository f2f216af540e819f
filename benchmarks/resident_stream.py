"""The rival of the latency benchmark: one resident Structured Streaming job that does the same work.

A folder is its source; each trigger computes the features with the project's own kernel in Python workers, writes
them to HDFS as Parquet, scores them with the champion and writes the rows to a SQLite file of its own. It has no
partitions, runs, retries or lineage. ``benchmarks/latency.py`` starts it; each committed clip is a line of JSON.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pyspark.sql import SparkSession

from genres.audio.clip_features import Clip
from genres.audio.thread_pools import usable_cores
from genres.settings import PROJECT_DIR, Settings
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import registered_dataset
from genres.store.model_registry import ModelRegistry
from genres.store.schemas import Column
from local_stack.java import java_home
from local_stack.spark_server import connect_conf
from spark.extraction import extract_features
from spark.scoring import Scorer
from streaming_sensors.stream import Stream

FILE_COLUMNS = "path string, modificationTime timestamp, length long, content binary"


@dataclass(frozen=True)
class FileContents:
    """Clips whose bytes the source has read: rows of ``path, content``."""

    columns: tuple[Column, ...] = (Column("path", "string", "Of the file."),)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Take each row for a clip."""
        for row in rows:
            yield Clip({"path": row["path"]}, Path(row["path"]).suffix, row["content"])


def classic_session(settings: Settings) -> Any:
    """Open a session in a JVM of this process, with what the Connect server is configured with."""
    os.environ |= {
        "JAVA_HOME": str(java_home()),
        "HADOOP_USER_NAME": settings.hdfs_user,
        "PYTHONPATH": str(PROJECT_DIR),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    builder = SparkSession.builder
    for name, value in (connect_conf(settings) | {"spark.app.name": "resident stream", "spark.ui.port": "0"}).items():
        if not name.startswith("spark.connect."):
            builder = builder.config(name, value)
    return builder.getOrCreate()


def main(folder: str, checkpoints: str) -> None:
    """Run until the process is ended."""
    settings = Settings()
    database = Database(settings.database)
    dataset = registered_dataset(database, Stream(settings.streams[0]).dataset(settings, database))
    champion = ModelRegistry(settings.tracking_uri).champion(dataset.dataset)
    spark = classic_session(settings)
    lake = Lake.of(settings)
    scorer = Scorer(champion, trained_on=dataset, lake=lake)
    features_uri = lake.uri(lake.path("_tmp", "resident_stream", str(time.time_ns())))
    engine = sa.create_engine(f"sqlite:///{checkpoints}/rows.db")
    folder_uri, checkpoint_uri = Path(folder).as_uri(), (Path(checkpoints) / "checkpoint").as_uri()

    def commit(batch: Any, number: int) -> None:
        batch.persist()
        batch.write.mode("append").parquet(features_uri)
        rows = scorer.scored(batch.where("reason is null"), keep=["path", "sha256"]).toPandas()
        batch.unpersist()
        rows["probabilities"] = [json.dumps(list(row)) for row in rows["probabilities"]]
        rows.assign(batch=number).to_sql("stream_predictions", engine, if_exists="append", index=False)
        print(json.dumps({"sha256": list(rows["sha256"]), "committed": time.time()}), flush=True)

    files = (
        spark.readStream.format("binaryFile").schema(FILE_COLUMNS).option("pathGlobFilter", "*.wav").load(folder_uri)
    )
    features = extract_features(
        files.repartition(usable_cores()),
        source=FileContents(),
        feature_set=scorer.feature_set,
        max_clip_s=settings.max_clip_s,
    )
    query = features.writeStream.foreachBatch(commit).option("checkpointLocation", checkpoint_uri).start()
    print(json.dumps({"ready": True}), flush=True)
    query.awaitTermination()


if __name__ == "__main__":
    main(*sys.argv[1:])

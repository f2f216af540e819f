"""What a Structured Streaming job makes of the stub that ``benchmarks/scale.py`` gives the pipeline's drains.

Run it from the project's folder: ``python benchmarks/scale_structured.py [--cores 1 4 16] [--seconds 20]``. No stack
is needed. A job in a JVM of this process, with as many task slots as the stub has cores, reads a made-up source; its
Python workers sleep as long as a clip costs and return features of before; each micro-batch, of two seconds' work, is
then written to a SQLite file as the rows that the pipeline stores, first write of a key wins. Not in it, beside what
``scale.py`` leaves out too: ranges, leases, checks, runs and Dagster's records. Its batches do not overlap.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from scale import ANSWER, features_of_before

from genres.settings import Settings
from genres.store.database import Database
from genres.store.tables import STREAM_PREDICTIONS
from local_stack.java import java_home

BATCH_S = 2.0


def main() -> None:
    """Run each row and print it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cores", type=int, nargs="+", default=[1, 4, 16], help="cores of the stub")
    arguments.add_argument("--cost-ms", type=float, default=10.0, help="what a clip costs one of them")
    arguments.add_argument("--seconds", type=float, default=20.0, help="how long a row runs")
    wanted = arguments.parse_args()
    os.environ |= {"JAVA_HOME": str(java_home()), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    # In the environment of who uses Connect there would be no session of one's own.
    for name in ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED"):
        os.environ.pop(name, None)
    print("| stub cores | clips/s | of the stub's | clips a batch | batches |\n|--:|--:|--:|--:|--:|")
    for cores in wanted.cores:
        clips = round(cores * BATCH_S * 1000 / wanted.cost_ms)
        committed = run(cores, clips, wanted.cost_ms / 1000, wanted.seconds)
        late = committed[len(committed) // 2 - 1 :] if len(committed) > 3 else committed
        rate = clips * (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 else 0.0
        share = rate * wanted.cost_ms / 1000 / cores
        print(f"| {cores} | {rate:,.0f} | {share:.0%} | {clips:,} | {len(committed)} |", flush=True)


def run(cores: int, clips: int, cost_s: float, seconds: float) -> list[float]:
    """Run a job for a while; return when it committed each of its batches."""
    made = features_of_before(Settings()).slice(0, 1).drop_columns(["kafka_offset"]).to_pandas()
    made = made[[name for name in made.columns if made[name].dtype == "float64"]]
    names = list(made.columns)

    def extract(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            time.sleep(cost_s * len(batch))
            yield batch[["value"]].assign(**made.iloc[0].to_dict())

    builder = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    committed: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder, 'rows.db')}")
        database.migrate()

        def commit(frame: Any, number: int) -> None:
            now = datetime.now(UTC)
            where = {"topic": "t", "kafka_partition": 0, "partition_key": str(number), "run_id": "job"}
            times = {"event_time": now, "predicted_at": now, "latency_s": 0.0, "file_name": "clip.wav", "genre": None}
            rows = [
                {"sha256": f"{value:064x}", "kafka_offset": value, **where, **times, **ANSWER}
                for value in frame.toPandas()["value"].tolist()
            ]
            with database.writing() as connection:
                database.insert_new(connection, STREAM_PREDICTIONS, rows)
            committed.append(time.monotonic())

        source = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", clips)
        source = source.option("numPartitions", cores)
        schema = ", ".join(["value long", *(f"`{name}` double" for name in names)])
        frames = source.load().mapInPandas(extract, schema)
        checkpoint = Path(folder, "checkpoint").as_uri()
        query = frames.writeStream.foreachBatch(commit).option("checkpointLocation", checkpoint).start()
        query.awaitTermination(int(seconds) + 5)
        if error := query.exception():
            raise SystemExit(f"the job failed: {error}")
        query.stop()
        database.engine.dispose()
    spark.stop()
    return committed


if __name__ == "__main__":
    main()

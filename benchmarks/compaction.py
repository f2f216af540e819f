"""What merging the stream's small files costs, and what it does to reading: on HDFS, with the ledger on SQLite.

Run it from the project's folder: ``python benchmarks/compaction.py [--files 1000] [--clips 16]``. It starts a stack of
its own, writes as many files of features as ranges leave them, with windows, and merges them as ``maintenance`` does.
Prints the rate, the memory that it took, and what 50 ranges take to read before and after.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pyarrow as pa
from own_stack import own_stack
from scale import features_of_before, with_offsets

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import compaction, stream_features
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres.store.tables import STREAM_RANGES

TOPIC, TOPIC_ID, PARTITIONS = "bench", "id", 3
READ = 50
ROUNDS = 5
MIB = 2**20


def main() -> None:
    """Write, merge, read and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=1000)
    arguments.add_argument("--clips", type=int, default=16, help="of a range")
    wanted = arguments.parse_args()
    with own_stack() as settings:
        lake, database = Lake.of(settings), Database(settings.database)
        fill(settings, lake, database, wanted.files, wanted.clips)
        some = ranges.history(database, TOPIC, newest=READ)
        before = median_s(lambda: stream_features.read(lake, some))
        (files,) = compaction.small_files(database, before=datetime.now(UTC) + timedelta(days=1), most=10**6)
        memory_bytes = settings.compact_memory_mib * MIB
        with highest_mib() as highest:
            began = time.perf_counter()
            done = compaction.compact(lake, database, files, memory_bytes=memory_bytes)
            seconds = time.perf_counter() - began
        if done.files != wanted.files:
            raise SystemExit(f"not all were merged: {done}")
        some = ranges.history(database, TOPIC, newest=READ)
        after = median_s(lambda: stream_features.read(lake, some))
        one = median_s(lambda: stream_features.read(lake, some[:1]))
    print("| small files | into | MiB | files/s | MiB/s | memory added | 50 ranges read before | after | one of them |")
    print(f"|{'--:|' * 9}")
    size = done.bytes / MIB
    cells = (
        *(f"{done.files:,}", f"{done.into:,}", f"{size:.0f}", f"{done.files / seconds:.0f}", f"{size / seconds:.1f}"),
        *(f"{highest[-1] - highest[0]:.0f} MiB", f"{before:.2f} s", f"{after:.2f} s", f"{1000 * one:.0f} ms"),
    )
    print(f"| {' | '.join(cells)} |")


def fill(settings: Settings, lake: Lake, database: Database, count: int, clips: int) -> None:
    """Write a file for each range, and commit the ranges without their clips' rows."""
    made = features_of_before(settings).slice(0, clips)

    def store(number: int) -> tuple[PartitionKey, str]:
        start = number // PARTITIONS * clips
        key = PartitionKey(TOPIC, TOPIC_ID, number % PARTITIONS, start, start + clips)
        folder = stream_features.folder_of(lake, key, GTZAN57.feature_version)
        return key, lake.write_table(with_offsets(made, key), folder, name=f"{key.start_offset}-{key.end_offset}")

    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(store, range(count)))
    ranges.record_plan(database, Plan(new=tuple(Attempt(key) for key, _ in stored)))
    for key, path in stored:
        result = RangeResult(key, "run", feature_path=path, feature_version=GTZAN57.feature_version)
        commits.commit_range(database, result)
    with database.writing() as connection:
        connection.execute(STREAM_RANGES.update().values(clip_count=clips))


def median_s(part: Callable[[], Any]) -> float:
    """Return the median time of some calls, in seconds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        part()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


@contextmanager
def highest_mib() -> Any:
    """Yield a list that begins with this process's memory now, and ends with the highest of meanwhile."""
    process, done = psutil.Process(), threading.Event()
    pa.default_memory_pool().release_unused()
    now = process.memory_info().rss / MIB
    seen = [now, now]

    def sample() -> None:
        while not done.wait(0.02):
            seen[-1] = max(seen[-1], process.memory_info().rss / MIB)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield seen
    finally:
        done.set()
        sampler.join()


if __name__ == "__main__":
    main()

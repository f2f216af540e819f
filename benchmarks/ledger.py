"""What the stream's ledger costs as its history grows: a sensor's tick, and the commit of a range.

``python benchmarks/ledger.py [--ranges 1000 10000 100000 1000000] [--url postgresql+psycopg://…]``. No stack is needed:
the tables are filled with ranges of 16 clips as a stream would leave them, and the functions are the pipeline's own. By
default on SQLite in a temporary folder; a URL names an empty database, which is filled (one that has tables is
refused). Prints the median of some rounds in milliseconds, and as a multiple of the first line's.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from own_stack import require_empty

from genres.store.database import Database
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult, commit_range
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres.store.tables import STREAM_RANGES

TOPIC, TOPIC_ID, PARTITIONS, CLIPS = "bench", "id", 3, 16
ROUNDS = 7
AT_ONCE = 20_000
COMMITTED_CLIPS = (16, 128, 1024, 2048, 4096)
REFUSED_CLIPS = (16, 128, 1000)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Fill the ledger step by step and print a line for each size."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--ranges", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    arguments.add_argument("--url", default="", help="an empty database")
    wanted = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(wanted.url or f"sqlite:///{Path(folder, 'ledger.db')}")
        require_empty(database)
        database.migrate()
        print(f"### {database.engine.dialect.name}\n")
        print_ticks(database, sorted(wanted.ranges))
        print_commits(database, "clips of a range", COMMITTED_CLIPS, refused=False)
        print_commits(database, "refused clips of a range", REFUSED_CLIPS, refused=True)


def print_ticks(database: Database, sizes: list[int]) -> None:
    """Print what each part of a tick takes, at each size of the history."""
    first: dict[str, float] = {}
    filled = 0
    for size in sizes:
        fill(database, filled, size)
        filled = size
        took = {name: median_ms(part) for name, part in parts(database).items()}
        if not first:
            first = took
            print(f"| past ranges | {' | '.join(took)} |")
            print(f"|--:|{'--:|' * len(took)}")
        cells = [f"{value:.2f} ms ({value / first[name]:.1f})" for name, value in took.items()]
        print(f"| {size:,} | {' | '.join(cells)} |", flush=True)


def parts(database: Database) -> dict[str, Callable[[], object]]:
    """Return what a tick of the sensor, of the reconciler and of the checks asks the ledger."""
    partitions = [row["partition_key"] for row in ranges_between(0, 2_200)]
    return {
        "what is planned": lambda: ranges.known(database, TOPIC),
        "lag": lambda: ranges.progress(database, TOPIC, TOPIC_ID),
        "lost": lambda: ranges.history(database, TOPIC, states={"lost"}),
        "newest committed": lambda: ranges.history(database, TOPIC, states={"committed"}, newest=200),
        "partitions beyond 2,000": lambda: ranges.finished(database, partitions, most=200),
    }


def print_commits(database: Database, title: str, sizes: Sequence[int], *, refused: bool) -> None:
    """Print what it takes to plan a range and to commit its clips, by their number."""
    print(f"\n| {title} | plan and commit | a clip |\n|--:|--:|--:|")
    place = iter(range(10**9))
    for clips in sizes:
        took = []
        for _ in range(ROUNDS):
            start = 10**9 + next(place) * 10_000
            key = PartitionKey(f"{TOPIC}_{clips}_{start}", TOPIC_ID, 0, 0, clips)
            names = [f"{title} {start}-{number}" for number in range(clips)]
            rows = [prediction(name, number) for number, name in enumerate(names) if not refused]
            bad = [
                QuarantinedClip(name, "clip.wav", "stream", "not audio", ".wav", "gate") for name in names if refused
            ]
            began = time.perf_counter()
            ranges.record_plan(database, Plan(new=(Attempt(key, 1),)))
            done = commit_range(database, RangeResult(key, "run", predictions=rows, quarantine=bad))
            took.append(time.perf_counter() - began)
            if done.new_predictions + done.new_quarantine != clips:
                raise SystemExit(f"not all of {clips} clips were committed: {done}")
        middle = statistics.median(took)
        print(f"| {clips:,} | {1000 * middle:.1f} ms | {1000 * middle / clips:.3f} ms |", flush=True)


def fill(database: Database, first: int, end: int) -> None:
    """Add committed ranges, one after the other on each Kafka partition."""
    rows = ranges_between(first, end)
    with database.writing() as connection:
        while batch := [row for _, row in zip(range(AT_ONCE), rows, strict=False)]:
            connection.execute(sa.insert(STREAM_RANGES), batch)
    if database.engine.dialect.name == "postgresql":  # which does it by itself, after a while; SQLite does not
        with database.reading() as connection:
            connection.exec_driver_sql("ANALYZE")


def ranges_between(first: int, end: int) -> Iterator[dict[str, Any]]:
    """Yield rows of ``stream_ranges``."""
    for number in range(first, end):
        start = number // PARTITIONS * CLIPS
        key = PartitionKey(TOPIC, TOPIC_ID, number % PARTITIONS, start, start + CLIPS)
        at = BEGAN + timedelta(seconds=number)
        yield {
            **{name: getattr(key, name) for name in key.__dataclass_fields__},
            "partition_key": str(key),
            "state": "committed",
            "attempts": 1,
            "failures": 0,
            "run_id": f"run-{number // 12}",
            "planned_at": at,
            "heartbeat_at": at,
            "committed_at": at,
            "feature_path": f"/genres/stream/features/{number}.parquet",
            "feature_version": "librosa96-2",
            "model_name": "genres-bench",
            "model_version": 1,
            "clip_count": CLIPS,
            "predicted_count": CLIPS,
            "quarantined_count": 0,
            "duplicate_count": 0,
        }


def prediction(sha256: str, number: int) -> dict[str, Any]:
    """Return a row of ``stream_predictions`` without what a commit fills in."""
    return {
        "sha256": sha256,
        "model_name": "genres-bench",
        "model_version": 1,
        "dataset": "bench",
        "file_name": f"clip {number}.wav",
        "predicted_genre": "rock",
        "probability": 0.5,
        "probabilities": {f"genre {place}": 0.1 for place in range(10)},
        "is_calibrated": True,
        "is_synthetic": True,
        "feature_version": "librosa96-2",
        "kafka_offset": number,
        "event_time": BEGAN,
    }


def median_ms(part: Callable[[], object]) -> float:
    """Return the median time of some calls, in milliseconds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        part()
        took.append(time.perf_counter() - began)
        if took[-1] > 5:
            break
    return 1000 * statistics.median(took)


if __name__ == "__main__":
    main()

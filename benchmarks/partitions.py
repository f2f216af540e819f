"""What a streaming partition costs Dagster, by how many there are: adding, listing and pruning one.

``python benchmarks/partitions.py [--partitions 100 2000 10000 100000]``. No stack is needed: an instance of its own in
a temporary folder, on SQLite, is filled with keys as ranges have them. A range adds one partition and two
materializations; ``maintenance`` lists all of them and deletes, one by one, those beyond ``keep_partitions``. Prints
medians of some rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import dagster as dg

from genres.store.stream_ledger.values import PartitionKey

NAME = "offset_range"
ASSET = dg.AssetKey("stream_features")
ROUNDS = 15
AT_ONCE = 1000


def main() -> None:
    """Fill an instance step by step and print a line for each size."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--partitions", type=int, nargs="+", default=[100, 2_000, 10_000, 100_000])
    wanted = arguments.parse_args()
    print("| partitions | add one | record its materialization | list all | delete one | 1,800 added and pruned |")
    print(f"|{'--:|' * 6}")
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        there = 0
        for size in sorted(wanted.partitions):
            for begin in range(there, size, AT_ONCE):
                keys = [key(number) for number in range(begin, min(begin + AT_ONCE, size))]
                instance.add_dynamic_partitions(NAME, keys)
            there = size
            print_row(instance, size)


def print_row(instance: dg.DagsterInstance, size: int) -> None:
    """Time each operation and leave as many partitions as before."""
    new = [key(10**9 + size * 100 + number) for number in range(ROUNDS)]

    def record(partition: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=partition))

    added = median_s(lambda one: instance.add_dynamic_partitions(NAME, [one]), new)
    recorded = median_s(record, new)
    listed = median_s(lambda _: instance.get_dynamic_partitions(NAME), new)
    deleted = median_s(lambda one: instance.delete_dynamic_partition(NAME, one), new)
    hour = 1800 * (added + deleted) + listed
    cells = [f"{1000 * value:.1f} ms" for value in (added, recorded, listed, deleted)]
    print(f"| {size:,} | {' | '.join(cells)} | {hour:.0f} s |", flush=True)


def median_s(do: Callable[[str], object], keys: list[str]) -> float:
    """Return the median time of doing something with each key, in seconds."""
    took = []
    for one in keys:
        began = time.perf_counter()
        do(one)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def key(number: int) -> str:
    """Return the key of a range of a thousand clips."""
    return str(PartitionKey("audio_clips", "A" * 22, number % 3, 1000 * number, 1000 * number + 1000))


if __name__ == "__main__":
    main()

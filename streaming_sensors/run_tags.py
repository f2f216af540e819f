"""The tags by which sensors, launcher and streaming runs understand each other, and the one that people read."""

from genres.store.stream_ledger.values import PartitionKey

DRAIN_TAG = "genres/drain"
"""Only sensors set it: the run goes on with what has arrived since. Without it a run does exactly its range."""
SHARD_TAG = "genres/shard"
"""Whose Kafka partitions a draining run goes on with: an `offset_plan.Shard` as text; without it, all of them."""
HOLDER_TAG = "genres/holder"
"""Who holds the shard's lease for the run, a resident process that has it before and after the run."""
ATTEMPT_TAG = "genres/attempt"
"""Number of the attempt at the run's range, as the plan has it."""
LIMIT_TAG = "dagster/max_runtime"
"""Dagster's own: after so many seconds it takes a run that still counts as started for failed."""
RANGE_TAG = "genres/range"
"""For people: the range that the run begins with, by its `short_name`."""


def short_name(key: PartitionKey) -> str:
    """Return what people call a range where its topic is known, such as ``p2 offsets 3-4``.

    The last offset is one that the range holds; the partition key, which Dagster's event log, the ledger and other
    people's queries have, ends where the next range begins, and stays as long as it is.
    """
    return f"p{key.kafka_partition} offsets {key.start_offset}-{key.end_offset - 1}"

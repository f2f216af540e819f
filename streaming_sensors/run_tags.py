"""The tags by which sensors, launcher and streaming runs understand each other."""

DRAIN_TAG = "genres/drain"
"""Only sensors set it: the run goes on with what has arrived since. Without it a run does exactly its range."""
SHARD_TAG = "genres/shard"
"""Whose Kafka partitions a draining run goes on with: an `offset_plan.Shard` as text; without it, all of them."""
ATTEMPT_TAG = "genres/attempt"
"""Number of the attempt at the run's range, as the plan has it."""

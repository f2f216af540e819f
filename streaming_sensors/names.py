"""The names by which assets, sensors, launcher and streaming runs understand each other."""

import dagster as dg

FEATURES, PREDICTIONS = dg.AssetKey("stream_features"), dg.AssetKey("stream_predictions")

OFFSET_RANGES = dg.DynamicPartitionsDefinition(name="offset_range")
"""Partition keys ``<topic>:<topic id>:<Kafka partition>:<start>-<end>``: the same key always means the same clips."""

DRAIN_TAG = "genres/drain"
"""Only sensors set it: the run goes on with what has arrived since. Without it a run does exactly its range."""
ATTEMPT_TAG = "genres/attempt"
"""Number of the attempt at the run's range, as the plan has it."""
POISON_TAG = "genres/poison"
"""The run gives its single clip up instead of trying it again."""

NO_CHAMPION = "no champion model"
"""How the reason of a range begins that waits for a model."""

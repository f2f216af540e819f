"""What an offset range is, shared by the planner, which decides about ranges, and the ledger, which keeps them.

Values only: no SQL, no Kafka, no Dagster.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from genres.errors import GenresError

RangeState = Literal["planned", "committed", "split", "lost"]

_KEY = re.compile(
    r"(?P<topic>(?!.*\.\.\.)[A-Za-z0-9._-]{1,249}):(?P<topic_id>[A-Za-z0-9_-]{1,64}):"
    r"(?P<kafka_partition>0|[1-9][0-9]{0,9}):(?P<start_offset>0|[1-9][0-9]{0,18})-(?P<end_offset>[1-9][0-9]{0,18})"
)


@dataclass(frozen=True, order=True)
class PartitionKey:
    """The offsets ``start_offset <= o < end_offset`` of one Kafka partition, in one life of a topic.

    Its text, ``<topic>:<topic_id>:<kafka_partition>:<start>-<end>``, is the Dagster partition key. A topic that
    is deleted and made again has another `topic_id`, so the same key always means the same clips.

    Raises
    ------
    GenresError
        If the values don't make a key.
    """

    topic: str
    topic_id: str
    kafka_partition: int
    start_offset: int
    end_offset: int

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(str(self)) or self.start_offset >= self.end_offset:
            raise GenresError(
                f"'{self}' is no partition key of the stream: write <topic>:<topic id>:<Kafka partition>:<start>-<end> "
                "with start below end, as `audio_clips_sensor` does"
            )

    def __str__(self) -> str:
        return f"{self.topic}:{self.topic_id}:{self.kafka_partition}:{self.start_offset}-{self.end_offset}"

    def __len__(self) -> int:
        """How many offsets it holds."""
        return self.end_offset - self.start_offset

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a Dagster partition key.

        Raises
        ------
        GenresError
            If the text isn't exactly what a key is written as.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise GenresError(
                f"'{text}' is no partition key of the stream: write <topic>:<topic id>:<Kafka partition>:<start>-<end>"
            )
        topic, topic_id, *numbers = match.groups()
        return cls(topic, topic_id, *map(int, numbers))

    def between(self, start_offset: int, end_offset: int) -> "PartitionKey":
        """Return another range of the same Kafka partition."""
        return PartitionKey(self.topic, self.topic_id, self.kafka_partition, start_offset, end_offset)


@dataclass(frozen=True)
class StreamRange:
    """A range as the ledger knows it: the columns of ``stream_ranges``, times aware and in UTC."""

    key: PartitionKey
    state: RangeState
    planned_at: datetime
    parent_key: str | None = None
    attempts: int = 0
    """Attempts asked for or begun; numbers the run keys, so it never goes down. 0: nobody was asked yet."""
    failures: int = 0
    """Attempts that an outage ended; the range waits longer after each."""
    run_id: str | None = None
    heartbeat_at: datetime | None = None
    """Last sign of an attempt: asked for again, begun, or beating."""
    committed_at: datetime | None = None
    feature_path: str | None = None
    feature_version: str | None = None
    model_name: str | None = None
    model_version: int | None = None
    clip_count: int | None = None
    predicted_count: int | None = None
    quarantined_count: int | None = None
    duplicate_count: int | None = None
    reason: str | None = None
    acknowledged_at: datetime | None = None
    """When a person acknowledged its loss."""


@dataclass(frozen=True)
class Attempt:
    """A run to launch for a range."""

    key: PartitionKey
    attempt: int = 1

    @property
    def run_key(self) -> str:
        """Dagster's run key: one run for each attempt, however often it is requested."""
        return f"{self.key}#{self.attempt}"


@dataclass(frozen=True)
class Lost:
    """Offsets that can never be read: a planned range, or a gap nobody had planned."""

    key: PartitionKey
    reason: str


@dataclass(frozen=True)
class Split:
    """A range of which retention took a part, and its children: together they hold exactly its offsets.

    The planned children were asked of nobody yet (attempts 0), so that the next plan launches them at once.
    """

    parent: PartitionKey
    planned: tuple[PartitionKey, ...]
    lost: Lost | None = None
    """The child that retention took from Kafka."""


@dataclass(frozen=True)
class Plan:
    """What to do next, for the ledger's `record_plan` to write down."""

    new: tuple[Attempt, ...] = ()
    """First attempts of new ranges."""
    retry: tuple[Attempt, ...] = ()
    """Known ranges without a live run: the same key under the next attempt's number."""
    split: tuple[Split, ...] = ()
    lost: tuple[Lost, ...] = ()
    reason: str = ""
    """For people: why there is nothing to do, or what is odd."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write down and nothing to launch."""
        return not (self.new or self.retry or self.split or self.lost)

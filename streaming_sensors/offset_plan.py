"""The offset planner: from what the ledger knows and what Kafka holds to the ranges to run, as pure functions.

How many offsets a range has is up to the caller; `Pace` says how many a draining run takes.
A topic may be drained in shards, each of them some of its Kafka partitions: then each function plans for some shards.

The sensors and the draining run call it; asking Kafka, writing the ledger and launching runs is theirs to do.

What it keeps, for each Kafka partition and topic id: live ranges (planned, committed, lost; the children of a split
range instead of it) neither overlap nor leave holes, and the end of the last one never goes back.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Self

from genres.plurals import waits
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan, Split, StreamRange

if TYPE_CHECKING:
    from streaming_sensors.topic import TopicState


FEWEST_CLIPS = 128
"""How many clips a range takes, if so many wait, before anything is known of the rate, and at least."""
_LAST_RANGES = 3
_MOST_DOUBLINGS = 4
"""How often the wait between two attempts is doubled: sixteen times the grace time is the longest."""


class Shard(NamedTuple):
    """What one run drains: of every `of` Kafka partitions the one with this number. By default the whole topic."""

    number: int = 0
    of: int = 1

    @classmethod
    def all(cls, of: int) -> list[Self]:
        """Return so many shards, which have every Kafka partition between them."""
        return [cls(number, of) for number in range(of)]

    @classmethod
    def holding(cls, kafka_partition: int, of: int) -> Self:
        """Return the shard, of so many, that has a Kafka partition."""
        return cls(kafka_partition % of, of)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` of a shard is."""
        number, of = map(int, text.split("/"))
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, kafka_partition: int) -> bool:
        """Return whether a Kafka partition belongs to it."""
        return kafka_partition % self.of == self.number


WHOLE_TOPIC = Shard()
"""The shard of a topic that is drained by one run at a time."""


@dataclass(frozen=True)
class Limits:
    """How much is planned at a time, and how long and how often a range is tried."""

    max_clips_per_batch: int
    """Most offsets of a new range."""
    range_grace_s: float
    """Seconds without a sign of life after which a planned range is tried again: twice as many after each outage that
    ended an attempt at it, but for the first, and at most sixteen times as many."""
    max_in_flight: int = 1
    """Most new ranges of a shard in flight, and as many retried ones beside them: a bad range never keeps new ones
    waiting."""


class Pace:
    """How many clips a draining run takes at a time: as many as it worked on, of late, in the time that is wanted.

    Parameters
    ----------
    batch_s
        How long a range is meant to take, in seconds.
    most
        Most clips of a range; the fewest, where so many wait, are `FEWEST_CLIPS` or this.
    """

    def __init__(self, batch_s: float, most: int) -> None:
        self._batch_s, self._most = batch_s, most
        self._last: deque[tuple[int, float]] = deque(maxlen=_LAST_RANGES)

    def note(self, clips: int, seconds: float) -> None:
        """Take note of how long a range took in the slower one of its stages, which work beside each other."""
        self._last.append((clips, seconds))

    @property
    def clips(self) -> int:
        """Most clips of the next range."""
        seconds = sum(took for _, took in self._last)
        wanted = int(self._batch_s * sum(clips for clips, _ in self._last) / seconds) if seconds else 0
        return min(max(wanted, FEWEST_CLIPS), self._most)


def plan(
    known: Collection[StreamRange],
    state: "TopicState",
    limits: Limits,
    *,
    now: datetime,
    held: Collection[str] = frozenset(),
    shards: Collection[Shard] = (WHOLE_TOPIC,),
) -> Plan:
    """Decide what to do with the offsets of some shards of a topic.

    Parameters
    ----------
    known
        At least the planned ranges, and of every (topic id, Kafka partition) the range that ends last, as
        `genres.store.stream_ledger.ranges.known` returns them.
    state
        Kafka's side: topic id, beginning and end offset of every Kafka partition.
    now
        The present, aware.
    held
        Partition keys whose run Dagster has but has not started yet (queued, starting). A started run shows its
        life by heartbeats only: to Dagster a killed worker looks alive.
    shards
        Which to plan for; what is in flight in one keeps none of another waiting.

    Returns
    -------
    Plan
        A planned range without a live run is retried, for as long as it takes; what lies before the partition's
        beginning offset is lost (a range partly before it is split in a lost and a planned part), and so is what an
        earlier topic of the same name left uncommitted. Where the end offset is behind what is planned already, the
        partition waits and `Plan.reason` says so.
    """
    plans = [_plan_shard(*_part_of(shard, known, state), limits, now, held) for shard in shards]
    return Plan(
        new=tuple(attempt for made in plans for attempt in made.new),
        retry=tuple(attempt for made in plans for attempt in made.retry),
        split=tuple(split for made in plans for split in made.split),
        lost=tuple(lost for made in plans for lost in made.lost),
        reason="; ".join(dict.fromkeys(made.reason for made in plans if made.reason)),
    )


def _plan_shard(
    known: Collection[StreamRange], state: "TopicState", limits: Limits, now: datetime, held: Collection[str]
) -> Plan:
    planned = [known_range for known_range in known if known_range.state == "planned"]
    due = [offset_range for offset_range in planned if _is_due(offset_range, limits, now, held)]
    in_flight = [offset_range for offset_range in planned if offset_range not in due]
    positions = _positions(known, state, now)
    notes = _oddities(known, state, positions)

    retry: list[Attempt] = []
    split: list[Split] = []
    lost: list[Lost] = []
    retries_left = limits.max_in_flight - sum(_is_retry(offset_range) for offset_range in in_flight)
    for offset_range in sorted(
        due, key=lambda offset_range: (_turn(_last_sign(offset_range), now), offset_range.key)
    ):  # the longest untried has the first turn
        key = offset_range.key
        if key.topic_id != state.topic_id:
            lost.append(Lost(key, f"topic '{key.topic}' was recreated (its id is {state.topic_id} now)"))
        elif not _can_be_read(key, state):
            continue  # `_oddities` has said so
        elif (beginning := state.beginnings[key.kafka_partition]) >= key.end_offset:
            lost.append(Lost(key, _retention(beginning)))
        elif beginning > key.start_offset:
            gone, rest = key.between(key.start_offset, beginning), key.between(beginning, key.end_offset)
            split.append(Split(key, planned=(rest,), lost=Lost(gone, _retention(beginning))))
        elif retries_left > 0:
            retry.append(Attempt(key, offset_range.attempts + 1))
            retries_left -= 1

    for kafka_partition, position in positions.items():
        beginning = state.beginnings[kafka_partition]
        if position < beginning:
            gap = PartitionKey(state.topic, state.topic_id, kafka_partition, position, beginning)
            lost.append(Lost(gap, _retention(beginning)))
            positions[kafka_partition] = beginning
    new_left = limits.max_in_flight - sum(not _is_retry(offset_range) for offset_range in in_flight)
    new = [Attempt(key) for key in islice(_new_ranges(positions, state, limits), max(0, new_left))]

    if not (new or retry or split or lost):
        notes.append(_why_nothing(positions, state, in_flight, due))
    return Plan(tuple(new), tuple(retry), tuple(split), tuple(lost), "; ".join(notes))


def next_range(
    known: Collection[StreamRange], state: "TopicState", limits: Limits, shard: Shard = WHOLE_TOPIC, *, now: datetime
) -> PartitionKey | None:
    """Return the range that a draining run takes next, from the Kafka partition whose turn it is; None: all is planned.

    Record it with ``record_plan(database, Plan(new=(Attempt(key),)), token=…)`` before working on it: another planner
    may have been first. A partition that lost offsets to retention waits until `plan` has said which.
    """
    known, state = _part_of(shard, known, state)
    positions = _positions(known, state, now)
    whole = {number: position for number, position in positions.items() if position >= state.beginnings[number]}
    return next(_new_ranges(whole, state, limits), None)


def _part_of(
    shard: Shard, known: Collection[StreamRange], state: "TopicState"
) -> tuple[list[StreamRange], "TopicState"]:
    beginnings, ends = (
        {number: offset for number, offset in offsets.items() if shard.has(number)}
        for offsets in (state.beginnings, state.ends)
    )
    own = [offset_range for offset_range in known if shard.has(offset_range.key.kafka_partition)]
    return own, state._replace(beginnings=beginnings, ends=ends)


def _positions(known: Iterable[StreamRange], state: "TopicState", now: datetime) -> dict[int, int]:
    # Where each Kafka partition goes on; the one whose last range was planned longest ago has the first turn.
    last: dict[int, StreamRange] = {}
    for offset_range in known:
        key = offset_range.key
        if key.topic_id == state.topic_id and key.kafka_partition in state.ends:
            other = last.get(key.kafka_partition)
            if other is None or key.end_offset > other.key.end_offset:
                last[key.kafka_partition] = offset_range
    never = [(number, state.beginnings[number]) for number in sorted(state.ends) if number not in last]
    turns = sorted(
        last.values(),
        key=lambda offset_range: (_turn(offset_range.planned_at, now), offset_range.key.kafka_partition),
    )
    return dict(never + [(offset_range.key.kafka_partition, offset_range.key.end_offset) for offset_range in turns])


def _new_ranges(positions: dict[int, int], state: "TopicState", limits: Limits) -> Iterator[PartitionKey]:
    turns = deque(positions.items())
    while turns:
        kafka_partition, position = turns.popleft()
        end = min(position + limits.max_clips_per_batch, state.ends[kafka_partition])
        if position < end:
            yield PartitionKey(state.topic, state.topic_id, kafka_partition, position, end)
            turns.append((kafka_partition, end))


def _is_due(offset_range: StreamRange, limits: Limits, now: datetime, held: Collection[str]) -> bool:
    if str(offset_range.key) in held:
        return False
    doublings = min(max(offset_range.failures - 1, 0), _MOST_DOUBLINGS)
    silence = now - _last_sign(offset_range)
    grace = timedelta(seconds=limits.range_grace_s)
    # A sign from the future is of a clock that went back since: how old it is nobody can tell.
    return offset_range.attempts == 0 or silence >= grace * 2**doublings or silence <= -grace


def _turn(moment: datetime, now: datetime) -> datetime:
    """Return by when to sort what had its last turn then, the longest ago first.

    What lies in the future was written before the clock was put back: it would have no turn until that time has come
    again, as long as the others always have clips. So it has the first one.
    """
    return moment if moment <= now else datetime.min.replace(tzinfo=moment.tzinfo)


def _last_sign(offset_range: StreamRange) -> datetime:
    return offset_range.heartbeat_at or offset_range.planned_at


def _is_retry(offset_range: StreamRange) -> bool:
    return offset_range.attempts > 1 or offset_range.parent_key is not None


def _can_be_read(key: PartitionKey, state: "TopicState") -> bool:
    return key.end_offset <= state.ends.get(key.kafka_partition, -1)


def _retention(beginning: int) -> str:
    return f"Kafka's retention took it: the partition begins at offset {beginning} now"


def _oddities(known: Iterable[StreamRange], state: "TopicState", positions: dict[int, int]) -> list[str]:
    notes = []
    ids = {offset_range.key.topic_id for offset_range in known}
    if ids and state.topic_id not in ids:
        notes.append(f"topic '{state.topic}' was recreated: it starts afresh, with id {state.topic_id}")
    for kafka_partition, position in positions.items():
        if (end := state.ends[kafka_partition]) < position:
            notes.append(
                f"partition {kafka_partition} ends at offset {end}, but offsets up to {position} are planned already "
                "(an unclean leader election, or a transaction that is open?): it waits"
            )
    missing = {
        offset_range.key.kafka_partition for offset_range in known if offset_range.key.topic_id == state.topic_id
    } - state.ends.keys()
    if missing:
        notes.append(f"Kafka does not show partitions {', '.join(map(str, sorted(missing)))}: they wait")
    return notes


def _why_nothing(
    positions: dict[int, int], state: "TopicState", in_flight: Sequence[StreamRange], due: Sequence[StreamRange]
) -> str:
    new = sum(max(0, state.ends[number] - position) for number, position in positions.items())
    if not new and not in_flight and not due:
        return "nothing new: every partition is planned up to its end"
    return f"{waits(new, 'new clip')}; ranges in flight: {len(in_flight)}, waiting for another attempt: {len(due)}"

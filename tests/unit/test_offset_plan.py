"""The planner: each of its rules by example, and, whatever happens, no overlap, no hole, no way back, nothing left."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from genres.errors import GenresError
from genres.store.database import Database
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan, RangeState, Split, StreamRange
from streaming_sensors.offset_plan import Limits, Pace, Shard, next_range, plan
from streaming_sensors.topic import TopicState

TOPIC = "audio_clips"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
LIMITS = Limits(max_clips_per_batch=8, range_grace_s=60, max_in_flight=4)


def key(start: int, end: int, partition: int = 0, topic_id: str = "A") -> PartitionKey:
    return PartitionKey(TOPIC, topic_id, partition, start, end)


def known(
    start: int,
    end: int,
    state: RangeState = "planned",
    *,
    partition: int = 0,
    topic_id: str = "A",
    attempts: int = 1,
    failures: int = 0,
    planned_at: datetime = LONG_AGO,
    heartbeat_at: datetime | None = None,
) -> StreamRange:
    return StreamRange(
        key(start, end, partition, topic_id),
        state,
        planned_at,
        attempts=attempts,
        failures=failures,
        heartbeat_at=heartbeat_at,
    )


def kafka(*bounds: tuple[int, int], topic_id: str = "A") -> TopicState:
    beginnings = {number: beginning for number, (beginning, _) in enumerate(bounds)}
    return TopicState(TOPIC, topic_id, beginnings, {number: end for number, (_, end) in enumerate(bounds)})


# ------------------------------------------------------------------------------------------------ partition keys


@given(
    topic=st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True),
    topic_id=st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True),
    partition=st.integers(0, 10_000),
    offsets=st.lists(st.integers(0, 2**62), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_a_partition_key_reads_back_as_what_was_written(
    topic: str, topic_id: str, partition: int, offsets: list[int]
) -> None:
    written = PartitionKey(topic, topic_id, partition, *offsets)
    assert PartitionKey.parse(str(written)) == written
    assert len(written) == offsets[1] - offsets[0]
    assert "|" not in str(written)
    assert "..." not in str(written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "audio_clips",
        "audio_clips:A:0:5-5",
        "audio_clips:A:0:6-5",
        "audio_clips:A:0:05-6",
        "audio_clips:A:-1:5-6",
        "audio_clips:A:0:5-6 ",
        "audio_clips:A:0:5-6\n",
        "audio_clips:A:0:5–6",
        "audio_clips:A:0:٥-6",
        "audio_clips::0:5-6",
        "audio_clips:A+/=:0:5-6",
        "audio...clips:A:0:5-6",
        "audio|clips:A:0:5-6",
        "A:0:5-6",
        "x:audio_clips:A:0:5-6",
    ],
)
def test_a_malformed_key_is_named(text: str) -> None:
    with pytest.raises(GenresError, match="is no partition key"):
        PartitionKey.parse(text)


def test_values_that_make_no_key_are_refused() -> None:
    with pytest.raises(GenresError, match="is no partition key"):
        key(5, 5)


# --------------------------------------------------------------------------------------------------- new ranges


def test_new_ranges_begin_at_the_beginning_offset_and_hold_at_most_a_batch() -> None:
    made = plan([], kafka((3, 20)), LIMITS, now=NOW)
    assert made == Plan(new=(Attempt(key(3, 11)), Attempt(key(11, 19)), Attempt(key(19, 20))))


def test_new_ranges_go_on_where_the_last_range_ends_whatever_became_of_it() -> None:
    for state in ("planned", "committed", "lost"):
        made = plan([known(0, 5, state, planned_at=NOW)], kafka((0, 7)), LIMITS, now=NOW)
        assert made.new == (Attempt(key(5, 7)),)


def test_partitions_take_turns_the_longest_waiting_first() -> None:
    planned = [
        known(0, 4, "committed", partition=0, planned_at=NOW),
        known(0, 4, "committed", partition=1, planned_at=LONG_AGO),
    ]
    state = kafka((0, 40), (0, 40), (0, 3))
    made = plan(planned, state, LIMITS, now=NOW)
    assert [attempt.key for attempt in made.new] == [key(0, 3, 2), key(4, 12, 1), key(4, 12, 0), key(12, 20, 1)]
    assert next_range(planned, state, LIMITS, now=NOW) == key(0, 3, 2)


def test_ranges_in_flight_count_against_the_limit() -> None:
    planned = [known(0, 4, planned_at=NOW), known(4, 8, planned_at=NOW)]
    limits = replace(LIMITS, max_in_flight=2)
    made = plan(planned, kafka((0, 40)), limits, now=NOW)
    assert made.is_empty
    assert made.reason == "32 new clips wait; ranges in flight: 2, waiting for another attempt: 0"


@pytest.mark.parametrize(
    "tried_again",
    [known(0, 4, attempts=2, heartbeat_at=NOW), replace(known(0, 4, heartbeat_at=NOW), parent_key=str(key(0, 8)))],
)
def test_a_range_that_is_tried_again_keeps_no_new_one_waiting(tried_again: StreamRange) -> None:
    limits = replace(LIMITS, max_in_flight=1)
    planned = [tried_again, known(4, 8)]
    made = plan(planned, kafka((0, 9)), limits, now=NOW)
    assert made.new == (Attempt(key(8, 9)),)
    assert not made.retry


def test_nothing_new_is_said() -> None:
    assert plan([known(0, 5, "committed")], kafka((0, 5)), LIMITS, now=NOW) == Plan(
        reason="nothing new: every partition is planned up to its end"
    )
    assert plan([], kafka((7, 7)), LIMITS, now=NOW).is_empty
    assert next_range([], kafka((7, 7)), LIMITS, now=NOW) is None


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1)], ids=["clock as it was", "clock put back"])
def test_every_partition_has_its_turn_while_clips_never_cease(ahead: timedelta) -> None:
    """What was planned before the clock was put back was planned in the future."""
    last = {number: known(0, 8, "committed", partition=number, planned_at=NOW + ahead) for number in (0, 1)}
    last[2] = known(0, 8, "committed", partition=2, planned_at=NOW - timedelta(seconds=1))
    turns = []
    for turn in range(1, 7):
        now = NOW + timedelta(seconds=turn)
        taken = next_range(list(last.values()), kafka(*[(0, 1000)] * 3), LIMITS, now=now)
        assert taken is not None
        turns.append(taken.kafka_partition)
        last[taken.kafka_partition] = replace(last[taken.kafka_partition], key=taken, planned_at=now)
    assert Counter(turns) == {0: 2, 1: 2, 2: 2}


def test_a_partition_added_later_is_read_from_its_beginning() -> None:
    made = plan([known(0, 5, "committed")], kafka((0, 5), (2, 6)), LIMITS, now=NOW)
    assert made == Plan(new=(Attempt(key(2, 6, partition=1)),))


# ----------------------------------------------------------------------------------------------------------- pace


def test_a_run_takes_as_many_clips_as_it_does_in_the_time_that_is_wanted() -> None:
    pace = Pace(batch_s=2.0, most=2048)
    assert pace.clips == 128, "nothing is known yet"
    pace.note(128, 0.5)
    assert pace.clips == 512
    for _ in range(3):
        pace.note(1, 0.25)
    assert pace.clips == 128, "idle ranges say little of the rate, and no range has to be smaller"
    for _ in range(3):
        pace.note(512, 0.25)
    assert pace.clips == 2048
    pace.note(512, 2.0)
    assert pace.clips == 2 * 3 * 512 / 2.5 // 1, "it falls with the rate"
    assert Pace(batch_s=2.0, most=16).clips == 16


def test_ranges_settle_where_they_take_the_time_that_is_wanted() -> None:
    """Each has a fixed cost, which says less the more clips there are; twenty cores at 10 ms a clip."""
    pace = Pace(batch_s=2.0, most=10_000)
    for _ in range(20):
        clips = pace.clips
        pace.note(clips, 0.4 + clips * 0.01 / 20)
    assert 0.4 + pace.clips * 0.01 / 20 == pytest.approx(2.0, rel=0.05)


# --------------------------------------------------------------------------------------------------------- shards


@given(partition=st.integers(0, 1000), of=st.integers(1, 20))
def test_each_partition_belongs_to_exactly_one_shard(partition: int, of: int) -> None:
    having = [shard for shard in Shard.all(of) if shard.has(partition)]
    assert having == [Shard.holding(partition, of)]
    assert Shard.parse(str(having[0])) == having[0]


def test_a_shard_is_planned_for_by_itself() -> None:
    """What is in flight, waits or is lost on other partitions says nothing about its own."""
    limits = replace(LIMITS, max_in_flight=1)
    planned = [known(0, 4, partition=0, planned_at=NOW), known(0, 4, partition=1), known(0, 4, partition=4)]
    state = kafka((0, 9), (0, 9), (0, 9), (6, 9), (0, 9))
    assert plan(planned, state, limits, now=NOW, shards=[Shard(0, 3)]).is_empty, "one is in flight"
    made = plan(planned, state, limits, now=NOW, shards=[Shard(1, 3)])
    assert (made.new, made.retry) == ((Attempt(key(4, 9, 1)),), (Attempt(key(0, 4, 1), attempt=2),))
    made = plan(planned, state, limits, now=NOW, shards=[Shard(2, 3)])
    assert made == Plan(new=(Attempt(key(0, 8, 2)),))
    assert next_range(planned, state, LIMITS, Shard(0, 3), now=NOW) == key(6, 9, 3)
    assert next_range(planned, state, LIMITS, Shard(1, 3), now=NOW) == key(4, 9, 1)
    assert next_range(planned, state, LIMITS, Shard(5, 6), now=NOW) is None, "there is no partition 5"


def test_the_shards_plans_are_one() -> None:
    limits = replace(LIMITS, max_in_flight=1)
    planned = [known(0, 4, partition=number) for number in range(3)] + [known(0, 4, partition=7, topic_id="Z")]
    made = plan(planned, kafka((0, 8), (2, 8), (9, 10)), limits, now=NOW, shards=Shard.all(9))
    assert made.new == (Attempt(key(4, 8, 0)), Attempt(key(4, 8, 1)), Attempt(key(9, 10, 2)))
    assert made.retry == (Attempt(key(0, 4, 0), attempt=2),)
    assert [split.parent for split in made.split] == [key(0, 4, 1)]
    gone = [lost.key for lost in made.lost]
    assert gone == [key(0, 4, 2), key(4, 9, 2), key(0, 4, 7, topic_id="Z")], "also of a shard without a partition now"


# ----------------------------------------------------------------------------------------- retry, back off


def test_an_abandoned_range_is_tried_again_under_the_same_key() -> None:
    made = plan([known(0, 5, attempts=4, failures=2)], kafka((0, 5)), LIMITS, now=NOW)
    assert made == Plan(retry=(Attempt(key(0, 5), attempt=5),))
    assert made.retry[0].run_key == "audio_clips:A:0:0-5#5"


@pytest.mark.parametrize(
    "alive",
    [
        known(0, 5, planned_at=NOW - timedelta(seconds=59)),
        known(0, 5, heartbeat_at=NOW - timedelta(seconds=59)),
    ],
)
def test_a_range_within_the_grace_time_is_left_alone(alive: StreamRange) -> None:
    assert plan([alive], kafka((0, 5)), LIMITS, now=NOW).is_empty


def test_a_range_whose_run_dagster_has_not_started_yet_is_left_alone() -> None:
    assert plan([known(0, 5)], kafka((0, 5)), LIMITS, now=NOW, held={str(key(0, 5))}).is_empty


def test_a_range_that_nobody_was_asked_for_is_launched_at_once() -> None:
    made = plan([known(0, 5, attempts=0, planned_at=NOW)], kafka((0, 5)), LIMITS, now=NOW)
    assert made == Plan(retry=(Attempt(key(0, 5), attempt=1),))


def test_a_range_that_outages_stop_again_and_again_keeps_no_other_one_waiting() -> None:
    limits = replace(LIMITS, max_in_flight=1)
    planned = [known(0, 5, attempts=9, heartbeat_at=LONG_AGO + timedelta(minutes=9)), known(5, 6, attempts=2)]
    assert plan(planned, kafka((0, 6)), limits, now=NOW).retry == (Attempt(key(5, 6), attempt=3),)


@pytest.mark.parametrize(("failures", "waits_s"), [(0, 60), (1, 60), (2, 120), (3, 240), (5, 960), (50, 960)])
def test_after_each_outage_a_range_waits_longer_but_never_for_good(failures: int, waits_s: float) -> None:
    tried = known(0, 5, attempts=7, failures=failures, heartbeat_at=NOW)
    state = kafka((0, 5))
    assert plan([tried], state, LIMITS, now=NOW + timedelta(seconds=waits_s - 1)).is_empty
    made = plan([tried], state, LIMITS, now=NOW + timedelta(seconds=waits_s))
    assert made == Plan(retry=(Attempt(key(0, 5), attempt=8),))


def test_after_the_clock_went_back_a_range_waits_neither_an_hour_nor_while_its_run_beats() -> None:
    state, earlier = kafka((0, 5)), NOW - timedelta(hours=1)
    for tried in (known(0, 5, heartbeat_at=NOW), replace(known(0, 5), planned_at=NOW)):
        assert plan([tried], state, LIMITS, now=earlier).retry == (Attempt(key(0, 5), attempt=2),)
    beating = replace(known(0, 5, heartbeat_at=earlier), planned_at=NOW)
    assert plan([beating], state, LIMITS, now=earlier).is_empty
    a_little_ahead = known(0, 5, heartbeat_at=NOW + timedelta(seconds=59))
    assert plan([a_little_ahead], state, LIMITS, now=NOW).is_empty


# -------------------------------------------------------------------------------- retention, recreation, truncation


def test_offsets_that_retention_took_before_they_were_planned_are_lost() -> None:
    state = kafka((9, 12))
    planned = [known(0, 5, "committed")]
    made = plan(planned, state, LIMITS, now=NOW)
    assert made.lost == (Lost(key(5, 9), "Kafka's retention took it: the partition begins at offset 9 now"),)
    assert made.new == (Attempt(key(9, 12)),)
    assert next_range(planned, state, LIMITS, now=NOW) is None, (
        "a draining run leaves it to the sensor to say what is lost"
    )


def test_retention_that_took_only_what_is_done_loses_nothing() -> None:
    made = plan([known(0, 5, "committed"), known(5, 7, "lost")], kafka((7, 7)), LIMITS, now=NOW)
    assert made.is_empty


def test_an_abandoned_range_that_retention_took_is_lost() -> None:
    made = plan([known(0, 5, failures=1)], kafka((5, 5)), LIMITS, now=NOW)
    assert made == Plan(lost=(Lost(key(0, 5), "Kafka's retention took it: the partition begins at offset 5 now"),))


def test_an_abandoned_range_that_retention_took_in_part_is_trimmed() -> None:
    made = plan([known(0, 5)], kafka((3, 5)), LIMITS, now=NOW)
    lost = Lost(key(0, 3), "Kafka's retention took it: the partition begins at offset 3 now")
    assert made == Plan(split=(Split(key(0, 5), planned=(key(3, 5),), lost=lost),))


def test_a_live_run_may_have_read_what_retention_took_since() -> None:
    assert plan([known(0, 5, heartbeat_at=NOW)], kafka((5, 5)), LIMITS, now=NOW).is_empty


def test_a_recreated_topic_starts_afresh_and_gives_up_what_the_old_one_left() -> None:
    planned = [known(0, 5, "committed"), known(5, 9), known(9, 12, heartbeat_at=NOW)]
    made = plan(planned, kafka((0, 2), topic_id="B"), LIMITS, now=NOW)
    assert made == Plan(
        new=(Attempt(key(0, 2, topic_id="B")),),
        lost=(Lost(key(5, 9), "topic 'audio_clips' was recreated (its id is B now)"),),
        reason="topic 'audio_clips' was recreated: it starts afresh, with id B",
    )


def test_a_partition_that_ends_before_what_is_planned_waits_and_says_so() -> None:
    planned = [known(0, 5), known(5, 9)]
    state = kafka((0, 7), (0, 1))
    made = plan(planned, state, LIMITS, now=NOW)
    assert made.retry == (Attempt(key(0, 5), attempt=2),), "what can be read is"
    assert made.new == (Attempt(key(0, 1, partition=1)),)
    assert "partition 0 ends at offset 7, but offsets up to 9 are planned already" in made.reason


def test_a_partition_that_kafka_does_not_show_waits_and_is_named() -> None:
    made = plan([known(0, 5), known(0, 5, partition=2)], kafka((0, 5)), LIMITS, now=NOW)
    assert made == Plan(retry=(Attempt(key(0, 5), attempt=2),), reason="Kafka does not show partitions 2: they wait")


# ------------------------------------------------------------------------------------------------ whatever happens


class MemoryLedger:
    """The ledger's rules in a dictionary, without the guards of the real one: it takes what the planner says."""

    def __init__(self) -> None:
        self.rows: dict[PartitionKey, StreamRange] = {}

    def known(self) -> list[StreamRange]:
        return list(self.rows.values())

    def record(self, made: Plan, now: datetime) -> tuple[Attempt, ...]:
        for lost in made.lost:
            self._put(lost.key, "lost", now)
        for split in made.split:
            self._put(split.parent, "split", now)
            for child in split.planned:
                self._put(child, "planned", now, parent=split.parent)
            if split.lost:
                self._put(split.lost.key, "lost", now, parent=split.parent)
        for attempt in made.new:
            assert attempt.key not in self.rows
            self._put(attempt.key, "planned", now, attempts=1)
        for attempt in made.retry:
            self.rows[attempt.key] = replace(self.rows[attempt.key], attempts=attempt.attempt, heartbeat_at=now)
        return (*made.new, *made.retry)

    def begin(self, key: PartitionKey, attempt: int, now: datetime) -> None:
        self.rows[key] = replace(self.rows[key], heartbeat_at=now)

    def fail(self, key: PartitionKey, now: datetime) -> None:
        row = self.rows[key]
        self.rows[key] = replace(row, failures=row.failures + 1, heartbeat_at=now)

    def beat(self, key: PartitionKey, now: datetime) -> None:
        self.rows[key] = replace(self.rows[key], heartbeat_at=now)

    def commit(self, key: PartitionKey) -> None:
        if self.rows[key].state != "split":
            self.rows[key] = replace(self.rows[key], state="committed")

    def _put(
        self, key: PartitionKey, state: RangeState, now: datetime, attempts: int = 0, parent: PartitionKey | None = None
    ) -> None:
        row = self.rows.get(key) or StreamRange(
            key, state, now, attempts=attempts, parent_key=str(parent) if parent else None
        )
        self.rows[key] = replace(row, state=state)


class SqlLedger:
    """The real ledger."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'genres.db'}")
        self.database.migrate()

    @property
    def rows(self) -> dict[PartitionKey, StreamRange]:
        return {row.key: row for row in ranges.history(self.database, TOPIC)}

    def known(self) -> list[StreamRange]:
        return ranges.known(self.database, TOPIC)

    def record(self, made: Plan, now: datetime) -> tuple[Attempt, ...]:
        return ranges.record_plan(self.database, made, now=now)

    def begin(self, key: PartitionKey, attempt: int, now: datetime) -> None:
        ranges.begin_attempt(self.database, key, str(key), attempt=attempt, now=now)

    def fail(self, key: PartitionKey, now: datetime) -> None:
        ranges.end_attempt(self.database, key, str(key), reason="outage", is_outage=True, now=now)

    def beat(self, key: PartitionKey, now: datetime) -> None:
        ranges.heartbeat(self.database, TOPIC, str(key), now=now)

    def commit(self, key: PartitionKey) -> None:
        commits.commit_range(self.database, RangeResult(key, str(key)))


class PlannerMachine(RuleBasedStateMachine):
    """Kafka, the ledger and the runs, as far as the planner meets them; any of it may happen at any time."""

    make_ledger: type[MemoryLedger] | type[SqlLedger] = MemoryLedger
    limits = Limits(max_clips_per_batch=4, range_grace_s=60, max_in_flight=2)

    @initialize(partitions=st.integers(1, 3), beginning=st.integers(0, 3))
    def start(self, partitions: int, beginning: int) -> None:
        self.ledger = self.make_ledger()
        self.now = NOW
        self.topic_number = 0
        self.beginnings = dict.fromkeys(range(partitions), beginning)
        self.ends = dict(self.beginnings)
        self.held: set[PartitionKey] = set()  # launched, not begun
        self.running: set[PartitionKey] = set()
        self.attempts: Counter[str] = Counter()
        self.drains = 1
        self.first: dict[tuple[str, int], int] = {}
        self.cursor: dict[tuple[str, int], int] = {}
        self.stale: Plan | None = None

    @property
    def state(self) -> TopicState:
        return TopicState(TOPIC, f"id{self.topic_number}", dict(self.beginnings), dict(self.ends))

    def planned(self, keys: Collection[PartitionKey]) -> list[PartitionKey]:
        rows = self.ledger.rows
        return sorted(key for key in keys if rows[key].state == "planned")

    # what happens around the planner

    @rule(data=st.data(), clips=st.integers(1, 9))
    def append(self, data: st.DataObject, clips: int) -> None:
        self.ends[data.draw(st.sampled_from(sorted(self.ends)))] += clips

    @rule(data=st.data())
    def retention(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.ends)))
        self.beginnings[partition] = data.draw(st.integers(self.beginnings[partition], self.ends[partition]))

    @precondition(lambda self: len(self.ends) < 5)
    @rule()
    def add_partition(self) -> None:
        self.beginnings[len(self.ends)] = 0
        self.ends[len(self.ends)] = 0

    @precondition(lambda self: self.topic_number < 2)
    @rule()
    def recreate_topic(self) -> None:
        self.topic_number += 1
        self.beginnings = dict.fromkeys(self.beginnings, 0)
        self.ends = dict.fromkeys(self.beginnings, 0)

    @rule(drains=st.integers(1, 4))
    def change_the_number_of_shards(self, drains: int) -> None:
        self.drains = drains

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # what runs do

    @rule(data=st.data())
    def run_begins(self, data: st.DataObject) -> None:
        if keys := self.planned(self.held):
            self.begin(data.draw(st.sampled_from(keys)))

    @rule()
    def queued_runs_die(self) -> None:
        self.held.clear()

    @rule(data=st.data())
    def run_commits(self, data: st.DataObject) -> None:
        # A run that everyone took for dead may still commit, even when its range was split or lost meanwhile.
        if self.running:
            key = data.draw(st.sampled_from(sorted(self.running)))
            self.ledger.commit(key)
            self.running.discard(key)

    @rule(data=st.data(), killed=st.booleans())
    def run_fails(self, data: st.DataObject, killed: bool) -> None:
        if keys := self.planned(self.running):
            key = data.draw(st.sampled_from(keys))
            self.running.discard(key)
            if not killed:
                self.ledger.fail(key, self.now)

    @rule(data=st.data())
    def run_beats(self, data: st.DataObject) -> None:
        if keys := self.planned(self.running):
            self.ledger.beat(data.draw(st.sampled_from(keys)), self.now)

    @rule(data=st.data())
    def run_drains(self, data: st.DataObject) -> None:
        # The run may have been launched when there were other shards.
        of = data.draw(st.integers(1, 4))
        shard = Shard(data.draw(st.integers(0, of - 1)), of)
        key = next_range(self.ledger.known(), self.state, self.limits, shard, now=self.now)
        if key is not None:
            assert self.ledger.record(Plan(new=(Attempt(key),)), self.now) == (Attempt(key),)
            self.attempts[str(key)] = 1
            self.begin(key)

    # the planner

    @rule()
    def sensor_ticks(self) -> None:
        self.launch(self.tick())

    @rule()
    def sensor_dies_before_launching(self) -> None:
        self.tick()

    def tick(self) -> tuple[Attempt, ...]:
        before = self.ledger.rows
        held, shards = {str(key) for key in self.held}, Shard.all(self.drains)
        made = plan(self.ledger.known(), self.state, self.limits, now=self.now, held=held, shards=shards)
        again = [attempt.key for attempt in made.retry]
        given_up = [lost.key for lost in made.lost if lost.key in before] + [split.parent for split in made.split]
        for key in (*again, *given_up):
            row = before[key]
            last_sign = max(row.planned_at, row.heartbeat_at or row.planned_at)
            assert row.state == "planned"
            assert key not in self.held
            assert row.attempts == 0 or self.now - last_sign >= timedelta(seconds=60), "alive"
        assert len(made.new) <= self.limits.max_in_flight * self.drains
        assert len(made.retry) <= self.limits.max_in_flight * self.drains
        assert made.reason or not made.is_empty
        launched = self.ledger.record(made, self.now)
        assert launched == (*made.new, *made.retry)
        for attempt in launched:
            self.attempts[str(attempt.key)] += 1
            assert attempt.attempt == self.attempts[str(attempt.key)], "a run key is used once"
        return launched

    def launch(self, attempts: tuple[Attempt, ...]) -> None:
        self.held |= {attempt.key for attempt in attempts}

    def begin(self, key: PartitionKey) -> None:
        self.held.discard(key)
        self.running.add(key)
        self.ledger.begin(key, self.attempts[str(key)], self.now)

    # what must hold

    @invariant()
    def live_ranges_neither_overlap_nor_leave_holes(self) -> None:
        live: dict[tuple[str, int], list[PartitionKey]] = {}
        for key, row in self.ledger.rows.items():
            if row.state != "split":
                live.setdefault((key.topic_id, key.kafka_partition), []).append(key)
        for where, keys in live.items():
            keys.sort(key=lambda key: key.start_offset)
            assert all(a.end_offset == b.start_offset for a, b in itertools.pairwise(keys)), keys
            assert self.first.setdefault(where, keys[0].start_offset) == keys[0].start_offset
            assert keys[-1].end_offset >= self.cursor.get(where, 0), "the cursor went back"
            self.cursor[where] = keys[-1].end_offset

    @invariant()
    def no_range_reaches_beyond_kafka(self) -> None:
        for key in self.ledger.rows:
            if key.topic_id == self.state.topic_id:
                assert key.end_offset <= self.ends[key.kafka_partition]

    def teardown(self) -> None:
        """When failures stop, every offset ends committed or lost."""
        if not hasattr(self, "ledger"):
            return
        self.held.clear()
        for _ in range(1000):
            self.now += timedelta(seconds=16 * 60)
            launched = self.tick()
            for attempt in launched:
                self.begin(attempt.key)
                self.ledger.commit(attempt.key)
            if not launched and not any(row.state == "planned" for row in self.ledger.rows.values()):
                break
        self.live_ranges_neither_overlap_nor_leave_holes()
        rows = self.ledger.rows
        assert {row.state for row in rows.values()} <= {"committed", "lost", "split"}
        for partition, end in self.ends.items():
            where = (self.state.topic_id, partition)
            assert self.cursor.get(where, end) == end, "offsets are left"


class SqlPlannerMachine(PlannerMachine):
    """The same over the real ledger, where plans may also come late."""

    make_ledger = SqlLedger

    @rule()
    def plan_for_later(self) -> None:
        held = {str(key) for key in self.held}
        self.stale = plan(self.ledger.known(), self.state, self.limits, now=self.now, held=held)

    @rule()
    def plan_comes_late(self) -> None:
        if self.stale is not None:
            launched = self.ledger.record(self.stale, self.now)
            for attempt in launched:
                self.attempts[str(attempt.key)] += 1
                assert attempt.attempt == self.attempts[str(attempt.key)]
            assert self.ledger.record(self.stale, self.now) == (), "the same plan twice changes nothing"
            self.launch(launched)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "ledger"):
            self.ledger.database.engine.dispose()
            self.ledger.folder.cleanup()


TestPlanner = PlannerMachine.TestCase
TestPlanner.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestPlannerOnTheLedger = SqlPlannerMachine.TestCase
TestPlannerOnTheLedger.settings = settings(max_examples=10, stateful_step_count=30, deadline=None)

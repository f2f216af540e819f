"""The stream's ledger on a real SQLite file: what is written once, what is refused, what writers do to each other."""

import itertools
import multiprocessing
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from genres.errors import GenresError
from genres.store import tables
from genres.store.database import Database
from genres.store.stream_ledger import commits, leases, producers, ranges, results, sent_files
from genres.store.stream_ledger.commits import CommitResult, QuarantinedClip, RangeCheck, RangeResult
from genres.store.stream_ledger.leases import FencedError
from genres.store.stream_ledger.producers import SILENT_S, Producer
from genres.store.stream_ledger.ranges import Progress
from genres.store.stream_ledger.sent_files import SentFile
from genres.store.stream_ledger.transaction import writing
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan, Split
from genres.store.tables import SENT_FILES
from streaming_sensors.offset_plan import Limits, Shard, next_range
from streaming_sensors.topic import TopicState
from tests.stream_rig import wait_until

TOPIC = "audio_clips"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=90)
SENT_TO = (TOPIC, "A", 1, 2**40, NOW)
"""Where and when a file of these tests was sent."""


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.migrate()
    return empty_database


def key(start: int, end: int, partition: int = 0, topic_id: str = "A") -> PartitionKey:
    return PartitionKey(TOPIC, topic_id, partition, start, end)


def plan_new(database: Database, *keys: PartitionKey, now: datetime = NOW) -> tuple[Attempt, ...]:
    return ranges.record_plan(database, Plan(new=tuple(map(Attempt, keys))), now=now)


def prediction(sha256: str, offset: int = 0, model_version: int = 1, **other: Any) -> dict[str, Any]:
    return {
        "sha256": sha256,
        "model_version": model_version,
        "model_name": "genres-gtzan",
        "dataset": "gtzan",
        "file_name": f"{sha256}.wav",
        "genre": None,
        "predicted_genre": "jazz",
        "probability": 0.75,
        "probabilities": {"jazz": 0.75, "rock": 0.25},
        "is_calibrated": True,
        "is_uncertain": False,
        "over_time": None,
        "distance": 0.5,
        "is_unlike": False,
        "is_synthetic": False,
        "feature_version": "gtzan57-1",
        "kafka_offset": offset,
        "event_time": NOW,
        **other,
    }


def refused(sha256: str, reason: str = "not audio") -> QuarantinedClip:
    return QuarantinedClip(sha256, f"{sha256}.wav", "stream", reason, ".wav", "gate1")


def predicted(database: Database) -> list[tuple[str, int]]:
    return [(row["sha256"], row["model_version"]) for row in results.predictions(database)]


def quarantined(database: Database) -> list[str]:
    return [row["sha256"] for row in results.quarantine(database)]


# ---------------------------------------------------------------------------------------------------------- ranges


def test_a_planned_range_is_read_back_with_its_times(database: Database) -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert plan_new(database, key(0, 5), now=elsewhere) == (Attempt(key(0, 5)),)
    found = ranges.find(database, key(0, 5))
    assert (found.key, found.state, found.attempts, found.failures) == (key(0, 5), "planned", 1, 0)
    assert found.planned_at == NOW
    assert found.planned_at.utcoffset() == timedelta(0)
    assert found.heartbeat_at is None


def test_the_same_plan_twice_gives_the_same_rows(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8), key(8, 12))
    plan = Plan(
        new=(Attempt(key(15, 20)),),
        retry=(Attempt(key(0, 4), 2),),
        split=(Split(key(4, 8), planned=(key(6, 8),), lost=Lost(key(4, 6), "gone")),),
        lost=(Lost(key(8, 12), "gone"), Lost(key(12, 15), "gone")),
    )
    assert ranges.record_plan(database, plan, now=NOW) == (Attempt(key(15, 20)), Attempt(key(0, 4), 2))
    rows = ranges.history(database, TOPIC)
    assert ranges.record_plan(database, plan, now=LATER) == ()
    assert ranges.history(database, TOPIC) == rows
    assert {(row.key, row.state, row.attempts, row.parent_key) for row in rows} == {
        (key(0, 4), "planned", 2, None),
        (key(4, 8), "split", 1, None),
        (key(4, 6), "lost", 0, str(key(4, 8))),
        (key(6, 8), "planned", 0, str(key(4, 8))),
        (key(8, 12), "lost", 1, None),
        (key(12, 15), "lost", 0, None),
        (key(15, 20), "planned", 1, None),
    }
    assert ranges.progress(database, TOPIC, "A") == {0: Progress(0, 9)}


def test_of_two_planners_the_first_wins_and_nothing_overlaps(database: Database) -> None:
    assert plan_new(database, key(0, 4)) == (Attempt(key(0, 4)),)
    assert plan_new(database, key(0, 6), key(6, 9)) == ()
    assert plan_new(database, key(5, 9)) == (), "a hole"
    assert plan_new(database, key(4, 6)) == (Attempt(key(4, 6)),)
    assert [row.key for row in ranges.known(database, TOPIC)] == [key(0, 4), key(4, 6)]


def test_planners_at_the_same_time_leave_neither_overlaps_nor_holes(database: Database) -> None:
    def plan_away(step: int) -> list[Attempt]:
        made: list[Attempt] = []
        while (position := max((row.key.end_offset for row in ranges.known(database, TOPIC)), default=0)) < 60:
            made += plan_new(database, key(position, position + step))
        return made

    with ThreadPoolExecutor(4) as pool:
        made = sorted(attempt.key for attempts in pool.map(plan_away, (2, 3, 5, 7)) for attempt in attempts)
    assert made == sorted(row.key for row in ranges.known(database, TOPIC))
    assert made[0].start_offset == 0
    assert all(a.end_offset == b.start_offset for a, b in itertools.pairwise(made))


def test_the_planner_is_given_the_planned_ranges_and_the_last_of_each_partition(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8), key(8, 9), key(0, 2, partition=1), key(0, 3, topic_id="B"))
    for done in (key(0, 4), key(8, 9), key(0, 2, partition=1), key(0, 3, topic_id="B")):
        commits.commit_range(database, RangeResult(done, "r"))
    plan_new(database, key(9, 11))
    commits.commit_range(database, RangeResult(key(9, 11), "r"))
    given = {row.key for row in ranges.known(database, TOPIC)}
    assert given == {key(4, 8), key(9, 11), key(0, 2, partition=1), key(0, 3, topic_id="B")}
    assert ranges.known(database, "other_topic") == []
    assert len(ranges.history(database, TOPIC, states={"committed"})) == 5


def test_an_attempt_is_numbered_when_it_begins_and_a_kill_counts_against_nobody(database: Database) -> None:
    plan_new(database, key(0, 4))
    begun = ranges.begin_attempt(database, key(0, 4), "run-1", attempt=1, now=LATER)
    assert (begun.attempts, begun.failures, begun.run_id, begun.heartbeat_at) == (1, 0, "run-1", LATER)
    begun = ranges.begin_attempt(database, key(0, 4), "from-the-ui", now=LATER)
    assert (begun.attempts, begun.failures) == (2, 0)


def test_an_outage_lets_the_range_back_off_and_its_reason_is_kept(database: Database) -> None:
    plan_new(database, key(0, 4))
    ranges.begin_attempt(database, key(0, 4), "run-1", attempt=1)
    ranges.end_attempt(database, key(0, 4), "run-1", reason="no champion yet", is_outage=False, now=LATER)
    found = ranges.find(database, key(0, 4))
    assert (found.attempts, found.failures, found.reason, found.heartbeat_at) == (1, 0, "no champion yet", LATER)
    ranges.begin_attempt(database, key(0, 4), "run-2")
    ranges.end_attempt(database, key(0, 4), "run-2", reason="crash", is_outage=True)
    ranges.end_attempt(database, key(0, 4), "run-1", reason="late word of a zombie", is_outage=True)
    found = ranges.find(database, key(0, 4))
    assert (found.attempts, found.failures, found.reason) == (2, 1, "crash")


def test_a_heartbeat_reaches_the_ranges_of_its_run_only(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8))
    ranges.begin_attempt(database, key(0, 4), "run-1", now=NOW)
    ranges.begin_attempt(database, key(4, 8), "run-2", now=NOW)
    ranges.heartbeat(database, TOPIC, "run-1", now=LATER)
    assert ranges.find(database, key(0, 4)).heartbeat_at == LATER
    assert ranges.find(database, key(4, 8)).heartbeat_at == NOW


def test_a_plan_that_comes_late_does_not_touch_what_is_committed(database: Database) -> None:
    plan_new(database, key(0, 4))
    commits.commit_range(database, RangeResult(key(0, 4), "r", predictions=[prediction("a")]))
    before = ranges.history(database, TOPIC)
    for late in (
        Plan(retry=(Attempt(key(0, 4), 2),)),
        Plan(lost=(Lost(key(0, 4), "gone"),)),
        Plan(split=(Split(key(0, 4), planned=(key(0, 2), key(2, 4))),)),
    ):
        assert ranges.record_plan(database, late) == ()
    ranges.begin_attempt(database, key(0, 4), "run-2")
    assert ranges.history(database, TOPIC) == before


def test_a_range_that_was_never_planned_is_named(database: Database) -> None:
    calls: list[Callable[[], object]] = [
        lambda: ranges.find(database, key(0, 4)),
        lambda: ranges.begin_attempt(database, key(0, 4), "r"),
        lambda: commits.commit_range(database, RangeResult(key(0, 4), "r", predictions=[prediction("a")])),
    ]
    for call in calls:
        with pytest.raises(GenresError, match="no range 'audio_clips:A:0:0-4'"):
            call()
    assert predicted(database) == []


# ---------------------------------------------------------------------------------------------------------- leases


def test_a_lease_has_one_holder_and_its_token_grows(database: Database) -> None:
    def acquire(holder: str, seconds: float) -> int | None:
        return leases.acquire(database, TOPIC, holder, 30, now=NOW + timedelta(seconds=seconds))

    assert acquire("a", 0) == 1
    assert acquire("b", 29) is None
    assert acquire("a", 29) == 1, "its own holder renews it"
    assert acquire("b", 58) is None
    assert acquire("b", 59) == 2, "it expired"
    leases.renew(database, TOPIC, 2, 30, now=NOW + timedelta(seconds=80))
    assert acquire("a", 109) is None
    leases.release(database, TOPIC, 1, now=NOW + timedelta(seconds=109))
    assert acquire("a", 109) is None, "only the holder's token releases"
    leases.release(database, TOPIC, 2, now=NOW + timedelta(seconds=109))
    assert acquire("b", 109) == 3, "who comes back after a release is a new holder"
    assert leases.acquire(database, "other_topic", "a", 30, now=NOW) == 1


def test_each_shard_has_a_lease_and_tokens_of_its_own(database: Database) -> None:
    def acquire(holder: str, shard: int, seconds: float = 0) -> int | None:
        return leases.acquire(database, TOPIC, holder, 30, shard=shard, now=NOW + timedelta(seconds=seconds))

    assert [acquire(holder, shard) for shard, holder in enumerate("abc")] == [1, 1, 1]
    assert [acquire("d", shard) for shard in range(3)] == [None] * 3
    assert acquire("d", 1, seconds=30) == 2, "it expired"
    leases.renew(database, TOPIC, 1, 30, shard=0, now=NOW + timedelta(seconds=20))
    leases.release(database, TOPIC, 1, shard=2, now=NOW)
    now = NOW + timedelta(seconds=40)
    assert set(leases.holders(database, TOPIC, 30, now=now)) == {0, 1}
    assert leases.holders(database, TOPIC, 30, now=now)
    assert set(leases.holders(database, "other_topic", 30, now=now)) == set()
    with pytest.raises(FencedError, match=r"shard 1 .*token 1, now 2"):
        leases.renew(database, TOPIC, 1, 30, shard=1)
    plan_new(database, key(0, 4))
    with pytest.raises(FencedError):
        ranges.record_plan(database, Plan(new=(Attempt(key(4, 8)),)), token=1, shard=1)
    with pytest.raises(FencedError):
        commits.commit_range(database, RangeResult(key(0, 4), "b"), token=1, shard=1)
    assert commits.commit_range(database, RangeResult(key(0, 4), "a"), token=1, shard=0)[:3] == (0, 0, 0)
    assert ranges.record_plan(database, Plan(new=(Attempt(key(4, 8)),)), token=2, shard=1) == (Attempt(key(4, 8)),)


def test_runs_whose_shards_overlap_do_each_range_once(database: Database) -> None:
    """The number of shards was changed while the run that drains all of the topic is at work."""
    state = TopicState(TOPIC, "A", dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 40))
    # Runs of before and of now hold the same lease one after the other; beside each other they have other numbers.
    runs = {shard: (shard.number + 10 * shard.of, f"run {shard}") for shard in (Shard(), *Shard.all(3))}
    tokens = {
        shard: leases.acquire(database, TOPIC, run, 30, shard=number, now=NOW) for shard, (number, run) in runs.items()
    }
    done: list[tuple[Shard, PartitionKey]] = []
    order = list(runs)
    while True:
        # All look at the ledger before the first of them plans.
        known, taken = ranges.known(database, TOPIC), []
        order.append(order.pop(0))
        for shard in order:
            key = next_range(known, state, Limits(4 + shard.of, 60), shard, now=datetime.now(UTC))
            if key is not None:
                fence: Any = {"token": tokens[shard], "shard": runs[shard][0]}
                taken += [(shard, found.key, fence) for found in ranges.record_plan(database, new(key), **fence)]
        if not taken:
            break
        for shard, key, fence in taken:
            rows = [prediction(f"{key.kafka_partition}-{place}") for place in range(key.start_offset, key.end_offset)]
            added = commits.commit_range(database, RangeResult(key, runs[shard][1], rows), **fence)
            assert added.new_predictions == len(key)
            done.append((shard, key))
    assert {shard for shard, _ in done} == set(runs), "each found work"
    for number in range(3):
        keys = sorted(key for _, key in done if key.kafka_partition == number)
        assert (keys[0].start_offset, keys[-1].end_offset) == (0, 40)
        assert all(a.end_offset == b.start_offset for a, b in itertools.pairwise(keys))
    assert sorted(row.key for row in ranges.history(database, TOPIC, states={"committed"})) == sorted(
        key for _, key in done
    )
    assert len(predicted(database)) == 120


def new(key: PartitionKey) -> Plan:
    return Plan(new=(Attempt(key),))


def test_a_lease_from_before_the_clock_went_back_is_free_unless_its_holder_renews_it(database: Database) -> None:
    token = leases.acquire(database, TOPIC, "a", 30, now=NOW)
    assert token is not None
    earlier = NOW - timedelta(hours=1)
    assert not leases.holders(database, TOPIC, 30, now=earlier)
    leases.renew(database, TOPIC, token, 30, now=earlier)
    assert leases.holders(database, TOPIC, 30, now=earlier)
    assert leases.acquire(database, TOPIC, "b", 30, now=earlier) is None
    assert leases.acquire(database, TOPIC, "b", 30, now=earlier - timedelta(hours=1)) == 2


def test_a_lease_holds_through_small_differences_between_clocks(database: Database) -> None:
    leases.acquire(database, TOPIC, "a", 30, now=NOW)
    for seconds in (-29, 0, 29):
        assert leases.holders(database, TOPIC, 30, now=NOW + timedelta(seconds=seconds))
    assert not leases.holders(database, TOPIC, 30, now=NOW + timedelta(seconds=30))


def test_a_holder_that_was_overtaken_is_fenced(database: Database) -> None:
    plan_new(database, key(0, 4))
    old = leases.acquire(database, TOPIC, "a", 30, now=NOW)
    new = leases.acquire(database, TOPIC, "b", 30, now=LATER)
    assert old is not None
    with pytest.raises(FencedError, match=r"token 1, now 2"):
        leases.renew(database, TOPIC, old, 30)
    with pytest.raises(FencedError):
        commits.commit_range(database, RangeResult(key(0, 4), "a", predictions=[prediction("a")]), token=old)
    assert predicted(database) == []
    assert ranges.find(database, key(0, 4)).state == "planned"
    commits.commit_range(database, RangeResult(key(0, 4), "b", predictions=[prediction("a")]), token=new)
    assert predicted(database) == [("a", 1)]


def test_a_lease_that_only_expired_still_commits(database: Database) -> None:
    plan_new(database, key(0, 4))
    token = leases.acquire(database, TOPIC, "a", 30, now=NOW)
    commits.commit_range(database, RangeResult(key(0, 4), "a"), token=token, now=LATER)
    assert ranges.find(database, key(0, 4)).state == "committed"


def test_racing_for_a_lease_gives_one_token(database: Database) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> int | None:
        start.wait()
        return leases.acquire(database, TOPIC, f"holder-{number}", 30, now=NOW)

    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(race, range(8)))
    assert sorted(token for token in tokens if token is not None) == [1]


# --------------------------------------------------------------------------------------------------------- commits


def test_a_commit_stores_rows_checks_and_range_together(database: Database) -> None:
    plan_new(database, key(10, 13, partition=2))
    result = commits.commit_range(
        database,
        RangeResult(
            key(10, 13, partition=2),
            "run-1",
            predictions=[prediction("a", 10, genre="rock"), prediction("a", 11)],
            quarantine=[refused("b")],
            checks=[RangeCheck("clips_accounted_for", True, "3", "3")],
            feature_path="/genres/stream/x",
            feature_version="gtzan57-1",
            model_name="genres-gtzan",
            model_version=1,
        ),
        now=LATER,
    )
    assert result == CommitResult(1, 1, 1, was_already_committed=False)
    where = {"topic": TOPIC, "kafka_partition": 2, "partition_key": str(key(10, 13, 2)), "run_id": "run-1"}
    assert results.predictions(database) == [
        {**prediction("a", 10, genre="rock"), **where, "predicted_at": LATER, "latency_s": 90.0}
    ]
    assert results.quarantine(database) == [
        {**refused("b")._asdict(), **where, "quarantined_at": LATER, "closed_at": None},
    ]
    check = {"check_name": "clips_accounted_for", "passed": True, "expected": "3", "actual": "3"}
    assert results.checks(database) == [{**check, "partition_key": str(key(10, 13, 2)), "checked_at": LATER}]
    assert results.checks(database, failed_only=True) == []
    found = ranges.find(database, key(10, 13, 2))
    assert (found.state, found.committed_at, found.run_id) == ("committed", LATER, "run-1")
    assert (found.clip_count, found.predicted_count, found.quarantined_count, found.duplicate_count) == (3, 1, 1, 1)
    assert (found.feature_path, found.model_name, found.model_version) == ("/genres/stream/x", "genres-gtzan", 1)


def test_a_commit_that_fails_leaves_nothing(database: Database) -> None:
    plan_new(database, key(0, 4))
    twice = [RangeCheck("x", True), RangeCheck(None, True)]  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"(?i)not.null"):
        commits.commit_range(
            database,
            RangeResult(key(0, 4), "r", predictions=[prediction("a")], quarantine=[refused("b")], checks=twice),
        )
    assert (predicted(database), quarantined(database), results.checks(database)) == ([], [], [])
    assert ranges.find(database, key(0, 4)).state == "planned"


def test_a_replay_changes_nothing(database: Database) -> None:
    plan_new(database, key(0, 4))
    rows = [prediction("a"), prediction("b")]
    commits.commit_range(database, RangeResult(key(0, 4), "r", predictions=rows, quarantine=[refused("c")]), now=NOW)
    before = results.predictions(database), results.quarantine(database), ranges.history(database, TOPIC)
    again = commits.commit_range(
        database, RangeResult(key(0, 4), "s", predictions=rows, quarantine=[refused("c", "late")])
    )
    assert again == CommitResult(0, 0, 3, was_already_committed=True)
    after = results.predictions(database), results.quarantine(database), ranges.history(database, TOPIC)
    assert after == before


def test_another_model_version_is_added_to_a_committed_range(database: Database) -> None:
    plan_new(database, key(0, 4))
    common: dict[str, Any] = {"feature_path": "/f", "feature_version": "1", "model_name": "genres-gtzan"}
    commits.commit_range(
        database, RangeResult(key(0, 4), "r", predictions=[prediction("a")], model_version=1, **common), now=NOW
    )
    result = commits.commit_range(
        database,
        RangeResult(
            key(0, 4),
            "s",
            predictions=[prediction("a", model_version=2)],
            model_version=2,
            **{**common, "feature_path": "/another/attempt"},
        ),
        now=LATER,
    )
    assert result == CommitResult(1, 0, 0, was_already_committed=True)
    assert predicted(database) == [("a", 1), ("a", 2)]
    found = ranges.find(database, key(0, 4))
    assert (found.state, found.committed_at, found.run_id, found.predicted_count) == ("committed", NOW, "r", 1)
    assert (found.model_version, found.feature_path) == (2, "/f")

    commits.commit_range(
        database,
        RangeResult(key(0, 4), "t", model_version=1, feature_path="/g", feature_version="2", model_name="genres-gtzan"),
    )
    found = ranges.find(database, key(0, 4))
    assert (found.model_version, found.feature_path, found.feature_version) == (2, "/g", "2")


def test_another_model_predicts_the_same_clips_whatever_its_version(database: Database) -> None:
    plan_new(database, key(0, 4))
    commits.commit_range(
        database,
        RangeResult(key(0, 4), "r", [prediction("a", model_version=7)], model_name="genres-gtzan", model_version=7),
    )
    other = RangeResult(
        key(0, 4), "s", [prediction("a", model_name="genres-own")], model_name="genres-own", model_version=1
    )
    assert commits.commit_range(database, other) == CommitResult(1, 0, 0, was_already_committed=True)
    assert commits.commit_range(database, other) == CommitResult(0, 0, 1, was_already_committed=True)
    stored = {(row["sha256"], row["model_name"], row["model_version"]) for row in results.predictions(database)}
    assert stored == {("a", "genres-gtzan", 7), ("a", "genres-own", 1)}
    found = ranges.find(database, key(0, 4))
    assert (found.model_name, found.model_version) == ("genres-own", 1)


def test_a_predicted_clip_is_not_refused_afterwards_and_a_refused_one_may_be_accepted(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8))
    assert commits.quarantine_clip(database, QuarantinedClip("q", "q.wav", "producer", "empty", ".wav", "gate1"))
    commits.commit_range(database, RangeResult(key(0, 4), "r", predictions=[prediction("p")]))
    result = commits.commit_range(
        database,
        RangeResult(key(4, 8), "r", predictions=[prediction("q"), prediction("q", 5, 2)], quarantine=[refused("p")]),
        now=LATER,
    )
    assert result == CommitResult(2, 0, 1, was_already_committed=False)
    assert not commits.quarantine_clip(database, QuarantinedClip("p", "p.wav", "producer", "empty", ".wav", "gate1"))
    assert sorted(predicted(database)) == [("p", 1), ("q", 1), ("q", 2)]
    assert results.quarantine(database) == []
    closed = results.quarantine(database, history=True)
    assert [(row["sha256"], row["file_name"], row["closed_at"]) for row in closed] == [("q", "q.wav", LATER)]


def test_a_verdict_is_about_bytes_under_a_suffix_by_a_version(database: Database) -> None:
    old = QuarantinedClip("q", "q.mp3", "producer", "a WAV file named .mp3", ".mp3", "gate1")
    assert commits.quarantine_clip(database, old)
    assert not commits.quarantine_clip(database, old._replace(file_name="other.mp3")), "the same verdict"
    newer = old._replace(reason="still a WAV file", judged_by="gate2")
    assert commits.quarantine_clip(database, newer, now=LATER)
    assert [row["judged_by"] for row in results.quarantine(database)] == ["gate2"]
    history = results.quarantine(database, history=True)
    assert {row["judged_by"]: row["closed_at"] for row in history} == {"gate1": LATER, "gate2": None}


def test_verdicts_that_come_together_leave_what_they_leave_one_by_one(database: Database) -> None:
    """Of few clips, under few suffixes: the same verdict twice, several on one clip, some that are there already."""
    chosen = random.Random(7)

    def verdict(number: int) -> QuarantinedClip:
        clip = refused(f"clip-{chosen.randrange(60)}", f"reason {number}")
        return clip._replace(suffix=chosen.choice([".wav", ".mp3"]), judged_by=chosen.choice(["gate1", "gate2"]))

    def commit(range_key: PartitionKey, clips: list[QuarantinedClip], at: datetime) -> int:
        plan_new(database, range_key)
        scored = [prediction(f"clip-{number}") for number in range(5)]
        rows = scored if range_key.start_offset == 0 else []
        result = RangeResult(range_key, "r", rows, clips, model_name="genres-gtzan")
        return commits.commit_range(database, result, now=at).new_quarantine

    def left(topic: str) -> list[Any]:
        query = sa.select(tables.STREAM_QUARANTINE).where(tables.STREAM_QUARANTINE.c.topic == topic)
        with database.reading() as connection:
            rows = [row._asdict() for row in connection.execute(query.order_by("sha256", "suffix", "judged_by"))]
        return [{**row, "topic": "", "partition_key": "", "kafka_offset": 0} for row in rows]

    before, together = [verdict(number) for number in range(80)], [verdict(number) for number in range(200)]
    commit(key(0, 1), before, NOW)
    added = commit(key(1, 2), together, LATER)
    # The same in another topic, a commit for each verdict.
    others = [PartitionKey("others", "A", 0, number, number + 1) for number in range(1 + len(together))]
    with database.writing() as connection:  # what is predicted there is the other topic's
        for row in results.predictions(database):
            own = {**row, "topic": "others", "model_name": "genres-others"}
            connection.execute(sa.insert(tables.STREAM_PREDICTIONS).values(own))
    for_others: dict[str, Any] = {"model_name": "genres-others"}
    ranges.record_plan(database, Plan(new=tuple(map(Attempt, others))), now=NOW)
    commits.commit_range(database, RangeResult(others[0], "r", [], before, **for_others), now=NOW)
    one_by_one = sum(
        commits.commit_range(database, RangeResult(of, "r", [], [clip], **for_others), now=LATER).new_quarantine
        for of, clip in zip(others[1:], together, strict=True)
    )
    assert added == one_by_one > 30
    assert left(TOPIC) == left("others")
    open_ones = [row["sha256"] for row in left(TOPIC) if row["closed_at"] is None]
    assert len(open_ones) == len(set(open_ones)) > 30
    assert not set(open_ones) & {f"clip-{number}" for number in range(5)}


def test_streams_that_share_a_model_commit_the_same_clips_at_the_same_time(database: Database) -> None:
    """Neither waits for the other, and the first row of a clip stands, in whatever order they come."""
    topics = ("left", "right")
    for topic in topics:
        ranges.record_plan(
            database, Plan(new=tuple(Attempt(PartitionKey(topic, "A", 0, n, n + 1)) for n in range(20))), now=NOW
        )
    start = threading.Barrier(2)

    def commit_all(topic: str) -> int:
        own = Database(database.url.render_as_string(hide_password=False))
        chosen, added = random.Random(topic), 0
        start.wait()
        for number in range(20):
            clips = [f"clip-{number * 300 + n}" for n in range(400)]
            chosen.shuffle(clips)
            bad = list(map(refused, clips[:4]))
            rows = [prediction(clip, model_name="shared") for clip in clips[4:]]
            key = PartitionKey(topic, "A", 0, number, number + 1)
            result = RangeResult(key, topic, rows, bad, model_name="shared")
            added += commits.commit_range(own, result).new_predictions
        own.engine.dispose()
        return added

    with ThreadPoolExecutor(2) as pool:
        added = sum(pool.map(commit_all, topics))
    stored = [row["sha256"] for row in results.predictions(database)]
    assert len(stored) == len(set(stored)) == added
    for topic in topics:
        own = {row["sha256"] for row in results.predictions(database, topic=topic)}
        assert not own & {row["sha256"] for row in results.quarantine(database, topic=topic)}


def test_many_refused_clips_take_few_statements(database: Database) -> None:
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))

    def statements_of(clips: int, range_key: PartitionKey) -> int:
        plan_new(database, range_key)
        rows = [refused(f"{range_key} {number}") for number in range(clips)]
        statements.clear()
        assert commits.commit_range(database, RangeResult(range_key, "r", quarantine=rows)).new_quarantine == clips
        return len(statements)

    few, many = statements_of(2, key(0, 1)), statements_of(1000, key(1, 2))
    assert many <= few + 6, "one more for each five hundred clips and kind of statement"


@pytest.mark.parametrize(("topic", "waits"), [("radio", False), (TOPIC, True), ("", True)])
def test_writers_of_another_topic_do_not_wait(database: Database, topic: str, waits: bool) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite lets one writer in at a time")
    done = threading.Event()

    def write() -> None:
        with writing(database, topic):
            done.set()

    def is_waiting() -> bool:
        with database.reading() as connection:
            return bool(connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as pool:
        with writing(database, TOPIC):
            other = pool.submit(write)
            wait_until(lambda: done.is_set() or is_waiting(), patience_s=60)
            assert done.is_set() is not waits
        other.result(60)


def test_each_stream_has_its_own_refusals(database: Database) -> None:
    """Too short for one stream's features, and refused under one name, a clip may be fine for another stream."""
    ours, theirs = key(0, 4), PartitionKey("radio", "R", 0, 0, 4)
    plan_new(database, ours, theirs)
    radio = {"model_name": "genres-radio", "model_version": 1}
    commits.commit_range(
        database,
        RangeResult(theirs, "r", [prediction("short", **radio, dataset="radio")], [refused("bad")], **radio),
    )
    result = commits.commit_range(
        database,
        RangeResult(ours, "r", [prediction("mine")], [refused("short"), refused("bad")], model_name="genres-gtzan"),
    )
    assert (result.new_quarantine, result.duplicates) == (2, 0), "what radio made of them is radio's"
    assert [row["sha256"] for row in results.quarantine(database, topic="radio")] == ["bad"]
    assert [row["sha256"] for row in results.quarantine(database, topic=TOPIC)] == ["bad", "short"]
    commits.commit_range(database, RangeResult(theirs, "r", [prediction("bad", **radio, dataset="radio")], **radio))
    assert results.quarantine(database, topic="radio") == []
    assert [row["sha256"] for row in results.quarantine(database, topic=TOPIC)] == ["bad", "short"]
    assert [row["dataset"] for row in results.predictions(database, dataset="radio")] == ["radio", "radio"]


def test_streams_that_share_a_model_share_its_predictions(database: Database) -> None:
    shared = PartitionKey("radio", "R", 0, 0, 4)
    plan_new(database, key(0, 4), shared)
    commits.commit_range(database, RangeResult(key(0, 4), "r", [prediction("a")], model_name="genres-gtzan"))
    again = RangeResult(shared, "r", [prediction("a")], [refused("a")], model_name="genres-gtzan")
    assert commits.commit_range(database, again)[:3] == (0, 0, 2)
    assert results.quarantine(database) == []


def test_what_a_zombie_commits_of_a_split_or_lost_range_is_kept_once(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8))
    halves = key(0, 2), key(2, 4)
    ranges.record_plan(database, Plan(split=(Split(key(0, 4), planned=halves),), lost=(Lost(key(4, 8), "gone"),)))
    commits.commit_range(database, RangeResult(key(0, 4), "zombie", predictions=[prediction("a"), prediction("b", 3)]))
    commits.commit_range(database, RangeResult(key(4, 8), "zombie", predictions=[prediction("c", 4)]))
    states = {row.key: row.state for row in ranges.history(database, TOPIC)}
    assert states == {key(0, 4): "split", key(4, 8): "committed", halves[0]: "planned", halves[1]: "planned"}
    result = commits.commit_range(database, RangeResult(halves[0], "r", predictions=[prediction("a")]))
    assert result == CommitResult(0, 0, 1, was_already_committed=False)


def test_a_check_of_a_range_is_replaced_by_its_newest_result(database: Database) -> None:
    plan_new(database, key(0, 4))
    for passed in (True, False):
        commits.commit_range(database, RangeResult(key(0, 4), "r", checks=[RangeCheck("labels", passed)]))
    assert [row["passed"] for row in results.checks(database, failed_only=True)] == [False]


def test_writers_that_commit_the_same_clips_store_each_once(database: Database) -> None:
    keys = [key(n * 5, n * 5 + 5) for n in range(12)]
    plan_new(database, *keys)
    start = threading.Barrier(4)

    def commit_all(seed: int) -> list[CommitResult]:
        # Every range, with clips that the others also have and that some of them refuse, over connections of its own.
        own = Database(database.url.render_as_string(hide_password=False))
        start.wait()
        outcomes = []
        for step in range(len(keys)):
            chosen = keys[(step + seed * 3) % len(keys)]
            clips = [f"clip-{(chosen.start_offset + n) % 25}" for n in range(8)]
            bad = clips[::3] if seed % 2 == 0 else []
            rows = [prediction(clip, n) for n, clip in enumerate(clips) if clip not in bad]
            outcomes.append(
                commits.commit_range(
                    own, RangeResult(chosen, f"writer-{seed}", predictions=rows, quarantine=list(map(refused, bad)))
                )
            )
        own.engine.dispose()
        return outcomes

    with ThreadPoolExecutor(4) as pool:
        outcomes = [result for mine in pool.map(commit_all, range(4)) for result in mine]
    everywhere = [clip for clip, _ in predicted(database)] + quarantined(database)
    assert sorted(everywhere) == sorted(f"clip-{n}" for n in range(25)), "each clip in exactly one place, once"
    assert sum(result.new_predictions for result in outcomes) == len(predicted(database))
    assert sum(not result.was_already_committed for result in outcomes) == len(keys)
    assert {row.state for row in ranges.history(database, TOPIC)} == {"committed"}


# --------------------------------------------------------------------------------------------- outcomes and producer


def test_a_live_table_goes_on_where_it_was(database: Database) -> None:
    plan_new(database, key(0, 2), key(2, 4))
    commits.commit_range(
        database, RangeResult(key(0, 2), "r", predictions=[prediction("a", 0), prediction("b", 1)]), now=NOW
    )
    shown = results.predictions(database)
    commits.commit_range(database, RangeResult(key(2, 4), "r", predictions=[prediction("c", 2)]), now=LATER)
    assert [row["sha256"] for row in shown] == ["a", "b"]
    assert [row["sha256"] for row in results.predictions(database, since=shown[-1]["predicted_at"])] == ["c"]
    assert [row["sha256"] for row in results.predictions(database, limit=2)] == ["b", "c"]


def test_a_topic_shows_its_own_results_only(database: Database) -> None:
    for topic, clip in ((TOPIC, "a"), ("audio_clips_2", "b")):
        own = PartitionKey(topic, "A", 0, 0, 2)
        plan_new(database, own)
        refusals, found = [refused(f"{clip}-refused")], [RangeCheck("labels", False), RangeCheck("complete", True)]
        commits.commit_range(database, RangeResult(own, "r", [prediction(clip)], refusals, found))
    commits.quarantine_clip(database, QuarantinedClip("c", "c.wav", "producer", "empty", ".wav", "gate1"))
    for topic, clip in ((TOPIC, "a"), ("audio_clips_2", "b")):
        assert [row["sha256"] for row in results.predictions(database, topic=topic)] == [clip]
        assert [row["sha256"] for row in results.quarantine(database, topic=topic)] == [f"{clip}-refused"]
        names = [(row["partition_key"], row["check_name"]) for row in results.checks(database, topic=topic)]
        assert names == [(f"{topic}:A:0:0-2", "complete"), (f"{topic}:A:0:0-2", "labels")]
        assert [row["check_name"] for row in results.checks(database, topic=topic, failed_only=True)] == ["labels"]
    assert results.predictions(database, topic="audio") == []
    assert (len(results.predictions(database)), len(results.quarantine(database))) == (2, 3)
    assert len(results.checks(database)) == 4


def test_a_sent_file_is_remembered_and_remembered_anew(database: Database) -> None:
    row = SentFile("here", "/drop/a.wav", 5_000_000_000, 1_767_322_445_123_456_789, 2**60, 2**62, "a" * 64, *SENT_TO)
    assert sent_files.sent_from(database, row.path, host="here") == []
    sent_files.remember(database, [row])
    assert sent_files.sent_from(database, row.path, host="here") == [row]
    changed = row._replace(size=1, sha256="b" * 64, sent_at=LATER)
    sent_files.remember(database, [changed])
    assert sent_files.sent_from(database, row.path, host="here") == [changed]


def test_each_host_has_files_of_its_own(database: Database) -> None:
    row = SentFile("here", "/drop/a.wav", 5, 6, 7, 8, "a" * 64, *SENT_TO)
    old = row._replace(host="", ctime_ns=None, inode=None, topic_id=None)
    there = row._replace(host="there", size=9)
    with database.writing() as connection:
        database.upsert(connection, SENT_FILES, [old._asdict()])
    sent_files.remember(database, [there])
    # It took the place of the row of which nobody knows the host.
    assert sent_files.sent_from(database, row.path, host="here") == [there]
    sent_files.remember(database, [row])
    assert sent_files.sent_from(database, row.path, host="here") == [row, there]
    assert sent_files.sent_from(database, row.path, host="there") == [there, row]


@pytest.mark.parametrize("topic_id", ["A", None])
def test_lost_is_what_the_topic_has_lost_before_it_had_a_row(database: Database, topic_id: str | None) -> None:
    def sent(name: str, offset: int, of: str | None = topic_id, topic: str = TOPIC) -> str:
        row = SentFile("here", f"/drop/{name}.wav", 5, 6, 7, 8, name, topic, of, 0, offset, NOW)
        sent_files.remember(database, [row])
        return row.path

    own = PartitionKey(TOPIC, "A", 0, 0, 2)
    plan_new(database, own)
    commits.commit_range(database, RangeResult(own, "r", [prediction("predicted")], [refused("refused")]))
    sent("predicted", 0)
    sent("refused", 1)
    deleted = sent("deleted", 2)
    sent("there", 3)
    sent("elsewhere", 2, topic="another")
    recreated = sent("recreated", 9, of="Z")
    sent("predicted twin", 0, of="Z")
    with database.writing() as connection:
        twin = SENT_FILES.c.path == "/drop/predicted twin.wav"
        connection.execute(sa.update(SENT_FILES).where(twin).values(sha256="predicted"))

    def lost(beginnings: dict[int, int], now: str = "A") -> set[str]:
        return {row.path for row in sent_files.lost(database, TOPIC, now, beginnings)}

    assert lost({0: 0}) == {recreated}
    assert lost({0: 3}) == {deleted, recreated}
    assert lost({1: 3}) == {recreated}
    # A row of a version that did not note the id is taken for one of the present topic.
    everything = {deleted, recreated, "/drop/there.wav"}
    assert lost({0: 0}, now="B") == (everything if topic_id else {recreated})


def test_what_another_stream_or_suffix_made_of_a_lost_clip_says_nothing(database: Database) -> None:
    other = PartitionKey("radio", "R", 0, 0, 2)
    plan_new(database, other, key(7, 8))
    radio = prediction("in radio", model_name="genres-radio", dataset="radio")
    commits.commit_range(
        database, RangeResult(other, "r", [radio], [refused("refused in radio")], model_name="genres-radio")
    )
    misnamed = QuarantinedClip("misnamed", "x.mp3", "producer", "a WAV file named .mp3", ".mp3", "gate1", topic=TOPIC)
    commits.quarantine_clip(database, misnamed)
    # Anybody may have sent the bytes without an envelope; a row of a version that noted neither may be of any suffix.
    for sha256, judged_by in (("bare", "gate1+gtzan57-1"), ("old", "")):
        commits.quarantine_clip(
            database, QuarantinedClip(sha256, "offset 7", "stream", "bad message", "", judged_by, topic=TOPIC)
        )
    # Its range is committed: the other stream, with the same model, was first to predict it.
    commits.commit_range(database, RangeResult(key(7, 8), "r"))
    for offset, (sha256, name) in enumerate(
        [
            ("in radio", "a.wav"),
            ("refused in radio", "b.wav"),
            ("misnamed", "x.wav"),
            ("misnamed", "X.MP3"),
            ("shared", "s.wav"),
            ("bare", "bare.wav"),
            ("old", "old.wav"),
        ],
        start=3,
    ):
        row = SentFile("here", f"/drop/{name}", 5, 6, 7, 8, sha256, TOPIC, "A", 0, offset, NOW)
        sent_files.remember(database, [row])
    lost = {row.path for row in sent_files.lost(database, TOPIC, "A", {0: 100})}
    assert lost == {"/drop/a.wav", "/drop/b.wav", "/drop/x.wav", "/drop/bare.wav"}


def test_lost_files_are_found_by_an_index(database: Database) -> None:
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *given: statements.append((given[2], given[3])))
    sent_files.lost(database, TOPIC, "A", {0: 5, 1: 6})
    (query, values) = next(found for found in statements if "sent_files" in found[0])
    explain = "EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN"
    with database.writing() as connection:
        if database.engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # on an empty table it costs nothing
        plan = str(connection.exec_driver_sql(f"{explain} {query}", values).all())
    assert "ix_sent_files_position" in plan


def test_two_producers_that_remember_the_same_file_wait_for_each_other(database: Database) -> None:
    rows = [SentFile("here", f"/drop/{number}.wav", 5, 6, 7, 8, "a" * 64, *SENT_TO) for number in range(20)]

    def remember(size: int) -> None:
        other = Database(database.url.render_as_string(hide_password=False))
        for _ in range(10):
            sent_files.remember(other, [row._replace(size=size) for row in rows[::size]])
        other.engine.dispose()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remember, (1, -1)))
    sizes = {row.path: sent_files.sent_from(database, row.path, host="here")[0].size for row in rows}
    assert set(sizes) == {row.path for row in rows}
    assert set(sizes.values()) <= {1, -1}


def remember_again_and_again(url: str, host: str, topic_id: str, step: int, both_begin: Any) -> None:
    """Be a producer that remembers the same paths as another one, in another order."""
    database = Database(url)
    database.check_migrated()
    both_begin.wait(60)
    for offset in range(20):
        rows = [
            SentFile(host, f"/drop/{n}.wav", 5, 6, 7, 8, "a" * 64, TOPIC, topic_id, 0, offset, NOW) for n in range(20)
        ]
        sent_files.remember(database, rows[::step])
    database.engine.dispose()


@pytest.mark.parametrize("hosts", [("here", "here"), ("here", "there")], ids=["one host", "two hosts"])
def test_producers_in_two_processes_remember_the_same_paths(database: Database, hosts: tuple[str, str]) -> None:
    """The ledger has rows of an older version for all of them; one producer knows the topic by the id it had before."""
    old = [
        SentFile("", f"/drop/{n}.wav", 5, 6, None, None, "a" * 64, TOPIC, None, 0, 1, NOW)._asdict() for n in range(20)
    ]
    with database.writing() as connection:
        database.upsert(connection, SENT_FILES, old)
    url = database.url.render_as_string(hide_password=False)
    spawn = multiprocessing.get_context("spawn")
    both_begin = spawn.Barrier(2)
    at_work = [
        spawn.Process(target=remember_again_and_again, args=(url, host, topic_id, step, both_begin))
        for host, topic_id, step in zip(hosts, "AB", (1, -1), strict=True)
    ]
    for process in at_work:
        process.start()
    for process in at_work:
        process.join()
    assert [process.exitcode for process in at_work] == [0, 0]
    for number in range(20):
        rows = sent_files.sent_from(database, f"/drop/{number}.wav", host="here")
        assert {row.host for row in rows} == set(hosts)
        assert len(rows) == len(set(hosts))
        assert {(row.topic_id, row.kafka_offset) for row in rows} <= {("A", 19), ("B", 19)}
    lost = {(row.host, row.path) for row in sent_files.lost(database, TOPIC, "B", {0: 0})}
    assert lost == {
        (row.host, row.path)
        for number in range(20)
        for row in sent_files.sent_from(database, f"/drop/{number}.wav", host="here")
        if row.topic_id == "A"
    }


def test_a_producer_is_alive_as_long_as_it_says_so(database: Database) -> None:
    producer = Producer(TOPIC, "here", "/drop", 5, NOW, NOW, None, None, 3, 1, 2)
    assert producers.newest(database, TOPIC) is None
    producers.beat(database, producer)
    soon, later = NOW + timedelta(seconds=SILENT_S - 1), NOW + timedelta(seconds=SILENT_S)
    assert producers.newest(database, TOPIC) == producer
    assert producers.newest(database, "another") is None
    assert producer.describe(now=soon) == "running (pid 5 on here): 3 sent, 1 refused, 2 waiting"
    assert producer.is_alive(now=soon) and not producer.is_alive(now=later)
    assert not producer.is_alive(now=NOW - timedelta(hours=1)), "its sign is from before the clock went back"
    assert producer._replace(last_error="why").describe(now=later) == (
        f"silent since {NOW:%Y-%m-%d %H:%M:%S} UTC (pid 5 on here); why"
    )
    again = producer._replace(pid=6, beat_at=LATER, ended_at=LATER)
    producers.beat(database, again)
    assert producers.newest(database, TOPIC) == again
    assert again.describe(now=LATER).startswith("not running since")
    # One that runs comes before one of another folder that was heard of later.
    now = datetime.now(UTC)
    running = producer._replace(folder="/other", beat_at=now - timedelta(seconds=30))
    producers.beat(database, running)
    producers.beat(database, again._replace(beat_at=now, ended_at=now))
    assert producers.newest(database, TOPIC) == running


def test_what_the_broker_confirmed_is_found_by_its_range_and_by_its_lack_of_a_row(database: Database) -> None:
    def sent(name: str, offset: int, topic_id: str = "A") -> SentFile:
        return SentFile("here", f"/drop/{name}", 1, 1, 1, 1, name, TOPIC, topic_id, 0, offset, NOW)

    files = [sent("a", 0), sent("b", 3), sent("c", 4), sent("d", 5, topic_id="B")]
    sent_files.remember(database, files)
    assert sent_files.within(database, key(0, 4)) == files[:2]
    assert sent_files.within(database, key(4, 8)) == [files[2]]
    plan_new(database, key(0, 4), key(4, 8))
    commits.commit_range(database, RangeResult(key(0, 4), "r", [prediction("a")], [refused("b")]))
    assert sent_files.unanswered(database, [key(0, 4), key(4, 8)]) == [files[2]]
    assert sent_files.unanswered(database, [key(0, 4)]) == sent_files.unanswered(database, []) == []


def test_outcomes_are_the_newest_of_both_kinds_without_closed_refusals(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8), key(8, 12))
    commits.commit_range(
        database, RangeResult(key(0, 4), "r", [prediction("a")], [refused("b"), refused("c")]), now=NOW
    )
    commits.commit_range(database, RangeResult(key(4, 8), "r", [prediction("c", 5)], [refused("d")]), now=LATER)

    def found(limit: int) -> list[tuple[datetime, str, bool]]:
        return [outcome[:3] for outcome in results.outcomes(database, topic=TOPIC, limit=limit)]

    assert found(9) == [(LATER, "d", True), (LATER, "c", False), (NOW, "b", True), (NOW, "a", False)]
    assert found(2) == [(LATER, "d", True), (LATER, "c", False)]
    assert results.outcomes(database, topic="another", limit=9) == []


def test_why_ranges_wait_is_summed_up_by_reason_until_they_are_begun_again(database: Database) -> None:
    plan_new(database, key(0, 4), key(4, 8), key(8, 9), key(9, 12))
    for of, reason in ((key(0, 4), "HDFS is full"), (key(4, 8), "HDFS is full"), (key(8, 9), "no champion")):
        ranges.begin_attempt(database, of, "r")
        ranges.end_attempt(database, of, "r", reason=reason, is_outage=True)
    waiting = ranges.waiting(ranges.known(database, TOPIC))
    assert [found.describe() for found in waiting] == ["8 clips wait: HDFS is full", "1 clip waits: no champion"]
    ranges.begin_attempt(database, key(8, 9), "again")
    commits.commit_range(database, RangeResult(key(0, 4), "r"))
    assert [tuple(found) for found in ranges.waiting(ranges.known(database, TOPIC))] == [(4, "HDFS is full")]


def test_the_newest_ranges_are_those_planned_last_in_their_order(database: Database) -> None:
    plan_new(database, key(0, 4))
    plan_new(database, key(4, 8), key(0, 2, partition=1), now=LATER)
    assert [row.key for row in ranges.history(database, TOPIC, newest=2)] == [key(4, 8), key(0, 2, partition=1)]
    assert len(ranges.history(database, TOPIC)) == 3


# ------------------------------------------------------------------------------------------------------ long history


def test_progress_counts_what_is_done_whatever_was_split_or_lost(database: Database) -> None:
    plan_new(database, key(5, 9), key(9, 13), key(0, 7, partition=2), key(0, 50, topic_id="B"))
    assert ranges.progress(database, TOPIC, "A") == {0: Progress(5, 0), 2: Progress(0, 0)}
    commits.commit_range(database, RangeResult(key(5, 9), "r"))
    split = Split(key(9, 13), planned=(key(10, 13),), lost=Lost(key(9, 10), "gone"))
    ranges.record_plan(database, Plan(split=(split,), lost=(Lost(key(13, 20), "gone"),)), now=LATER)
    assert ranges.progress(database, TOPIC, "A") == {0: Progress(5, 12), 2: Progress(0, 0)}
    commits.commit_range(database, RangeResult(key(10, 13), "r"))
    assert ranges.progress(database, TOPIC, "A")[0] == Progress(5, 15)
    assert ranges.progress(database, TOPIC, "unknown") == {}
    assert ranges.progress(database, "other_topic", "A") == {}


def test_finished_ranges_are_found_in_the_order_of_the_keys(database: Database) -> None:
    plan_new(database, *(key(number, number + 1) for number in range(0, 1200)))
    done = [key(number, number + 1) for number in (3, 700, 701, 1100)]
    for one in done:
        commits.commit_range(database, RangeResult(one, "r"))
    keys = [str(key(number, number + 1)) for number in range(1200)]
    assert ranges.finished(database, keys, most=10) == [str(one) for one in done]
    assert ranges.finished(database, keys, most=2) == [str(one) for one in done[:2]]
    assert ranges.finished(database, [*keys[:3], "nobody:knows:0:1-2"], most=2) == []


def test_what_a_tick_asks_takes_no_more_of_a_longer_history(database: Database) -> None:
    if database.engine.dialect.name != "sqlite":
        pytest.skip("Postgres does not count its steps; benchmarks/ledger.py times it")
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: Any, *_: Any) -> None:
        connection.set_progress_handler(count, 100)

    def steps_of_a_tick() -> int:
        nonlocal steps
        steps = 0
        ranges.known(database, TOPIC)
        ranges.progress(database, TOPIC, "A")
        ranges.history(database, TOPIC, states={"committed"}, newest=5)
        ranges.history(database, TOPIC, states={"lost"})
        ranges.finished(database, [str(key(number, number + 1)) for number in range(50)], most=10)
        return steps

    def commit(*offsets: int) -> None:
        for partition in (0, 1):
            plan_new(database, *(key(number, number + 1, partition) for number in offsets))
        planned = tables.STREAM_RANGES.update().values(state="committed")
        with database.writing() as connection:
            connection.execute(planned)

    sa.event.listen(database.engine, "checkout", watch)
    commit(*range(100))
    of_some = steps_of_a_tick()
    commit(*range(100, 3000))
    assert 10 < of_some <= steps_of_a_tick() < 2 * of_some


def test_newest_arrivals_and_answers_are_found_without_reading_all(database: Database) -> None:
    assert results.arrivals(database, topic=TOPIC, limit=5) == []
    plan_new(database, key(0, 1), key(1, 3))
    over_time = {"genres": ["jazz"], "probabilities": [[1.0]]}
    first = [prediction("a", event_time=NOW - timedelta(seconds=9), over_time=over_time)]
    commits.commit_range(database, RangeResult(key(0, 1), "r", predictions=first), now=NOW)
    later = [prediction("b", 1), prediction("c", 2, predicted_genre="rock")]
    commits.commit_range(database, RangeResult(key(1, 3), "r", predictions=later), now=LATER)
    assert results.arrivals(database, topic=TOPIC, limit=5) == [(LATER, 90), (LATER, 90), (NOW, 9)]
    assert results.arrivals(database, topic=TOPIC, limit=1) == [(LATER, 90)]
    assert results.arrivals(database, topic="another", limit=5) == []
    (rock,) = results.predictions(database, predicted_genre="rock")
    assert rock["sha256"] == "c"
    assert results.over_time_at(database, str(key(0, 1)), 0) == over_time
    assert results.over_time_at(database, str(key(1, 3)), 1) is None

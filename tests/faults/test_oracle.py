"""The oracle finds each kind of violation: it is fed with doctored rows, ranges, databases and tables."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan, RangeState, StreamRange
from streaming_sensors.topic import TopicState
from tests.faults.oracle import Counts, count, damaged_databases, misplanned, stored_counts, unreadable_tables

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATE = TopicState("clips", "id", {0: 0, 1: 5}, {0: 4, 1: 8})


def a_range(number: int, start: int, end: int, state: RangeState = "committed", topic_id: str = "id") -> StreamRange:
    key = PartitionKey("clips", topic_id, number, start, end)
    return StreamRange(key=key, state=state, planned_at=NOW, attempts=1, failures=0)


WHOLE = [a_range(0, 0, 2), a_range(0, 2, 4), a_range(1, 5, 8)]


def test_clips_that_are_all_where_they_belong() -> None:
    counts = count({"a", "b"}, {"x"}, ["a", "b"], ["x"])
    assert counts == Counts(3, 2, 1, 0, 0, 0, 0, 0)
    assert counts.problems == []


@pytest.mark.parametrize(
    ("predicted", "refused", "problem"),
    [
        (["a"], ["x"], "1 missing"),
        (["a", "b"], [], "1 missing"),
        (["a", "b", "b"], ["x"], "1 duplicate"),
        (["a", "b"], ["x", "x"], "1 duplicate"),
        (["a", "b", "c"], ["x"], "1 extra"),
        (["a", "b"], ["x", "y"], "1 extra"),
        (["a"], ["x", "b"], "1 wrongly refused"),
        (["a", "b", "x"], [], "1 wrongly predicted"),
    ],
)
def test_a_clip_that_is_not_where_it_belongs_is_named(predicted: list[str], refused: list[str], problem: str) -> None:
    assert count({"a", "b"}, {"x"}, predicted, refused).problems == [problem]


def test_a_clip_in_both_tables_is_there_twice_and_wrongly_refused() -> None:
    assert count({"a"}, set(), ["a"], ["a"]).problems == ["1 wrongly refused", "1 duplicate"]


def test_rows_are_those_of_the_topic_and_refusals_those_that_stand(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    for topic in ("clips", "others"):
        key = PartitionKey(topic, "id", 0, 0, 3)
        ranges.record_plan(database, Plan(new=(Attempt(key),)))
        rows = [
            {
                "sha256": f"{topic} {letter}",
                "model_name": "genres-tests",
                "model_version": 1,
                "file_name": "a.wav",
                "genre": None,
                "predicted_genre": "blues",
                "probability": 1.0,
                "probabilities": {"blues": 1.0},
                "kafka_offset": offset,
                "feature_version": "tests",
                "dataset": "tests",
                "is_calibrated": True,
                "is_synthetic": True,
                "event_time": NOW,
            }
            for offset, letter in enumerate("ab")
        ]
        refused = [QuarantinedClip(f"{topic} x", "x.wav", "stream", "no audio", ".wav", "gate1", kafka_offset=2)]
        # What was refused and then accepted does not count as refused.
        commits.quarantine_clip(
            database, QuarantinedClip(f"{topic} a", "a.wav", "stream", "by mistake", ".wav", "gate0", topic=topic)
        )
        commits.commit_range(database, RangeResult(key, "run", predictions=rows, quarantine=refused))
    good, bad = {"clips a", "clips b"}, {"clips x"}
    assert stored_counts(database, "clips", good, bad).problems == []
    assert stored_counts(database, "clips", {*good, "clips c"}, bad).problems == ["1 missing"]
    assert stored_counts(database, "clips", {"clips a"}, bad).problems == ["1 extra"]
    assert stored_counts(database, "clips", {"clips a"}, bad, only={"clips a", "clips x"}).problems == []
    assert stored_counts(database, "clips", {*good, "clips x"}, set()).problems == ["1 wrongly refused"]


def test_ranges_that_hold_each_offset_once_are_no_problem() -> None:
    assert misplanned([*WHOLE, a_range(0, 0, 9, "split"), a_range(0, 0, 9, "lost", "earlier")], STATE) == []


@pytest.mark.parametrize(
    ("known", "problem"),
    [
        (WHOLE[1:], "offset (0, 0) is in no range"),
        ([*WHOLE, a_range(0, 3, 4)], "offset (0, 3) is in 2 ranges"),
        ([*WHOLE[:2], a_range(1, 5, 8, "planned")], "waits"),
        ([*WHOLE, a_range(0, 0, 9, "planned", "earlier")], "waits"),
        ([*WHOLE[:2], a_range(1, 5, 8, "lost")], "given up as lost and can be read"),
        ([*WHOLE[:2], a_range(1, 5, 8, topic_id="earlier")], "offset (1, 5) is in no range"),
    ],
)
def test_ranges_that_do_not_hold_each_offset_once_are_a_problem(known: list[StreamRange], problem: str) -> None:
    assert problem in misplanned(known, STATE)[0]


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    whole, damaged, other = tmp_path / "whole.db", tmp_path / "damaged.db", tmp_path / "other.db"
    for file in (whole, damaged):
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE clips (sha256 TEXT PRIMARY KEY, why TEXT)")
        connection.executemany("INSERT INTO clips VALUES (?, ?)", [(str(n), "x" * 500) for n in range(200)])
        connection.commit()
        connection.close()
    data = bytearray(damaged.read_bytes())
    data[5 * 4096 : 5 * 4096 + 200] = b"\xff" * 200
    damaged.write_bytes(data)
    other.write_bytes(b"not a database, whatever it is called" * 100)
    assert damaged_databases([whole]) == []
    assert [line.split(":")[0] for line in damaged_databases([whole, damaged, other])] == [
        "damaged.db is damaged",
        "other.db is damaged",
    ]


def test_tables_that_cannot_be_read_or_lack_rows_are_named(tmp_path: Path) -> None:
    lake = Lake(fsspec.filesystem("file"), hdfs="", root=str(tmp_path))
    whole, cut, gone = (str(tmp_path / f"{name}.parquet") for name in ("whole", "cut", "gone"))
    for path in (whole, cut):
        pq.write_table(pa.table({"sha256": ["a", "b", "c"]}), path)
    Path(cut).write_bytes(Path(cut).read_bytes()[:-20])
    assert unreadable_tables(lake, {whole: 3}) == []
    problems = unreadable_tables(lake, {whole: 2, cut: 3, gone: 3})
    assert [line.split(str(tmp_path))[1].split(":")[0] for line in problems] == [
        "/whole.parquet has 3 rows, 2 were published",
        "/cut.parquet cannot be read",
        "/gone.parquet cannot be read",
    ]

"""Small files of features become large ones: read by the ledger each row is there once, whatever is killed when."""

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from genres.errors import GenresError
from genres.store import compaction, retention, stream_features
from genres.store.compaction import Compacted, compact, small_files
from genres.store.database import Database
from genres.store.hdfs import Hdfs
from genres.store.lake import Lake
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from tests.fake_webhdfs import FakeWebHdfs

VERSION, TOPIC, ID = "gtzan57-1", "merged", "A" * 22  # a topic may have the name that the folder of merged files has
DAY = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAY_S = 24 * 3600.0
MIB = 2**20
LEFT_OUT = {3}
"""Offsets that do not exist, such as a transaction's marker."""


@pytest.fixture
def lake(server: FakeWebHdfs) -> Lake:
    return lake_of(server)


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.migrate()
    return empty_database


def lake_of(server: FakeWebHdfs) -> Lake:
    return Lake(Hdfs(server.url, user="me", patience_s=5), hdfs="hdfs://namenode:8020", root="/genres")


def key(partition: int, start: int, end: int) -> PartitionKey:
    return PartitionKey(TOPIC, ID, partition, start, end)


def features(of: PartitionKey, *, wide: int = 1, value: float = 0.5, codes: list[str | None] | None = None) -> pa.Table:
    offsets = [offset for offset in range(of.start_offset, of.end_offset) if offset not in LEFT_OUT]
    return pa.table(
        {
            "kafka_partition": pa.array([of.kafka_partition] * len(offsets), pa.int32()),
            "kafka_offset": pa.array(offsets, pa.int64()),
            "sha256": pa.array([f"{of.kafka_partition}-{offset}" for offset in offsets], pa.string()),
            **{
                f"feature_{number}": pa.array([value + offset for offset in offsets], pa.float64())
                for number in range(wide)
            },
            "windows": pa.array([[[1.0]]] * len(offsets), pa.list_(pa.list_(pa.float32()))),
            **({"reason_code": pa.array(codes, pa.string())} if codes else {}),
        }
    )


def store(lake: Lake, database: Database, of: PartitionKey, *, at: datetime = DAY, **made: Any) -> str:
    """Write and commit a range as a run does."""
    table = features(of, **made)
    folder = stream_features.folder_of(lake, of, VERSION)
    path = lake.write_table(table, folder, name=f"{of.start_offset}-{of.end_offset}")
    if str(of) not in {str(found.key) for found in ranges.history(database, TOPIC)}:
        ranges.record_plan(database, Plan(new=(Attempt(of),)), now=at)
    result = RangeResult(of, "run", predictions=[], feature_path=path, feature_version=VERSION)
    commits.commit_range(database, result, now=at)
    with database.writing() as connection:  # the rows of the predictions are not this test's
        statement = "UPDATE stream_ranges SET clip_count = :rows WHERE partition_key = :key"
        connection.execute(sa.text(statement), {"rows": len(table), "key": str(of)})
    return path


KEYS = (key(0, 0, 5), key(0, 5, 8), key(0, 8, 9), key(1, 0, 3), key(1, 3, 4), key(2, 10, 12))
ROWS = sorted((of.kafka_partition, offset) for of in KEYS for offset in range(of.start_offset, of.end_offset))
ROWS = [row for row in ROWS if row[1] not in LEFT_OUT]


def read(lake: Lake, database: Database, *keys: PartitionKey) -> list[tuple[int, int]]:
    """Places of the rows that a reader finds who asks the ledger."""
    found = [ranges.find(database, of) for of in keys or KEYS]
    table = stream_features.read(lake, found)
    assert table["feature_0"].to_pylist() == [0.5 + offset for offset in table["kafka_offset"].to_pylist()]
    return sorted(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))


def assert_each_row_is_read_once(lake: Lake, database: Database) -> None:
    assert read(lake, database) == ROWS
    for of in KEYS:  # and of a range alone nothing but its own
        own = [row for row in ROWS if row[0] == of.kafka_partition and of.start_offset <= row[1] < of.end_offset]
        assert read(lake, database, of) == own


def merge_all(lake: Lake, database: Database, **options: Any) -> Compacted:
    files = small_files(database, before=DAY + timedelta(days=2), most=10_000)
    return compaction.total(compact(lake, database, some, **{"memory_bytes": MIB, **options}) for some in files)


def test_the_files_of_a_day_become_one_and_each_range_still_has_its_rows(
    server: FakeWebHdfs, lake: Lake, database: Database
) -> None:
    old = {of: store(lake, database, of) for of in KEYS}
    assert_each_row_is_read_once(lake, database)
    done = merge_all(lake, database)
    assert (done.files, done.into, done.left) == (6, 1, ())
    (merged,) = {ranges.find(database, of).feature_path for of in KEYS}
    assert merged and merged.startswith(f"/genres/stream/features/{VERSION}/{TOPIC}/{ID}/merged/2026-03-04-")
    assert len(server.files[merged]) == done.bytes
    assert_each_row_is_read_once(lake, database)
    without_lists = stream_features.read(lake, [ranges.find(database, KEYS[0])], lists=False)
    assert "windows" not in without_lists.column_names and "feature_0" in without_lists.column_names
    assert merge_all(lake, database) == Compacted(), "there is nothing more to merge"
    assert set(old.values()) < set(server.files), "whoever read the ledger before finds them there"
    assert not [path for path in server.files if "_tmp" in path]


def test_codes_of_reasons_are_empty_in_files_from_before_they_were_kept(lake: Lake, database: Database) -> None:
    old, new = KEYS[0], KEYS[1]
    codes = ["cut_short", None, None]
    store(lake, database, old)
    store(lake, database, new, codes=codes)
    for wanted, expected in (([old], [None] * 4), ([new], codes), ([old, new], [None] * 4 + codes)):
        table = stream_features.read(lake, [ranges.find(database, of) for of in wanted])
        assert table.schema.field("reason_code").type == pa.string()
        assert table["reason_code"].to_pylist() == expected


def test_what_was_merged_goes_when_the_merged_file_is_old(server: FakeWebHdfs, lake: Lake, database: Database) -> None:
    old = {store(lake, database, of) for of in KEYS}
    orphan = stream_features.folder_of(lake, KEYS[0], VERSION) + "/0-5-killed.parquet"
    server.files[orphan] = b"of a run that was killed"
    server.ages_s |= dict.fromkeys({*old, orphan}, 30 * DAY_S)
    before = datetime.now(UTC) - timedelta(days=1)

    def unpublished() -> set[str]:
        return {entry.path for entry in retention.unpublished_stream_features(lake, database, before=before)}

    assert unpublished() == {orphan}
    merge_all(lake, database)
    (merged,) = {str(ranges.find(database, of).feature_path) for of in KEYS}
    assert unpublished() == set(), "they are as old as before, but were replaced just now"
    server.ages_s[merged] = 2 * DAY_S
    assert unpublished() == {*old, orphan}
    for path in unpublished():
        del server.files[path]
    assert_each_row_is_read_once(lake, database)


def test_what_is_merged_while_the_sweeper_looks_is_not_swept(
    server: FakeWebHdfs, lake: Lake, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {store(lake, database, of) for of in KEYS}
    server.ages_s |= dict.fromkeys(old, 30 * DAY_S)
    entries = lake.entries

    def listed(*given: Any, **named: Any) -> Any:
        found = entries(*given, **named)
        merge_all(lake_of(server), database)
        return found

    monkeypatch.setattr(lake, "entries", listed)
    before = datetime.now(UTC) - timedelta(days=1)
    assert retention.unpublished_stream_features(lake, database, before=before) == []


class KilledError(BaseException):
    """The process ends here."""


class Steps:
    """Each request to HDFS and each statement in SQL of a compaction is a step, before and after which it may end."""

    def __init__(self, lake: Lake, database: Database, at_each: Callable[[], None], *, killed_at: int = -1) -> None:
        self.number = 0
        self._at_each = at_each
        self._killed_at = killed_at
        self._is_looking = False
        request = lake.files.session.request

        def asked(*given: Any, **named: Any) -> Any:
            self._step()
            answer = request(*given, **named)
            self._step()
            return answer

        lake.files.session.request = asked
        for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
            sa.event.listen(database.engine, event, lambda *_: self._step())

    def _step(self) -> None:
        if self._is_looking:
            return
        self._is_looking = True
        try:
            self._at_each()
        finally:
            self._is_looking = False
        self.number += 1
        if self.number - 1 == self._killed_at:
            raise KilledError


@pytest.fixture
def _is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_FILES_AT_A_TIME", 1)


@pytest.mark.usefixtures("_is_one_thread")
def test_killed_at_any_step_it_loses_and_doubles_nothing(
    server: FakeWebHdfs, empty_database: Database, subtests: pytest.Subtests
) -> None:
    database, keys = empty_database, KEYS[1:4]
    database.migrate()
    for of in keys:
        store(lake_of(server), database, of)
    files, rows = dict(server.files), stored_rows(database)
    expected = [(0, 5), (0, 6), (0, 7), (0, 8), (1, 0), (1, 1), (1, 2)]
    reader = opened(database)

    def look() -> None:
        assert read(lake_of(server), reader, *keys) == expected

    whole = Steps(mine := lake_of(server), other := opened(database), look)
    assert merge_all(mine, other).files == len(keys)
    look()
    assert whole.number > 30, "requests, statements and the commit"

    for step in range(whole.number):
        with subtests.test(step=step):
            server.files = dict(files)
            restore(database, rows)
            mine, other = lake_of(server), opened(database)
            steps = Steps(mine, other, lambda: None, killed_at=step)
            with pytest.raises(KilledError):
                merge_all(mine, other)
            other.engine.dispose()
            assert steps.number == step + 1
            look()

            # The next one finishes, and what the killed one left behind is swept, but nothing else.
            merge_all(lake_of(server), database)
            assert len({ranges.find(database, of).feature_path for of in keys}) == 1
            later = datetime.now(UTC) + timedelta(hours=1)
            left = retention.unpublished_stream_features(lake_of(server), database, before=later)
            left += retention.old_attempts(lake_of(server), before=later)
            for entry in left:
                del server.files[entry.path]
            look()
            assert len(server.files) == 1
    reader.engine.dispose()


def opened(database: Database) -> Database:
    return Database(database.url.render_as_string(hide_password=False))


def stored_rows(database: Database) -> list[dict[str, Any]]:
    with database.reading() as connection:
        return [dict(row) for row in connection.execute(sa.text("SELECT * FROM stream_ranges")).mappings()]


def restore(database: Database, rows: list[dict[str, Any]]) -> None:
    with database.writing() as connection:
        statement = sa.text(
            "UPDATE stream_ranges SET feature_path = :feature_path WHERE partition_key = :partition_key"
        )
        connection.execute(statement, rows)


def test_only_days_that_are_over_are_merged_and_only_what_belongs_together(lake: Lake, database: Database) -> None:
    first, second, later = key(0, 0, 2), key(0, 2, 3), key(0, 4, 6)
    store(lake, database, first)
    store(lake, database, second)
    ranges.record_plan(database, Plan(new=(Attempt(key(0, 3, 4)),)))  # is planned still
    store(lake, database, later, at=DAY + timedelta(days=1))
    (files,) = small_files(database, before=DAY + timedelta(hours=12), most=100)
    assert [file.key for file in files] == [first, second]
    assert files[0].day == DAY.date()
    assert small_files(database, before=DAY, most=100) == []
    (files,) = small_files(database, before=DAY + timedelta(days=9), most=100)
    assert [file.key for file in files] == [first, second], "another day's file is merged with that day's"


def test_a_range_that_names_another_file_meanwhile_keeps_the_others_where_they_are(
    server: FakeWebHdfs, lake: Lake, database: Database
) -> None:
    for of in KEYS:
        store(lake, database, of)
    (files,) = small_files(database, before=DAY + timedelta(days=2), most=100)
    again = store_again(lake, database, KEYS[2])
    names = {of: ranges.find(database, of).feature_path for of in KEYS}
    done = compact(lake, database, files, memory_bytes=MIB)
    assert done.files == 0 and "computed again" in done.left[0]
    assert {of: ranges.find(database, of).feature_path for of in KEYS} == names
    assert not [path for path in server.files if stream_features.is_merged(path)], "nobody would sweep it for a day"
    assert merge_all(lake, database).files == len(KEYS)
    assert again in server.files
    assert_each_row_is_read_once(lake, database)


def store_again(lake: Lake, database: Database, of: PartitionKey) -> str:
    folder = stream_features.folder_of(lake, of, VERSION)
    path = lake.write_table(features(of), folder, name=f"{of.start_offset}-{of.end_offset}")
    ranges.publish_features(database, of, path, VERSION)
    return path


def test_features_that_are_computed_again_after_merging_count_once(lake: Lake, database: Database) -> None:
    for of in KEYS:
        store(lake, database, of)
    merge_all(lake, database)
    store_again(lake, database, KEYS[0])
    assert_each_row_is_read_once(lake, database)
    store_again(lake, database, KEYS[1])
    assert merge_all(lake, database).files == 2, "these two, into a file of their own"
    assert_each_row_is_read_once(lake, database)


def test_a_file_that_is_not_what_was_committed_stays_as_it_is(
    server: FakeWebHdfs, lake: Lake, database: Database
) -> None:
    paths = [store(lake, database, of) for of in KEYS]
    missing, broken, short, foreign = paths[:4]
    del server.files[missing]
    server.files[broken] = b"PAR1 no more"
    for path, table in ((short, features(KEYS[2]).slice(1)), (foreign, features(key(1, 7, 10)))):
        content = io.BytesIO()
        pq.write_table(table, content)
        server.files[path] = content.getvalue()
    done = merge_all(lake, database)
    assert done.files == 2
    assert [line.split(": ")[0] for line in done.left] == [missing, broken, short, foreign]
    reasons = ("missing", "no Parquet", "0 rows, 1 were committed", "other offsets")
    for line, reason in zip(done.left, reasons, strict=True):
        assert reason in line
    assert [ranges.find(database, of).feature_path for of in KEYS[:4]] == paths[:4]


def test_files_with_other_columns_are_merged_apart(lake: Lake, database: Database) -> None:
    for of in KEYS:
        store(lake, database, of, wide=1 if of.kafka_partition else 2)
    done = merge_all(lake, database)
    assert (done.files, done.into) == (6, 2)
    assert_each_row_is_read_once(lake, database)


def test_neither_memory_nor_file_grows_with_the_day(
    server: FakeWebHdfs, lake: Lake, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [key(0, 10 * number, 10 * number + 10) for number in range(1, 61)]
    sizes = [len(server.files[store(lake, database, of, wide=100)]) for of in keys]
    one = features(keys[0], wide=100).nbytes
    held: list[int] = []
    write = pq.ParquetWriter.write_table

    def noted(writer: pq.ParquetWriter, table: pa.Table, **options: Any) -> None:
        held.append(table.nbytes)
        write(writer, table, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", noted)
    done = merge_all(lake, database, memory_bytes=5 * one, file_bytes=20 * max(sizes))
    assert done.files == 60 and 3 <= done.into <= 4
    assert len(held) >= 12 and max(held) <= 5 * one
    for path in {str(ranges.find(database, of).feature_path) for of in keys}:
        merged = pq.ParquetFile(io.BytesIO(server.files[path]))
        assert merged.num_row_groups >= 3, "a reader of one range fetches its row group alone"
    assert len(read(lake, database, *keys)) == 600
    assert read(lake, database, keys[33]) == [(0, offset) for offset in range(340, 350)]


def test_an_outage_ends_it_and_leaves_all_as_it_was(server: FakeWebHdfs, lake: Lake, database: Database) -> None:
    for of in KEYS:
        store(lake, database, of)
    lake.files.patience_s = 0.1
    server.always_down = True
    server.namenode_faults = [(403, ("SafeModeException", "Name node is in safe mode."))]
    with pytest.raises(GenresError, match="safe mode"):
        merge_all(lake, database)
    server.always_down, server.namenode_faults = False, []
    assert_each_row_is_read_once(lake, database)


def test_a_merged_file_is_nobodys_small_file() -> None:
    path = "/genres/stream/features/v/clips/id/merged/2026-03-04-ab.parquet"
    assert stream_features.is_merged(path)
    assert not stream_features.is_merged(f"/genres/stream/features/v/merged/{ID}/0/0-5-ab.parquet")
    assert stream_features.range_of(f"/g/stream/features/v/clips/{ID}/0/0-5-ab.parquet") == f"clips:{ID}:0:0-5"

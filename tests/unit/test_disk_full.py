"""No room: who meets it says what is full and changes nothing by halves; with room again everything goes on."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.hdfs import Hdfs
from genres.store.lake import Lake
from genres.store.stream_ledger import commits, ranges, results
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_dagster.resources import MlflowResource
from streaming_sensors import sensors
from streaming_sensors.stream import Stream
from streaming_sensors.topic import TopicState
from tests.fake_webhdfs import NO_REPLICA, FakeWebHdfs
from tests.unit.conftest import SmallDisk

QUOTA = (
    "DSQuotaExceededException",
    "The DiskSpace quota of /genres is exceeded: quota = 1 MB but consumed = 2 MB\n\tat",
)
NAMES = ("NSQuotaExceededException", "The NameSpace quota (directories and files) of directory /genres is exceeded")
ID = "A" * 22


def key(start: int, end: int) -> PartitionKey:
    return PartitionKey("audio_clips", ID, 0, start, end)


def refused(number: int) -> QuarantinedClip:
    return QuarantinedClip(f"{number:064}", "x" * 500, "stream", "silence " * 50, ".wav", "1")


@pytest.mark.parametrize("quota", [QUOTA, NAMES])
def test_a_quota_of_hdfs_is_named_and_not_waited_for(server: FakeWebHdfs, quota: tuple[str, str]) -> None:
    lake = Lake(Hdfs(server.url, user="me", patience_s=60), hdfs="hdfs://namenode:8020", root="/genres")
    server.namenode_faults = [(403, quota)]
    with pytest.raises(GenresError, match=r"HDFS at http://\S+ is full \(The \w+ quota .* is exceeded") as found:
        lake.put_clip("/genres/mine/a.wav", b"data")
    assert "\n" not in str(found.value)
    assert not server.files
    lake.put_clip("/genres/mine/a.wav", b"data")
    assert set(server.files) == {"/genres/mine/a.wav"}


def test_full_data_nodes_are_waited_for_and_then_named(server: FakeWebHdfs) -> None:
    lake = Lake(Hdfs(server.url, user="me", patience_s=0.3), hdfs="hdfs://namenode:8020", root="/genres")
    server.datanode_faults = ["broken"] * 20
    with pytest.raises(GenresError, match="DataNodes are full or away") as found:
        lake.put_clip("/genres/mine/a.wav", b"data")
    assert NO_REPLICA[1] in str(found.value)


def test_sensors_that_find_the_database_full_skip_and_say_so(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=small_disk.folder, stream_dataset="mine", range_grace_s=1)
    database = Database(settings.database)
    database.migrate()
    stream = Stream(settings.streams[0])
    abandoned = key(0, 3)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    ranges.record_plan(database, Plan(new=(Attempt(abandoned),)), now=long_ago)
    monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: TopicState(stream.topic, ID, {0: 0}, {0: 3}))
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(sensor: dg.SensorDefinition) -> tuple[str, int]:
            resources = {"settings": settings, "database": database, "mlflow": MlflowResource(tracking_uri="")}
            with dg.build_sensor_context(instance, resources=resources) as context:
                found = sensor(context)
            if isinstance(found, dg.SkipReason):
                return found.skip_message or "", 0
            assert isinstance(found, dg.SensorResult)
            return found.skip_reason.skip_message or "" if found.skip_reason else "", len(found.run_requests or [])

        reconciler = sensors.build_range_reconciler(stream)
        small_disk.fill()
        said, launched = tick(reconciler)
        assert said.startswith(f"the disk of the database {settings.database} is full (") and not launched
        assert ranges.find(database, abandoned).attempts == 1, "what is not written down is not launched"
        small_disk.make_room()
        assert tick(reconciler) == ("", 1)

        commits.commit_range(database, RangeResult(abandoned, "run"))
        monkeypatch.setattr(sensors, "topic_state", lambda *_, **__: TopicState(stream.topic, ID, {0: 0}, {0: 9}))
        planner = sensors.build_audio_clips_sensor(stream)
        small_disk.fill()
        said, launched = tick(planner)
        assert said.startswith(f"the disk of the database {settings.database} is full (") and not launched
        small_disk.make_room()
        assert tick(planner) == ("", 1)


def test_a_commit_on_a_full_disk_is_none_and_works_later(small_disk: SmallDisk) -> None:
    database = Database(f"sqlite:///{small_disk.folder / 'genres.db'}")
    database.migrate()
    ranges.record_plan(database, Plan(new=(Attempt(key(0, 500)), Attempt(key(500, 501)))))
    small_disk.fill()
    result = RangeResult(key(0, 500), "run", quarantine=[refused(number) for number in range(500)])
    for _ in range(2):
        with pytest.raises(GenresError, match=r"the disk of the database .* is full"):
            commits.commit_range(database, result)
    # What another process reads meanwhile is the state before.
    other = Database(database.url.render_as_string())
    assert ranges.find(other, key(0, 500)).state == "planned"
    assert not results.quarantine(other)
    small_disk.make_room()
    now = datetime.now(UTC)
    assert commits.commit_range(database, result, now=now).new_quarantine == 500
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_a_database_that_nobody_has_open_is_opened_on_a_full_disk_with_a_line_that_says_it(
    small_disk: SmallDisk,
) -> None:
    """SQLite needs a page beside the file to open it at all, and has another word for that."""
    url = f"sqlite:///{small_disk.folder / 'genres.db'}"
    made = Database(url)
    made.migrate()
    made.engine.dispose()
    small_disk.fill()
    with pytest.raises(GenresError, match="is full"):
        Database(url).check_migrated()
    small_disk.make_room()
    Database(url).check_migrated()

"""HDFS over WebHDFS: errors are loud, patience has an end, and nothing appears under its name before it is whole."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.hdfs import Hdfs
from genres.store.lake import Lake
from tests.fake_webhdfs import NO_REPLICA, FakeWebHdfs

SAFE_MODE = ("RetriableException", "o.a.h.SafeModeException: Cannot create file. Name node is in safe mode.")
STANDBY = ("StandbyException", "Operation category READ is not supported in state standby.")
STARTING = ("RetriableException", "Namenode is in startup mode")
NO_DATANODE = ("IOException", "Failed to find datanode, suggest to check cluster health. excludeDatanodes=null")
NAMENODE_GONE = ("EOFException", "End of File Exception between local host is: me; destination host is: namenode")
REFUSED = ("AccessControlException", "Permission denied: user=me, access=WRITE, inode=/")


@pytest.fixture
def hdfs(server: FakeWebHdfs) -> Hdfs:
    return Hdfs(server.url, user="me", patience_s=5)


@pytest.fixture
def impatient(server: FakeWebHdfs) -> Hdfs:
    return Hdfs(server.url, user="me", patience_s=0.3)


def test_bytes_come_back(hdfs: Hdfs) -> None:
    hdfs.pipe_file("/a", b"0123456789")
    assert hdfs.cat_file("/a") == b"0123456789"
    assert hdfs.cat_file("/a", 2, 5) == b"234"
    with hdfs.open("/a", "rb") as file:
        file.seek(4)
        assert file.read() == b"456789"


def test_one_connection_serves_clip_after_clip(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    server.files["/a"] = bytes(3 * 2**20 + 1)
    for _ in range(3):
        assert hdfs.cat_file("/a") == server.files["/a"]
        with pytest.raises(FileNotFoundError):
            hdfs.cat_file("/b")
    assert server.connections == 1
    hdfs.close()
    assert hdfs.cat_file("/a", 0, 1) == b"\0"
    assert server.connections == 2


@pytest.mark.parametrize(
    "fault",
    [
        (403, SAFE_MODE),
        (403, STANDBY),
        (500, STARTING),
        (403, NO_DATANODE),
        (403, NAMENODE_GONE),
        (403, NO_REPLICA),
    ],
    ids=lambda fault: fault[1][0] + str(fault[0]),
)
def test_a_namenode_that_is_not_ready_is_waited_for(
    server: FakeWebHdfs, hdfs: Hdfs, fault: tuple[int, tuple[str, str]]
) -> None:
    server.namenode_faults = [fault, fault]
    hdfs.pipe_file("/a", b"data")
    server.namenode_faults = [fault]
    assert hdfs.exists("/a")
    assert server.files == {"/a": b"data"}


def test_patience_ends_with_a_line_that_says_why(server: FakeWebHdfs, impatient: Hdfs) -> None:
    server.namenode_faults, server.always_down = [(403, SAFE_MODE)], True
    for call in (
        lambda: impatient.pipe_file("/a", b"data"),
        lambda: impatient.cat_file("/a"),
        lambda: impatient.exists("/a"),
        lambda: impatient.isfile("/a"),
        lambda: impatient.isdir("/a"),
        lambda: impatient.ls("/"),
        lambda: impatient.rename("/a", "/b"),
        lambda: Lake(impatient, hdfs="hdfs://h:1", root="/genres").sizes("/genres"),
    ):
        with pytest.raises(GenresError, match=r"HDFS at http://127.*is not ready: .*Name node is in safe mode") as said:
            call()
        assert "\n" not in str(said.value)


def test_nobody_there_is_said_for_every_call(server: FakeWebHdfs) -> None:
    nobody = Hdfs("http://127.0.0.1:1", user="me", patience_s=0.3)
    for call in (
        lambda: nobody.pipe_file("/a", b"data"),
        lambda: nobody.cat_file("/a"),
        lambda: nobody.exists("/a"),
        lambda: nobody.isfile("/a"),
        lambda: nobody.isdir("/a"),
        lambda: nobody.open("/a", "rb"),
    ):
        with pytest.raises(GenresError, match=r"does not answer at http://127\.0\.0\.1:1: .*GENRES_WEBHDFS_URL"):
            call()


def test_a_refused_user_is_told_which_settings_to_mend(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    server.namenode_faults, server.always_down = [(403, REFUSED)], True
    for call in (lambda: hdfs.pipe_file("/a", b"data"), lambda: hdfs.exists("/a"), lambda: hdfs.isdir("/a")):
        with pytest.raises(GenresError, match=r"Permission denied: user=me.*GENRES_HDFS_USER or GENRES_LAKE_PATH"):
            call()
    assert server.operations == ["CREATE", "GETFILESTATUS", "GETFILESTATUS"], "a refusal is not worth a second try"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("denied", ("refuses CREATE of /genres/_tmp/", "access=WRITE", "GENRES_HDFS_USER or GENRES_LAKE_PATH")),
        ("no space", ("is full (The DiskSpace quota of /genres is exceeded", "/genres/_tmp/", "-setSpaceQuota")),
        (
            "no names",
            ("is full (The NameSpace quota", "of directory /genres is exceeded", "/genres/_tmp/", "-setQuota"),
        ),
        ("safe mode", ("is not ready: Cannot create file", "/genres/_tmp/", "-safemode leave")),
    ],
)
def test_an_upload_that_is_refused_is_one_line(
    server: FakeWebHdfs, impatient: Hdfs, fault: str, words: tuple[str, ...]
) -> None:
    server.datanode_faults = [fault] * 20
    with pytest.raises(GenresError) as said:
        Lake(impatient, hdfs="hdfs://namenode:8020", root="/genres").put_clip("/genres/mine/a.wav", b"data")
    line = str(said.value)
    assert line.startswith(f"HDFS at {server.url} ") and "for user 'me'" in line
    assert all(word in line for word in words), line
    assert "\n" not in line and "{" not in line and "org.apache" not in line
    assert not server.files


def test_whatever_else_a_datanode_says_is_no_json(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    server.datanode_faults = ["odd"]
    with pytest.raises(OSError, match=r"^/a: HDFS answered 403 \(IllegalStateException: Something else is wrong\)$"):
        hdfs.pipe_file("/a", b"data")


@pytest.mark.parametrize("fault", ["truncated", "broken", "gone"])
def test_a_datanode_that_dies_in_the_middle_is_asked_again(server: FakeWebHdfs, hdfs: Hdfs, fault: str) -> None:
    server.files["/a"] = bytes(range(200))
    server.datanode_faults = [fault]
    assert hdfs.cat_file("/a") == bytes(range(200))
    server.datanode_faults = [fault]
    with hdfs.open("/a", "rb") as file:
        assert file.read() == bytes(range(200))


def test_fewer_bytes_than_asked_for_are_never_taken_for_the_file(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    server.files["/a"] = bytes(range(200))
    server.datanode_faults = ["short"]
    with hdfs.open("/a", "rb") as file:
        assert file.read() == bytes(range(200))


def test_a_datanode_without_room_is_waited_for(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    server.datanode_faults = ["broken"]
    hdfs.pipe_file("/a", b"data")
    assert server.files == {"/a": b"data"}


def test_a_missing_file_is_missing(hdfs: Hdfs) -> None:
    assert not hdfs.exists("/a") and not hdfs.isfile("/a") and not hdfs.isdir("/a")
    with pytest.raises(FileNotFoundError):
        hdfs.cat_file("/a")
    with pytest.raises(FileNotFoundError):
        hdfs.open("/a", "rb")


def test_a_rename_that_hdfs_refuses_is_loud(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    hdfs.pipe_file("/a", b"data")
    server.renames_are_refused = True
    with pytest.raises(RuntimeError, match="refused to rename /a to /b/c"):
        hdfs.rename("/a", "/b/c")
    server.renames_are_refused = False
    hdfs.rename("/a", "/b/c")
    assert server.files == {"/b/c": b"data"}
    hdfs.pipe_file("/a", b"newer")
    with pytest.raises(FileExistsError):
        hdfs.rename("/a", "/b/c")
    assert server.files["/b/c"] == b"data"


def test_a_rename_whose_answer_was_lost_took_place(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    hdfs.pipe_file("/b", b"data")
    server.renames_are_refused = True
    original = hdfs.exists
    answers = iter([False, False, True])  # target before; then: source gone, target there
    hdfs.exists = lambda path, **_: next(answers)  # type: ignore[method-assign]
    hdfs.rename("/a", "/b")
    assert original("/b")


@pytest.mark.parametrize("url", ["", "namenode:9870", "hdfs://namenode:8020", "http://namenode", "http://:9870"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(GenresError, match=r"is no WebHDFS address: set GENRES_WEBHDFS_URL to http://<namenode>:<port>"):
        Hdfs(url, user="me", patience_s=0)


def test_an_address_with_an_impossible_port_is_refused() -> None:
    with pytest.raises(GenresError, match="'http://namenode:98700' is no WebHDFS address"):
        Hdfs("http://namenode:98700", user="me", patience_s=0)


def test_a_table_comes_back_with_its_types(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020/", root="/genres/")
    table = pa.table({"track_id": ["a", "b"], "length": [1, 2], "genre": ["1980", "pop"]})
    paths = [lake.write_table(table, lake.path("mine", "t")) for _ in range(2)]
    assert len(set(paths)) == 2
    server.datanode_faults = ["broken", "truncated"]
    back = lake.read_table(paths, columns=["genre", "length"]).to_pandas()
    pd.testing.assert_frame_equal(back, pd.concat([table.to_pandas()[["genre", "length"]]] * 2, ignore_index=True))
    assert set(server.files) == set(paths), "nothing is left under a temporary name"
    assert lake.uri(paths[0]) == f"hdfs://namenode:8020{paths[0]}"


def test_a_table_that_cannot_be_renamed_is_seen_by_nobody(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres")
    server.renames_are_refused = True
    with pytest.raises(RuntimeError, match="refused to rename"):
        lake.write_table(pa.table({"a": [1]}), lake.path("mine", "t"))
    assert all(path.startswith("/genres/_tmp/") for path in server.files)


def test_a_part_that_was_renamed_and_not_published_is_read_by_nobody(hdfs: Hdfs, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    tables = BatchTables(Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres"), database, "mine")
    published, _ = (tables.lake.write_table(pa.table({"a": [1]}), tables.feature_folder("v")) for _ in range(2))
    assert tables.feature_paths("v") == []
    ledger.publish(database, "mine", "audio_features", ledger.Commit(published, 1, "content", "run"))
    assert tables.feature_paths("v") == [published]


def test_a_newer_clip_replaces_the_older(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres")
    path = lake.path("mine", "raw_audio", "blues", "a.wav")
    lake.put_clip(path, b"old")
    lake.put_clip(path, b"new")
    assert server.files == {"/genres/mine/raw_audio/blues/a.wav": b"new"}


def test_a_directory_comes_back_whole_and_appears_at_once(server: FakeWebHdfs, hdfs: Hdfs, tmp_path: Path) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres")
    files = {"metadata/part-0": b"{}", "stages/0_a/data/part-0": b"PAR1", "stages/1_b/metadata/part-0": b""}
    for name, data in files.items():
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(data)
    path = lake.path("mine", "models", "v1")
    server.datanode_faults = ["broken", "", "gone"]
    lake.put_directory(tmp_path / "model", path)
    assert server.files == {f"{path}/{name}": data for name, data in files.items()}
    server.datanode_faults = ["gone", "broken"]
    lake.fetch_directory(path, tmp_path / "back")
    back = {file.relative_to(tmp_path / "back").as_posix(): file for file in (tmp_path / "back").rglob("part-*")}
    assert {name: file.read_bytes() for name, file in back.items()} == files


def test_a_directory_that_cannot_be_renamed_is_seen_by_nobody(server: FakeWebHdfs, hdfs: Hdfs, tmp_path: Path) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres")
    (tmp_path / "part-0").write_bytes(b"{}")
    server.renames_are_refused = True
    with pytest.raises(RuntimeError, match="refused to rename"):
        lake.put_directory(tmp_path, lake.path("mine", "models", "v1"))
    assert server.files and all(name.startswith("/genres/_tmp/") for name in server.files)
    with pytest.raises(FileNotFoundError):
        lake.fetch_directory(lake.path("mine", "models", "v1"), tmp_path / "back")

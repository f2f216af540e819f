"""HDFS over WebHDFS: errors are loud, patience has an end, and nothing appears under its name before it is whole.

The server here speaks just enough WebHDFS to fail in the ways that a healthy cluster does not.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pyarrow as pa
import pytest

from genres.errors import GenresError
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.hdfs import Hdfs
from genres.store.lake import Lake

SAFE_MODE = ("RetriableException", "o.a.h.SafeModeException: Cannot create file. Name node is in safe mode.")
STANDBY = ("StandbyException", "Operation category READ is not supported in state standby.")
STARTING = ("RetriableException", "Namenode is in startup mode")
NO_DATANODE = ("IOException", "Failed to find datanode, suggest to check cluster health. excludeDatanodes=null")
NAMENODE_GONE = ("EOFException", "End of File Exception between local host is: me; destination host is: namenode")
NO_REPLICA = ("IOException", "File /a could only be written to 0 of the 1 minReplication nodes.")
REFUSED = ("AccessControlException", "Permission denied: user=me, access=WRITE, inode=/")


class FakeWebHdfs(ThreadingHTTPServer):
    """A NameNode and its DataNode at one port; each fault is given once, in order, then it is healthy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"/"}
        self.namenode_faults: list[tuple[int, tuple[str, str]]] = []
        self.datanode_faults: list[str] = []
        self.always_down = False
        self.renames_are_refused = False
        self.operations: list[str] = []
        self.ages_s: dict[str, float] = {}
        self.connections = 0

    def get_request(self) -> tuple[socket, Any]:
        self.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    server: FakeWebHdfs
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, code: int, **content: object) -> None:
        self.answer(code, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def remote_exception(self, code: int, exception: str, message: str) -> None:
        self.json(code, RemoteException={"exception": exception, "message": message, "javaClassName": ""})

    def serve(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.startswith("/data"):
            self.datanode(url.path.removeprefix("/data"), query, body)
        else:
            self.namenode(url.path.removeprefix("/webhdfs/v1"), query)

    do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

    def namenode(self, path: str, query: dict[str, str]) -> None:
        server, op = self.server, query["op"]
        server.operations.append(op)
        if server.namenode_faults:
            fault = server.namenode_faults[0] if server.always_down else server.namenode_faults.pop(0)
            self.remote_exception(fault[0], *fault[1])
        elif op in {"CREATE", "OPEN"}:
            if op == "OPEN" and path not in server.files:
                self.remote_exception(404, "FileNotFoundException", f"File does not exist: {path}")
            else:
                self.answer(307, Location=f"{server.url}/data{path}?{url_query(query)}")
        elif op == "GETFILESTATUS":
            if path in server.files:
                self.json(200, FileStatus={"type": "FILE", "length": len(server.files[path]), "pathSuffix": ""})
            elif path in server.folders or any(name.startswith(f"{path}/") for name in server.files):
                self.json(200, FileStatus={"type": "DIRECTORY", "length": 0, "pathSuffix": ""})
            else:
                self.remote_exception(404, "FileNotFoundException", f"File does not exist: {path}")
        elif op == "LISTSTATUS":
            inside = [name.removeprefix(f"{path}/") for name in server.files if name.startswith(f"{path}/")]
            listed = [
                {
                    "type": "FILE" if f"{path}/{name}" in server.files else "DIRECTORY",
                    "length": len(server.files.get(f"{path}/{name}", b"")),
                    "pathSuffix": name,
                    "modificationTime": 1000 * (time.time() - server.ages_s.get(f"{path}/{name}", 0)),
                }
                for name in sorted({name.split("/")[0] for name in inside})
            ]
            self.json(200, FileStatuses={"FileStatus": listed})
        elif op == "MKDIRS":
            server.folders.add(path)
            self.json(200, boolean=True)
        elif op == "RENAME":
            if not server.renames_are_refused:
                for name in [name for name in server.files if name == path or name.startswith(f"{path}/")]:
                    server.files[query["destination"] + name.removeprefix(path)] = server.files.pop(name)
            self.json(200, boolean=not server.renames_are_refused)
        elif op == "DELETE":
            gone = [name for name in server.files if name == path or name.startswith(f"{path}/")]
            for name in gone:
                del server.files[name]
            self.json(200, boolean=bool(gone))
        else:
            raise AssertionError(op)

    def datanode(self, path: str, query: dict[str, str], body: bytes) -> None:
        server = self.server
        fault = server.datanode_faults.pop(0) if server.datanode_faults else ""
        if query["op"] == "CREATE":
            if fault == "broken":
                self.remote_exception(403, *NO_REPLICA)
                return
            server.files[path] = body
            self.answer(201)
            return
        start = int(query.get("offset", 0))
        data = server.files[path][start:][: int(query.get("length", 2**30))]
        if fault == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif fault == "short":
            self.answer(200, data[: len(data) // 2])
        elif fault == "broken":
            self.answer(500, b"<html>I am no data</html>")
        elif fault == "gone":
            self.close_connection = True
        else:
            self.answer(200, data)


def url_query(query: dict[str, str]) -> str:
    return "&".join(f"{key}={value}" for key, value in query.items())


@pytest.fixture
def server() -> Iterator[FakeWebHdfs]:
    with FakeWebHdfs() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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
        Hdfs(url, user="me")


def test_an_address_with_an_impossible_port_is_refused() -> None:
    with pytest.raises(GenresError, match="'http://namenode:98700' is no WebHDFS address"):
        Hdfs("http://namenode:98700", user="me")


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


def test_only_what_is_old_and_not_kept_is_swept(server: FakeWebHdfs, hdfs: Hdfs) -> None:
    lake = Lake(hdfs, hdfs="hdfs://namenode:8020", root="/genres")
    folder = lake.path("mine", "candidates")
    day = 24 * 3600
    server.ages_s = {f"{folder}/old": day + 60, f"{folder}/kept": 9 * day, f"{folder}/young": day - 60}
    server.files = {f"{folder}/{name}/run/part-0": b"" for name in ("old", "kept", "young")}
    lake.sweep(folder, keep=f"{folder}/kept")
    assert set(server.files) == {f"{folder}/kept/run/part-0", f"{folder}/young/run/part-0"}

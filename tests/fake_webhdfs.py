"""A NameNode and a DataNode that speak just enough WebHDFS to fail in the ways that a healthy cluster does not."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

NO_REPLICA = ("IOException", "File /a could only be written to 0 of the 1 minReplication nodes.")
DENIED = (
    "AccessControlException",
    'Permission denied: user=me, access=WRITE, inode="/genres":hdfs:supergroup:drwxr-xr-x\n\tat org.apache.hadoop',
)
NO_SPACE = (
    "DSQuotaExceededException",
    "The DiskSpace quota of /genres is exceeded: quota = 1 B = 1 B\n\tat org.apache",
)
NO_NAMES = ("NSQuotaExceededException", "The NameSpace quota (directories and files) of directory /genres is exceeded")
SAFE_MODE = ("SafeModeException", "Cannot create file/a. Name node is in safe mode.\nIt was turned on manually.")
ODD = ("IllegalStateException", "Something else is wrong\n\tat org.apache.hadoop")
WRITE_FAULTS = {
    **dict.fromkeys(("broken", "gone"), NO_REPLICA),
    **{"denied": DENIED, "no space": NO_SPACE, "no names": NO_NAMES, "safe mode": SAFE_MODE, "odd": ODD},
}
"""What a DataNode says of a file that it does not write: the NameNode's words, as it is the one that asks it."""


class FakeWebHdfs(ThreadingHTTPServer):
    """A NameNode and its DataNode at one port; each fault is given once, in order, then it is healthy."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"/"}
        self.namenode_faults: list[tuple[int, tuple[str, str] | None]] = []
        """Each a status and the remote exception; None for a web server that stands before it and knows no WebHDFS."""
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
    disable_nagle_algorithm = True  # else a body waits for the answer to its header, 40 ms each

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
            self.datanode(url.path.removeprefix("/data/webhdfs/v1"), query, body)
        else:
            self.namenode(url.path.removeprefix("/webhdfs/v1"), query)

    do_GET = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

    def namenode(self, path: str, query: dict[str, str]) -> None:
        server, op = self.server, query["op"]
        server.operations.append(op)
        if server.namenode_faults:
            fault = server.namenode_faults[0] if server.always_down else server.namenode_faults.pop(0)
            if fault[1] is None:
                self.answer(fault[0], b"<html>I am a web server</html>")
            else:
                self.remote_exception(fault[0], *fault[1])
        elif op in {"CREATE", "OPEN"}:
            if op == "OPEN" and path not in server.files:
                self.remote_exception(404, "FileNotFoundException", f"File does not exist: {path}")
            else:
                self.answer(307, Location=f"{server.url}/data/webhdfs/v1{path}?{url_query(query)}")
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
        elif op == "GETCONTENTSUMMARY":
            inside = [data for name, data in server.files.items() if name.startswith(f"{path}/")]
            self.json(200, ContentSummary={"length": sum(map(len, inside)), "fileCount": len(inside)})
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
            if fault:
                self.remote_exception(403, *WRITE_FAULTS[fault])
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


@contextmanager
def serving() -> Iterator[FakeWebHdfs]:
    """Run a server meanwhile."""
    with FakeWebHdfs() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()

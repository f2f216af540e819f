"""The daemon that Spark's Python workers are forked from: all that a worker fetches with is there, and nothing runs."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

CLIP = b"the bytes of a clip"

PROGRAM = """
import sys, threading
from spark.worker_daemon import warm_up
warm_up()
threads, loaded = threading.enumerate(), set(sys.modules)
from spark.clip_source import WebHdfsClips
(clip,) = WebHdfsClips(sys.argv[1], "genres").clips([dict(track_id="a", genre="b", path="/a.wav", sha256=sys.argv[2])])
print(len(clip.data), threads == [threading.main_thread()], sorted(set(sys.modules) - loaded))
"""


@pytest.fixture
def webhdfs(tmp_path: Path) -> Iterator[str]:
    """Serve the clip at the address that WebHDFS would give it."""
    (tmp_path / "webhdfs" / "v1").mkdir(parents=True)
    (tmp_path / "webhdfs" / "v1" / "a.wav").write_bytes(CLIP)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_worker_imports_nothing_to_fetch_a_clip_and_inherits_no_thread(webhdfs: str) -> None:
    command = [sys.executable, "-c", PROGRAM, webhdfs, hashlib.sha256(CLIP).hexdigest()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(CLIP)} True []"

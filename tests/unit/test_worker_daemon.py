"""The daemon that Spark's Python workers are forked from: all that a worker fetches with is there, and nothing runs."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import served

CLIP = b"the bytes of a clip"

PROGRAM = """
import sys, threading
from spark.worker_daemon import warm_up
warm_up()
threads, loaded = threading.enumerate(), set(sys.modules)
from genres.store.hdfs_access import HdfsAccess
from spark.clip_source import WebHdfsClips
row = dict(track_id="a", genre="b", path="/a.wav", sha256=sys.argv[2])
(clip,) = WebHdfsClips(HdfsAccess(sys.argv[1], "genres")).clips([row])
print(len(clip.data), threads == [threading.main_thread()], sorted(set(sys.modules) - loaded))
"""


@pytest.fixture
def webhdfs(tmp_path: Path) -> Iterator[str]:
    """Serve the clip at the address that WebHDFS would give it."""
    (tmp_path / "webhdfs" / "v1").mkdir(parents=True)
    (tmp_path / "webhdfs" / "v1" / "a.wav").write_bytes(CLIP)

    class Folder(SimpleHTTPRequestHandler):
        def __init__(self, *request: Any) -> None:
            super().__init__(*request, directory=str(tmp_path))

    with served(Folder) as url:
        yield url


def test_a_worker_imports_nothing_to_fetch_a_clip_and_inherits_no_thread(webhdfs: str) -> None:
    command = [sys.executable, "-c", PROGRAM, webhdfs, hashlib.sha256(CLIP).hexdigest()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(CLIP)} True []"


WITH_FORKS = """
import os, signal, sys, time
from spark.worker_daemon import watch_workers

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as pyspark's daemon does
watch_workers(stopped_limit_s=2)

def forked(work):
    pid = os.fork()
    if not pid:
        work()
        time.sleep(60)
    return pid

def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

busy = forked(lambda: None)
stopped = forked(lambda: os.kill(os.getpid(), signal.SIGSTOP))
for_a_moment = forked(lambda: None)
os.kill(for_a_moment, signal.SIGSTOP)
time.sleep(0.2)
os.kill(for_a_moment, signal.SIGCONT)
deadline = time.monotonic() + 30
while is_there(stopped) and time.monotonic() < deadline:
    time.sleep(0.05)
print(*map(is_there, (busy, stopped, for_a_moment)))
for pid in (busy, stopped, for_a_moment):
    if is_there(pid):
        os.kill(pid, signal.SIGKILL)
"""


def test_a_worker_that_stays_stopped_is_ended_and_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", WITH_FORKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


IDLE = """
import os, signal, sys, time
from spark.worker_daemon import watch_workers

def shutdown(*_):
    print(f"ended after {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(1)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGTERM, shutdown)  # as pyspark's daemon does
began = time.monotonic()
watch_workers(idle_limit_s=1)
if not os.fork():
    time.sleep(3)
    os._exit(0)
while time.monotonic() < began + 30:
    time.sleep(0.1)
"""


def test_the_daemon_ends_when_it_has_had_no_workers_for_long() -> None:
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    # Not while its worker, which sleeps for three seconds, was there.
    assert 3.5 < float(done.stdout.split()[2]) < 20

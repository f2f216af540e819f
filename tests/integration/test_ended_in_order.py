"""A demo that is asked to end takes with it what it started, and leaves the stack, as with Ctrl-C."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from genres.settings import PROJECT_DIR, Settings
from local_stack.stack import status
from tests.stream_rig import kill_tree, wait_until

STREAMING = """
import time
from genres.settings import Settings
from genres_cli.demo import ended_in_order
from genres_cli.stream_demo import stream_running
from genres_dagster.launch import open_instance
settings = Settings()
with ended_in_order(), stream_running(settings, open_instance(settings)):
    print("ready", flush=True)
    time.sleep(600)
"""
DEMO = ["-m", "genres_cli", "demo"]
_PARTS = ("dagster._daemon", "genres_cli watch")
_END_S = 240.0
"""Producer, daemon and run are each given a minute to end in order."""


def test_the_streaming_half_ends_with_its_daemon_and_its_producer(stack: Settings, tmp_path: Path) -> None:
    with started(["-c", STREAMING], tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        # The producer is started beside.
        wait_until(lambda: all(any(part in line for line in below(process.pid).values()) for part in _PARTS))
        children = below(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_END_S) == 128 + signal.SIGTERM
        assert [command for child, command in children.items() if is_at_work(child)] == []
    assert {row.state for row in status(stack)} == {"running"}


def test_the_batch_half_ends_with_its_run(
    stack: Settings, tmp_path: Path, write_clips: Callable[[Path, Iterable[str], int], None]
) -> None:
    write_clips(tmp_path / "music", ["blues", "disco"], 3)
    audio = {"GENRES_AUDIO": str(tmp_path / "music"), "GENRES_DATASET": "ended_in_order"}
    with started(DEMO, tmp_path, **audio) as process:
        wait_until(lambda: any("batch_pipeline" in line for line in below(process.pid).values()))
        children = below(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_END_S) == 128 + signal.SIGTERM
        assert [child for child in children if is_at_work(child)] == []
    assert {row.state for row in status(stack)} == {"running"}


@contextmanager
def started(arguments: list[str], folder: Path, **variables: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program as a script's background job, deaf to SIGINT, with a stream of its own."""
    variables |= {"GENRES_TOPIC": "test_ended_in_order", "GENRES_WATCH_FOLDER": str(folder / "drop")}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_DIR,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=as_a_background_job,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_tree(process.pid)


def as_a_background_job() -> None:
    """Be deaf to SIGINT; and not to SIGTERM, whatever the libraries in the tests' own process made of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def below(pid: int) -> dict[psutil.Process, str]:
    """Return the processes that one has started, with their command lines."""
    found = {}
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it ended just now
            found[child] = " ".join(child.cmdline())
    return found


def is_at_work(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

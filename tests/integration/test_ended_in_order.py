"""A demo, or an open Dagster, that is asked to end takes with it what it started, as by Ctrl-C; the stack stays."""

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from genres.settings import PROJECT_DIR, Settings
from genres_cli.stream_demo import ui_runs
from local_stack.stack import status
from tests.stream_rig import kill_tree, wait_until

STREAMING = """
import time
from genres.settings import Settings
from genres_cli.signals import ended_in_order
from genres_cli.stream_demo import stream_running
from genres_dagster.launch import open_instance
settings = Settings()
with ended_in_order(), stream_running(settings, open_instance(settings)):
    print("ready", flush=True)
    time.sleep(600)
"""
DEMO = ["-m", "genres_cli", "demo"]
_PARTS = ("dagster._daemon", "genres_cli watch")
_OPEN = (*_PARTS, "genres_cli page", "genres_dagster.dev", "genres_dagster.webserver")
_END_S = 240.0
"""Producer, daemon and run are each given a minute to end in order. Dagster's daemon does not wait for its code
servers, which look twice a second whether it is still there."""


def test_the_streaming_half_ends_with_its_daemon_and_its_producer(stack: Settings, tmp_path: Path) -> None:
    with started(["-c", STREAMING], tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        # The producer is started beside.
        wait_until(lambda: all(any(part in line for line in below(process.pid).values()) for part in _PARTS))
        children = below(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(_END_S) == 128 + signal.SIGTERM
        wait_until(lambda: not any(map(is_at_work, children)), patience_s=60)
    wait_until(lambda: {row.state for row in status(stack)} == {"running"}, patience_s=60)


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
        wait_until(lambda: not any(map(is_at_work, children)), patience_s=60)
    wait_until(lambda: {row.state for row in status(stack)} == {"running"}, patience_s=60)


@pytest.mark.long
def test_dagster_is_closed_with_the_terminal_that_it_was_opened_in(stack: Settings, tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    with started(["-m", "genres_cli", "ui"], tmp_path, output=theirs) as process:
        os.close(theirs)
        # Read on and on, as a terminal does: what waits to be read would be waited for.
        reader = threading.Thread(target=read_all, args=(terminal,), daemon=True)
        reader.start()
        wait_until(lambda: all(any(part in line for line in below(process.pid).values()) for part in _OPEN))
        wait_until(lambda: ui_runs(stack))
        children = below(process.pid)
        process.send_signal(signal.SIGHUP)
        assert process.wait(_END_S) == 128 + signal.SIGTERM
        wait_until(lambda: not any(map(is_at_work, children)), patience_s=60)
    wait_until(lambda: {row.state for row in status(stack)} == {"running"}, patience_s=60)


def read_all(terminal: int) -> None:
    with suppress(OSError):  # how Linux says that the other side is closed
        while os.read(terminal, 4096):
            pass
    os.close(terminal)


@contextmanager
def started(
    arguments: list[str], folder: Path, *, output: int = subprocess.PIPE, **variables: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a program as a script's background job, deaf to SIGINT, with a stream of its own."""
    variables |= {"GENRES_TOPIC": "test_ended_in_order", "GENRES_WATCH_FOLDER": str(folder / "drop")}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_DIR,
        env={**os.environ, **variables},
        stdout=output,
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
    """Be deaf to SIGINT; and to no other, whatever the tests' own process was told or its libraries made of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


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

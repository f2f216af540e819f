"""A terminal that is closed: what a command started ends with it, in order, whatever the command is."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from genres_cli.signals import ending_with_the_terminal, stop_on_signals
from tests.stream_rig import wait_until

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from genres_cli import demo, main, streams
from genres_cli.stream_demo import kept_running
from streaming_sensors.folder_producer import producer

folder = Path(sys.argv[1])
started = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"

def stand_in(*_, stop=None, **__):
    with kept_running([sys.executable, "-c", started, str(folder / "pid")], folder / "log"):
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            time.sleep(0.02)
        try:
            print("ready", flush=True)  # whoever reads it closes the terminal at once
            stop.wait() if stop else time.sleep(600)
        finally:
            # The system's, when the shell that sent the first one has ended.
            os.kill(os.getpid(), signal.SIGHUP)
            print("it takes some time", flush=True)
            print("it takes some time", file=sys.stderr, flush=True)
            (folder / "ended").touch()

demo.run_demo = demo.open_dagster = producer.watch = streams.drain = stand_in
sys.argv = ["genres", *sys.argv[2:]]
main.main()
"""


@pytest.mark.parametrize("command", ["demo", "ui", "watch", "drain"])
def test_what_a_command_started_ends_with_its_terminal(tmp_path: Path, command: str) -> None:
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "GENRES_STATE_DIR": str(tmp_path / "state")},
        preexec_fn=_hears_it,
    )
    os.close(theirs)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 4096)
    pid = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(pid)
    os.close(terminal)
    # A terminal that is closed reaches the processes that it belongs to; this one has been started without a shell.
    process.send_signal(signal.SIGHUP)
    code = process.wait()
    assert (tmp_path / "ended").exists()
    assert code == (0 if command in ("watch", "drain") else 128 + signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(pid))


def _hears_it() -> None:
    """Be deaf to nothing, whatever the tests were started with, and have a session of one's own."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()


def test_what_is_told_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_with_the_terminal():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stop_signal_sets_the_event_once_and_is_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(10)
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before


ASKED_AT_ANY_POINT = """
import signal
from genres_cli.signals import stop_on_signals

signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
for turn in range(500):
    with stop_on_signals() as stop:
        signal.setitimer(signal.ITIMER_REAL, 5e-4 + 1e-5 * (turn % 50))
        while not stop.wait(0):
            pass
"""


def test_a_stop_signal_that_interrupts_the_wait_for_it_is_heard() -> None:
    # It hung within 20 turns when the handler set the event itself.
    subprocess.run([sys.executable, "-c", ASKED_AT_ANY_POINT], check=True, timeout=300)


AT_WORK = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from genres_cli import main
from streaming_sensors import resident

class AtWork:
    def __init__(self, *_, **__):
        self.worker = ThreadPoolExecutor(1)

    def drain(self, stop):
        self.worker.submit(time.sleep, 600)
        try:
            print("ready", flush=True)
            stop.wait()
        finally:
            print("waits for its run", flush=True)
            self.worker.shutdown()

resident.ResidentDrain = AtWork
sys.argv = ["genres", "drain"]
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_drain_that_is_told_twice_does_not_wait_for_its_run(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", AT_WORK]
    environment = {**os.environ, "GENRES_STATE_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, preexec_fn=_hears_it) as process:
        assert process.stdout is not None
        try:
            for line in (b"ready\n", b"waits for its run\n"):
                assert process.stdout.readline() == line
                process.send_signal(number)
            assert process.wait(60) in (128 + number, -number)
        finally:
            process.kill()

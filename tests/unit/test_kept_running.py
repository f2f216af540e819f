"""What `genres ui` and `genres demo` keep running: started again when it ends, ended with them."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from genres_cli import stream_demo
from genres_cli.stream_demo import kept_running
from tests.stream_rig import wait_until

PROGRAM = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()}\\n")
if sys.argv[2] == "fails":
    sys.exit(7)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_demo, "_PAUSES_S", (0.1, 0.2))


def started(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_is_killed_is_started_again_and_ends_with_us(tmp_path: Path) -> None:
    pids, log = tmp_path / "pids", tmp_path / "logs" / "program.log"
    with kept_running([sys.executable, "-c", PROGRAM, str(pids), "stays"], log):
        for number in (1, 2):
            wait_until(lambda number=number: len(started(pids)) == number)  # type: ignore[misc]
            os.kill(started(pids)[-1], signal.SIGKILL)
        wait_until(lambda: len(started(pids)) == 3)
        assert psutil.pid_exists(started(pids)[-1])
    assert not any(map(psutil.pid_exists, started(pids)))
    assert len(started(pids)) == 3
    assert log.read_text().count("it ended with exit code -9; it is started again in") == 2


def test_what_fails_is_started_again_and_again(tmp_path: Path) -> None:
    pids, log = tmp_path / "pids", tmp_path / "program.log"
    with kept_running([sys.executable, "-c", PROGRAM, str(pids), "fails"], log):
        wait_until(lambda: len(started(pids)) > 3)
    assert "exit code 7; it is started again in 0.1 s" in log.read_text()
    assert "exit code 7; it is started again in 0.2 s" in log.read_text()


def test_what_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program, log = tmp_path / "program", tmp_path / "program.log"
    pids = tmp_path / "pids"
    with kept_running([str(program), str(pids)], log):
        wait_until(lambda: log.exists() and "cannot be started" in log.read_text())
        program.write_text("#!/bin/sh\necho $$ >> $1\nexec sleep 600\n")
        program.chmod(0o700)
        wait_until(lambda: len(started(pids)) == 1)
    assert not psutil.pid_exists(started(pids)[0])

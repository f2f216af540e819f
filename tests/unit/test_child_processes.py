"""What a command starts beside itself: Ctrl-C comes to it once, and it ends with the command in any case."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.test_utils import create_run_for_test

from genres.settings import PROJECT_DIR, Settings
from genres_dagster import launch
from tests.stream_rig import kill_tree, wait_until

IN_PLACE_OF_DAGSTER = f"""#!{sys.executable}
import os, signal, time
from pathlib import Path

here = Path(__file__).parent
heard = 0

def hear(*_):
    global heard
    heard += 1
    (here / "heard").write_text(str(heard))

signal.signal(signal.SIGINT, hear)
(here / "starting").write_text(str(os.getpid()))
(here / "starting").rename(here / "pid")
while not heard or (here / "stays").exists():
    time.sleep(0.1)
time.sleep(1)  # for a second one
"""

BATCH = """
import sys
from pathlib import Path
from types import SimpleNamespace
from genres.settings import Settings
from genres_dagster import launch

launch._STOP_S = float(sys.argv[2])
sys.executable = sys.argv[1]
no_runs = SimpleNamespace(get_runs=lambda *_, **__: [])
launch.run_job(Settings(state_dir=Path(sys.argv[1]).parent), no_runs, "batch_pipeline", "mine", on_event=print)
"""


@contextmanager
def batch_at_work(folder: Path, *, stop_s: float) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a batch in a process group of its own, as a shell does; what stands in for Dagster ends with it."""
    script = folder / "python"
    script.write_text(IN_PLACE_OF_DAGSTER)
    script.chmod(0o700)
    command = [sys.executable, "-c", BATCH, str(script), str(stop_s)]
    with subprocess.Popen(command, cwd=PROJECT_DIR, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until((folder / "pid").exists, patience_s=60)
            pid = int((folder / "pid").read_text())
            yield process
            assert not psutil.pid_exists(pid)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)


def test_ctrl_c_comes_to_a_batch_once(tmp_path: Path) -> None:
    with batch_at_work(tmp_path, stop_s=600) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        assert (tmp_path / "heard").read_text() == "1"


def test_a_batch_that_does_not_end_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "stays").touch()
    with batch_at_work(tmp_path, stop_s=2) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def test_who_interrupts_again_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "stays").touch()
    with batch_at_work(tmp_path, stop_s=600) as process:
        os.killpg(process.pid, signal.SIGINT)
        wait_until((tmp_path / "heard").exists, patience_s=60)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)


def test_a_run_whose_process_is_killed_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o700)
    monkeypatch.setattr(launch, "sys", SimpleNamespace(executable=str(script)))
    monkeypatch.setattr(launch, "uuid4", lambda: SimpleNamespace(hex="a mark"))
    said: list[Any] = []
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {"genres/launch": "a mark"}
        run = create_run_for_test(instance, "batch_pipeline", status=dg.DagsterRunStatus.STARTED, tags=tags)
        settings = Settings(state_dir=tmp_path)
        done = launch.run_job(settings, instance, "batch_pipeline", "mine", on_event=lambda *it: said.append(it))
        assert (done.run_id, done.success) == (run.run_id, False)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None and found.status == dg.DagsterRunStatus.FAILURE

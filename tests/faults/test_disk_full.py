"""Disks that are full, for real: small file systems in memory under the database and under Dagster's state.

By hand (``make test-faults``), by a user who may mount. The lake's full disk, and a database that gets no more
pages, are faults of the table and need no rights.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genres.settings import Settings
from tests.faults.oracle import examine, stored_counts
from tests.faults.system import System, running_system
from tests.faults.tables import Case, fault_table, publish
from tests.stream_rig import wait_until

FULL_S = 20.0
PATIENCE_S = 400.0

pytestmark = pytest.mark.nemesis


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size over a folder."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a small disk")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Leave no room in a file system meanwhile."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    assert shutil.disk_usage(folder).free == 0
    try:
        yield
    finally:
        ballast.unlink()


def test_a_full_disk_under_the_database(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("database on a small disk")
    with small_disk(folder / "disk", 48) as disk:
        address = f"sqlite:///{disk / 'genres.db'}"
        with running_system(stack, folder, "test_full_database", seed=1, DATABASE_URL=address) as system:
            all_recovers(system, "disk full under the database", disk)


def test_a_full_disk_under_dagsters_state(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("state on a small disk")
    with (
        small_disk(stack.dagster_home, 256) as disk,
        running_system(stack, folder, "test_full_state", seed=1) as system,
    ):
        all_recovers(system, "disk full under Dagster's state", disk)


def all_recovers(system: System, what: str, disk: Path) -> None:
    """Let clips come before, while and after the disk is full, and see that each gets its row."""
    system.stream.wait_for(system.traffic.flow("start", clips=3, every_s=0))
    with filled(disk):
        system.traffic.flow(what, clips=int(FULL_S), every_s=1)
    healed_at = time.monotonic()
    good, bad = system.traffic.of(what)
    wait_until(have_rows(system, good | bad), patience_s=PATIENCE_S)
    recovery_s = time.monotonic() - healed_at
    after = system.traffic.flow(what, clips=5, every_s=0.2)
    wait_until(have_rows(system, after), patience_s=PATIENCE_S)
    system.assert_recovers(PATIENCE_S)
    system.wait_until_planned_out(PATIENCE_S)
    good, bad = system.traffic.of(what)
    counts = stored_counts(system.stream.database, system.settings.topic, good, bad, only=good | bad)
    publish(what[0].upper() + what[1:], fault_table([Case(what, counts, recovery_s)]))
    _, problems = examine(system.settings, good=system.traffic.good, bad=system.traffic.bad)
    assert problems == []


def have_rows(system: System, hashes: set[str]) -> Callable[[], bool]:
    return lambda: hashes <= system.settled()

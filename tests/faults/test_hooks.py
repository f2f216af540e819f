"""The hooks do what the fault tests count on: they end a process at its seam, shift its clock, fill its database."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR
from genres.store.database import Database
from tests.faults.system import Hooks

REMEMBER = """
import sys
from genres.store.database import Database
from genres.store.stream_ledger import sent_files
print("here", flush=True)
sent_files.remember(Database(sys.argv[1]), [])
print("there", flush=True)
"""
NOW = """
from datetime import UTC, datetime
from genres.store.stream_ledger import leases
print((leases.datetime.now(UTC) - datetime.now(UTC)).total_seconds())
"""
FILL = """
import sys
from genres.store.database import Database
from genres.store.sql import sa
database = Database(sys.argv[1])
with database.writing() as connection:
    connection.execute(sa.text("INSERT INTO clips VALUES (:bytes)"), {"bytes": "x" * 100_000})
"""


@pytest.fixture
def hooks(tmp_path: Path) -> Hooks:
    return Hooks(tmp_path)


def run(program: str, *arguments: str, hooks: Hooks | None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | (hooks.variables() if hooks else {})
    environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), str(PROJECT_DIR)])
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def database(tmp_path: Path) -> str:
    file = tmp_path / "genres.db"
    Database(f"sqlite:///{file}").migrate()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE clips (bytes TEXT)")
    connection.close()
    return f"sqlite:///{file}"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_ends_at_its_seam_once(hooks: Hooks, database: str, when: str) -> None:
    hooks.arm("memory", when)
    done = run(REMEMBER, database, hooks=hooks)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "here\n"), done.stderr
    assert hooks.struck()
    done = run(REMEMBER, database, hooks=hooks)
    assert (done.returncode, done.stdout) == (0, "here\nthere\n"), done.stderr


def test_other_seams_and_other_processes_are_passed(hooks: Hooks, database: str) -> None:
    for seam, when, in_producer in (("memory", "before", True), ("rename", "before", False)):
        hooks.arm(seam, when, in_producer=in_producer)
        assert run(REMEMBER, database, hooks=hooks).returncode == 0
        assert not hooks.struck()
    hooks.arm("memory", "before", in_producer=True)
    assert run(REMEMBER, database, "watch", hooks=hooks).returncode == -signal.SIGKILL


def test_the_clock_is_off_as_long_as_a_test_wants(hooks: Hooks) -> None:
    for seconds in (-3600.0, 86_400.0, 0.0):
        hooks.shift_clock(seconds)
        assert float(run(NOW, hooks=hooks).stdout) == pytest.approx(seconds, abs=5)


def test_the_database_is_full_as_long_as_a_test_wants(hooks: Hooks, database: str) -> None:
    hooks.fill_database(True)
    done = run(FILL, database, hooks=hooks)
    assert done.returncode != 0
    assert "database or disk is full" in done.stderr
    hooks.fill_database(False)
    assert run(FILL, database, hooks=hooks).returncode == 0


def test_every_seam_is_there(hooks: Hooks) -> None:
    program = "import importlib, sitecustomize\nfor name in sitecustomize.SEAMS: importlib.import_module(name)"
    done = run(program, hooks=hooks)
    assert done.returncode == 0, done.stderr


def test_without_the_variable_nothing_happens(hooks: Hooks, database: str) -> None:
    hooks.arm("memory", "before")
    hooks.shift_clock(3600)
    assert run(REMEMBER, database, hooks=None).returncode == 0
    assert float(run(NOW, hooks=None).stdout) == pytest.approx(0, abs=5)

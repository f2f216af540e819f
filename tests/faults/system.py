"""The system that faults are injected into: a stream whose processes are kept running as ``genres ui`` keeps them.

Nobody else starts anything again: what recovers, recovers by itself.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa

from genres.settings import Settings
from genres.store.stream_ledger import leases, producers, ranges
from genres.store.tables import STREAM_PREDICTIONS, STREAM_QUARANTINE
from genres_cli.stream_demo import kept_running
from genres_dagster.launch import WORKSPACE
from local_stack.stack import status
from streaming_sensors.topic import topic_state
from streaming_sensors.warm_launcher import process_of
from tests.faults.oracle import misplanned
from tests.faults.processes import alive, children_of
from tests.faults.traffic import Traffic
from tests.stream_rig import Stream, prepared_stream, set_champion, wait_until

_HOOKS = Path(__file__).with_name("hooks")
_DAEMON, _PRODUCER = "dagster._daemon", "watch"


class Hooks:
    """The test's side of ``hooks/sitecustomize.py``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def variables(self) -> dict[str, str]:
        """What has to be in the environment of the processes."""
        path = os.pathsep.join(filter(None, (str(_HOOKS), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, "GENRES_TESTS_HOOKS": str(self._folder)}

    def arm(
        self, seam: str, when: str, *, pid: int | None = None, delay_s: float = 0.0, in_producer: bool = False
    ) -> None:
        """Have the first process that comes by end itself, or another one, the hard way."""
        (self._folder / "struck.json").unlink(missing_ok=True)
        order = {"seam": seam, "when": when, "pid": pid, "delay_s": delay_s, "in_producer": in_producer}
        fresh = self._folder / "seam.part"
        fresh.write_text(json.dumps(order))
        fresh.rename(self._folder / "seam.json")

    def struck(self) -> bool:
        """Whether a process came by since."""
        return (self._folder / "struck.json").exists()

    def disarm(self) -> None:
        """Let everything pass again."""
        (self._folder / "seam.json").unlink(missing_ok=True)

    def shift_clock(self, seconds: float) -> None:
        """Let the project's clock be off by so much."""
        fresh = self._folder / "clock.part"
        fresh.write_text(str(seconds))
        fresh.rename(self._folder / "clock")

    def fill_database(self, is_full: bool) -> None:
        """Let SQLite have no more pages, or as many as it wants again."""
        if is_full:
            (self._folder / "full").touch()
        else:
            (self._folder / "full").unlink(missing_ok=True)


@dataclass(frozen=True)
class System:
    """A running stream, the clips that flow, and what faults need."""

    stream: Stream
    traffic: Traffic
    hooks: Hooks
    patience_s: float
    """How long a fault waits for its moment: a run at work, a seam that somebody comes by."""

    @property
    def settings(self) -> Settings:
        """The stream's settings."""
        return self.stream.settings

    def daemon(self) -> psutil.Process | None:
        """Dagster's daemon, with the code servers below it."""
        return _child(_DAEMON)

    def producer(self) -> psutil.Process | None:
        """The folder producer."""
        return _child(_PRODUCER)

    def code_servers(self) -> list[psutil.Process]:
        """What loads the code locations for the daemon."""
        daemon = self.daemon()
        return children_of(daemon.pid, "dagster", "api", "grpc") if daemon else []

    def settled(self) -> set[str]:
        """The hashes of the topic's clips that have a row."""
        with self.stream.database.reading() as connection:
            return {
                sha256
                for table in (STREAM_PREDICTIONS, STREAM_QUARANTINE)
                for sha256 in connection.scalars(sa.select(table.c.sha256).where(table.c.topic == self.settings.topic))
            }

    def wait_until_planned_out(self, patience_s: float) -> None:
        """Wait until every offset of the topic is committed."""
        topic, said = self.settings.topic, [""]

        def is_done() -> bool:
            known = ranges.history(self.stream.database, topic)
            said[:] = misplanned(known, topic_state(self.settings, topic, timeout_s=60))
            return not said

        deadline = time.monotonic() + patience_s
        while not is_done():
            assert time.monotonic() < deadline, f"after {patience_s:g} s: {said[:5]}"
            time.sleep(1)

    def ill(self) -> list[str]:
        """What does not run, a line each."""
        said = [f"{row.service}: {row.state} {row.reason}" for row in status(self.settings) if row.state != "running"]
        producer = producers.newest(self.stream.database, self.settings.topic)
        if producer is None or not producer.is_alive():
            said.append(f"the producer is {producers.describe(producer)}")
        if self.daemon() is None:
            said.append("Dagster's daemon does not run")
        if leases.holders(self.stream.database, self.settings.topic, self.settings.lease_s) and not alive(self.stream):
            said.append("the lease is held by a run that is gone")
        return said

    def assert_recovers(self, patience_s: float) -> None:
        """Wait until everything runs."""
        deadline = time.monotonic() + patience_s
        while problems := self.ill():
            assert time.monotonic() < deadline, f"after {patience_s:g} s: {problems}"
            time.sleep(0.5)


@contextmanager
def running_system(
    stack: Settings, folder: Path, topic: str, *, seed: int, patience_s: float = 120.0, **variables: str
) -> Iterator[System]:
    """Run a stream with a champion meanwhile, and end all of it."""
    hooks = Hooks(folder / "hooks")
    (folder / "hooks").mkdir(parents=True)
    # A worker that hangs is ended sooner than by default. One that waits for a broker or HDFS, for up to a minute and a
    # quarter, may be as well: that is an outage.
    # Runs end sooner, too, so that others are launched although clips never cease to come.
    limits = {"RANGE_LIMIT_S": "60", "CLIP_LIMIT_S": "20", "MAX_RUN_S": "30", **variables}
    with prepared_stream(stack, folder / "drop", topic, **limits) as stream:
        set_champion(stream.settings, 1)
        logs = stream.settings.state_dir / "logs"
        began = time.time()
        try:
            with ExitStack() as running:
                os.environ.update(hooks.variables())  # `prepared_stream` takes them away again
                watch = [sys.executable, "-m", "genres_cli", "watch", str(stream.folder)]
                daemon = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(WORKSPACE)]
                running.enter_context(kept_running(watch, logs / "folder_producer.log"))
                running.enter_context(kept_running(daemon, logs / "dagster_daemon.log"))
                wait_until(lambda: stream.ticked_since(began))
                yield System(stream, Traffic(stream.folder, seed=seed), hooks, patience_s)
        finally:
            for run in alive(stream):
                if process := process_of(run):
                    process.kill()


def _child(word: str) -> psutil.Process | None:
    for process in psutil.Process().children():
        try:
            if word in process.cmdline():
                return process
        except psutil.Error:  # it ended just now
            continue
    return None

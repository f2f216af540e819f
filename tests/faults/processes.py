"""Finding the processes of a running stream, to end or to stop them."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil

from genres.settings import Settings
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import PartitionKey
from local_stack.supervision import Supervisor
from streaming_sensors.warm_launcher import PID_TAG, process_of
from tests.stream_rig import Stream


def pid_of(stack: Settings, service: str) -> int | None:
    """The process of a service of the stack."""
    return Supervisor(stack.state_dir).info(service).pid


def kill_worker_at_work(stream: Stream, killed: list[tuple[PartitionKey, str]]) -> bool:
    """Kill the process of a run that has begun a range and not committed it, and note the range; False: no such run."""

    def kill(key: PartitionKey, run_id: str, worker: psutil.Process) -> None:
        worker.kill()
        killed.append((key, run_id))

    return with_worker_at_work(stream, kill)


def with_worker_at_work(stream: Stream, act: Callable[[PartitionKey, str, psutil.Process], object]) -> bool:
    """Do something while the process of a run that has begun a range, and not committed it, stands still.

    Called with the range, the run and its process, which goes on afterwards unless that ended it. False: no such run,
    or it returned False.
    """
    for found in ranges.history(stream.database, stream.settings.topic, states={"planned"}):
        pid = found.run_id and worker_of(stream, found.run_id)
        if not pid:
            continue
        try:
            worker = psutil.Process(pid)
            # Stopped first, so that it cannot commit between the look at the ledger and what is done to it.
            worker.suspend()
        except psutil.NoSuchProcess:  # it ended just now
            continue
        try:
            now = ranges.find(stream.database, found.key)
            if (now.state, now.run_id) == ("planned", found.run_id):
                return act(found.key, found.run_id, worker) is not False
        finally:
            with suppress(psutil.NoSuchProcess):
                worker.resume()
    return False


def alive(stream: Stream) -> list[dg.DagsterRun]:
    """The stream's draining runs whose process is there."""
    started = dg.RunsFilter(job_name="stream_batch_job", statuses=[dg.DagsterRunStatus.STARTED])
    return [
        run
        for run in stream.instance.get_runs(started)
        if run.tags["dagster/partition"].startswith(f"{stream.settings.topic}:")
        and PID_TAG in run.tags
        and process_of(run)
    ]


def worker_of(stream: Stream, run_id: str) -> int | None:
    """The process of a run, as its event log names it."""
    for entry in stream.instance.all_logs(run_id):
        found = re.search(r"\(pid: (\d+)\)", entry.message)
        if found and psutil.pid_exists(int(found.group(1))):
            return int(found.group(1))
    return None


def python_workers(stack: Settings) -> list[psutil.Process]:
    """The Python workers of the Connect server, forked from its daemons, which are left out."""
    server = pid_of(stack, "spark-connect")
    if server is None:
        return []
    parents: dict[psutil.Process, int] = {}
    daemons: set[int] = set()
    for process in psutil.Process(server).children(recursive=True):
        with suppress(psutil.Error):  # it ended just now
            parents[process] = process.ppid()
            if parents[process] == server or _is_java(process.parent()):
                daemons.add(process.pid)
    return [process for process, parent in parents.items() if process.pid not in daemons and parent in daemons]


def children_of(pid: int, *words: str) -> list[psutil.Process]:
    """What a process has started, directly or not, and whose command line has these words."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:  # it ended just now
            continue
        if all(word in command for word in words):
            found.append(process)
    return found


def _is_java(process: psutil.Process | None) -> bool:
    return process is not None and Path(process.name()).name == "java"

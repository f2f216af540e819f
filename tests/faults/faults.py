"""The table of faults: each has a name, a way to inject it and a way to heal it.

A fault is a context: it is there between entering and leaving. What was killed is started again by whoever keeps it
running, never from here. A fault that cannot be injected raises.
"""

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import psutil
import requests

from local_stack.class_path import HADOOP_LOCK, class_path
from local_stack.java import java_home
from local_stack.stack import start_service, stop_service
from streaming_sensors.topic import create_topic, topic_state
from streaming_sensors.warm_launcher import process_of
from tests.faults.processes import alive, kill_worker_at_work, pid_of, python_workers
from tests.faults.system import System
from tests.http_server import served
from tests.stream_rig import kill_tree, wait_until


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    inject: Callable[[System], AbstractContextManager[None]]
    lasts_s: float = 0.0
    """For how long it stays before it is healed, in seconds; 0 for what is over at once."""
    in_every_run: bool = False
    """Whether its case is part of every test run; the others take too long together, or have a test of their own."""
    is_borne: bool = False
    """Whether clips have to get their rows while it lasts, not only after it."""


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, **how: float | bool
) -> Callable[[Callable[[System], Iterator[None]]], Callable[[System], AbstractContextManager[None]]]:
    """Enter a generator function in the table."""

    def enter(function: Callable[[System], Iterator[None]]) -> Callable[[System], AbstractContextManager[None]]:
        context = contextmanager(function)
        assert name not in FAULTS
        FAULTS[name] = Fault(name, context, **how)  # type: ignore[arg-type]
        return context

    return enter


# Processes of ours that are killed.

_IN_EVERY_RUN = {
    "run worker killed after the rename",
    "run worker killed inside the transaction",
    "planner killed after it writes its plan",
    "producer killed between acknowledgement and memory",
}


def _killed_at_seam(name: str, seam: str, when: str, *, delay_s: float = 0.0, in_producer: bool = False) -> None:
    @fault(name, in_every_run=name in _IN_EVERY_RUN)
    def killed(system: System) -> Iterator[None]:
        system.hooks.arm(seam, when, delay_s=delay_s, in_producer=in_producer)
        try:
            yield
            wait_until(system.hooks.struck, patience_s=system.patience_s)
        finally:
            system.hooks.disarm()


for _when in ("before", "after"):
    _killed_at_seam(f"run worker killed {_when} reading", "read", _when)
    _killed_at_seam(f"run worker killed {_when} writing", "write", _when)
    _killed_at_seam(f"run worker killed {_when} the rename", "rename", _when)
    _killed_at_seam(f"run worker killed {_when} the transaction", "transaction", _when)
    _killed_at_seam(f"run worker killed {_when} it takes the lease", "lease", _when)
    _killed_at_seam(f"run worker killed {_when} it begins an attempt", "attempt", _when)
    _killed_at_seam(f"planner killed {_when} it writes its plan", "plan", _when)
    _killed_at_seam(f"daemon killed {_when} launching a run", "launch", _when)
_killed_at_seam("run worker killed while it reads", "read", "before", delay_s=0.3)
_killed_at_seam("run worker killed inside the write", "create", "after")
_killed_at_seam("run worker killed inside the transaction", "rows", "after")
_killed_at_seam("run worker killed before it lets the lease go", "release", "before")
_killed_at_seam("producer killed between sending and acknowledgement", "send", "after", in_producer=True)
_killed_at_seam("producer killed between acknowledgement and memory", "memory", "before", in_producer=True)
_killed_at_seam("producer killed after it remembered", "memory", "after", in_producer=True)


@fault("run worker killed")
def run_worker_killed(system: System) -> Iterator[None]:
    yield
    wait_until(lambda: kill_worker_at_work(system.stream, []), patience_s=system.patience_s)


@fault("run terminated")
def run_terminated(system: System) -> Iterator[None]:
    yield
    wait_until(lambda: alive(system.stream), patience_s=system.patience_s)
    for run in alive(system.stream)[:1]:
        system.stream.instance.run_launcher.terminate(run.run_id)


@fault("run worker frozen", lasts_s=15)
def run_worker_frozen(system: System) -> Iterator[None]:
    """Longer than its lease: another run takes over, and fences this one when it wakes."""
    wait_until(lambda: alive(system.stream), patience_s=system.patience_s)
    processes = _runs(system)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        _resume(processes)


@fault("producer killed")
def producer_killed(system: System) -> Iterator[None]:
    yield
    wait_until(system.producer)
    (system.producer() or psutil.Process(-1)).kill()


@fault("daemon killed")
def daemon_killed(system: System) -> Iterator[None]:
    wait_until(system.daemon)
    kill_tree((system.daemon() or psutil.Process(-1)).pid)
    yield


@fault("daemon, code servers and runs killed")
def daemon_and_runs_killed(system: System) -> Iterator[None]:
    wait_until(system.daemon)
    kill_tree((system.daemon() or psutil.Process(-1)).pid)
    _kill_all(_runs(system))
    yield


@fault("code servers killed")
def code_servers_killed(system: System) -> Iterator[None]:
    """And the run at work, so that another one has to be launched."""
    wait_until(system.code_servers)
    _kill_all([*system.code_servers(), *_runs(system)])
    yield


# The broker.


@fault("broker killed")
def broker_killed(system: System) -> Iterator[None]:
    _kill(system, "kafka")
    yield


def _frozen(name: str, service: str) -> None:
    @fault(name, lasts_s=20)
    def frozen(system: System) -> Iterator[None]:
        """It takes connections meanwhile, and says nothing."""
        pid = _pid(system, service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


_frozen("broker frozen", "kafka")


@fault("topic recreated", in_every_run=True)
def topic_recreated(system: System) -> Iterator[None]:
    from kafka.errors import KafkaError

    from genres.errors import GenresError

    yield
    before = topic_state(system.settings, system.settings.topic, timeout_s=60).topic_id
    with _admin(system) as admin:
        admin.delete_topics([system.settings.topic])

    def is_another() -> bool:
        try:
            create_topic(system.settings, system.settings.topic)
            return topic_state(system.settings, system.settings.topic).topic_id != before
        except (GenresError, KafkaError):  # it is still being deleted
            return False

    wait_until(is_another, patience_s=system.patience_s)


@fault("records deleted past the cursor", in_every_run=True)
def records_deleted(system: System) -> Iterator[None]:
    """What was sent meanwhile is gone before anybody reads it: whoever could read it is stopped."""
    from kafka import TopicPartition

    topic = system.settings.topic
    readers = _runs(system)
    daemon = system.daemon()
    stopped = [*readers, *([daemon, *daemon.children(recursive=True)] if daemon else [])]
    _suspend(system, stopped)
    try:
        before = sum(topic_state(system.settings, topic, timeout_s=60).ends.values())
        yield
        wait_until(lambda: sum(topic_state(system.settings, topic, timeout_s=60).ends.values()) > before)
        ends = topic_state(system.settings, topic, timeout_s=60).ends
        with _admin(system) as admin:
            admin.delete_records({TopicPartition(topic, number): end for number, end in ends.items()})
    finally:
        _resume(stopped)


def _suspend(system: System, processes: list[psutil.Process]) -> None:
    """Stop processes while none of them writes to the ledger, or nobody else could, the producer for one."""
    while True:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        ledger = sqlite3.connect(system.stream.database.url.database or "", timeout=2, isolation_level=None)
        try:
            ledger.execute("BEGIN IMMEDIATE")
            ledger.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            _resume(processes)
            time.sleep(0.2)
        finally:
            ledger.close()


def _resume(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@fault("partitions added", is_borne=True)
def partitions_added(system: System) -> Iterator[None]:
    """One more than there are; topics with very many are no aim."""
    number = len(topic_state(system.settings, system.settings.topic, timeout_s=60).ends)
    if number < 12:
        with _admin(system) as admin:
            admin.create_partitions({system.settings.topic: number + 1})
    yield


# HDFS.


@fault("NameNode killed")
def namenode_killed(system: System) -> Iterator[None]:
    _kill(system, "namenode")
    yield


@fault("NameNode in safe mode", lasts_s=8)
def namenode_in_safe_mode(system: System) -> Iterator[None]:
    _dfsadmin(system, "-safemode", "enter")
    try:
        yield
    finally:
        _dfsadmin(system, "-safemode", "leave")


@fault("DataNode killed")
def datanode_killed(system: System) -> Iterator[None]:
    _kill(system, "datanode")
    yield


@fault("DataNode killed in the middle of a write")
def datanode_killed_mid_write(system: System) -> Iterator[None]:
    """The NameNode has made the file, the bytes are not there yet."""
    system.hooks.arm("create", "after", pid=_pid(system, "datanode"))
    try:
        yield
        wait_until(system.hooks.struck, patience_s=system.patience_s)
    finally:
        system.hooks.disarm()


@fault("lake full", lasts_s=8, in_every_run=True)
def lake_full(system: System) -> Iterator[None]:
    _set_space_quota(system, 1)
    try:
        yield
    finally:
        _set_space_quota(system, -1)


# Spark.


@fault("Connect server killed in the middle of a batch")
def connect_server_killed(system: System) -> Iterator[None]:
    system.hooks.arm("read", "before", pid=_pid(system, "spark-connect"), delay_s=0.2)
    try:
        yield
        wait_until(system.hooks.struck, patience_s=system.patience_s)
    finally:
        system.hooks.disarm()


_frozen("Connect server frozen", "spark-connect")


@fault("Python workers killed", lasts_s=5, in_every_run=True)
def python_workers_killed(system: System) -> Iterator[None]:
    """Again and again, as the system does that has no memory left."""
    killed, done = threading.Event(), threading.Event()

    def kill() -> None:
        while not done.wait(0.3):
            for process in python_workers(system.settings):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
        assert killed.wait(system.patience_s), "no worker was at work"
    finally:
        done.set()
        killer.join()


@fault("Python workers out of memory", lasts_s=8)
def python_workers_out_of_memory(system: System) -> Iterator[None]:
    """They get no more address space than they have.

    One that cannot start a thread then waits for it for good (CPython's ``Thread.start``), until ``range_limit_s``
    ends it.
    """
    limited: dict[psutil.Process, tuple[int, int]] = {}
    done = threading.Event()

    def limit() -> None:
        while not done.wait(0.05):
            for process in python_workers(system.settings):
                with suppress(psutil.NoSuchProcess):
                    if process not in limited:
                        limited[process] = process.rlimit(psutil.RLIMIT_AS)
                        process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms, limited[process][1]))

    limiter = threading.Thread(target=limit)
    limiter.start()
    try:
        yield
        wait_until(lambda: limited, patience_s=system.patience_s)
    finally:
        done.set()
        limiter.join()
        for process, before in limited.items():
            with suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_AS, before)


# The database.


@fault("database full", lasts_s=8, in_every_run=True)
def database_full(system: System) -> Iterator[None]:
    system.hooks.fill_database(True)
    try:
        yield
    finally:
        system.hooks.fill_database(False)


@fault("database locked", lasts_s=32)
def database_locked(system: System) -> Iterator[None]:
    """For longer than a writer waits."""
    connection = sqlite3.connect(system.stream.database.url.database or "", timeout=60, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@fault("four more writers", lasts_s=10, is_borne=True)
def four_writers(system: System) -> Iterator[None]:
    """Each is inside a transaction nearly all of the time."""
    done, wrote = threading.Event(), threading.Barrier(5)

    def write(number: int) -> None:
        file = system.stream.database.url.database or ""
        connection = sqlite3.connect(file, timeout=60, isolation_level=None)
        first = True
        while not done.wait(0.01):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE stream_leases SET expires_at = expires_at WHERE topic = ?", (f"no {number}",))
            time.sleep(0.05)
            connection.execute("COMMIT")
            if first:
                wrote.wait(60)
                first = False
        connection.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    try:
        wrote.wait(60)
        yield
    finally:
        done.set()
        for writer in writers:
            writer.join()


# MLflow.


@fault("MLflow down, no model loaded", lasts_s=10, in_every_run=True)
def mlflow_down_cold(system: System) -> Iterator[None]:
    """No run is at work when it goes; the next one has to ask for the champion."""
    with _without_mlflow(system):
        _kill_all(_runs(system))
        yield


@fault("MLflow down, model loaded", lasts_s=10)
def mlflow_down_warm(system: System) -> Iterator[None]:
    wait_until(lambda: alive(system.stream), patience_s=system.patience_s)
    with _without_mlflow(system):
        yield


@fault("MLflow answers 500", lasts_s=10)
def mlflow_answers_500(system: System) -> Iterator[None]:
    with _without_mlflow(system):
        _kill_all(_runs(system))
        with served(_Broken, port=system.settings.ports.mlflow):
            yield


# The clock.


def _clock_off(name: str, seconds: float, *, kills: bool) -> None:
    @fault(name, lasts_s=10, is_borne=True)
    def off(system: System) -> Iterator[None]:
        if kills:
            wait_until(lambda: kill_worker_at_work(system.stream, []), patience_s=system.patience_s)
        system.hooks.shift_clock(seconds)
        try:
            yield
        finally:
            system.hooks.shift_clock(0)


_clock_off("clock back an hour", -3600, kills=False)
_clock_off("clock back an hour, run worker killed", -3600, kills=True)
_clock_off("clock forward a day", 86_400, kills=False)


def _runs(system: System) -> list[psutil.Process]:
    """The processes of the runs at work."""
    return [process for run in alive(system.stream) if (process := process_of(run))]


def _kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


class _Broken(BaseHTTPRequestHandler):
    """A server that answers nothing but 500."""

    def _answer(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names are the library's


@contextmanager
def _without_mlflow(system: System) -> Iterator[None]:
    stop_service(system.settings, "mlflow")
    try:
        yield
    finally:
        start_service(system.settings, "mlflow")


def _pid(system: System, service: str) -> int:
    """The process of a service, as soon as there is one."""
    found: list[int | None] = [None]

    def is_there() -> bool:
        found[0] = pid_of(system.settings, service)
        return found[0] is not None

    wait_until(is_there)
    return found[0] or -1


def _kill(system: System, service: str) -> None:
    """Kill a service and wait until the supervisor has started it again; it need not be ready."""
    pid = _pid(system, service)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid_of(system.settings, service) not in (pid, None))


@contextmanager
def _admin(system: System) -> Iterator["object"]:
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=system.settings.bootstrap_servers, request_timeout_ms=30_000)
    try:
        yield admin
    finally:
        admin.close()


def _dfsadmin(system: System, *arguments: str) -> None:
    conf = system.settings.state_dir / "hdfs" / "conf"
    jars = class_path(HADOOP_LOCK, on_progress=lambda _: None)
    subprocess.run(
        [
            str(java_home() / "bin" / "java"),
            *("-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
            *("-cp", ":".join(map(str, [conf, *jars]))),
            *("org.apache.hadoop.hdfs.tools.DFSAdmin", *arguments),
        ],
        env={**os.environ, "HADOOP_USER_NAME": system.settings.hdfs_user},
        check=True,
        capture_output=True,
        timeout=60,
    )


def _set_space_quota(system: System, bytes_: int) -> None:
    """Limit the lake's folder; -1 lifts the limit."""
    settings = system.settings
    answer = requests.put(
        f"{settings.webhdfs}/webhdfs/v1{settings.lake_path}",
        params={"op": "SETQUOTA", "user.name": settings.hdfs_user, "storagespacequota": str(bytes_)},
        timeout=60,
    )
    answer.raise_for_status()

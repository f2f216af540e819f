"""The local stack as a whole: bring it up, take it down, say how it is.

The ``genres`` command and the tests come in here. Each function works on the stack of ``settings.state_dir``
alone; any number of stacks run side by side.
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from genres.addresses import bypass_proxies, without_secrets
from genres.audio.compile_kernels import compile_kernels
from genres.errors import GenresError
from genres.kafka_client import KafkaAccess
from genres.settings import PROJECT_DIR, Settings
from local_stack.class_path import HADOOP_LOCK, KAFKA_LOCK, class_path
from local_stack.hdfs_daemons import hdfs_programs
from local_stack.health import UnhealthyError
from local_stack.java import java_home
from local_stack.kafka_broker import kafka_programs
from local_stack.mlflow_server import mlflow_programs
from local_stack.ports import held_by_another, require_free_ports, reserve_ports
from local_stack.preconditions import require_able_machine
from local_stack.program import Program
from local_stack.services import Service, services
from local_stack.spark_server import spark_programs
from local_stack.supervision import ProcessInfo, ProcessState, Supervisor, tail

_ENGINE = "spark-connect"
_ENGINE_ALONE = {_ENGINE, "spark-ui"}

State = Literal["running", "starting", "stopped", "unhealthy", "external"]


class ServiceStatus(NamedTuple):
    """How one service is."""

    service: str
    state: State
    """``external``: somebody else runs it, and it is healthy."""
    pid: int | None
    address: str
    memory_bytes: int | None
    """Resident memory of the process and its children."""
    data_dir: Path | None
    log: Path | None
    ui: str | None
    reason: str = ""
    """Why it is not healthy."""


def up(settings: Settings, *, on_progress: Callable[[str], None]) -> list[ServiceStatus]:
    """Start what is not running and wait until every service is healthy.

    The first time, ports are reserved (see `local_stack.ports.reserve_ports`: build `Settings` again after this
    call), jars are fetched and storage is formatted. Services whose address is set are only probed.

    Parameters
    ----------
    settings
        What to run and where.
    on_progress
        Told, in one line each, what is being done; called from several threads, one at a time.

    Returns
    -------
    list[ServiceStatus]
        How every service is, all of them healthy.

    Raises
    ------
    GenresError
        If there is no Java, a jar does not match, a port is taken, an external service does not answer, or a
        service ends or is not healthy after ``start_timeout_s``; then with the end of its log.
    """
    bypass_proxies(settings)  # the daemons, too: they inherit this process's environment
    progress_lock = threading.Lock()

    def report(line: str) -> None:
        with progress_lock:
            on_progress(line)

    prepare(settings, on_progress=report)
    if "spark" not in settings.embedded:
        _require_able_engine(settings, report)
    if settings.embedded:
        settings = reserve_ports(settings)
        with _exclusive(settings):
            programs = _programs(settings, report)
            if "spark" in settings.embedded:
                compile_kernels(report)
            _start_or_undo(settings, programs, report)
    return status(settings)


def prepare(settings: Settings, *, on_progress: Callable[[str], None]) -> None:
    """See that the stack can be started, and fetch what is missing; the state folder stays as it is.

    Parameters
    ----------
    settings, on_progress
        As for `up`, which does this first.

    Raises
    ------
    GenresError
        If an external service does not answer, or this machine lacks something.
    """
    bypass_proxies(settings)
    for service in services(settings):
        if service.external:
            _require_external(service)
    require_able_machine(settings)
    _programs(settings, on_progress)  # which looks for Java and fetches the jars


def up_engine(settings: Settings, *, on_progress: Callable[[str], None]) -> None:
    """Start the Spark Connect server alone, for what needs no storage; a stack that is up is completed instead.

    Parameters
    ----------
    settings, on_progress
        As for `up`.

    Raises
    ------
    GenresError
        As from `up`, of that service.
    """
    bypass_proxies(settings)
    if "spark" not in settings.embedded:
        _require_external(next(service for service in services(settings) if service.name == _ENGINE))
        _require_able_engine(settings, on_progress)
        return
    supervisor = Supervisor(settings.state_dir)
    if _ENGINE_ALONE.issuperset(supervisor.processes() or ()):
        require_able_machine(settings)
        java = _java_home(settings)
        settings = reserve_ports(settings)
        with _exclusive(settings):
            # Asked again: what another command has brought up meanwhile would be ended.
            if _ENGINE_ALONE.issuperset(supervisor.processes() or ()):
                _start_or_undo(settings, spark_programs(settings, java), on_progress)
                return
    up(settings, on_progress=on_progress)


def down(settings: Settings) -> None:
    """Stop the stack's services in order, then its supervisor, then whatever is left of earlier ones."""
    supervisor = Supervisor(settings.state_dir)
    if not supervisor.config_file.exists():
        return
    with _exclusive(settings):
        _stop(supervisor, set(supervisor.processes() or ()))
        supervisor.shut_down()
        supervisor.end_leftovers()


def _stop(supervisor: Supervisor, names: set[str]) -> None:
    # Engines before the storage they write to, the NameNode last.
    for wave in (names - {"namenode", "datanode"}, {"datanode"}, {"namenode"}):
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(supervisor.stop_process, wave & names))


def status(settings: Settings) -> list[ServiceStatus]:
    """Return how every service is, asking each through its own protocol; takes a few seconds at most."""
    supervisor = Supervisor(settings.state_dir)
    # Asked once for all of them: another command may be starting or ending them.
    supervised = supervisor.processes() or {}

    def ask(service: Service) -> ServiceStatus:
        return _status(settings, service, supervised.get(service.name), supervisor.log_file(service.name))

    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(ask, services(settings)))


def start_service(settings: Settings, name: str) -> None:
    """Start the service `name` of a stack that is up and wait until it is healthy.

    Raises
    ------
    GenresError
        If there is no such service, the stack is not up, or the service does not become healthy.
    """
    service, supervisor = _supervised(settings, name)
    if not supervisor.settled(name).alive:
        require_free_ports(service)
        supervisor.start_process(name)
    _wait_healthy(settings, service, supervisor, threading.Event())


def stop_service(settings: Settings, name: str) -> None:
    """Stop the service `name` of a stack that is up; it stays stopped until it is started or `up` is called."""
    _, supervisor = _supervised(settings, name)
    supervisor.stop_process(name)


def _programs(settings: Settings, report: Callable[[str], None]) -> list[Program]:
    programs: list[Program] = []
    if settings.embedded & {"hdfs", "kafka", "spark"}:
        java = _java_home(settings)
    if "hdfs" in settings.embedded:
        jars = class_path(HADOOP_LOCK, on_progress=report, repository=settings.jar_dir)
        programs += hdfs_programs(settings, java, jars)
    if "kafka" in settings.embedded:
        jars = class_path(KAFKA_LOCK, on_progress=report, repository=settings.jar_dir)
        programs += kafka_programs(settings, java, jars)
    if "spark" in settings.embedded:
        programs += spark_programs(settings, java)
    if "mlflow" in settings.embedded:
        programs += mlflow_programs(settings)
    return programs


def _java_home(settings: Settings) -> Path:
    if settings.jdk_dir:
        os.environ["CJDK_CACHE_DIR"] = str(settings.jdk_dir)  # who downloads it reads this
    return java_home()


def _start_or_undo(settings: Settings, programs: list[Program], report: Callable[[str], None]) -> None:
    """Start what is not running; if that fails, or is interrupted, what was started is stopped. The logs stay."""
    supervisor = Supervisor(settings.state_dir)
    processes = supervisor.processes()
    ran = None if processes is None else {name for name, info in processes.items() if info.alive}
    try:
        supervisor.ensure(programs)
        _start_all(settings, supervisor, {program.name: program for program in programs}, report)
    except BaseException:
        _stop(supervisor, set(supervisor.processes() or ()) - (ran or set()))
        if ran is None:
            supervisor.shut_down()
            supervisor.end_leftovers()
        raise


def _start_all(
    settings: Settings, supervisor: Supervisor, programs: dict[str, Program], report: Callable[[str], None]
) -> None:
    """Start, side by side, every service of `programs` that is not running, and wait until all are healthy."""
    embedded = [service for service in services(settings) if service.name in programs]
    to_start = {service.name for service in embedded if not supervisor.settled(service.name).alive}
    for service in embedded:
        if service.name in to_start:
            require_free_ports(service)
    given_up = threading.Event()
    brought: dict[str, Future[None]] = {}

    def bring_up(service: Service) -> None:
        begun = time.monotonic()
        if service.name in to_start:
            programs[service.name].prepare()
            supervisor.start_process(service.name)
        if service.behind in brought:  # whose failure it would be taken for
            brought[service.behind].result()
        if _wait_healthy(settings, service, supervisor, given_up) and service.name in to_start:
            report(f"{service.name} healthy in {time.monotonic() - begun:.1f} s")

    with ThreadPoolExecutor(max_workers=len(embedded)) as pool:
        try:
            for service in embedded:
                brought[service.name] = pool.submit(bring_up, service)
            for done in as_completed(brought.values()):
                done.result()
        except BaseException:
            given_up.set()
            raise


def _wait_healthy(settings: Settings, service: Service, supervisor: Supervisor, given_up: threading.Event) -> bool:
    """Wait until `service` is healthy; stop it and raise with its log's tail if it ends or takes too long.

    Returns False, leaving it as it is, once another service's failure has set `given_up`.
    """
    deadline = time.monotonic() + settings.start_timeout_s
    first_pid = supervisor.info(service.name).pid
    while not given_up.is_set():
        info = supervisor.info(service.name)
        pid = info.pid if info.alive and info.pid == first_pid else None
        # Another stack with the same ports may be the one that answers.
        reason = None if pid is None else _why_unhealthy(service) or held_by_another(service, pid)
        if pid is not None and reason is None:
            return True
        if pid is None or time.monotonic() > deadline:
            supervisor.stop_process(service.name)
            log = supervisor.log_file(service.name)
            what = (
                "ended while it was starting"
                if pid is None
                else f"was not healthy after {settings.start_timeout_s:g} s ({reason}; GENRES_START_TIMEOUT_S)"
            )
            raise GenresError(f"{service.name} {what}; the end of {log}:\n{tail(log, 40)}")
        time.sleep(0.2)
    return False


def _status(settings: Settings, service: Service, info: ProcessInfo | None, log: Path) -> ServiceStatus:
    if service.external:
        reason = _why_unhealthy(service)
        state: State = "unhealthy" if reason else "external"
        return ServiceStatus(service.name, state, None, service.address, None, None, None, service.ui, reason or "")
    reason = None
    if info is None or info.state in (ProcessState.STOPPED, ProcessState.STOPPING):
        state = "stopped"
    elif not info.alive:
        state, reason = ("starting", "it ended") if info.state is ProcessState.BACKOFF else ("stopped", "it ended")
    else:
        reason = _why_unhealthy(service)
        young = info.running_s < settings.start_timeout_s
        state = "running" if reason is None else "starting" if young else "unhealthy"
    return ServiceStatus(
        service.name,
        state,
        info.pid if info else None,
        service.address,
        _memory_bytes(info.pid) if info and info.pid else None,
        service.data_dir,
        log,
        service.ui,
        reason or "",
    )


def _why_unhealthy(service: Service) -> str | None:
    try:
        service.probe()
    except UnhealthyError as error:
        return str(error)
    return None


def _require_external(service: Service) -> None:
    if reason := _why_unhealthy(service):
        raise GenresError(
            f"{service.name} at {service.address}, which the settings name, is not healthy: {reason}; "
            "start it, correct its address, or unset it to use the embedded one"
        )


def _require_able_engine(settings: Settings, report: Callable[[str], None]) -> None:
    """See what the workers of an engine that somebody else runs lack, in a process of its own: see there why."""
    begun = time.monotonic()
    engine = f"Spark at {without_secrets(settings.remote)}"
    # Paths as text: another Python pickles them in another way.
    given = json.dumps({"remote": settings.remote, "kafka": KafkaAccess.of(settings).__getstate__()}, default=str)
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "spark.engine_probe"],
            input=given,
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            timeout=settings.start_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GenresError(
            f"{engine} has not done a job of one row within {settings.start_timeout_s:g} s "
            "(GENRES_START_TIMEOUT_S): look at its web UI and its log"
        ) from error
    if asked.returncode:
        said = [line for line in (asked.stdout or asked.stderr).splitlines() if line.strip()]
        raise GenresError(said[-1] if said else f"{engine} cannot be asked: the probe ended with {asked.returncode}")
    for line in asked.stdout.splitlines():
        report(line)
    report(f"{engine} did a job of one row in {time.monotonic() - begun:.1f} s")


def _supervised(settings: Settings, name: str) -> tuple[Service, Supervisor]:
    embedded = {service.name: service for service in services(settings) if not service.external}
    if name not in embedded:
        raise GenresError(f"no embedded service {name!r}; there are: {', '.join(embedded)}")
    supervisor = Supervisor(settings.state_dir)
    if not supervisor.is_running():
        raise GenresError(f"the local stack of {settings.state_dir} is not running; start it with: genres up")
    return embedded[name], supervisor


def _memory_bytes(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        return sum(member.memory_info().rss for member in [process, *process.children(recursive=True)])
    except psutil.Error:  # it ended just now
        return None


@contextmanager
def _exclusive(settings: Settings) -> Iterator[None]:
    """Let one command at a time change the stack of a state folder."""
    lock = settings.state_dir / "supervisor" / "lock"
    settings.make_state_dir()
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""The stack's supervisord: its configuration, starting and ending it, talking to it, and its leftovers.

supervisord restarts a daemon that dies, writes and rotates its log, and outlives the command that started it.
"""

import configparser
import contextlib
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError
from xmlrpc.client import Error, Fault, ServerProxy

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from genres.errors import GenresError
from genres.written_files import replaced
from local_stack.program import Program

_STACK_VARIABLE = "GENRES_LOCAL_STACK"
"""Set to the state folder in every process of a stack, so that leftovers can be told from others' processes."""

_STOP_TIMEOUT_S = 20
"""How long a daemon may take to end before it is killed."""
_ANSWER_S = 3.0 * _STOP_TIMEOUT_S
"""How long supervisord may take to answer; one that stops a daemon answers when that has ended."""


class ProcessState(StrEnum):
    """What supervisord says of a process; the names are its own."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


class ProcessInfo(NamedTuple):
    """A supervised process."""

    state: ProcessState
    pid: int | None
    running_s: float
    """How long it has been running; 0 if it is not."""

    @property
    def alive(self) -> bool:
        """Whether there is a process that is to stay."""
        return self.state in (ProcessState.STARTING, ProcessState.RUNNING)


class _NotRunningError(GenresError):
    """There is no supervisord, or none that takes commands any more."""


class _Connection(UnixStreamHTTPConnection):
    """A connection to supervisord's socket, with a time limit: one that is stopped accepts it, and never answers."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_ANSWER_S)


class _Transport(SupervisorTransport):
    def __init__(self, socket_path: str) -> None:
        super().__init__(serverurl=f"unix://{socket_path}")

        def get_connection() -> _Connection:
            connection = _Connection("localhost")
            connection.socketfile = socket_path
            return connection

        self._get_connection = get_connection


class Supervisor:
    """The supervisord of one state folder, running or not."""

    def __init__(self, state_dir: Path):
        self.state_dir = state_dir
        self.config_file = state_dir / "supervisor" / "supervisord.conf"

    def log_file(self, name: str) -> Path:
        """Return the log file of the daemon `name`."""
        return self.state_dir / "logs" / f"{name}.log"

    def is_running(self) -> bool:
        """Return whether there is a supervisord that takes commands; one that is ending does not.

        Raises
        ------
        GenresError
            From this and every method, if there is one that does not answer, or refuses.
        """
        return self.processes() is not None

    def processes(self) -> dict[str, ProcessInfo] | None:
        """Return what supervisord knows of each daemon, running or not; None if `is_running` would be False."""
        if not self.config_file.exists():
            return None
        try:
            return {info["name"]: _process_info(info) for info in self._call("getAllProcessInfo")}
        except _NotRunningError:
            return None

    def ensure(self, programs: list[Program]) -> None:
        """Make supervisord run with exactly `programs`; those whose definition changed are stopped.

        A supervisord that is ending is waited for, and leftovers of one that was killed are ended first.

        Raises
        ------
        GenresError
            If supervisord does not start.
        """
        if self.is_running():
            self._write_files(programs)
            added, changed, removed = self._call("reloadConfig")[0]
            for name in [*changed, *removed]:
                self.stop_process(name)
                self._call("removeProcessGroup", name)
            for name in [*added, *changed]:
                self._call("addProcessGroup", name)
            return
        self.shut_down()
        self.end_leftovers()
        self._write_files(programs)
        private = _socket_path(self.state_dir).parent
        private.mkdir(mode=0o700, exist_ok=True)
        if private.stat().st_uid != os.getuid():
            raise GenresError(f"{private} belongs to another user; set GENRES_STATE_DIR to a shorter path")
        # supervisord turns itself into a daemon, so it outlives us, and the call returns.
        started = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.config_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        deadline = time.monotonic() + 20
        while not self.is_running():
            if started.returncode != 0 or time.monotonic() > deadline:
                said = " ".join(started.stdout.split()) or tail(self.log_file("supervisord"), 5)
                raise GenresError(f"supervisord did not start with {self.config_file}: {said}")
            time.sleep(0.05)

    def info(self, name: str) -> ProcessInfo:
        """Return what supervisord knows of the daemon `name`."""
        return _process_info(self._call("getProcessInfo", name))

    def settled(self, name: str) -> ProcessInfo:
        """Return what supervisord knows of the daemon `name` once it is not being stopped any more."""
        deadline = time.monotonic() + _STOP_TIMEOUT_S * 2
        while (info := self.info(name)).state is ProcessState.STOPPING and time.monotonic() < deadline:
            time.sleep(0.05)
        return info

    def start_process(self, name: str) -> None:
        """Start the daemon `name`, without waiting for it; nothing happens if it runs."""
        self._call("startProcess", name, False, unless=Faults.ALREADY_STARTED)

    def stop_process(self, name: str) -> None:
        """Stop the daemon `name` and wait until it has ended; nothing happens if it does not run.

        A supervisord that is ending stops it by itself: `shut_down` waits for that.
        """
        with contextlib.suppress(_NotRunningError):
            self._call("stopProcess", name, True, unless=Faults.NOT_RUNNING)
            self.settled(name)  # what another command is stopping is "not running", too

    def shut_down(self) -> None:
        """End supervisord and what it still runs, and wait until it is gone, also for one that is ending already."""
        supervisords = [process for process in psutil.process_iter() if self._is_supervisord(process)]
        with contextlib.suppress(_NotRunningError):
            self._call("shutdown", unless=Faults.SHUTDOWN_STATE)
            _wait_ended(supervisords, timeout_s=_STOP_TIMEOUT_S * 2)

    def end_leftovers(self) -> int:
        """End every process of this stack that is left, of whichever supervisord; return how many there were."""
        leftovers = [process for process in psutil.process_iter() if self._is_ours(process)]
        # supervisord first, otherwise it starts again what we end.
        for process in sorted(leftovers, key=lambda leftover: not self._is_supervisord(leftover)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        alive = _wait_ended(leftovers, timeout_s=_STOP_TIMEOUT_S / 2)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_ended(alive, timeout_s=_STOP_TIMEOUT_S / 2)
        socket_path = _socket_path(self.state_dir)
        socket_path.unlink(missing_ok=True)
        if not socket_path.is_relative_to(self.state_dir):
            with contextlib.suppress(OSError):  # it was never made
                socket_path.parent.rmdir()
        return len(leftovers)

    def _is_ours(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return self._is_supervisord(process) or process.environ().get(_STACK_VARIABLE) == str(self.state_dir)
        except (psutil.Error, OSError):  # another user's, or gone
            return False

    def _is_supervisord(self, process: psutil.Process) -> bool:
        try:
            command = process.cmdline()
        except psutil.Error:
            return False
        return "supervisor.supervisord" in command and str(self.config_file) in command

    def _call(self, method: str, *arguments: object, unless: int | None = None) -> Any:
        """Call supervisord's XML-RPC `method`; the fault code `unless` is as good as an answer."""
        config = configparser.RawConfigParser()
        try:
            config.read(self.config_file)
            socket_path = config["unix_http_server"]["file"].replace("%%", "%")
        except (configparser.Error, KeyError, UnicodeDecodeError) as error:  # cut short, by a full disk or a kill
            raise _NotRunningError(f"{self.config_file} cannot be read ({error}); run: genres up") from error
        with ServerProxy("http://127.0.0.1", transport=_Transport(socket_path)) as server:
            try:
                return getattr(server.supervisor, method)(*arguments)
            except TimeoutError as error:
                raise GenresError(
                    f"supervisord of {self.state_dir} has not answered for {_ANSWER_S:g} s: if it is stopped, let it "
                    f"go on (kill -CONT); its process id is in {self.config_file.with_name('supervisord.pid')}"
                ) from error
            except Fault as fault:
                if fault.faultCode == unless:
                    return None
                if fault.faultCode == Faults.SHUTDOWN_STATE:
                    raise _NotRunningError(
                        f"supervisord of {self.state_dir} is ending; try again in a moment"
                    ) from fault
                what = " ".join(map(str, [method, *arguments]))
                raise GenresError(
                    f"supervisord of {self.state_dir} refuses {what}: {fault.faultString}; "
                    f"look at {self.log_file('supervisord')}"
                ) from fault
            # Nobody listens, or it ended while it was answering.
            except (OSError, HTTPException, Error, ExpatError) as error:
                raise _NotRunningError(
                    f"no supervisord of {self.state_dir} answers ({error}); if another command is not just ending it, "
                    "run: genres up"
                ) from error

    def _write_files(self, programs: list[Program]) -> None:
        for folder in (self.config_file.parent, self.state_dir / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        self.config_file.parent.chmod(0o700)  # the daemons' variables are in it, and a database's address is one
        for program in programs:
            program.directory.mkdir(parents=True, exist_ok=True)
            for path, text in program.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(path, text)
        _write(self.config_file, self._config(programs))

    def _config(self, programs: Iterable[Program]) -> str:
        folder = self.config_file.parent
        config = configparser.RawConfigParser()
        config["unix_http_server"] = {"file": _escaped(str(_socket_path(self.state_dir))), "chmod": "0700"}
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        config["supervisord"] = {
            "logfile": _escaped(str(self.log_file("supervisord"))),
            "logfile_maxbytes": "2MB",
            "logfile_backups": "1",
            "pidfile": _escaped(str(folder / "supervisord.pid")),
            "childlogdir": _escaped(str(self.state_dir / "logs")),
        }
        for program in programs:
            # supervisord takes these for the start of a comment and cuts the line, quoted or not.
            if odd := re.search(r"\S*\s[;#]\S*", " ".join([*program.command, str(program.directory)])):
                raise GenresError(
                    f"supervisord cannot use a path with {odd[0]!r} in it; "
                    "move the folder, or set GENRES_STATE_DIR to another"
                )
            environment = {
                **program.environment,
                _STACK_VARIABLE: str(self.state_dir),
                # glibc's arenas, one for each of a JVM's many threads, would hold memory for nothing.
                "MALLOC_ARENA_MAX": "2",
                # supervisord restarts what changed; this lets it see the contents of files too.
                "GENRES_CONFIG_SHA256": _digest(program),
            }
            config[f"program:{program.name}"] = {
                "command": _escaped(shlex.join(program.command)),
                "directory": _escaped(str(program.directory)),
                "environment": _escaped(",".join(f"{name}={_quoted(value)}" for name, value in environment.items())),
                "autostart": "false",
                "autorestart": "true",
                # Whatever ends sooner than this counts as a failed start, which is not repeated for ever.
                "startsecs": "10",
                "startretries": "5",
                "stopwaitsecs": str(_STOP_TIMEOUT_S),
                "stopasgroup": "true",
                "killasgroup": "true",
                "redirect_stderr": "true",
                # supervisord expands this one twice.
                "stdout_logfile": _escaped(_escaped(str(self.log_file(program.name)))),
                "stdout_logfile_maxbytes": "10MB",
                "stdout_logfile_backups": "2",
            }
        text = io.StringIO("; Written by `genres up`; changes are lost.\n")
        text.seek(0, io.SEEK_END)
        config.write(text)
        return text.getvalue()


def tail(path: Path, lines: int) -> str:
    """Return the last `lines` lines of a log file, of its last 64 KiB; nothing if there is no such file."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64 * 1024))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _write(path: Path, text: str) -> None:
    """Make `text` the content of a file; where it is that already, a full disk does not matter."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        with replaced(path) as unfinished:
            unfinished.write_bytes(content)


def _process_info(told: dict[str, Any]) -> ProcessInfo:
    running_s = float(told["now"] - told["start"]) if told["pid"] else 0.0
    return ProcessInfo(ProcessState(told["statename"]), told["pid"] or None, running_s)


def _wait_ended(processes: list[psutil.Process], *, timeout_s: float) -> list[psutil.Process]:
    """Wait until `processes` have ended, and return those that have not.

    One that is waiting to be reaped has: in a container there may be nobody who does that, and psutil would wait on.
    """

    def is_alive(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + timeout_s
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _socket_path(state_dir: Path) -> Path:
    """Return where supervisord listens: in the state folder, or in a short private one if that is too deep.

    An AF_UNIX address holds 107 bytes on Linux and 103 on macOS; supervisord adds ``.<pid>`` for a moment.
    """
    place = state_dir / "supervisor" / "supervisor.sock"
    if len(os.fsencode(place)) <= 90:
        return place
    private = Path(tempfile.gettempdir()) / f"genres-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]}"
    return private / "supervisor.sock"


def _digest(program: Program) -> str:
    return hashlib.sha256("\0".join(program.files.values()).encode()).hexdigest()[:16]


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    # supervisord knows no escapes here.
    quote = "'" if '"' in value else '"'
    return f"{quote}{value}{quote}"

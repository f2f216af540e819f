"""Daemons that the cluster tests start, kill and start again; nobody else keeps them running."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from local_stack.program import Program
from local_stack.supervision import tail

_STOP_S = 20.0


class Daemons:
    """Processes by their programs' names, each with a log in one folder."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._programs: dict[str, Program] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *programs: Program) -> None:
        """Start programs, without waiting until they are ready."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for program in programs:
            assert program.name not in self._running
            program.directory.mkdir(parents=True, exist_ok=True)
            for path, text in program.files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            program.prepare()
            with self.log(program.name).open("ab") as output:
                self._running[program.name] = subprocess.Popen(
                    program.command,
                    cwd=program.directory,
                    env=os.environ | program.environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self._programs[program.name] = program

    def kill(self, name: str) -> None:
        """End a daemon and all that it started, the hard way."""
        for process in self.tree(name):
            with suppress(psutil.NoSuchProcess):  # it ended by itself just now
                process.kill()
        self._running.pop(name).wait()

    def start_again(self, name: str) -> None:
        """Start a daemon that was killed."""
        self.start(self._programs[name])

    def tree(self, name: str) -> list[psutil.Process]:
        """The process of a daemon and all that it started; none if it is gone."""
        try:
            process = psutil.Process(self._running[name].pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """End all of them at the same time; those that take too long, the hard way."""
        processes = [process for name in self._running for process in self.tree(name)]
        for running in self._running.values():
            running.terminate()
        _, alive = psutil.wait_procs(processes, timeout=_STOP_S)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for running in self._running.values():
            running.wait()
        self._running.clear()

    def log(self, name: str) -> Path:
        """The log of a daemon."""
        return self._logs / f"{name}.log"

    def ends_of_logs(self) -> str:
        """What the daemons said last."""
        return "\n".join(f"--- {name}\n{tail(self.log(name), 20)}" for name in self._programs)

"""A daemon as the supervisor runs it, and what all the Java daemons have in common."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genres.errors import GenresError
from genres.settings import CHECKOUT

PYTHON_PATH = {"PYTHONPATH": str(CHECKOUT)} if CHECKOUT else {}
"""How a daemon's Python finds our packages in a checkout; where they are installed it finds them by itself."""

JAVA_OPTIONS = (
    # One small heap and few compiler threads: the daemons share a laptop with the work itself.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # A daemon out of memory must end, so that the supervisor starts it again.
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.net.preferIPv4Stack=true",
)
"""Options of every Java daemon but the Spark Connect server."""

LOGGING_OPTIONS = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showShortLogName=true",
)
"""Dated lines at INFO on the standard output, which the supervisor writes to the daemon's log file."""

_FORMAT_S = 300.0
"""How long a daemon's program may take to make its data folder, in seconds."""


@dataclass(frozen=True)
class Program:
    """How the supervisor runs one daemon."""

    name: str
    command: list[str]
    directory: Path
    """Working folder; made if it is not there."""
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)
    """Configuration files to write before it starts; a change of theirs restarts it."""
    prepare: Callable[[], None] = lambda: None
    """Makes its data folder ready, once; called before each start."""


def format_folder(name: str, data_dir: Path, command: Sequence[str], *, folder: Path) -> None:
    """Have a daemon's own program make its data folder.

    Parameters
    ----------
    name
        The daemon's name.
    data_dir
        What is made.
    command
        The program and its arguments.
    folder
        Its working folder.

    Raises
    ------
    GenresError
        If it fails, or does not end, with the end of its output.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=_FORMAT_S
        )
        output, why = done.stdout, "failed" if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        output, why = late.stdout or b"", f"was not done after {_FORMAT_S:g} s"
    if why:
        tail = "\n".join(output.decode(errors="replace").splitlines()[-20:])
        raise GenresError(f"{name}: formatting {data_dir} {why}; check the folder. Its last words:\n{tail}")

"""A daemon as the supervisor runs it, and what all the Java daemons have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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

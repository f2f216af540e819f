"""Processes that a command starts beside itself, and that end with it.

Belongs here: that the terminal does not reach them, and that they end in any case. What is started, and whether again,
is the caller's.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, output: IO[bytes] | None = None, stop_s: float
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command meanwhile, and end it afterwards if it has not ended by itself.

    Parameters
    ----------
    folder
        Its working folder.
    output
        What it prints goes there; None for where ours goes.
    stop_s
        How long it may take to end in order once it is asked to, in seconds. Then, and if we are interrupted
        meanwhile, it is killed with what it started.
    """
    # A session of its own: Ctrl-C reaches us alone. Twice interrupted, Dagster would break off its own cleaning up.
    process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        try:
            process.send_signal(signal.SIGINT)  # to one that has ended nothing is sent
            with suppress(subprocess.TimeoutExpired):
                process.wait(stop_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

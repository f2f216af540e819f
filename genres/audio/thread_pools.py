"""How many cores there are to work with, and the thread pools that numeric libraries open for themselves."""

import os


def single_threaded() -> None:
    """Leave one thread to each library's pool, before it is imported: there is a worker for each core already."""
    for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{pool}_NUM_THREADS"] = "1"


def usable_cores() -> int:
    """Return the number of cores that this process may use; macOS knows only how many the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

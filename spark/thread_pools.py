"""The thread pools that numeric libraries open for themselves."""

import os


def single_threaded() -> None:
    """Give one thread to each library's pool, before it is imported: there is a worker for each core already."""
    for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{pool}_NUM_THREADS"] = "1"

"""The process that Spark forks its Python workers from, with the feature kernel already loaded.

Set as ``spark.python.daemon.module=spark.worker_daemon``. Every worker is a fork, so what is imported and
compiled here is paid for once for each Spark application instead of once for each worker.

Nothing else belongs here, and nothing here may leave a thread behind: a fork copies only the thread that
calls it, and a lock that another thread holds at that moment stays locked in the child for ever. (Arrow's
allocator has a thread of its own, which it stops and restarts around forks.) Nor may anything be printed:
Spark reads the daemon's port from its standard output.
"""

import gc
import signal
import time
from contextlib import suppress

from genres.audio.thread_pools import single_threaded


def warm_up() -> None:
    """Import the kernel's libraries, and load its compiled functions, before the first fork."""
    single_threaded()

    import kafka
    import pandas
    import psutil
    import pyarrow
    import pyspark.worker
    import soundfile
    import soxr
    import tenacity

    from genres.audio.compile_kernels import run_kernel
    from genres.audio.feature_sets import installed_sets
    from genres.store import hdfs
    from spark import extraction

    _ = kafka, pandas, psutil, pyarrow, pyspark, soundfile, soxr, tenacity, hdfs, extraction
    for feature_set in installed_sets().values():
        run_kernel(feature_set)
    # After each task a reused worker collects garbage (pyspark.daemon). Nothing that is here now ever becomes any;
    # to walk through it all took longer than two clips' features.
    gc.collect()
    gc.freeze()


def end_stopped_workers(*, limit_s: float = 10.0) -> None:
    """End, from now on, every worker that stays stopped (SIGSTOP).

    Nothing in a stopped process looks at a clock, and it acts on no signal but SIGKILL: its task would wait for it,
    and every task that it was given after that. Ended, it is a worker that died, which Spark sees at once.

    Parameters
    ----------
    limit_s
        How long a worker may be stopped, in seconds. A profiler that stops it for an instant is none of our business;
        what a debugger holds (a tracing stop) is not either.
    """
    import psutil

    daemon, since = psutil.Process(), dict[psutil.Process, float]()

    def look(*_: object) -> None:
        nonlocal since
        with suppress(psutil.Error, OSError):  # one that ends meanwhile: the next look is soon
            now = time.monotonic()
            stopped = [worker for worker in daemon.children() if worker.status() == psutil.STATUS_STOPPED]
            since = {worker: since.get(worker, now) for worker in stopped}
            for worker, began in since.items():
                if now - began >= limit_s:
                    worker.kill()

    # The daemon's only thread waits for Spark most of the time. Forks inherit the handler, but no timer.
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, limit_s / 4, limit_s / 4)


if __name__ == "__main__":
    warm_up()
    end_stopped_workers()

    from pyspark.daemon import manager

    manager()

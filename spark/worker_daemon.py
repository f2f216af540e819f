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


def watch_workers(*, stopped_limit_s: float = 10.0, idle_limit_s: float = 1800.0) -> None:
    """From now on, end every worker that stays stopped (SIGSTOP), and this daemon once it has no workers any more.

    Nothing in a stopped process looks at a clock, and it acts on no signal but SIGKILL: its task would wait for it,
    and every task that it was given after that. Ended, it is a worker that died, which Spark sees at once.

    Spark starts a daemon for each session and ends it with the application only: of a server that runs for weeks, each
    training would leave one behind. Should the session want workers again, Spark starts another daemon.

    Parameters
    ----------
    stopped_limit_s
        How long a worker may be stopped, in seconds. A profiler stops it for an instant; one that a debugger holds (a
        tracing stop) is left alone.
    idle_limit_s
        How long the daemon stays without workers, in seconds; Spark ends those that had nothing to do for a minute.
    """
    import psutil

    daemon, since = psutil.Process(), dict[psutil.Process, float]()
    busy_at = time.monotonic()

    def look(*_: object) -> None:
        nonlocal since, busy_at
        with suppress(psutil.Error, OSError):  # one that ends meanwhile: the next look is soon
            now = time.monotonic()
            workers = daemon.children()
            stopped = [worker for worker in workers if worker.status() == psutil.STATUS_STOPPED]
            since = {worker: since.get(worker, now) for worker in stopped}
            for worker, began in since.items():
                if now - began >= stopped_limit_s:
                    worker.kill()
            if workers:
                busy_at = now
            elif now - busy_at >= idle_limit_s:
                daemon.terminate()  # pyspark's handler removes the socket first

    # The daemon's only thread waits for Spark most of the time. Forks inherit the handler, but no timer.
    signal.signal(signal.SIGALRM, look)
    every_s = min(stopped_limit_s, idle_limit_s) / 4
    signal.setitimer(signal.ITIMER_REAL, every_s, every_s)


if __name__ == "__main__":
    warm_up()
    watch_workers()

    from pyspark.daemon import manager

    manager()

"""The process that Spark forks its Python workers from, with the feature kernel already loaded.

Set as ``spark.python.daemon.module=spark.worker_daemon``. Every worker is a fork, so what is imported and
compiled here is paid for once for each Spark application instead of once for each worker.

Nothing else belongs here, and nothing here may leave a thread behind: a fork copies only the thread that
calls it, and a lock that another thread holds at that moment stays locked in the child for ever. (Arrow's
allocator has a thread of its own, which it stops and restarts around forks.) Nor may anything be printed:
Spark reads the daemon's port from its standard output.
"""

import gc

from genres.audio.thread_pools import single_threaded


def warm_up() -> None:
    """Import the kernel's libraries, and load its compiled functions, before the first fork."""
    single_threaded()

    import kafka
    import pandas
    import pyarrow
    import pyspark.worker
    import soundfile
    import soxr
    import tenacity

    from genres.audio.compile_kernels import run_kernel
    from genres.audio.feature_sets import installed_sets
    from genres.store import hdfs
    from spark import extraction

    _ = kafka, pandas, pyarrow, pyspark, soundfile, soxr, tenacity, hdfs, extraction
    for feature_set in installed_sets().values():
        run_kernel(feature_set)
    # After each task a reused worker collects garbage (pyspark.daemon). Nothing that is here now ever becomes any;
    # to walk through it all took longer than two clips' features.
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    warm_up()

    from pyspark.daemon import manager

    manager()

"""Extraction on the lake through Spark Connect beside a bare pool of processes that reads the same files from HDFS.

Run it from the project's folder: ``python benchmarks/extraction.py [--clips 100] [--rounds 5] [--grow
100,1000,10000]``. It starts a stack of its own. Both sides fetch over WebHDFS, check, decode and compute with the same
code, on as many processes as there are cores, and give their rows back to this process; they take turns in one run. The
clips are noise.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import Pool
from statistics import median
from threading import Event, Thread

from genres.audio.thread_pools import single_threaded, usable_cores

single_threaded()  # the pools of the libraries read their size when they are imported, here and in the processes

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from noise_clips import clips_on_hdfs, extraction_s  # noqa: E402
from own_stack import own_stack  # noqa: E402

from genres.audio.clip_features import clip_features  # noqa: E402
from genres.audio.gtzan57 import GTZAN57  # noqa: E402
from genres.settings import Settings  # noqa: E402
from genres.store.hdfs_access import HdfsAccess  # noqa: E402
from local_stack.stack import status  # noqa: E402
from spark.clip_source import WebHdfsClips  # noqa: E402
from spark.extraction import tasks_for  # noqa: E402
from spark.session import open_session, session_config  # noqa: E402
from spark.worker_daemon import warm_up  # noqa: E402

CLIP_S = 30.0
SKEWED_S = np.geomspace(0.6, 60.0, 10)
MAX_CLIP_S = 600.0
MIB = 2**20
CORES = usable_cores()


def main() -> None:
    """Print the three tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--clips", type=int, default=100, help="clips of 30 s in each round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--grow", default="100,1000,10000", help="numbers of clips for the table of memory")
    wanted = arguments.parse_args()
    with ExitStack() as ended:
        settings = ended.enter_context(own_stack())
        pool = ended.enter_context(multiprocessing.get_context("spawn").Pool(CORES, initializer=warm_up))
        spark = open_session(session_config(settings, app_name="extraction benchmark"))
        ended.callback(spark.stop)  # else an error would wait for ever: an open session keeps the process
        bench = Bench(settings, spark, pool)
        with clips_on_hdfs(settings, [CLIP_S] * wanted.clips) as even:
            bench.compare(even, wanted.rounds, f"{wanted.clips} clips of {CLIP_S:g} s")
            sizes = [int(size) for size in wanted.grow.split(",") if size]
            bench.grow(even, sizes)
        with clips_on_hdfs(settings, list(SKEWED_S) * max(1, wanted.clips // len(SKEWED_S))) as skewed:
            bench.compare(skewed, wanted.rounds, f"{len(skewed)} clips of {SKEWED_S[0]:g} to {SKEWED_S[-1]:g} s")


class Bench:
    """The two sides."""

    def __init__(self, settings: Settings, spark: object, pool: Pool) -> None:
        self.settings = settings
        self.source = WebHdfsClips(HdfsAccess.of(settings))
        self.spark = spark
        self.pool = pool

    def by_spark(self, clips: pd.DataFrame) -> float:
        """Seconds that the project's extraction takes."""
        return extraction_s(self.spark, clips, self.settings)

    def by_pool(self, clips: pd.DataFrame) -> float:
        """Seconds that the pool takes, handing out as few clips at a time as Spark does."""
        began = time.perf_counter()
        shares = np.array_split(np.arange(len(clips)), tasks_for(len(clips)))
        jobs = [(self.source, clips.iloc[share].to_dict("records")) for share in shares]
        rows = [row for share in self.pool.imap_unordered(pool_job, jobs) for row in share]
        pd.DataFrame(rows)
        return time.perf_counter() - began

    def compare(self, clips: pd.DataFrame, rounds: int, what: str) -> None:
        """Print both sides' times, in turns, and their ratio."""
        self.by_pool(clips)
        self.by_spark(clips)
        pairs = [(self.by_pool(clips), self.by_spark(clips)) for _ in range(rounds)]
        ratios = [spark / pool for pool, spark in pairs]
        print(f"\n{what}, {rounds} rounds in turns, {CORES} processes\n")
        print("| side | ms a clip, p50 | least | most |\n|---|---|---|---|")
        for name, side in (("pool of processes", 0), ("Spark Connect", 1)):
            each = [1000 * pair[side] / len(clips) for pair in pairs]
            print(f"| {name} | {median(each):.1f} | {min(each):.1f} | {max(each):.1f} |")
        print(f"| ratio Spark / pool | {median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |", flush=True)

    def grow(self, clips: pd.DataFrame, sizes: Sequence[int]) -> None:
        """Print time and highest memory for growing numbers of clips, the same files again and again."""
        print(
            "\n| clips | ms a clip | Spark driver MiB | Python workers MiB | this process MiB |\n|---|---|---|---|---|"
        )
        for size in sizes:
            many = pd.concat([clips] * -(-size // len(clips)), ignore_index=True).head(size)
            with highest_memory(self.settings) as highest:
                seconds = self.by_spark(many)
            driver, workers, client = (highest[name] // MIB for name in ("driver", "workers", "client"))
            print(f"| {size} | {1000 * seconds / size:.1f} | {driver} | {workers} | {client} |", flush=True)


def pool_job(job: tuple[WebHdfsClips, list[dict[str, str]]]) -> list[dict[str, object]]:
    """Do a few clips in a process of the pool."""
    source, rows = job
    done = []
    for clip in source.clips(rows):
        found = clip_features(clip.data, file_suffix=clip.suffix, feature_set=GTZAN57, max_clip_s=MAX_CLIP_S)
        done.append({**clip.about, "length": found.length, **found.values, "sha256": found.sha256})
    return done


@contextmanager
def highest_memory(settings: Settings) -> Iterator[dict[str, int]]:
    """Look at the memory of driver, workers and this process four times a second; the highest is given, in bytes."""
    driver = psutil.Process(next(row.pid for row in status(settings) if row.service == "spark-connect"))
    highest = dict.fromkeys(("driver", "workers", "client"), 0)
    done = Event()

    def sample() -> None:
        while not done.wait(0.25):
            workers = 0
            for child in driver.children(recursive=True):
                try:
                    workers += child.memory_full_info().uss
                except psutil.NoSuchProcess:
                    continue
            now = {"driver": driver.memory_info().rss, "workers": workers, "client": psutil.Process().memory_info().rss}
            highest.update({name: max(highest[name], value) for name, value in now.items()})

    sampler = Thread(target=sample)
    sampler.start()
    try:
        yield highest
    finally:
        done.set()
        sampler.join()


if __name__ == "__main__":
    main()

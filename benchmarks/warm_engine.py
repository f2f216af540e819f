"""What a process waits for its first batch on the Connect server, and whether many processes leave anything behind.

Run it from the project's folder: ``python benchmarks/warm_engine.py [--runs 500] [--idle-s 70]``. It starts a stack of
its own. Every run is a process of its own, as a streaming run is: it opens a session, computes the features of two
short clips and ends. The first table compares ways of opening the session; the second one repeats the project's own way
and looks at the server's sessions, Python workers and memory on the way.
"""

import argparse
import multiprocessing
import re
import time
from statistics import median
from uuid import uuid4

import pandas as pd
import psutil
import requests
from noise_clips import clips_on_hdfs
from own_stack import own_stack

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store.hdfs_access import HdfsAccess
from local_stack.stack import status
from spark.clip_source import WebHdfsClips
from spark.extraction import extract_features, spread
from spark.session import open_session, session_config
from streaming_sensors.warm_launcher import PRELOADED

MIB = 2**20
ROUNDS = 5


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=500, help="processes of the second table")
    arguments.add_argument("--idle-s", type=float, default=70, help="pause after which workers have ended")
    wanted = arguments.parse_args()
    shared = f"warm engine {uuid4().hex}"
    with own_stack() as settings, clips_on_hdfs(settings, [1.0, 1.0]) as clips:
        print("\n| session | first batch, p50 | least | most |\n|---|---|---|---|")
        run(settings, clips, shared)
        print_row("the name's, used a moment ago", [run(settings, clips, shared) for _ in range(ROUNDS)])
        print_row("a new one each time", [run(settings, clips, "") for _ in range(ROUNDS)])
        if wanted.idle_s:
            time.sleep(wanted.idle_s)
            print_row(f"the name's, idle for {wanted.idle_s:g} s", [run(settings, clips, shared)])
        print(f"\n{wanted.runs} processes, one after the other, in the name's session\n")
        print("| runs | sessions | Python workers | server MiB | workers MiB |\n|---|---|---|---|---|")
        marks = {0, 1, *(wanted.runs * tenth // 10 for tenth in range(1, 11))}
        for number in range(wanted.runs + 1):
            if number:
                run(settings, clips, shared)
            if number in marks:
                print(f"| {number} | " + " | ".join(map(str, look(settings))) + " |", flush=True)


def run(settings: Settings, clips: pd.DataFrame, shared_as: str) -> float:
    """Fork a process that computes a batch; seconds from its first line to its last."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(list(PRELOADED))
    receiver, sender = forking.Pipe(duplex=False)
    process = forking.Process(target=batch, args=(settings, clips, shared_as, sender))
    process.start()
    seconds: float = receiver.recv()
    process.join()
    return seconds


def batch(
    settings: Settings, clips: pd.DataFrame, shared_as: str, sender: "multiprocessing.connection.Connection"
) -> None:
    """Do what a streaming run does on Spark, and send how long it took."""
    began = time.perf_counter()
    spark = open_session(session_config(settings, app_name="warm engine"), shared_as=shared_as)
    source = WebHdfsClips(HdfsAccess.of(settings))
    table = extract_features(spread(spark, clips, tasks=2), source=source, feature_set=GTZAN57, max_clip_s=60).toArrow()
    if table["reason"].null_count != len(clips):
        raise RuntimeError(str(table["reason"]))
    sender.send(time.perf_counter() - began)
    spark.stop()


def look(settings: Settings) -> tuple[int, int, int, int]:
    """Sessions that the server has, its Python workers, and the memory of both in MiB."""
    page = requests.get(f"http://127.0.0.1:{settings.ports.spark_ui}/connect/", timeout=30).text
    found = re.search(r"(\d+)\s+session\(s\)\s+are online", page)
    pid = next(row.pid for row in status(settings) if row.service == "spark-connect")
    server = psutil.Process(pid)
    python = [child for child in server.children(recursive=True) if "python" in child.name()]
    # Workers share most of their pages with the process that they are forked from.
    own = sum(child.memory_full_info().uss for child in python)
    return int(found.group(1)) if found else -1, len(python), server.memory_info().rss // MIB, own // MIB


def print_row(name: str, seconds: list[float]) -> None:
    """Print one way of opening the session."""
    print(f"| {name} | {median(seconds):.2f} s | {min(seconds):.2f} s | {max(seconds):.2f} s |", flush=True)


if __name__ == "__main__":
    main()

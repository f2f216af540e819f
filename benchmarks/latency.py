"""How long a clip takes from the watched folder to its row: out of idleness, in a steady flow, and at full speed.

Run it from the project's folder: ``python benchmarks/latency.py [--idle 10] [--steady 40] [--burst 400] [--bursts 5]
[--drain 0]``. It starts a stack of its own and trains a champion on it, so that what runs already and its tables are
not touched. Producer, daemon and sensors are the project's own; every time stamp is one that the pipeline keeps anyway.
Beside it, in the same run, stand the extraction of the batch half, before each burst, and a resident Structured
Streaming job (``benchmarks/resident_stream.py``). ``--drain N`` compares runs that are launched with those of a
resident ``genres drain``, in turns, N clips each, and what an idle minute costs either way.
The clips are noise under a slow envelope: 30 s each, all different, and no music.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import sqlalchemy as sa
from noise_clips import clips_on_hdfs, extraction_s, noise_wav
from own_stack import own_stack

from genres.settings import PROJECT_DIR, Settings
from genres.store.database import Database
from genres.store.stream_ledger import leases, ranges
from genres.store.tables import SENT_FILES, STREAM_PREDICTIONS, STREAM_RANGES
from genres_cli.stream_demo import stream_running
from genres_dagster.launch import open_instance
from spark.session import open_session, session_config
from streaming_sensors.run_tags import HOLDER_TAG
from streaming_sensors.topic import create_topic

CLIP_S = 30
EXTRACTED_CLIPS = 100
PATIENCE_S = 300.0
SETTLED_S = 3.0
"""How long no run may be alive before the pipeline counts as idle."""


def main() -> None:
    """Measure the three ways of arriving and print a Markdown table of each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--idle", type=int, default=10, help="clips dropped one by one into an idle pipeline")
    arguments.add_argument("--steady", type=int, default=40, help="clips dropped one a second")
    arguments.add_argument("--burst", type=int, default=400, help="clips dropped at once")
    arguments.add_argument("--bursts", type=int, default=5, help="how often, in turns with extraction of such clips")
    arguments.add_argument("--resident", type=int, default=10, help="clips dropped one by one for the rival")
    arguments.add_argument("--drain", type=int, default=0, help="clips one by one, with and without a resident drain")
    arguments.add_argument("--turns", type=int, default=2, help="how often that is done, in turns")
    wanted = arguments.parse_args()
    with own_stack(champion=True) as settings:
        # Before a session is opened here: the rival's JVM would take what that leaves in the environment for its own.
        environment = dict(os.environ)
        if wanted.idle or wanted.steady or wanted.burst or wanted.drain:
            run_pipeline(wanted, settings)
        if wanted.resident:
            print_resident(resident_rounds(wanted.resident, environment))


def run_pipeline(wanted: argparse.Namespace, settings: Settings) -> None:
    """Start the project's own pipeline, measure it and stop it."""
    create_topic(settings, settings.topic)
    settings.watch_folder.mkdir(exist_ok=True)
    instance = open_instance(settings)
    bench = Bench(settings, Database(settings.database), instance)
    with stream_running(settings, instance):
        bench.idle_rounds(1)  # the daemon's first run imports everything once
        if wanted.drain:
            compare_drains(bench, wanted.drain, wanted.turns)
        if wanted.idle:
            print_phases(bench.idle_rounds(wanted.idle))
        if wanted.steady:
            print_flow("one clip a second", bench.drop(wanted.steady, every_s=1.0))
        if wanted.burst:
            print_bursts(wanted.burst, list(bench.bursts(wanted.burst, wanted.bursts)))


def compare_drains(bench: "Bench", count: int, turns: int) -> None:
    """Drop clips one by one without and with a resident drain, in turns; print phases and the cost of idleness."""
    took: dict[str, list[pd.DataFrame]] = {"launched": [], "resident": []}
    costs: dict[str, list[dict[str, float]]] = {"launched": [], "resident": []}
    for _ in range(turns):
        took["launched"].append(bench.idle_rounds(count))
        costs["launched"].append(bench.idle_minute())
        command = [sys.executable, "-m", "genres_cli", "drain"]
        with subprocess.Popen(command, cwd=PROJECT_DIR) as drain:
            try:
                bench.wait_for_resident()
                bench.idle_rounds(1)
                took["resident"].append(bench.idle_rounds(count))
                costs["resident"].append(bench.idle_minute())
            finally:
                drain.terminate()
    for way, rounds in took.items():
        print(f"\n{way} runs")
        clips = pd.concat(rounds, ignore_index=True)
        # A resident's run began, and loaded its model, before the clip came.
        phases = ["run_id", "is_first_of_run", "dropped", "sent", "seen", "committed"]
        print_phases(clips if way == "launched" else clips[phases])
        print(f"\n{way}: an idle minute\n")
        print("| processes | CPU, s | memory, MiB |\n|---|---|---|")
        minutes = pd.DataFrame(costs[way]).median()
        for name in sorted({column.split(": ")[0] for column in minutes.index}):
            print(f"| {name} | {minutes[f'{name}: cpu']:.1f} | {minutes[f'{name}: memory']:.0f} |")


class Bench:
    """A running pipeline, clips to drop into it, and the look-up of what became of them."""

    def __init__(self, settings: Settings, database: Database, instance: dg.DagsterInstance) -> None:
        self.settings = settings
        self.database = database
        self.instance = instance

    def idle_rounds(self, rounds: int) -> pd.DataFrame:
        """Drop clips one by one, each when no run is alive; give their time stamps."""
        return pd.concat([self.drop(1, every_s=0.0) for _ in range(rounds)], ignore_index=True)

    def wait_for_resident(self) -> None:
        """Wait until a resident drain holds the lease."""
        self._wait(
            lambda: any(
                leases.Resident.parse(holder)
                for holder in leases.holders(self.database, self.settings.topic, self.settings.lease_s).values()
            )
        )

    def idle_minute(self) -> dict[str, float]:
        """Let a minute pass in which nothing arrives; give CPU seconds and memory of the processes that we started."""
        self._wait(self._is_idle)
        before = _processes()
        time.sleep(60)
        after = _processes()
        costs: dict[str, float] = {}
        for key, (name, cpu_s, mebibytes) in after.items():
            costs[f"{name}: cpu"] = costs.get(f"{name}: cpu", 0) + cpu_s - before.get(key, ("", 0.0, 0.0))[1]
            costs[f"{name}: memory"] = costs.get(f"{name}: memory", 0) + mebibytes
        return costs

    def drop(self, count: int, *, every_s: float) -> pd.DataFrame:
        """Drop clips into the idle pipeline, wait for their rows, and give a row of time stamps for each."""
        self._wait(self._is_idle)
        before = self._count()
        clips = [new_clip() for _ in range(count)]
        dropped: dict[str, datetime] = {}
        for name, data in clips:
            path = self.settings.watch_folder / name
            path.write_bytes(data)
            dropped[hashlib.sha256(data).hexdigest()] = datetime.now(UTC)
            time.sleep(every_s)
        self._wait(lambda: self._count() == before + count)
        return pd.DataFrame([self._stamps(row, dropped[row["sha256"]]) for row in self._rows(dropped)])

    def bursts(self, count: int, rounds: int) -> Iterator[tuple[float, pd.DataFrame]]:
        """Extract clips of the lake, then drop such clips at once, in turns; give a rate and the clips' time stamps."""
        spark = open_session(session_config(self.settings, app_name="extraction beside the stream"))
        with ExitStack() as ended:
            ended.callback(spark.stop)
            clips = ended.enter_context(clips_on_hdfs(self.settings, [CLIP_S] * EXTRACTED_CLIPS))
            extraction_s(spark, clips, self.settings)  # its session's workers start
            for _ in range(rounds):
                self._wait(self._is_idle)
                rate = len(clips) / extraction_s(spark, clips, self.settings)
                yield rate, self.drop(count, every_s=0.0)

    def _count(self) -> int:
        query = sa.select(sa.func.count()).where(STREAM_PREDICTIONS.c.topic == self.settings.topic)
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def _rows(self, hashes: dict[str, datetime]) -> list[dict[str, Any]]:
        rows = STREAM_PREDICTIONS.c
        query = sa.select(STREAM_PREDICTIONS).where(rows.topic == self.settings.topic)
        with self.database.reading() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        return [row for row in found if row["sha256"] in hashes]

    def _stamps(self, row: dict[str, Any], dropped: datetime) -> dict[str, Any]:
        sent, ranges = SENT_FILES.c, STREAM_RANGES.c
        with self.database.reading() as connection:
            sent_at = connection.scalar(sa.select(sent.sent_at).where(sent.sha256 == row["sha256"]))
            seen_at = connection.scalar(
                sa.select(ranges.planned_at).where(ranges.partition_key == row["partition_key"])
            )
        record = self.instance.get_run_record_by_id(row["run_id"])
        if record is None:
            sys.exit(f"Dagster has no run {row['run_id']}")
        events = [
            (event.timestamp, event.dagster_event_type, event.user_message)
            for event in self.instance.all_logs(row["run_id"])
        ]

        def first(is_it: Callable[[Any, str], bool]) -> datetime:
            return datetime.fromtimestamp(min(at for at, kind, text in events if is_it(kind, text)), UTC)

        return {
            "run_id": row["run_id"],
            "is_first_of_run": record.dagster_run.tags.get("dagster/partition") == row["partition_key"],
            "dropped": dropped,
            "sent": sent_at,
            "seen": seen_at,
            "run created": record.create_timestamp.astimezone(UTC),
            "run started": first(lambda kind, _: kind == dg.DagsterEventType.RUN_START),
            "step started": first(lambda kind, _: kind == dg.DagsterEventType.STEP_START),
            "session open": first(lambda _, text: text.endswith("the Spark session is open")),
            "model loaded": first(lambda _, text: text.endswith("is loaded")),
            "features stored": first(lambda kind, _: kind == dg.DagsterEventType.ASSET_MATERIALIZATION),
            "committed": row["predicted_at"],
        }

    def _is_idle(self) -> bool:
        """No run has held the topic or been alive for a while."""
        alive = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
        for _ in range(int(SETTLED_S / 0.5)):
            held_by = leases.holders(self.database, self.settings.topic, self.settings.lease_s).values()
            if any(leases.Resident.parse(holder) is None for holder in held_by):
                return False
            runs = self.instance.get_runs(dg.RunsFilter(statuses=alive), limit=2)
            if any(HOLDER_TAG not in run.tags for run in runs) or ranges.topics_with_planned(self.database):
                return False
            time.sleep(0.5)
        return True

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                sys.exit(f"it did not happen in {PATIENCE_S:g} s; see {self.settings.state_dir / 'logs'}")
            time.sleep(0.2)


def _processes() -> dict[tuple[int, float], tuple[str, float, float]]:
    """By number and start: what each process below this one is, its CPU seconds so far, and its own memory in MiB."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            kinds = {"genres_cli drain": "drain", "genres_cli watch": "producer", "forkserver": "fork server"}
            name = next((kind for part, kind in kinds.items() if part in command), "daemon and code servers")
            times = process.cpu_times()
            memory = process.memory_full_info().pss / 2**20
            found[process.pid, process.create_time()] = (name, times.user + times.system, memory)
        except psutil.NoSuchProcess:
            continue
    return found


def new_clip() -> tuple[str, bytes]:
    """Make a clip that is like no other, and a name for it."""
    return f"{uuid4().hex}.wav", noise_wav(CLIP_S, np.random.default_rng())


def resident_rounds(rounds: int, environment: dict[str, str]) -> pd.Series:
    """Seconds from drop to row of the resident job, clip by clip, after one that warms it."""
    took = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as checkpoints:
        command = [sys.executable, str(Path(__file__).with_name("resident_stream.py")), folder, checkpoints]
        with subprocess.Popen(command, cwd=PROJECT_DIR, env=environment, stdout=subprocess.PIPE, text=True) as job:

            def told() -> dict[str, Any]:
                line = job.stdout.readline()
                if not line:
                    sys.exit(f"the resident job ended with {job.wait()}: its words are above")
                return dict(json.loads(line))

            try:
                told()
                for _ in range(rounds + 1):
                    name, data = new_clip()
                    hidden = Path(folder) / f".{name}"
                    hidden.write_bytes(data)
                    dropped = time.time()
                    hidden.rename(hidden.with_name(name))  # the file source has no way to see that a file is whole
                    took.append(told()["committed"] - dropped)
                    time.sleep(1)
            finally:
                job.terminate()
    return pd.Series(took[1:])


def print_resident(took: pd.Series) -> None:
    """Print the rival's latency."""
    print(f"\n{len(took)} clips of {CLIP_S} s, one by one, for a resident Structured Streaming job\n")
    print("| | |\n|---|---|")
    print(f"| latency, p50 | {took.quantile(0.5):.2f} s |\n| latency, p95 | {took.quantile(0.95):.2f} s |")


def print_phases(clips: pd.DataFrame) -> None:
    """Print when each phase ended, in seconds from the drop."""
    stamps = [name for name in clips.columns if name not in ("run_id", "is_first_of_run", "dropped")]
    since = pd.DataFrame({name: (clips[name] - clips["dropped"]).dt.total_seconds() for name in stamps})
    print(f"\n{len(clips)} clips of {CLIP_S} s, each dropped into an idle pipeline: seconds from the drop\n")
    print("| phase ended | p50 | p95 | least | most |\n|---|---|---|---|---|")
    for name in since.median().sort_values().index:
        values = since[name]
        print(
            f"| {name} | {values.quantile(0.5):.2f} | {values.quantile(0.95):.2f} | {values.min():.2f} "
            f"| {values.max():.2f} |"
        )


def print_bursts(count: int, rounds: list[tuple[float, pd.DataFrame]]) -> None:
    """Print the stream's rate beside that of the extraction which came before it."""
    extraction = pd.Series([rate for rate, _ in rounds])
    committed = [clips["committed"] for _, clips in rounds]
    whole = pd.Series(
        [count / (clips["committed"].max() - clips["dropped"].min()).total_seconds() for _, clips in rounds]
    )
    sustained = pd.Series(
        [(times > times.min()).sum() / (times.max() - times.min()).total_seconds() for times in committed]
    )
    print(f"\n{count} clips of {CLIP_S} s at once, {len(rounds)} times, in turns with extraction from the lake\n")
    print("| | p50 | least | most |\n|---|---|---|---|")
    for name, values, unit in (
        (f"extraction of {EXTRACTED_CLIPS} clips", extraction, " clips/s"),
        ("stream, from the first commit to the last", sustained, " clips/s"),
        ("stream, from the first drop to the last row", whole, " clips/s"),
        ("ratio, first commit to last / extraction", sustained / extraction, ""),
    ):
        digits = 1 if unit else 2
        cells = (f"{value:.{digits}f}{unit}" for value in (values.median(), values.min(), values.max()))
        print(f"| {name} | {' | '.join(cells)} |")


def print_flow(name: str, clips: pd.DataFrame) -> None:
    """Print the latency of clips that kept coming."""
    took = (clips["committed"] - clips["dropped"]).dt.total_seconds()
    draining = took[~clips["is_first_of_run"]]
    print(f"\n{len(clips)} clips of {CLIP_S} s, {name}\n")
    print("| | |\n|---|---|")
    print(f"| runs, batches | {clips['run_id'].nunique()}, {clips['committed'].nunique()} |")
    if len(draining):
        print(f"| latency while draining, p50 | {draining.quantile(0.5):.2f} s |")
        print(f"| latency while draining, p95 | {draining.quantile(0.95):.2f} s |")


if __name__ == "__main__":
    main()

"""The soak: a stream at four fifths of what it can do, then ten times as much for a while, watched from outside.

By hand only: ``make soak MINUTES=30``.
"""

import os
import time
from collections import defaultdict

import psutil
import pytest
import requests

from genres.settings import Settings
from local_stack.stack import status
from streaming_sensors.sensors import lag
from streaming_sensors.topic import topic_state
from streaming_sensors.warm_launcher import process_of
from tests.faults.oracle import examine
from tests.faults.processes import alive, children_of, python_workers
from tests.faults.system import System, running_system
from tests.faults.tables import publish

TOPIC = "test_soak"
BURST_S = 10.0
WARM_UP, MEASURED = 60, 600
_LIMITS = ("max_run_s", "max_clips_per_batch", "lease_s", "drain_quiet_s", "range_grace_s", "range_limit_s", "settle_s")


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_the_stream_bears_its_load(
    stack: Settings, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    seconds = 60 * float(os.environ.get("SOAK_MINUTES") or 30)
    folder = tmp_path_factory.mktemp("soak")
    # As they are by default.
    limits = {name.upper(): str(Settings.model_fields[name].default) for name in _LIMITS}
    with running_system(stack, folder, TOPIC, seed=1, **limits) as system:

        def say(line: str) -> None:
            with capfd.disabled():
                print(line, flush=True)  # noqa: T201

        drop(system, WARM_UP, every_s=0)
        until_no_lag(system)
        began = time.monotonic()
        drop(system, MEASURED, every_s=0)
        until_no_lag(system)
        capacity = MEASURED / (time.monotonic() - began)
        rate = 0.8 * capacity
        say(f"\nsoak: {capacity:.1f} clips/s at most, {rate:.1f} clips/s from now on")
        events, clips = event_log_bytes(system.settings), len(system.settled())
        memory = [memory_by_level(system)]
        lags = [lag_now(system)]

        def flow(for_s: float) -> None:
            deadline = time.monotonic() + for_s
            while (left := deadline - time.monotonic()) > 0:
                drop(system, max(1, round(rate * min(10.0, left))), every_s=1 / rate)
                lags.append(lag_now(system))
                say(f"lag {lags[-1]} clips")

        flow(seconds / 2)
        memory.append(memory_by_level(system))
        steady_lag = max(lags)
        say(f"burst: {10 * rate:.1f} clips/s for {BURST_S:g} s")
        burst_began = time.monotonic()
        burst = round(10 * rate * BURST_S)
        drop(system, burst, every_s=BURST_S / burst)
        after_burst = lag_now(system)
        until_no_lag(system)
        burst_s = time.monotonic() - burst_began
        flow(max(0.0, seconds / 2 - burst_s))
        until_no_lag(system)
        memory.append(memory_by_level(system))
        clips = len(system.settled()) - clips
        files, lake_bytes = lake_contents(system.settings)
        rows = {
            "capacity, measured on 600 clips at once (clips/s)": f"{capacity:.1f}",
            "arrivals (clips/s)": f"{rate:.1f}",
            "clips": f"{clips:,}",
            "largest lag at that rate (clips)": f"{steady_lag:,}",
            f"burst of {BURST_S:g} s (clips)": f"{burst:,}",
            "lag at the end of the burst (clips)": f"{after_burst:,}",
            "from the beginning of the burst to no lag (s)": f"{burst_s:.0f}",
            "runs": f"{system.stream.instance.get_runs_count():,}",
            "partitions in Dagster": f"{len(system.stream.instance.get_dynamic_partitions('offset_range')):,}",
            "files in the lake": f"{files:,}",
            "bytes in the lake": f"{lake_bytes:,}",
            "Dagster's event log, bytes a clip": f"{(event_log_bytes(system.settings) - events) / clips:,.0f}",
        }
        table = ["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows.items())]
        table += ["", "| resident memory (MB) | start | middle | end |", "|---|--:|--:|--:|"]
        for level in dict.fromkeys(level for sample in memory for level in sample):
            table.append(f"| {level} | {' | '.join(f'{sample.get(level, 0) / 1e6:,.0f}' for sample in memory)} |")
        with capfd.disabled():
            publish(f"The soak, {seconds / 60:g} minutes", "\n".join(table))
        system.wait_until_planned_out(300)
        _, problems = examine(system.settings, good=system.traffic.good, bad=system.traffic.bad)
        assert problems == []


def drop(system: System, clips: int, *, every_s: float) -> None:
    """Drop clips at a rate; who is late hurries up."""
    due = time.monotonic()
    for _ in range(clips):
        system.traffic.drop("soak")
        due += every_s
        time.sleep(max(0.0, due - time.monotonic()))


def lag_now(system: System) -> int:
    """Count the clips that were dropped and have no row: those in the folder as well as those in the topic."""
    return len(system.traffic.good) + len(system.traffic.bad) - len(system.settled())


def until_no_lag(system: System) -> None:
    deadline = time.monotonic() + 1800
    while lag_now(system) or lag(system.stream.database, topic_state(system.settings, TOPIC, timeout_s=60)):
        assert time.monotonic() < deadline, "the stream does not catch up within half an hour"
        time.sleep(0.5)


def memory_by_level(system: System) -> dict[str, int]:
    """Resident bytes of each kind of process."""
    found: dict[str, int] = defaultdict(int)
    workers = python_workers(system.settings)
    for row in status(system.settings):
        if row.pid is not None:
            found[row.service] = _resident([psutil.Process(row.pid)])
            below = psutil.Process(row.pid).children(recursive=True)
            if row.service == "spark-connect":
                found["Python workers of Spark"] = _resident(workers)
                below = [process for process in below if process not in workers]
            found[row.service] += _resident(below)
    if daemon := system.daemon():
        launchers = children_of(daemon.pid, "forkserver")
        found["Dagster's daemon"] = _resident([daemon])
        found["Dagster's code servers"] = _resident(system.code_servers())
        found["fork server of the runs"] = _resident(launchers)
    if producer := system.producer():
        found["producer"] = _resident([producer])
    found["run at work"] = _resident([process for run in alive(system.stream) if (process := process_of(run))])
    return dict(found)


def event_log_bytes(settings: Settings) -> int:
    return sum(file.stat().st_size for file in settings.dagster_home.rglob("*.db*"))


def lake_contents(settings: Settings) -> tuple[int, int]:
    """Files and bytes below the lake's folder."""
    address = f"{settings.webhdfs}/webhdfs/v1{settings.lake_path}"
    answer = requests.get(address, params={"op": "GETCONTENTSUMMARY", "user.name": settings.hdfs_user}, timeout=60)
    summary = answer.json()["ContentSummary"]
    return summary["fileCount"], summary["length"]


def _resident(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it ended just now
            continue
    return total

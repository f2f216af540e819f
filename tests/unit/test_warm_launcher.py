"""Which process a forked run is, and what run monitoring is told about it."""

import os
import socket
import subprocess
import sys

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import WorkerStatus

from genre_assets.definitions import _PRELOADED
from genres.settings import PROJECT_DIR
from streaming_sensors.warm_launcher import PID_TAG, PRELOADED, WarmRunLauncher, process_of

HERE, PID = socket.gethostname(), os.getpid()
STARTED = psutil.Process().create_time()


def run_at(where: str) -> dg.DagsterRun:
    return dg.DagsterRun(job_name="stream_batch_job", tags={PID_TAG: where} if where else {})


@pytest.mark.parametrize(
    ("where", "status"),
    [
        (f"{HERE} {PID} {STARTED}", WorkerStatus.RUNNING),
        (f"{HERE} {PID} {STARTED - 60}", WorkerStatus.FAILED),
        (f"elsewhere {PID} {STARTED - 60}", WorkerStatus.RUNNING),
        ("", WorkerStatus.RUNNING),
    ],
    ids=["alive", "its number is another's now", "on another host", "not forked"],
)
def test_only_a_run_whose_process_is_gone_from_this_host_has_failed(where: str, status: WorkerStatus) -> None:
    assert WarmRunLauncher().check_run_worker_health(run_at(where)).status == status


def test_a_process_is_found_by_host_number_and_start() -> None:
    found = process_of(run_at(f"{HERE} {PID} {STARTED}"))
    assert found is not None
    assert found.pid == PID
    assert process_of(run_at(f"{HERE} {PID} {STARTED - 60}")) is None
    assert process_of(run_at(f"elsewhere {PID} {STARTED}")) is None


def test_nothing_of_the_projects_own_is_preloaded_but_how_mlflow_is_imported() -> None:
    """Edited code would not be seen by the runs, and settings would be those of the fork server's start."""
    own = {"genres", "genres_cli", "genres_dagster", "spark", "genre_assets", "streaming_sensors", "local_stack"}
    assert [module for module in PRELOADED if module.split(".")[0] in own] == ["genres.store.mlflow_quiet"]


@pytest.mark.parametrize("preloaded", [PRELOADED, _PRELOADED], ids=["streaming runs", "batch steps"])
def test_what_forked_processes_have_imported_sends_no_usage_reports(preloaded: tuple[str, ...]) -> None:
    """MLflow decides while it is imported: nothing in the list may import it before `genres.store.mlflow_quiet`."""
    # MLflow sends nothing from CI; that must not be why this passes.
    environment = {name: os.environ[name] for name in ("PATH", "HOME")}
    lines = [*(f"import {module}" for module in preloaded), "from mlflow.telemetry import client, utils"]
    lines.append("print(utils._is_ci_env_or_testing(), utils.is_telemetry_disabled(), client.get_telemetry_client())")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=environment,
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["False", "True", "None"], done.stderr

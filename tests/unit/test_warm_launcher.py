"""Which process a forked run is, and what run monitoring is told about it."""

import os
import socket
import subprocess
import sys

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from genre_assets.definitions import _PRELOADED
from genres.settings import PROJECT_DIR
from streaming_sensors.run_tags import HOLDER_TAG
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


def test_a_residents_run_is_asked_to_end_and_its_process_is_left_alone() -> None:
    """Wherever it is: a signal would end the process, which has more to do; here it would end the tests."""
    with dg.DagsterInstance.ephemeral() as instance:
        launcher = WarmRunLauncher()
        launcher.register_instance(instance)
        for where in (f"{HERE} {PID} {STARTED}", f"elsewhere {PID} {STARTED}"):
            tags = {PID_TAG: where, HOLDER_TAG: f"resident {where}"}
            run = create_run_for_test(instance, "stream_batch_job", status=dg.DagsterRunStatus.STARTED, tags=tags)
            assert launcher.terminate(run.run_id)
            assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELING  # type: ignore[union-attr]


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


FORKED = """
import importlib, os, sys, threading

for module in sys.argv[1:]:
    importlib.import_module(module)
print(*(thread.name for thread in threading.enumerate()), sep=", ", flush=True)
for _ in range(5):
    child = os.fork()
    if not child:
        import numpy, pyarrow

        matrix = numpy.full((400, 400), 0.1)
        print(round((matrix @ matrix)[0, 0]), pyarrow.array(matrix[0]).nbytes, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("preloaded", [PRELOADED, _PRELOADED], ids=["streaming runs", "batch steps"])
def test_nothing_that_is_preloaded_leaves_a_thread_whose_locks_a_fork_would_inherit(preloaded: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", FORKED, *preloaded]
    done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == ["MainThread", *["4 3200"] * 5]

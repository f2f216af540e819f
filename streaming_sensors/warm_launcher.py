"""The run launcher that starts draining runs from a process in which every library is imported already.

Nearly all of the time from a run's request to its first line of work goes into imports: Dagster's own, Spark
Connect's, pandas, MLflow. A clip that comes out of idleness waits for them. Dagster's default launcher asks the
code location's server for a run, which starts a new interpreter; this one forks it from a standing process of the
standard library's kind (``multiprocessing``'s fork server). What is forked knows libraries only, and how this project
imports MLflow: all else of its own is imported again by every run, so that edited code, another day or other settings
never meet a stale copy.

Named in ``dagster.yaml``. Runs that no sensor launched go Dagster's own way.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection

import psutil
from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs

from streaming_sensors.run_tags import DRAIN_TAG, HOLDER_TAG

PID_TAG = "genres/process"
"""Host, process id and start time of a run that was forked or that a resident process works on, as another process
needs them to look after it."""

PRELOADED = (
    "dagster._cli.api",
    "dagster._core.execution.plan.execute_plan",
    "dagster_pyspark",
    "alembic.command",
    "kafka",
    "genres.store.mlflow_quiet",
    "pyarrow.dataset",
    "pyspark.ml.connect",
    "pyspark.ml.classification",
    "pyspark.ml.feature",
    "pyspark.sql.connect.session",
    "requests",
)
"""What a streaming run imports sooner or later: third parties, and how MLflow is imported.

None starts a thread of Python's: a fork has no other threads, and a lock that one holds would stay locked in it.
Arrow's allocator and numpy's linear algebra have threads of their own, which they stop around forks."""


class WarmRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, but for draining runs, which it forks.

    The fork server begins with the process's first draining run and ends with the process. A forked run does not end
    with it: as with the default launcher it goes on until it is done.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork a draining run; hand any other to the code location's server."""
        run = context.dagster_run
        if DRAIN_TAG not in run.tags or run.job_code_origin is None:
            super().launch_run(context)
            return
        arguments = ExecuteRunArgs(run.job_code_origin, run.run_id, self._instance.get_ref())
        # What follows the entry point is the command line of Dagster's container launchers.
        command = list(arguments.get_command_args())[-2:]
        forking = multiprocessing.get_context("forkserver")
        forking.set_forkserver_preload(list(PRELOADED))
        receiver, sender = forking.Pipe(duplex=False)
        starter = forking.Process(target=_start_run, args=(command, sender))
        starter.start()
        sender.close()
        pid = receiver.recv()
        starter.join()
        with contextlib.suppress(psutil.NoSuchProcess):  # it has failed already, and says why itself
            where = f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time()}"
            self._instance.add_run_tags(run.run_id, {PID_TAG: where})

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, whichever way it was launched and whichever process asks."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or PID_TAG not in run.tags:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if HOLDER_TAG in run.tags:
            return True  # its process, on whichever host, asks for its state, and has more to do than this run
        process = process_of(run)
        if process is None:
            return False
        process.send_signal(signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for the process of a run."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look for the process of a run that has one here; of the others nothing is known, which counts as alive."""
        if PID_TAG not in run.tags or run.tags[PID_TAG].split()[0] != socket.gethostname() or process_of(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, msg="its process is gone")


def process_of(run: DagsterRun) -> psutil.Process | None:
    """Find the process of a run; None if it is gone, also if another one has got its number, or elsewhere."""
    host, pid, started = run.tags[PID_TAG].split()
    try:
        process = psutil.Process(int(pid))
        return process if (host, process.create_time()) == (socket.gethostname(), float(started)) else None
    except psutil.NoSuchProcess:
        return None


def _start_run(command: list[str], sender: Connection) -> None:
    """Fork once more, so that the run is nobody's child: a daemon that ends would wait for its children."""
    pid = os.fork()
    if pid:
        sender.send(pid)
        os._exit(0)
    sender.close()
    os.setsid()  # Ctrl-C in the daemon's terminal is not meant for the run
    from dagster._cli.api import api_cli

    api_cli.main(command, prog_name="dagster api")

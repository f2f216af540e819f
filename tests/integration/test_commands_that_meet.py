"""Commands that meet on one stack, or after one that was killed: daemons that end late, a supervisord that is ending.

The daemons are small stand-ins that answer as MLflow does, so that each can be as slow or as wrong as a test needs it.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from genres.errors import GenresError
from genres.settings import Settings
from local_stack import stack
from local_stack.program import Program
from local_stack.stack import down, status
from local_stack.supervision import ProcessState, Supervisor
from tests.http_server import served
from tests.integration.test_local_stack import has_ended

# Answers, and ends two seconds after it is told to.
ANSWERS = """
import signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

signal.signal(signal.SIGTERM, lambda *_: threading.Timer(2, server.shutdown).start())
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever).start()
"""


@pytest.fixture
def settings(state_dir: Path, free_port_base: Callable[[], int]) -> Iterator[Settings]:
    own = Settings(state_dir=state_dir, port_base=free_port_base())
    own.make_state_dir()
    yield own
    Supervisor(state_dir).end_leftovers()


@pytest.fixture
def daemon(settings: Settings) -> Program:
    script = settings.state_dir / "answers.py"
    script.write_text(ANSWERS)
    return Program("mlflow", [sys.executable, str(script), str(settings.ports.mlflow)], settings.state_dir / "mlflow")


@pytest.fixture
def supervisor(settings: Settings, daemon: Program) -> Supervisor:
    """A supervisord with the daemon, which is healthy."""
    stack._start_or_undo(settings, [daemon], print)
    return Supervisor(settings.state_dir)


def tree(settings: Settings) -> list[psutil.Process]:
    above = psutil.Process(int((settings.state_dir / "supervisor" / "supervisord.pid").read_text()))
    return [above, *above.children(recursive=True)]


def test_a_daemon_that_is_being_stopped_is_started_when_it_has_ended(
    settings: Settings, daemon: Program, supervisor: Supervisor
) -> None:
    first = supervisor.info("mlflow").pid
    supervisor._call("stopProcess", "mlflow", False)  # as of a `down` that was killed
    assert supervisor.info("mlflow").state is ProcessState.STOPPING
    stack._start_or_undo(settings, [daemon], print)
    assert supervisor.info("mlflow").pid not in (first, None)


def test_stopping_waits_for_what_another_command_is_stopping(supervisor: Supervisor) -> None:
    supervisor._call("stopProcess", "mlflow", False)
    supervisor.stop_process("mlflow")
    assert supervisor.info("mlflow").state is ProcessState.STOPPED


def test_a_daemon_with_another_definition_may_still_be_ending(daemon: Program, supervisor: Supervisor) -> None:
    supervisor._call("stopProcess", "mlflow", False)
    supervisor.ensure([Program("mlflow", [*daemon.command, "changed"], daemon.directory)])
    assert supervisor.info("mlflow").state is ProcessState.STOPPED


def test_a_supervisord_that_is_ending_runs_nothing_any_more(settings: Settings, supervisor: Supervisor) -> None:
    processes = tree(settings)
    supervisor._call("shutdown")
    with pytest.raises(GenresError, match=rf"supervisord of {settings.state_dir} is ending; try again in a moment"):
        supervisor.start_process("mlflow")
    assert not supervisor.is_running()
    assert {row.state for row in status(settings)} == {"stopped"}
    down(settings)
    assert all(map(has_ended, processes))


def test_a_start_waits_for_a_supervisord_that_is_ending(
    settings: Settings, daemon: Program, supervisor: Supervisor
) -> None:
    processes = tree(settings)
    supervisor._call("shutdown")
    stack._start_or_undo(settings, [daemon], print)
    assert all(map(has_ended, processes))
    assert supervisor.info("mlflow").alive


def test_a_service_that_supervisord_does_not_know_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(GenresError, match=r"refuses startProcess kafka .*BAD_NAME: kafka; look at .*supervisord\.log"):
        supervisor.start_process("kafka")


@pytest.mark.parametrize("left", ["", "[unix_http_server]\n", "half a line"])
def test_a_stack_whose_configuration_was_cut_short_can_be_ended_and_started(
    settings: Settings, daemon: Program, supervisor: Supervisor, left: str
) -> None:
    processes = tree(settings)
    supervisor.config_file.write_text(left)
    assert {row.state for row in status(settings)} == {"stopped"}
    stack._start_or_undo(settings, [daemon], print)
    assert all(map(has_ended, processes))
    processes = tree(settings)
    supervisor.config_file.write_text(left)
    down(settings)
    assert all(map(has_ended, processes))


def test_another_stacks_daemon_on_the_port_is_not_taken_for_ours(settings: Settings, daemon: Program) -> None:
    """Two stacks that chose the same ports: the other one's daemon has bound them while ours still loads."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    with ExitStack() as others:

        def other_is_faster() -> None:
            others.enter_context(served(Healthy, port=settings.ports.mlflow))

        slow = ["/bin/sh", "-c", 'sleep 3; exec "$@"', "sh", *daemon.command]
        program = Program("mlflow", slow, daemon.directory, prepare=other_is_faster)
        with pytest.raises(GenresError, match=r"mlflow ended while it was starting(?s:.*)Address already in use"):
            stack._start_or_undo(settings, [program], print)


def test_what_is_behind_another_service_is_named_and_not_that_one(settings: Settings) -> None:
    """Spark's pages are shown as soon as the engine is there, so the engine is what is late."""
    idle, folder = ["/bin/sleep", "600"], settings.state_dir / "spark"
    late = Program("spark-connect", idle, folder, prepare=lambda: time.sleep(2))
    pages = Program("spark-ui", idle, folder)
    in_a_second = settings.model_copy(update={"start_timeout_s": 1.0})
    with pytest.raises(GenresError, match=r"^spark-connect was not healthy after 1 s"):
        stack._start_or_undo(in_a_second, [late, pages], print)

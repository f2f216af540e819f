"""A Spark job that gets no cores is said once; one that runs, has ended or only computes elsewhere is not."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from spark.starvation import starvation_told

ENGINE, AFTER_S = "sc://engine:15002", 0.6
WAITING, DONE = SimpleNamespace(num_tasks=4, num_completed_tasks=1), SimpleNamespace(num_tasks=4, num_completed_tasks=4)


class Session:
    """A session whose reports the test makes."""

    def __init__(self) -> None:
        self.handlers: list[Callable[..., None]] = []
        self.registerProgressHandler = self.handlers.append
        self.removeProgressHandler = self.handlers.remove

    def report(self, job: str, *stages: Any, running: int = 0, done: bool = False) -> None:
        for handler in self.handlers:
            handler(stages=list(stages), inflight_tasks=running, operation_id=job, done=done)


@pytest.fixture
def session() -> Session:
    return Session()


def told_while(session: Session, reports: Callable[[], None], *, lines_expected: int = 0) -> list[str]:
    """Let Spark report, wait until that was said or could have been, and look what was said."""
    lines: list[str] = []
    with starvation_told(session, engine=ENGINE, tell=lines.append, after_s=AFTER_S):  # type: ignore[arg-type]
        reports()
        deadline = time.monotonic() + 30
        while len(lines) < lines_expected and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(3 * AFTER_S)
    assert session.handlers == [] and not any(thread.name == "starved jobs" for thread in threading.enumerate())
    return lines


def test_a_job_without_cores_is_said_once(session: Session) -> None:
    def reports() -> None:
        session.report("a", DONE, WAITING)
        session.report("a", DONE, WAITING)

    (line,) = told_while(session, reports, lines_expected=1)
    assert ENGINE in line and "no free cores or no workers" in line and "web UI" in line


def test_each_job_is_said(session: Session) -> None:
    def reports() -> None:
        session.report("a", WAITING)
        session.report("b", WAITING)

    assert len(told_while(session, reports, lines_expected=2)) == 2


@pytest.mark.parametrize(
    "then",
    [
        lambda session: session.report("a", WAITING, running=1),
        lambda session: session.report("a", DONE),
        lambda session: session.report("a", WAITING, done=True),
        lambda session: session.report("a"),
    ],
    ids=["runs", "no stage waits", "ended", "no stages"],
)
def test_a_job_that_runs_or_has_ended_is_not_said_to_wait(session: Session, then: Callable[[Session], None]) -> None:
    def reports() -> None:
        session.report("a", WAITING)
        session.report("b", WAITING)
        session.report("b", WAITING, running=2)
        then(session)

    assert told_while(session, reports) == []

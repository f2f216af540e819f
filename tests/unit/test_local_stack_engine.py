"""The engine alone: it is started beside nothing, and what another command has brought up meanwhile stays."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genres.settings import Settings
from local_stack import stack
from local_stack.supervision import ProcessInfo, ProcessState, Supervisor


@pytest.mark.parametrize(
    ("before", "meanwhile", "done"),
    [
        (None, None, "the engine"),
        ({"spark-connect", "spark-ui"}, {"spark-connect", "spark-ui"}, "the engine"),
        ({"kafka", "spark-connect"}, {"kafka", "spark-connect"}, "the whole stack"),
        (None, {"kafka", "spark-connect"}, "the whole stack"),
    ],
)
def test_the_engine_alone_or_the_whole_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: set[str] | None, meanwhile: set[str] | None, done: str
) -> None:
    runs = [before]
    locked: list[bool] = []
    finished: list[str] = []

    def processes(_: Supervisor) -> dict[str, ProcessInfo] | None:
        running = ProcessInfo(ProcessState.RUNNING, 1, 1.0)
        return None if runs[-1] is None else dict.fromkeys(runs[-1], running)

    @contextmanager
    def exclusive(_: Settings) -> Iterator[None]:
        runs.append(meanwhile)  # the command that held the lock has ended
        locked.append(True)
        yield
        locked.pop()

    def up(*_: object, **__: object) -> None:
        assert not locked, "it takes the lock itself"
        finished.append("the whole stack")

    monkeypatch.setattr(Supervisor, "processes", processes)
    monkeypatch.setattr(stack, "_exclusive", exclusive)
    monkeypatch.setattr(stack, "up", up)
    monkeypatch.setattr(stack, "_start_or_undo", lambda *_: finished.append("the engine"))
    monkeypatch.setattr(stack, "spark_programs", lambda *_: [])
    monkeypatch.setattr(stack, "java_home", lambda: tmp_path)
    stack.up_engine(Settings(state_dir=tmp_path, min_free_mib=0, spark_remote=""), on_progress=print)
    assert finished == [done]

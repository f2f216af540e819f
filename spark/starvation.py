"""Saying when Spark's jobs wait for cores: otherwise a run that gets none is silent for ever."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STARVED_S = 60.0
"""How long nothing of a job may run before a person is told, in seconds."""


@contextmanager
def starvation_told(
    spark: "SparkSession", *, engine: str, tell: Callable[[str], None], after_s: float = STARVED_S
) -> Iterator[None]:
    """Tell, once a job, when a stage of a session's job waits and none of its tasks has run for too long.

    Parameters
    ----------
    engine
        Address of the Connect server.
    tell
        Called with one line, from a thread.
    after_s
        How long is too long, in seconds.
    """
    waits_since: dict[str | None, float] = {}
    lock, over = threading.Lock(), threading.Event()

    # Spark reports what has changed, and nothing of what waits: the clock is ours.
    def take_note(stages: "Iterable[Any] | None", inflight_tasks: int, operation_id: str | None, done: bool) -> None:
        waits = not inflight_tasks and any(stage.num_completed_tasks < stage.num_tasks for stage in stages or ())
        with lock:
            if done or not waits:
                waits_since.pop(operation_id, None)
            else:
                waits_since.setdefault(operation_id, time.monotonic())

    def watch() -> None:
        told: set[str | None] = set()
        while not over.wait(after_s / 10):
            with lock:
                starved = {job for job, since in waits_since.items() if time.monotonic() - since > after_s} - told
            told |= starved
            for _ in starved:
                tell(
                    f"a Spark job has waited for {after_s:g} s and none of its tasks runs: Spark at {engine} has no "
                    "free cores or no workers; its web UI says who holds them (Executors, Jobs)"
                )

    watcher = threading.Thread(target=watch, name="starved jobs", daemon=True)
    spark.registerProgressHandler(take_note)  # type: ignore[arg-type]  # a function will do
    watcher.start()
    try:
        yield
    finally:
        over.set()
        spark.removeProgressHandler(take_note)  # type: ignore[arg-type]
        watcher.join()

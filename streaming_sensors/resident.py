"""The resident drain (``genres drain``): a process that works on a shard's clips without being launched for them.

Belongs here: how it takes and keeps a shard's lease, when it begins a run, and what makes it wait. What a run does is
the job's that the sensors launch, with the same plan, ledger and records in Dagster; it only takes place here, in a
process that has everything imported, on whichever host.
"""

import contextlib
import importlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import dagster as dg
import psutil

from genres.errors import GenresError, last_words
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import leases, ranges
from genres.store.stream_ledger.leases import Resident
from genres.store.stream_ledger.values import Attempt, Plan
from genres_dagster import sensor_states
from genres_dagster.checks import failure_reason
from genres_dagster.resources import MlflowResource
from streaming_sensors.definitions import build_defs
from streaming_sensors.offset_plan import Shard
from streaming_sensors.run_tags import DRAIN_TAG, HOLDER_TAG, SHARD_TAG, short_name
from streaming_sensors.sensors import JOB, run_tags, wanted_of, who_drains, with_champion
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import is_to_end
from streaming_sensors.topic import TopicState, topic_state, wait_for_data
from streaming_sensors.warm_launcher import PID_TAG, PRELOADED

_LOOK_S = 1.0
"""How often it looks again whether a shard is free, or whether the stream goes on."""
_SAID_SOON_S = 0.25
"""How soon it notices, while a run is at work, that it is to end."""
_QUIET_LOG = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}
"""What a run prints, other than what Dagster keeps of its log: this process says itself what a person should read."""
_AT_WORK = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class ResidentDrain:
    """One process, which holds the lease of one shard at a time, and works on what arrives there.

    Parameters
    ----------
    settings
        Addresses and limits.
    stream
        The stream that it works for.
    instance
        Dagster's, where its runs are recorded.
    shard
        The number of the shard; None for any that nobody drains.
    say
        Called with each line that a person should read.

    Raises
    ------
    GenresError
        If there is no such shard.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        instance: dg.DagsterInstance,
        *,
        shard: int | None,
        say: Callable[[str], None],
    ) -> None:
        if shard is not None and not 0 <= shard < settings.drains:
            raise GenresError(
                f"--shard {shard}: GENRES_DRAINS is {settings.drains}, so the shards are 0 to {settings.drains - 1}"
            )
        self._settings, self._stream, self._instance = settings, stream, instance
        self._shards = [found for found in Shard.all(settings.drains) if shard in (None, found.number)]
        self._say, self._said = say, ""
        self._me = Resident(socket.gethostname(), os.getpid(), psutil.Process().create_time())
        self._database = Database(settings.database)
        self._mlflow = MlflowResource(tracking_uri=settings.tracking_uri)
        self._job = build_defs(settings=settings).resolve_job_def(stream.named(JOB))
        self._looked_at = time.monotonic()
        self._shard: Shard | None = None
        self._token: int | None = None
        # Not the main thread, where Dagster would take over what SIGTERM and Ctrl-C mean.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="run")

    def drain(self, stop: threading.Event) -> None:
        """Work until told to stop; what fails is said in a line, and tried again.

        A range that is at work then is finished first. The lease is given up at the end.
        """
        for module in PRELOADED:
            importlib.import_module(module)
        try:
            while not stop.is_set():
                try:
                    self._step(stop)
                except Exception as error:
                    self._tell(last_words(error))
                    stop.wait(_LOOK_S)
        finally:
            self._worker.shutdown()
            self._let_go()

    def _step(self, stop: threading.Event) -> None:
        """Look once at lease, sensors and topic; work, or wait for some seconds."""
        settings, topic = self._settings, self._stream.topic
        if not self._hold():
            holders = leases.holders(self._database, topic, settings.lease_s)
            drained = [holders[shard.number] for shard in self._shards if shard.number in holders]
            self._tell(f"stands by: {who_drains(drained)} draining {topic}" if drained else "stands by")
            stop.wait(_LOOK_S)
            return
        takes_new, takes_old = self._sensors_on()
        if not (takes_new or takes_old):
            self._tell(f"waits: stream {topic} is paused (`genres stream resume`)")
            stop.wait(_LOOK_S)
            return
        state = topic_state(settings, topic)
        attempt = self._next_attempt(state, takes_new=takes_new, takes_old=takes_old)
        if attempt is not None:
            self._run(attempt, stop, goes_on=takes_new)
            return
        self._tell(f"drains {topic}, shard {self._shard}")
        # Not for longer than the lease may go without being renewed; ranges may become due for another attempt, too.
        wait_for_data(
            settings, topic, state.ends, settings.lease_s / 3, concerns=self._held_shard.has, given_up=stop.is_set
        )

    @property
    def _held_shard(self) -> Shard:
        assert self._shard is not None  # noqa: S101 - asked for by who holds one
        return self._shard

    def _hold(self) -> bool:
        """Renew the lease, or take the first that is free; return whether there is one now."""
        self._database.check_migrated()
        topic, lease_s = self._stream.topic, self._settings.lease_s
        before = (self._shard, self._token)
        for shard in [self._shard] if self._shard else self._shards:
            token = leases.acquire(self._database, topic, self._me.holder, lease_s, shard=shard.number)
            if token is not None:
                self._shard, self._token = shard, token
                if before != (shard, token):
                    self._end_left_runs(shard)
                return True
        self._shard, self._token = None, None
        return False

    def _end_left_runs(self, shard: Shard) -> None:
        """Let Dagster know of runs on this shard whose process did not end them: killed, or lost with its host."""
        tags = {SHARD_TAG: str(shard)}
        for run in self._instance.get_runs(
            dg.RunsFilter(job_name=self._stream.named(JOB), statuses=_AT_WORK, tags=tags)
        ):
            if run.tags.get(HOLDER_TAG, self._me.holder) != self._me.holder:
                self._instance.report_run_failed(run, "its process let the lease on its partitions run out")

    def _let_go(self) -> None:
        if self._shard is None or self._token is None:
            return
        try:
            leases.release(self._database, self._stream.topic, self._token, shard=self._shard.number)
        except GenresError as error:
            self._tell(f"its lease is left to run out: {error}")

    def _sensors_on(self) -> tuple[bool, bool]:
        """Return whether the sensors that launch runs for new ranges, and for those that wait, are on.

        One that no daemon has evaluated is on, as its code says.
        """
        names = [self._stream.named(sensor) for sensor in ("audio_clips_sensor", "range_reconciler")]
        running = sensor_states.are_running(self._instance, names)
        takes_new, takes_old = (running.get(name, True) for name in names)
        return takes_new, takes_old

    def _next_attempt(self, state: TopicState, *, takes_new: bool, takes_old: bool) -> Attempt | None:
        """Plan the range to work on, as the sensors would, and write the plan down; None if there is none."""
        settings, shard = self._settings, self._held_shard
        known = ranges.known(self._database, self._stream.topic)
        wanted = wanted_of(known, self._instance, self._stream, settings, state, [shard])
        retry, _ = with_champion(wanted.retry, known, self._stream, settings, self._database, self._mlflow)
        first = Plan(retry=retry[:1]) if takes_old else Plan()
        if first.is_empty and takes_new:
            first = Plan(new=wanted.new[:1])
        attempts = ranges.record_plan(self._database, first, token=self._token, shard=shard.number)
        return attempts[0] if attempts else None

    def _run(self, attempt: Attempt, stop: threading.Event, *, goes_on: bool) -> None:
        """Let a run begin with a range and, if it goes on, stay for what comes; wait until it ends."""
        key = str(attempt.key)
        self._instance.add_dynamic_partitions(str(self._stream.offset_ranges.name), [key])
        tags = run_tags(attempt, self._settings)
        if not goes_on:
            del tags[DRAIN_TAG]
        run = self._instance.create_run_for_job(
            self._job,
            run_config=_QUIET_LOG,
            tags={
                **tags,
                "dagster/partition": key,
                HOLDER_TAG: self._me.holder,
                PID_TAG: self._me.process,
            },
            remote_job_origin=sensor_states.job_origin(
                self._instance, self._stream.named("audio_clips_sensor"), self._stream.named(JOB)
            ),
        )
        done = self._worker.submit(self._execute, run)
        while not wait_for([done], timeout=_SAID_SOON_S).done:
            # What fails here, Dagster's storage say, must not let a second run begin beside this one.
            with contextlib.suppress(Exception):
                # Asked for each time: Dagster's note that a run has started takes back what it was told before.
                if (why := self._why_end(stop, goes_on=goes_on)) and not is_to_end(self._instance, run.run_id):
                    self._instance.report_run_canceling(run, f"{why}: what it has begun is the last")
        try:
            if why := self._outcome(done.result()):
                self._tell(f"{short_name(attempt.key)} of {attempt.key.topic}: {why}")
        except Exception as error:  # Dagster's own: it has written nothing down
            self._instance.report_run_failed(run, last_words(error))
            raise

    def _why_end(self, stop: threading.Event, *, goes_on: bool) -> str:
        """Return why a run that is at work is to end; an empty text if it is not."""
        if stop.is_set():
            return "its process was told to end"
        if goes_on and time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            return "" if self._sensors_on()[0] else "the stream's sensor is off"
        return ""

    def _execute(self, run: dg.DagsterRun) -> Any:
        from dagster._core.definitions.job_base import InMemoryJob
        from dagster._core.execution.api import execute_run

        return execute_run(InMemoryJob(self._job), run, self._instance)

    @staticmethod
    def _outcome(result: Any) -> str:
        """Return why a run failed; an empty text if it did not."""
        errors = [event.event_specific_data.error for event in result.all_events if event.is_step_failure]
        if errors and errors[0]:
            return failure_reason(errors[0])
        return "" if result.success else "its run failed; Dagster has its log"

    def _tell(self, line: str) -> None:
        """Say a line, unless it was the last one."""
        if line != self._said:
            self._said = line
            self._say(line)

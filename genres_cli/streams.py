"""What ``genres stream`` and ``genres drain`` do: say how a stream is, pause it, let it go on, work on its clips."""

import os
import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from genres.errors import GenresError
from genres.file_names import display_path
from genres.settings import Settings
from genres.store import champions, ledger
from genres.store.database import Database
from genres.store.stream_ledger import leases, producers, ranges, results
from genres.store.stream_ledger.leases import Resident
from genres_cli.stream_demo import ui_runs
from genres_dagster import sensor_states
from genres_dagster.launch import open_instance
from streaming_sensors.stream import Stream

if TYPE_CHECKING:
    from rich.console import Console


def status(settings: Settings, name: str) -> dict[str, Any]:
    """Return how a stream is: what scores it, whether it goes on, its producer, and what its clips came to."""
    stream = settings.stream(name)
    database = Database.opened(settings.database)
    dataset = ledger.dataset_meant(database, **settings.scored_by(stream))
    with open_instance(settings) as instance:
        running = sensor_states.are_running(instance, _sensors(Stream(stream)))
    if running and not any(running.values()):
        state = "paused: `genres stream resume` lets it go on"
    elif ui_runs(settings):
        state = "on"
    else:
        state = "waits: Dagster is closed, `genres ui` opens it"
    return {
        "stream": stream.name,
        "topic": stream.topic,
        "watch_folder": display_path(stream.watch_folder),
        "dataset": dataset,
        "scored_by": champions.scorer(database, dataset),
        "state": state,
        "drains": [
            f"shard {shard} of {settings.drains}: {_describe(holder)}"
            for shard, holder in leases.holders(database, stream.topic, settings.lease_s).items()
        ],
        "producer": producers.describe(producers.newest(database, stream.topic)),
        **results.summary(database, stream.topic)._asdict(),
        "waiting": [found.describe() for found in ranges.waiting(ranges.known(database, stream.topic))],
    }


def pause(settings: Settings, name: str) -> list[str]:
    """Turn the sensors off that launch a stream's runs, and say what that means."""
    stream = settings.stream(name)
    _switch(settings, Stream(stream), on=False)
    return [
        f"stream {stream.topic} is paused: no new run takes clips, what is dropped is kept in the topic for "
        f"{settings.topic_retention_h} h (GENRES_TOPIC_RETENTION_H)",
        "a run that is at work, or that a sensor launches within half a minute, goes on until the topic is quiet, and "
        "takes no next batch when it is "
        f"{settings.max_run_s:g} s old (GENRES_MAX_RUN_S)",
    ]


def resume(settings: Settings, name: str) -> list[str]:
    """Turn the sensors on again that launch a stream's runs."""
    stream = settings.stream(name)
    _switch(settings, Stream(stream), on=True)
    closed = "" if ui_runs(settings) else ", as soon as Dagster is open (`genres ui`)"
    return [f"stream {stream.topic} goes on{closed}"]


def drain(settings: Settings, name: str, *, shard: int | None, console: "Console", stop: threading.Event) -> None:
    """Work on a stream's clips in this process until told to stop, and print what it waits for."""
    from streaming_sensors.resident import ResidentDrain

    def say(line: str) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        console.print(f"{now}: {line}", markup=False, highlight=False)

    try:
        with open_instance(settings) as instance:
            ResidentDrain(settings, Stream(settings.stream(name)), instance, shard=shard, say=say).drain(stop)
    except KeyboardInterrupt:
        # The second one. Python itself, from 3.13 on, would wait for the thread that the run is in.
        os._exit(128 + signal.SIGINT)


def _describe(holder: str) -> str:
    resident = Resident.parse(holder)
    return resident.describe() if resident else f"run {holder}"


def _switch(settings: Settings, stream: Stream, *, on: bool) -> None:
    with open_instance(settings) as instance:
        if not sensor_states.are_running(instance, _sensors(stream)):
            raise GenresError(
                f"the sensors of stream {stream.topic} have never run: open Dagster with `genres ui`, and wait some "
                "seconds until they have"
            )
        sensor_states.switch(instance, _sensors(stream), on=on)


def _sensors(stream: Stream) -> tuple[str, str]:
    return stream.named("audio_clips_sensor"), stream.named("range_reconciler")

"""The commands about streams: send to one, drain one, pause one, see what it lost."""

from pathlib import Path

import click

from genres.plurals import counted
from genres_cli.command_line import PATH, Command, InOrder, json_option, make_console, print_json, print_prose
from genres_cli.signals import stop_on_signals


@click.command(cls=Command)
@click.argument("folder", type=PATH, required=False)
@click.option("--stream", "name", default="", help="Stream that it is sent to; the default one unless named.")
@click.option("--once", is_flag=True, help="Send what is there and end.")
def watch(folder: Path | None, name: str, once: bool) -> None:
    """Send the audio dropped in a folder to Kafka; Ctrl-C ends it.

    FOLDER is by default the stream's watch_folder; audio in genre folders in it is sent with its genre.
    """
    from genres.settings import Settings
    from streaming_sensors.folder_producer import producer

    settings = Settings()
    stream = settings.stream(name)
    if folder is None:
        folder = stream.watch_folder
        folder.mkdir(parents=True, exist_ok=True)
    with stop_on_signals() as stop:
        producer.watch(settings, folder, stream.topic, once=once, console=make_console(), stop=stop)


@click.command(cls=Command)
@click.option("--stream", "name", default="", help="Stream that is drained; the default one unless named.")
@click.option("--shard", type=int, help="Which of the GENRES_DRAINS shards, from 0; by default one that is free.")
def drain(name: str, shard: int | None) -> None:
    """Predict a stream's clips in this process, on any host.

    Ctrl-C or SIGTERM ends it after the batch at work. It does what the runs do that Dagster's sensors launch, which
    launch none for a shard that it has. Several processes share the shards; one for which there is none stands by.
    """
    from genres.settings import Settings
    from genres_cli import streams

    with stop_on_signals() as stop:
        streams.drain(Settings(), name, shard=shard, console=make_console(), stop=stop)


@click.command(cls=Command)
@click.option("--stream", "name", default="", help="Stream that is looked at; the default one unless named.")
@click.option("--acknowledge", is_flag=True, help="Say that these are known and cannot be made good.")
def losses(name: str, acknowledge: bool) -> None:
    """Show the clips that a stream lost and that never came again.

    A clip is made good when it is dropped, or sent, again and has its row. The check nothing_lost counts what is shown
    here, until it is acknowledged.
    """
    from genres.settings import Settings
    from genres.store.database import Database
    from genres.store.stream_ledger import losses as ledger
    from genres_cli.report import print_lines
    from streaming_sensors.topic import topic_state

    settings = Settings()
    database = Database.opened(settings.database)
    topic = settings.stream(name).topic
    state = topic_state(settings, topic)
    found = ledger.of_topic(database, topic, state.topic_id, state.beginnings)
    lines = [*(loss.describe() for loss in found.ranges), *(f"{path}: drop it again" for path in found.paths)]
    if acknowledge:
        ledger.acknowledge(database, found)
    counts = f"{counted(len(found.ranges), 'lost range')}, {counted(len(found.paths), 'known file')} without a row"
    print_lines(make_console(), [*lines, f"{counts}{'; acknowledged' if acknowledge else ''}"])


_stream = click.option("--stream", "name", default="", help="Name of the stream; the default one unless named.")


@click.group(cls=InOrder)
def stream() -> None:
    """Show a stream's state, pause it, or let it go on."""


@stream.command("status")
@_stream
@json_option
def stream_status(name: str, as_json: bool) -> None:
    """Show what scores a stream, whether it goes on, and what waits."""
    from genres.settings import Settings
    from genres_cli import report, streams

    about = streams.status(Settings(), name)
    if as_json:
        print_json(about)
    else:
        report.print_lines(make_console(), report.stream_lines(about))


@stream.command("pause")
@_stream
def stream_pause(name: str) -> None:
    """Let no new run take clips; what is dropped waits in the topic."""
    from genres.settings import Settings
    from genres_cli import streams

    print_prose(streams.pause(Settings(), name))


@stream.command("resume")
@_stream
def stream_resume(name: str) -> None:
    """Let a paused stream go on; what waits in the topic is taken first."""
    from genres.settings import Settings
    from genres_cli import streams

    print_prose(streams.resume(Settings(), name))

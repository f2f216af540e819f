"""The commands that start, stop and show things: the stack, the demo, Dagster, the page, the metrics."""

import sys
from typing import TYPE_CHECKING

import click

from genres.errors import GenresError
from genres_cli.command_line import NO_CHAMPION, Command, json_option, make_console, print_json
from genres_cli.signals import ended_in_order

if TYPE_CHECKING:
    from genres.settings import Settings
    from genres.store.stream_ledger.producers import Producer
    from genres.store.stream_ledger.ranges import Waiting

_PORT = click.IntRange(1, 65535)


@click.command(cls=Command)
def up() -> None:
    """Start the local stack, or what is missing of it. The database tables are brought up to date."""
    from genres_cli.demo import start

    with ended_in_order():
        start(make_console())
    _show_status(as_json=False)


@click.command(cls=Command)
def down() -> None:
    """Stop the local stack. Its data stays."""
    from genres.settings import Settings
    from local_stack.stack import down as stop

    stop(Settings())
    make_console().print("stopped; the data stays (make clean-state deletes it)")


@click.command(cls=Command)
@json_option
def status(as_json: bool) -> None:
    """Show each service, each stream's producer and what waits."""
    _show_status(as_json=as_json)


@click.command(cls=Command)
@click.option("--batch-only", is_flag=True, help="Leave the streaming half out.")
def demo(batch_only: bool) -> None:
    """Run batch pipeline and stream, and print what came out.

    The stack is started if it does not run; the last table says where to look.
    """
    from genres_cli.demo import run_demo

    with ended_in_order():
        has_champion = run_demo(make_console(), streams=not batch_only)
    if not has_champion:
        sys.exit(NO_CHAMPION)


@click.command(cls=Command)
@click.option("--port", type=_PORT, help="Port on 127.0.0.1; by default one of the stack's block.")
def page(port: int | None) -> None:
    """Open a page to listen on; Ctrl-C closes it."""
    from genres.settings import Settings
    from genres_page.server import serve

    settings = Settings()
    port = port or settings.ports.page
    make_console(stderr=True).print(f"http://127.0.0.1:{port}", markup=False, highlight=False)
    serve(settings, port)


@click.command(cls=Command)
@click.option("--port", type=_PORT, default=9464, show_default=True, help="Port on 127.0.0.1.")
def metrics(port: int) -> None:
    """Answer Prometheus about streams and services; Ctrl-C ends it."""
    from genres.addresses import require_addresses
    from genres.settings import Settings
    from genres.store.database import Database
    from local_stack.stack import status as ask
    from streaming_sensors.metrics import Metrics, serve

    settings = Settings()
    require_addresses(settings)
    database = Database.opened(settings.database)

    def services() -> dict[str, bool]:
        return {row.service: row.state in ("running", "external") for row in ask(settings)}

    make_console(stderr=True).print(f"http://127.0.0.1:{port}/metrics", markup=False, highlight=False)
    serve(Metrics(settings, database, services), port)


@click.command(cls=Command)
def ui() -> None:
    """Open Dagster and the page; Ctrl-C closes them, not the stack."""
    from genres_cli.demo import open_dagster

    with ended_in_order():
        open_dagster(make_console())


def _show_status(*, as_json: bool) -> None:
    from genres.addresses import require_addresses
    from genres.file_names import display_path
    from genres.settings import Settings
    from genres_cli import report
    from genres_cli.stream_demo import page_runs, ui_runs
    from local_stack.stack import status as ask

    settings = Settings()
    require_addresses(settings)
    services = ask(settings)
    streams = settings.streams
    producers, waiting, scorers, dataset = _about_streams(settings)
    is_open = {"page_is_open": page_runs(settings), "dagster_is_open": ui_runs(settings)}
    if as_json:
        rows = [service._asdict() for service in services]
        rows += report.page_rows(settings, **is_open)
        rows += report.producer_rows(streams, producers, settings.state_dir / "logs")
        print_json([*rows, *report.stream_rows(streams, waiting)])
    else:
        lines = [*report.producer_lines(streams, producers), *scorers, *report.waiting_lines(streams, waiting)]
        pages = report.page_lines(settings, mlflow=_mlflow_page(settings, dataset), **is_open)
        places = [f"{'data and logs':<13} {display_path(settings.state_dir)}"]
        report.print_lines(make_console(), [*report.status_lines(services), "", *pages, *places, "", *lines])


def _mlflow_page(settings: "Settings", dataset: str) -> str:
    """Return MLflow's address of a dataset's runs; of all experiments, if it has none or MLflow does not answer."""
    import requests

    from genres.addresses import without_secrets
    from genres.store.model_registry import ModelRegistry, experiments_page

    # MLflow's own client takes three times as long to import as everything else here.
    ask = f"{settings.tracking_uri}/api/2.0/mlflow/experiments/get-by-name"
    try:
        answer = requests.get(ask, {"experiment_name": ModelRegistry.name_for(dataset)}, timeout=5)
        experiment = answer.json()["experiment"]
        found = experiment["experiment_id"], [tag["key"] for tag in experiment.get("tags", [])]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        found = "", []
    return experiments_page(without_secrets(settings.tracking_uri), found[0], tags=found[1])


def _about_streams(settings: "Settings") -> "tuple[list[Producer | None], list[list[Waiting]], list[str], str]":
    """Look up each stream's producer, what its clips wait for and what scores it, and the current dataset.

    Without tables there is none of it.
    """
    from genres.store.champions import scorer
    from genres.store.database import Database
    from genres.store.ledger import dataset_meant
    from genres.store.stream_ledger import ranges
    from genres.store.stream_ledger.producers import newest
    from genres_cli.report import print_lines

    topics = [stream.topic for stream in settings.streams]
    nothing: tuple[list[Producer | None], list[list[Waiting]], list[str], str] = (
        [None for _ in topics],
        [[] for _ in topics],
        [],
        "",
    )
    if settings.database == f"sqlite:///{settings.state_dir / 'genres.db'}" and not settings.state_dir.exists():
        return nothing  # who asks for the status of nothing makes no folder
    database = Database(settings.database)
    try:
        database.check_migrated()
        return (
            [newest(database, topic) for topic in topics],
            [ranges.waiting(ranges.known(database, topic)) for topic in topics],
            [
                f"stream {stream.topic}: scored by "
                + scorer(database, dataset_meant(database, **settings.scored_by(stream)))
                for stream in settings.streams
            ],
            dataset_meant(database, **settings.meaning()),
        )
    except GenresError as error:
        print_lines(make_console(stderr=True), [f"producers: {error}"])
        return nothing

"""The ``genres`` command: arguments in, tables and exit codes out. What it does is done by the other rooms."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from genres.errors import GenresError
from genres.settings import Settings

NO_CHAMPION = 3
"""Exit code of a run that ended well but found no model worth predicting with."""

app = typer.Typer(
    help="Music-genre prediction: Dagster, Spark, MLflow, HDFS and Kafka, on this machine or on yours.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DatasetOption = Annotated[str, typer.Option("--dataset", help="Dataset id; by default the one the settings mean.")]


def main() -> None:
    """Run the command; an error that a user can mend is one line and exit code 1."""
    try:
        app()
    except GenresError as error:
        _fail(str(error))
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(map(str, problem["loc"])).upper()
            setting = f"GENRES_{name} = {problem['input']!r}: " if name else ""
            _fail(f"{setting}{problem['msg'].removeprefix('Value error, ')}")


@app.command()
def up() -> None:
    """Start the local stack, or what is missing of it, and bring the database tables up to date."""
    from genres.demo import start

    start(Console())
    status(as_json=False)


@app.command()
def down() -> None:
    """Stop the local stack. Its data stays."""
    from local_stack.stack import down as stop

    stop(Settings())
    Console().print("stopped; the data stays (make clean-state deletes it)")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show each service: state, process, address, memory, data folder, UI."""
    from genres.addresses import require_addresses
    from genres.report import status_table
    from local_stack.stack import status as ask

    settings = Settings()
    require_addresses(settings)
    services = ask(settings)
    if as_json:
        print(json.dumps([service._asdict() for service in services], default=str, indent=2))  # noqa: T201
    else:
        Console().print(status_table(services))


@app.command()
def demo(
    batch_only: Annotated[bool, typer.Option("--batch-only", help="Leave the streaming half out.")] = False,
) -> None:
    """Start the stack, run the batch pipeline and a stream of clips; print what came out and where to look."""
    from genres.demo import run_demo

    if not run_demo(Console(), streams=not batch_only):
        raise typer.Exit(NO_CHAMPION)


@app.command()
def load(
    folder: Annotated[Path, typer.Argument(help="Labelled audio: <genre>/<track>.wav (.au, .flac, .mp3).")],
    dataset: DatasetOption = "",
) -> None:
    """Bring a folder of labelled audio to HDFS as a dataset of its own."""
    from genres.demo import load_folder

    load_folder(Console(), folder, dataset)


@app.command()
def features(
    paths: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .csv or .parquet file.")],
) -> None:
    """Compute the published GTZAN table's columns for local files."""
    from genres.local_files import write_features

    write_features(Console(stderr=True), paths, output, Settings())


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Audio files, or folders of them.")],
    dataset: DatasetOption = "",
    as_json: AsJson = False,
) -> None:
    """Predict the genre of local files with a dataset's champion."""
    from genres.local_files import predict_files
    from genres.report import predictions_table

    rows = predict_files(Console(stderr=True), files, Settings(), dataset)
    if as_json:
        print(json.dumps(rows, indent=2))  # noqa: T201
    else:
        Console().print(predictions_table(rows, name="file_name"))


@app.command()
def predictions(
    dataset: DatasetOption = "",
    as_json: AsJson = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show the stream's newest rows as they come.")] = False,
) -> None:
    """Show the stored predictions, batch and stream; of all datasets unless one is named."""
    from genres.report import follow_stream, predictions_table
    from store import predictions as stored
    from store import stream_ledger
    from store.database import Database
    from store.ledger import registered_dataset

    database = Database(Settings().database)
    database.check_migrated()
    if dataset:
        registered_dataset(database, dataset)  # or an unknown one would look like one without predictions
    if follow:
        follow_stream(Console(), database)
        return
    batch = stored.batch_predictions(database, dataset or None)
    stream = [row for row in stream_ledger.stream_predictions(database) if dataset in ("", row["dataset"])]
    if as_json:
        rows = [{"table": "batch_predictions", **row} for row in batch]
        rows += [{"table": "stream_predictions", **row} for row in stream]
        print(json.dumps(rows, default=str, indent=2))  # noqa: T201
    else:
        Console().print(predictions_table(batch, name="track_id"), predictions_table(stream, name="file_name"))


@app.command()
def watch(
    folder: Annotated[Path | None, typer.Argument(help="By default the settings' watch_folder.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Send what is there and end.")] = False,
) -> None:
    """Send the audio dropped in a folder, or in genre folders in it, to Kafka; Ctrl-C ends it."""
    from streaming_sensors import folder_producer

    settings = Settings()
    if folder is None:
        folder = settings.watch_folder
        folder.mkdir(parents=True, exist_ok=True)
    with folder_producer.stop_on_signals() as stop:
        folder_producer.watch(settings, folder, once=once, console=Console(), stop=stop)


@app.command()
def ui() -> None:
    """Start the stack and open Dagster on it; Ctrl-C closes Dagster, the stack stays."""
    from genres.demo import open_dagster

    open_dagster(Console())


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"genres: {message}", style="red", markup=False)
    sys.exit(1)

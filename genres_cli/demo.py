"""What ``genres up``, ``demo``, ``load`` and ``ui`` do, in order, and how they show it."""

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from genres.addresses import require_addresses
from genres.errors import GenresError
from genres.file_names import display_name
from genres.plurals import counted
from genres.settings import Settings
from genres_cli.report import loaded_again_lines, page_lines, print_lines
from genres_cli.stream_demo import (
    kept_running,
    page_runs,
    producers_running,
    require_own_stream,
    run_stream_demo,
    ui_runs,
)

if TYPE_CHECKING:
    import dagster as dg

    from genres.store.database import Database
    from genres.store.ledger import Dataset
    from genres_dagster.launch import BatchRun

_SAMPLE_EVERY_S = 1.0
_BESIDE_PROGRESS = len("⠋  0:00:00")
"""Columns that spinner and time take beside what an asset says, with the blanks between."""
_DAGSTER_STOP_S = 60.0
"""How long Dagster's processes may take to end in order, in seconds."""
_MOST_REFUSED = 20
"""Refused clips that the demo lists."""


def start(console: Console) -> Settings:
    """Bring the stack and the database tables up; return the settings with this stack's ports."""
    from local_stack.stack import up
    from streaming_sensors.topic import create_topic, lacks_replicas

    started = time.monotonic()
    settings = Settings()
    # What needs no daemon comes first: a mistake in the settings should not cost the start of the stack.
    _migrated(console, settings)
    up(settings, on_progress=_progress(console))
    settings = Settings()
    os.environ |= settings.path_variables  # what is started from here has other working folders
    for stream in settings.streams:
        create_topic(settings, stream.topic)
        if "kafka" not in settings.embedded and lacks_replicas(settings, stream.topic):
            console.print(
                f"topic {stream.topic} has one replica although Kafka has several brokers: the loss of one takes clips "
                "with it; have more made (docs/cluster.md), and set GENRES_TOPIC_REPLICATION for topics to come"
            )
    console.print(f"local stack is up ({time.monotonic() - started:.1f} s)")
    return settings


def run_demo(console: Console, *, streams: bool) -> bool:
    """Run the whole batch half for the settings' dataset, then a stream of clips, and print what came out.

    Parameters
    ----------
    streams
        Whether the streaming half is shown too.

    Returns
    -------
    bool
        Whether there is a champion.

    Raises
    ------
    GenresError
        If a step failed, with its reason; if Dagster is open and scores the stream with another dataset's champion.
    """
    from genres.datasets.folder import scan
    from local_stack.stack import status as stack_status

    started = time.monotonic()
    settings = Settings()
    # Before anything is fetched or started: a wrong folder should not cost minutes.
    if settings.audio:
        scan(settings.audio)
    database = _migrated(console, settings)
    dataset = _chosen(console, settings, database)
    if streams:
        require_own_stream(settings, database, dataset)
    settings = start(console)
    pids = [service.pid for service in stack_status(settings) if service.pid]
    at_rest = sum(map(_memory_bytes, pids))
    instance = _registered(settings, dataset)
    what = (
        "[bold yellow]synthetic[/] sound" if dataset.is_synthetic else f"clips of {escape(str(dataset.source_folder))}"
    )
    console.print(f"\ndataset [bold]{dataset.dataset}[/]: {what}")
    with _peak_memory([*pids, os.getpid()]) as peak:
        began = time.monotonic()
        run = _run(console, settings, instance, "batch_pipeline", dataset.dataset)
        console.print(f"batch: done ({time.monotonic() - began:.1f} s)")
        _print_results(console, settings, dataset, run)
        has_champion = _print_champion(console, settings, dataset)
        if has_champion and streams:
            run_stream_demo(console, settings, instance, dataset)
    console.print(
        f"memory: stack at rest {at_rest / 2**30:.2f} GiB, highest while the pipeline ran {peak[0] / 2**30:.2f} GiB"
    )
    console.print(f"the whole demo took {time.monotonic() - started:.1f} s")
    is_open = {"page_is_open": page_runs(settings), "dagster_is_open": ui_runs(settings)}
    _print_addresses(console, settings, dataset.dataset, **is_open)
    return has_champion


def load_folder(console: Console, folder: Path, dataset_id: str, *, replaces: bool) -> None:
    """Register a folder as a dataset and bring its clips to HDFS.

    Parameters
    ----------
    replaces
        Whether it takes the place of a dataset of this id that was loaded from another folder.
    """
    from genres.datasets.folder import scan
    from genres.store import ledger, predictions
    from genres.store.batch_tables import BatchTables, manifest_changes
    from genres.store.lake import Lake

    named = {"dataset": dataset_id} if dataset_id else {}
    settings = Settings(audio=folder, **named)  # type: ignore[arg-type]
    scan(settings.audio or folder)  # before anything is fetched or started
    database = _migrated(console, settings)
    dataset = _chosen(console, settings, database, replaces=replaces)
    settings = start(console)
    tables = BatchTables(Lake.of(settings), database, dataset.dataset)
    before = tables.manifest() if tables.has_manifest() else None
    instance = _registered(settings, dataset, replaces=replaces)
    _run(console, settings, instance, "load_dataset", dataset.dataset)
    manifest = tables.manifest()
    if before is None:
        refused = int((manifest["status"] != "accepted").sum())
        clips = f"{counted(len(manifest) - refused, 'clip')}{f' ({refused} refused)' if refused else ''}"
        lines = [f"dataset {dataset.dataset} is in HDFS, with {clips}; train on it with `genres retrain`"]
    else:
        stored = predictions.batch_predictions(database, dataset.dataset)
        is_used = bool(ledger.published(database, dataset.dataset, "audio_features"))
        lines = loaded_again_lines(dataset.dataset, manifest_changes(before, manifest), stored, is_used=is_used)
    print_lines(console, lines)


def retrain(console: Console, dataset_id: str) -> bool:
    """Run the whole batch half for a dataset that was loaded before, and print what came out.

    Parameters
    ----------
    dataset_id
        Its id; empty for the current one.

    Returns
    -------
    bool
        Whether there is a champion.
    """
    from genres.store.ledger import dataset_meant, registered_dataset

    settings = Settings()
    database = _migrated(console, settings)
    meant = dataset_meant(database, **settings.meaning(dataset_id))
    dataset = registered_dataset(database, meant)
    settings = start(console)
    instance = _opened(settings, database)
    console.print(f"dataset [bold]{dataset.dataset}[/]: {escape(str(dataset.source_folder))}")
    run = _run(console, settings, instance, "batch_pipeline", dataset.dataset)
    _print_results(console, settings, dataset, run)
    return _print_champion(console, settings, dataset)


def open_dagster(console: Console) -> None:
    """Run Dagster, the folder producers and the page on the stack until Ctrl-C.

    Raises
    ------
    GenresError
        If they run already: two daemons would work against each other; if Dagster's port is taken; if Dagster ends by
        itself.

    Notes
    -----
    Nothing is loaded by it: the datasets that were are Dagster's partitions, and the current one stays it.
    """
    from genres.store.database import Database
    from genres.store.ledger import dataset_of_folder
    from genres.store.model_registry import ModelRegistry
    from genres_cli.datasets import current, scoring_line
    from genres_dagster.child_processes import running
    from genres_dagster.launch import WORKSPACE
    from local_stack.ports import require_free_ports
    from local_stack.services import Service

    settings = Settings()
    if ui_runs(settings):
        raise GenresError(
            f"Dagster is open on this stack already, at {settings.dagster_url}: use it, or close it first"
        )
    if "port_base" in settings.model_fields_set:  # else the start takes a block that is free
        pages = {"its pages": settings.ports.dagster}
        require_free_ports(Service("Dagster", settings.dagster_url, probe=lambda: None, ports=pages))
    settings = start(console)
    database = Database(settings.database)
    _opened(settings, database)
    # Both open in a moment.
    _print_addresses(console, settings, current(settings, database), page_is_open=True, dagster_is_open=True)
    registry = ModelRegistry(settings.tracking_uri)
    if settings.audio and dataset_of_folder(database, settings.audio) is None:
        folder = shlex.quote(str(settings.audio))
        print_lines(console, [f"GENRES_AUDIO={folder} is not loaded yet: `genres load {folder}`"])
    print_lines(console, [scoring_line(stream, settings, database, registry) for stream in settings.streams])
    command = [sys.executable, "-m", "genres_dagster.dev", "-w", str(WORKSPACE)]
    address = ["--host", "127.0.0.1", "--port", str(settings.ports.dagster)]
    folders = ", ".join(escape(str(stream.watch_folder)) for stream in settings.streams)
    console.print(f"drop .wav files in {folders}; Ctrl-C closes Dagster, the stack stays")
    page = kept_running([sys.executable, "-m", "genres_cli", "page"], settings.state_dir / "logs" / "page.log")
    # Not in the user's folder, which may hold another project of Dagster's.
    dagster = running([*command, *address], folder=settings.dagster_home, stop_s=_DAGSTER_STOP_S)
    with producers_running(settings), page, dagster as process:
        try:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
                raise GenresError("Dagster ended by itself; what it printed above says why")
        finally:
            # It takes its time, whoever presses Ctrl-C again meanwhile.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_report(console: Console, dataset: str, output: Path) -> None:
    """Write a dataset's report.

    Parameters
    ----------
    dataset
        Its id; empty for the one the settings mean.
    output
        The file, which is replaced when it is there.

    Raises
    ------
    GenresError
        If there is no such dataset, or the file cannot be written.
    """
    from genres.store.database import Database
    from genres.store.ledger import dataset_meant, registered_dataset
    from genres.written_files import replaced, require_place
    from genres_dagster.dataset_report import dataset_report
    from genres_dagster.launch import open_instance
    from genres_dagster.partitions import provenance
    from streaming_sensors.stream import Stream

    require_place(output)
    settings = Settings()
    database = Database.opened(settings.database)
    meant = dataset_meant(database, **settings.meaning(dataset))
    entry = registered_dataset(database, meant)
    scored = [stream for stream in settings.streams if Stream(stream).dataset(settings, database) == meant]
    text = dataset_report(open_instance(settings), database, meant, streams=scored, about=provenance(entry))
    with replaced(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    print_lines(console, [f"{output}: {len(text) / 1e6:.1f} MB"])


def _progress(console: Console) -> Callable[[str], None]:
    return lambda line: print_lines(console, [f"  {line}"])


def _migrated(console: Console, settings: Settings) -> "Database":
    """Bring the database tables up to date, once all is there that the stack's start takes: else nothing is written."""
    from genres.store.database import Database
    from local_stack.stack import prepare

    require_addresses(settings)
    prepare(settings, on_progress=_progress(console))
    database = Database(settings.database)
    database.migrate()
    return database


def _chosen(console: Console, settings: Settings, database: "Database", *, replaces: bool = False) -> "Dataset":
    from genres_dagster.launch import choose_dataset

    def show(line: str) -> None:
        console.print(escape(line))

    return choose_dataset(settings, database, on_notice=show, replaces=replaces)


def _opened(settings: Settings, database: "Database") -> "dg.DagsterInstance":
    """Open Dagster's instance, in which every loaded dataset is a partition."""
    from genres.store.ledger import registered_datasets
    from genres_dagster.launch import open_instance
    from genres_dagster.partitions import DATASETS

    instance = open_instance(settings)
    instance.add_dynamic_partitions(str(DATASETS.name), [entry.dataset for entry in registered_datasets(database)])
    return instance


def _registered(settings: Settings, dataset: "Dataset", *, replaces: bool = False) -> "dg.DagsterInstance":
    from genres_dagster.launch import open_instance, register

    instance = open_instance(settings)
    register(settings, instance, dataset, replaces=replaces)
    return instance


def _run(console: Console, settings: Settings, instance: "dg.DagsterInstance", job: str, dataset: str) -> "BatchRun":
    """Run the job with a line for each asset; raise if one fails."""
    from genres_dagster.launch import run_job

    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def show(asset: str, kind: str, text: str) -> None:
            if kind == "start":
                tasks[asset] = progress.add_task(f"{asset:20}", total=1)
            elif asset in tasks and kind == "log":
                room = max(console.width - len(f"{asset:20} ") - _BESIDE_PROGRESS, 0)
                progress.update(tasks[asset], description=f"{asset:20} [dim]{escape(text[:room])}")
            elif asset in tasks and kind == "done":
                progress.update(tasks[asset], description=f"{asset:20}", completed=1)
            if not console.is_terminal and (kind != "start"):
                console.print(f"  {asset:20} {kind if kind != 'log' else ''} {escape(text)}".rstrip())

        run = run_job(settings, instance, job, dataset, on_event=show)
    if not run.success:
        asset, reason = next(iter(run.failures.items()), ("the run", f"it was stopped; {run.log} may say why"))
        raise GenresError(f"{asset} failed: {reason}")
    return run


def _print_results(console: Console, settings: Settings, dataset: "Dataset", run: "BatchRun") -> None:
    from genres.store import ledger, predictions, quarantine
    from genres.store.database import Database
    from genres.store.model_registry import ModelRegistry

    database = Database(settings.database)
    data = "synthetic" if dataset.is_synthetic else dataset.dataset
    timings = Table("asset", "seconds", title="Time of each asset")
    for asset, seconds in run.seconds.items():
        timings.add_row(asset, f"{seconds:.1f}")
    rows = [f"rows ({data})"]
    for name in ("raw_audio", "audio_features", "track_split"):
        commits = ledger.published(database, dataset.dataset, name)
        shown = commits if name == "audio_features" else commits[-1:]
        count = sum(commit.row_count for commit in shown)
        rows.append(f"{name:<17} {count:>7,}  {settings.hdfs}{commits[-1].path}")
    stored = predictions.batch_predictions(database, dataset.dataset)
    rows.append(f"{'batch_predictions':<17} {len(stored):>7,}  {database.url.render_as_string(hide_password=True)}")

    registry = ModelRegistry(settings.tracking_uri)
    parent = registry.latest_training(dataset.dataset)
    figures = ("valid\nmacro-F1", "valid\naccuracy", "test\nmacro-F1", "test\naccuracy")
    models = Table(Column("classifier", overflow="fold"), *figures, title="Models")
    names = ("valid_macro_f1", "valid_accuracy", "test_macro_f1", "test_accuracy")
    for child in registry.child_runs(parent):
        models.add_row(child.info.run_name, *(f"{child.data.metrics[name]:.3f}" for name in names))
    models.add_row("majority baseline", *(f"{parent.data.metrics[f'baseline_{name}']:.3f}" for name in names))
    clips = ", ".join(f"{parent.data.metrics[f'{part}_rows']:.0f} {part}" for part in ("train", "valid", "test"))
    models.caption = f"data: {data}; n = {clips}; the validation part decides, the test part is only reported"
    console.print("", timings, soft_wrap=False)
    print_lines(console, rows)
    console.print("", models, soft_wrap=False)

    refused = quarantine.refused(database, dataset.dataset)
    console.print(f"quarantined files: {len(refused)}")
    print_lines(console, [f"  {display_name(clip.file_name)}: {clip.reason}" for clip in refused[:_MOST_REFUSED]])
    if len(refused) > _MOST_REFUSED:
        more = len(refused) - _MOST_REFUSED
        print_lines(console, [f"  and {more} more: `genres quarantine --dataset {dataset.dataset}`"])


def _print_champion(console: Console, settings: Settings, dataset: "Dataset") -> bool:
    from genres.store.model_registry import ModelRegistry

    registry = ModelRegistry(settings.tracking_uri)
    champion = registry.find_champion(dataset.dataset)
    if champion is None:
        challenger = registry.find_aliased(dataset.dataset, "challenger")
        why = challenger.why if challenger else "nothing was registered"
        console.print(f"[bold red]no champion[/]: {escape(why)}; no predictions were written", soft_wrap=False)
        return False
    data = " on [bold yellow]synthetic[/] sound" if dataset.is_synthetic else ""
    console.print(
        f"champion: [bold]{champion.classifier}[/], {champion.name} version {champion.version}, "
        f"validation macro-F1 {champion.valid_macro_f1:.3f}{data}",
        soft_wrap=False,
    )
    return True


def _print_addresses(console: Console, settings: Settings, dataset: str, **is_open: bool) -> None:
    """Print where to look, in MLflow at the runs of a dataset."""
    from genres.store.model_registry import ModelRegistry

    mlflow = ModelRegistry(settings.tracking_uri).page(dataset)
    print_lines(console, ["where to look", *page_lines(settings, mlflow=mlflow, **is_open)])


@contextmanager
def _peak_memory(pids: list[int]) -> Iterator[list[int]]:
    """Sample the memory of processes and their children; the list holds the highest sum in bytes."""
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_EVERY_S):
            peak[0] = max(peak[0], sum(map(_memory_bytes, pids)))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def _memory_bytes(pid: int) -> int:
    """Resident memory of a process and its children; pages that forked workers share count for each."""
    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total

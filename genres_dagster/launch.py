"""Launching the batch half from outside the UI: register a dataset, run the job, follow it, sum it up."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from genres.audio.feature_sets import chosen_sets
from genres.datasets.folder import SYNTHETIC, dataset_id, notices, scan
from genres.errors import GenresError, last_words
from genres.file_names import display_path, is_unicode
from genres.settings import PROJECT_DIR, Settings
from genres.store import ledger
from genres.store.database import Database
from genres.store.lake import STREAM
from genres.store.ledger import Dataset
from genres_dagster.checks import CHECK_FAILED, failed_check, failure_reason
from genres_dagster.child_processes import running
from genres_dagster.partitions import DATASETS

WORKSPACE = Path(__file__).with_name("workspace.yaml")
"""The code locations that Dagster loads."""

_INSTANCE = Path(__file__).with_name("dagster.yaml")
_DATABASE_URL = "GENRES_DAGSTER_DATABASE_URL"

_RESERVED = {SYNTHETIC, STREAM}
_STOP_S = 60.0
"""How long a run that is interrupted may take to end its steps, in seconds."""


@dataclass
class BatchRun:
    """How a run of the batch job went."""

    log: Path
    """What the run's processes printed."""
    run_id: str = ""
    success: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each asset's step."""
    failures: dict[str, str] = field(default_factory=dict)
    """Each failed asset's reason, one line."""
    skipped: list[str] = field(default_factory=list)
    failed_checks: dict[str, list[str]] = field(default_factory=dict)
    """Each asset's blocking checks that failed, a line each: what was expected and what was found."""


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open the Dagster instance that the UI shows as well, with the project's ``dagster.yaml``.

    A file of the user's own in its place is left alone.

    Raises
    ------
    GenresError
        If the setting ``dagster_database_url`` names a database that cannot be used, or such a file hides it.
    """
    home = settings.dagster_home
    settings.make_state_dir()
    home.mkdir(exist_ok=True)
    PROJECT_DIR.mkdir(parents=True, exist_ok=True)
    _write_instance_file(settings)
    os.environ["DAGSTER_HOME"] = str(home)
    if not settings.dagster_database:
        return dg.DagsterInstance.get()
    # Dagster shows its file on a page of the UI: the address, which may hold a password, stays out of it.
    os.environ[_DATABASE_URL] = settings.dagster_database
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        from sqlalchemy.engine import make_url

        if isinstance(error, ImportError):
            why = "its driver is not installed: pip install 'genres[postgres]'"
        elif type(error).__module__.startswith(("dagster_postgres", "sqlalchemy", "psycopg2")):
            why = last_words(error.__cause__ or error)
        else:
            raise
        shown = make_url(settings.dagster_database).render_as_string(hide_password=True)
        raise GenresError(f"{_DATABASE_URL}: {shown} cannot be used for Dagster's runs: {why}") from None


def _write_instance_file(settings: Settings) -> None:
    text = _INSTANCE.read_text(encoding="utf-8")
    if settings.dagster_database:
        text += f"storage:\n  postgres:\n    postgres_url: {{env: {_DATABASE_URL}}}\n"
    file = settings.dagster_home / "dagster.yaml"
    present = file.read_text(encoding="utf-8") if file.is_file() and not file.is_symlink() else ""
    if present == text:
        return
    if present and not present.startswith(text.partition("\n")[0]):
        if settings.dagster_database:
            raise GenresError(
                f"{display_path(file)} is your own: name Dagster's storage there and leave {_DATABASE_URL} empty, or "
                "delete the file"
            )
        return
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)  # also a link that an older version, another checkout or virtual environment made


def choose_dataset(
    settings: Settings, database: Database, *, on_notice: Callable[[str], None], replaces: bool = False
) -> Dataset:
    """Find out which dataset is to be loaded: the settings' folder's, else the one they name, else the synthetic one.

    A folder that was loaded before keeps its id, whatever it holds by now, and its feature sets, unless the settings
    name others: its champion reads them.

    Parameters
    ----------
    on_notice
        Called with each line that a person should read about the folder.
    replaces
        Whether it may take the place of a dataset that was loaded from another folder.

    Raises
    ------
    GenresError
        If the folder holds nothing that can be worked with, its id is taken, or there is no such feature set.
    """
    if settings.audio is None and settings.dataset not in ("", SYNTHETIC):
        return ledger.registered_dataset(database, settings.dataset)
    if settings.audio is None:
        feature_sets = _feature_sets(SYNTHETIC, settings, database, on_notice)
        return Dataset(SYNTHETIC, settings.state_dir / "synthetic_audio", is_synthetic=True, feature_sets=feature_sets)
    folder = scan(settings.audio)
    for line in notices(folder):
        on_notice(line)
    where = display_path(settings.audio)
    if not is_unicode(str(settings.audio)):
        raise GenresError(f"the name of {where} is not UTF-8, which tables and URLs are: rename the folder")
    name = settings.dataset or ledger.dataset_of_folder(database, settings.audio)
    name = name or dataset_id(settings.audio, folder.files)
    if name in _RESERVED:
        raise GenresError(
            f"'{name}' is an id that the project keeps for itself; name {where} otherwise with GENRES_DATASET"
        )
    feature_sets = _feature_sets(name, settings, database, on_notice)
    dataset = Dataset(name, settings.audio, is_synthetic=False, feature_sets=feature_sets)
    if not replaces:
        ledger.require_source(database, dataset)
    return dataset


def _feature_sets(
    dataset: str, settings: Settings, database: Database, on_notice: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the names of the settings' feature sets, or else of those that the dataset has already."""
    chosen = chosen_sets(settings.feature_sets)
    loaded = [entry.feature_sets for entry in ledger.registered_datasets(database) if entry.dataset == dataset]
    if settings.feature_sets or not loaded or loaded == [chosen]:
        return chosen
    kept = ",".join(loaded[0])
    on_notice(f"dataset '{dataset}' keeps its features, {kept}; for others set GENRES_FEATURE_SETS={','.join(chosen)}")
    return chosen_sets(kept)


def register(settings: Settings, instance: dg.DagsterInstance, dataset: Dataset, *, replaces: bool = False) -> None:
    """Make a dataset known to the ledger and to Dagster, where it is a partition of the batch assets.

    Parameters
    ----------
    replaces
        Whether it takes the place of one that was loaded from another folder.
    """
    database = Database(settings.database)
    database.migrate()
    ledger.register_dataset(database, dataset, replaces=replaces)
    instance.add_dynamic_partitions(str(DATASETS.name), [dataset.dataset])


def run_job(
    settings: Settings,
    instance: dg.DagsterInstance,
    job: str,
    dataset: str,
    *,
    on_event: Callable[[str, str, str], None],
) -> BatchRun:
    """Run a job of the batch location for a dataset, in a process of its own, and follow it.

    What the run's processes print goes to ``<state_dir>/logs/<job>.log``; the event log says what happened.

    Parameters
    ----------
    job
        ``batch_pipeline`` or ``load_dataset``.
    on_event
        Called with (asset, kind, text); kind is ``start``, ``log``, ``done``, ``failed`` or ``skipped``.

    Returns
    -------
    BatchRun
        Also for a run that failed.
    """
    mark = uuid4().hex
    tags = {"dagster/partition": dataset, "genres/launch": mark}
    command = [sys.executable, "-m", "dagster", "job", "execute", "--job", job, "--tags", json.dumps(tags)]
    log = settings.state_dir / "logs" / f"{job}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    summary = BatchRun(log=log)
    command += ["--module-name", "genre_assets.definitions"]
    cursor = None
    with log.open("wb") as output, ExitStack() as ending:
        ending.callback(lambda: _end_killed(instance, summary.run_id, process.returncode))
        # Interrupted, Dagster ends the run's processes and says so in the event log.
        process = ending.enter_context(running(command, folder=PROJECT_DIR, output=output, stop_s=_STOP_S))
        while True:
            # Asked before the events are read: what is written until the end is read in the last round.
            is_last_round = process.poll() is not None
            cursor = _follow(instance, mark, cursor, summary, on_event)
            if is_last_round:
                break
            time.sleep(0.3)
    summary.success = process.returncode == 0
    return summary


def _end_killed(instance: dg.DagsterInstance, run_id: str, exit_code: int) -> None:
    """Let Dagster know of a run whose process was killed, and could not say so itself."""
    run = instance.get_run_by_id(run_id) if run_id and exit_code < 0 else None
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, f"its process was ended by signal {-exit_code}")


def _follow(
    instance: dg.DagsterInstance,
    mark: str,
    cursor: str | None,
    summary: BatchRun,
    on_event: Callable[[str, str, str], None],
) -> str | None:
    """Take in the run's new events; return the cursor after them."""
    if not summary.run_id:
        runs = instance.get_runs(dg.RunsFilter(tags={"genres/launch": mark}), limit=1)
        if not runs:
            return None
        summary.run_id = runs[0].run_id
    while True:
        page = instance.get_records_for_run(summary.run_id, cursor=cursor, limit=200)
        for record in page.records:
            _take_in(record.event_log_entry, summary, on_event)
        cursor = page.cursor
        if not page.has_more:
            return cursor


def _take_in(entry: Any, summary: BatchRun, on_event: Callable[[str, str, str], None]) -> None:
    step, event = entry.step_key, entry.dagster_event
    if step is None:
        return
    if event is None:
        on_event(step, "log", entry.user_message)
    elif event.event_type == dg.DagsterEventType.STEP_START:
        on_event(step, "start", "")
    elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
        summary.seconds[step] = event.event_specific_data.duration_ms / 1000
        on_event(step, "done", f"{summary.seconds[step]:.1f} s")
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        evaluation = event.asset_check_evaluation_data
        if evaluation.blocking and not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            summary.failed_checks.setdefault(step, []).append(failed_check(evaluation))
    elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
        error = event.event_specific_data.error
        checks = summary.failed_checks.get(step, []) if error.cls_name == CHECK_FAILED else []
        summary.failures[step] = "; ".join(checks) or failure_reason(error)
        on_event(step, "failed", summary.failures[step])
    elif event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
        on_event(step, "log", f"tried again: {failure_reason(event.event_specific_data.error)}")
    elif event.event_type == dg.DagsterEventType.STEP_SKIPPED:
        summary.skipped.append(step)
        on_event(step, "skipped", "")

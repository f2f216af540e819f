"""The demo's streaming half: drop clips that no model was trained on, and wait until each has its row."""

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from genres.errors import GenresError
from genres.file_names import display_path
from genres.plurals import counted
from genres.settings import PROJECT_DIR, Settings
from genres_cli.report import producer_name

if TYPE_CHECKING:
    import subprocess

    import dagster as dg

    from genres.store.database import Database
    from genres.store.ledger import Dataset

_CLIPS = 20
_PATIENCE_S = 600.0
_STOP_S = 10.0
"""How long a process may take to end in order: the producer flushes; the daemon would wait for a sensor's long poll."""
_PAUSES_S = (1.0, 30.0)
"""How long a producer that ended is left alone before it is started again, the first time and at most, in seconds."""
_SETTLED_S = 60.0
"""A producer that lived for so long did start well: should it end, it is started again soon."""


def run_stream_demo(console: Console, settings: Settings, instance: "dg.DagsterInstance", dataset: "Dataset") -> None:
    """Start producer, daemon and sensors; drop clips; wait for their rows; print what came out; stop what was started.

    Raises
    ------
    GenresError
        If a clip has no row after ten minutes.

    Notes
    -----
    Producer, daemon and sensors that are started here score with the champion of `dataset`, whatever the settings say
    of the stream.
    """
    import pandas as pd

    from genres.store.database import Database
    from genres.store.stream_ledger import results

    database = Database(settings.database)
    logs = settings.state_dir / "logs"
    folder = settings.watch_folder
    with ExitStack() as started:
        starting = time.monotonic()
        if ui_runs(settings):
            _wait_for_sensors(settings, instance, logs / "dagster_daemon.log")
        else:
            os.environ["GENRES_STREAM_DATASET"] = dataset.dataset
            started.enter_context(stream_running(settings, instance))
        console.print(f"\nstreaming: producer and sensors are ready ({time.monotonic() - starting:.1f} s)")
        began = datetime.now(UTC)
        hashes = _drop(folder, settings, database, dataset)
        console.print(f"streaming: {counted(len(hashes), 'file')} dropped in {escape(str(folder))}")
        columns = (TextColumn("clips with a row"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        deadline = time.monotonic() + _PATIENCE_S
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=len(hashes))
            while True:
                rows = results.predictions(database)
                predicted = [row for row in rows if row["sha256"] in hashes and row["dataset"] == dataset.dataset]
                refused = [row for row in results.quarantine(database) if row["sha256"] in hashes]
                done = {row["sha256"] for row in [*predicted, *refused]}
                progress.update(bar, completed=len(done))
                if done == hashes:
                    break
                if time.monotonic() > deadline:
                    raise GenresError(
                        f"{counted(len(hashes), 'clip')} dropped, {counted(len(done), 'row')} after {_PATIENCE_S:g} s; "
                        f"see {logs} and the sensors in Dagster"
                    )
                time.sleep(0.5)
    fresh = [row for row in predicted if row["predicted_at"] >= began]
    data = "synthetic" if dataset.is_synthetic else dataset.dataset
    console.print(
        f"streaming ({data}): clips in {len(hashes)}, rows out {len(predicted)} (new: {len(fresh)}), "
        f"quarantined {len(refused)}",
        soft_wrap=False,
    )
    if fresh:
        latency = pd.Series([row["latency_s"] for row in fresh])
        right = sum(row["genre"] == row["predicted_genre"] for row in fresh)
        console.print(
            f"from file to row: p50 {latency.quantile(0.5):.1f} s, p95 {latency.quantile(0.95):.1f} s; "
            f"{right} of {counted(len(fresh), 'genre')} right",
            soft_wrap=False,
        )


@contextmanager
def stream_running(settings: Settings, instance: "dg.DagsterInstance") -> Iterator[None]:
    """Run producer, Dagster daemon and sensors meanwhile; the sensors have ticked when the caller goes on.

    Raises
    ------
    GenresError
        If the sensors do not start within two minutes.
    """
    from genres_dagster.launch import WORKSPACE

    log = settings.state_dir / "logs" / "dagster_daemon.log"
    daemon = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(WORKSPACE)]
    with _running(daemon, log), producers_running(settings):
        _wait_for_sensors(settings, instance, log)
        yield


@contextmanager
def producers_running(settings: Settings) -> Iterator[None]:
    """Run ``genres watch`` on each stream's folder meanwhile, again whenever it ends."""
    with ExitStack() as running:
        for stream in settings.streams:
            stream.watch_folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "genres_cli", "watch", "--stream", stream.name]
            log = settings.state_dir / "logs" / f"{producer_name(stream)}.log"
            running.enter_context(kept_running(command, log))
        yield


@contextmanager
def kept_running(command: list[str], log: Path) -> Iterator[None]:
    """Run a command meanwhile, and again after a pause whenever it ends; its output goes to a log.

    Not by the stack's supervisord: the command's life is that of who runs it, and a stack that runs elsewhere has none.
    """
    stopping = threading.Event()
    keeper = threading.Thread(target=_keep_running, args=(command, log, stopping))
    keeper.start()
    try:
        yield
    finally:
        stopping.set()
        keeper.join()


def _keep_running(command: list[str], log: Path, stopping: threading.Event) -> None:
    pause_s = _PAUSES_S[0]
    while not stopping.is_set():
        began = time.monotonic()
        try:
            with _running(command, log) as process:
                while process.poll() is None:
                    if stopping.wait(0.2):
                        return
            why = f"ended with exit code {process.returncode}"
        except OSError as error:  # no memory to start it, no room for its log
            why = f"cannot be started ({error})"
        if time.monotonic() - began > _SETTLED_S:
            pause_s = _PAUSES_S[0]
        with contextlib.suppress(OSError), log.open("a") as output:
            output.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: it {why}; it is started again in {pause_s:g} s\n")
        stopping.wait(pause_s)
        pause_s = min(2 * pause_s, _PAUSES_S[1])


@contextmanager
def _running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command meanwhile, its output in a log; ask it to end afterwards."""
    from genres_dagster.child_processes import running

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, running(command, folder=PROJECT_DIR, output=output, stop_s=_STOP_S) as process:
        yield process


def ui_runs(settings: Settings) -> bool:
    """Return whether ``make ui`` is open on this stack: its daemon looks after the sensors then."""
    return _answers(f"{settings.dagster_url}/server_info")


def page_runs(settings: Settings) -> bool:
    """Return whether the page to listen on is open, by ``genres ui`` or by ``genres page``."""
    return _answers(settings.page_url)


def _answers(url: str) -> bool:
    import requests

    try:
        with requests.get(url, timeout=5, stream=True) as answer:  # not more than its head
            return answer.ok
    except requests.RequestException:
        return False


def require_own_stream(settings: Settings, database: "Database", dataset: "Dataset") -> None:
    """Refuse to go on beside an open Dagster that scores the stream with another dataset's champion.

    Raises
    ------
    GenresError
        With what to do.
    """
    from genres.store.ledger import dataset_of_folder

    said = scored_by(settings)
    if said is None:
        return
    meant = said["dataset"] or (said["folder"] and dataset_of_folder(database, Path(said["folder"])))
    # Where neither says it, the current dataset is meant, which will be this one.
    if meant and meant != dataset.dataset and (said["dataset"] or said["folder"] != str(dataset.source_folder)):
        raise GenresError(
            f"Dagster is open at {settings.dagster_url} and scores the stream with the champion of dataset '{meant}', "
            f"not of '{dataset.dataset}': close it, or run `genres demo --batch-only`"
        )


def scored_by(settings: Settings) -> dict[str, Any] | None:
    """Ask an open Dagster what says whose champion scores the default stream; None if there is none to ask."""
    import json

    import requests

    query = """{assetNodes(assetKeys: [{path: ["audio_clips"]}]) {
        metadataEntries {label ... on JsonMetadataEntry {jsonString}}
    }}"""
    try:
        answer = requests.post(f"{settings.dagster_url}/graphql", json={"query": query}, timeout=10)
        entries = answer.json()["data"]["assetNodes"][0]["metadataEntries"]
        found = {entry["label"]: entry.get("jsonString") for entry in entries}
        return json.loads(found["scored_by"])
    except (requests.RequestException, LookupError, TypeError):  # not open, or its code does not load
        return None


def _wait_for_sensors(settings: Settings, instance: "dg.DagsterInstance", log: Path) -> None:
    """Wait until the streaming sensor has ticked: latency is the pipeline's, not that of a daemon that starts."""
    deadline = time.monotonic() + settings.start_timeout_s
    began = time.time()
    while time.monotonic() < deadline:
        for state in instance.all_instigator_state():
            if state.name == "audio_clips_sensor":
                ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
                if ticks and ticks[0].timestamp >= began - 1:
                    return
        time.sleep(0.5)
    raise GenresError(
        f"the Dagster daemon's sensors did not start within {settings.start_timeout_s:g} s (GENRES_START_TIMEOUT_S); "
        f"{display_path(log)} may say why"
    )


def _drop(folder: Path, settings: Settings, database: "Database", dataset: "Dataset") -> set[str]:
    """Drop clips kept out of training, and a text file named .wav; return the hashes of all."""
    clips = _synthetic(settings, database) if dataset.is_synthetic else _test_part(settings, database, dataset)
    clips.append((folder / "notes.wav", b"a text file named .wav, to be quarantined"))
    for path, data in clips:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {hashlib.sha256(data).hexdigest() for _, data in clips}


def _synthetic(settings: Settings, database: "Database") -> list[tuple[Path, bytes]]:
    """Synthesise clips beyond those of the dataset; others each time, as known ones would be told apart."""
    import io

    import soundfile

    from genres.datasets.synthetic import GENRES, SAMPLE_RATE, synthesise
    from genres.store.stream_ledger import results

    names = list(GENRES)
    known = len(results.predictions(database))
    clips = []
    for number in range(_CLIPS):
        genre = names[number % len(names)]
        index = settings.synthetic_clips_per_genre + known + number
        samples = synthesise(genre, index, clip_s=settings.synthetic_clip_s, seed=0)
        sound = io.BytesIO()
        soundfile.write(sound, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        clips.append((settings.watch_folder / genre / f"synthetic_{genre}.{index:05}.wav", sound.getvalue()))
    return clips


def _test_part(settings: Settings, database: "Database", dataset: "Dataset") -> list[tuple[Path, bytes]]:
    """Take the test part's clips from the lake: no model was trained on or chosen by them."""
    from genres.store.batch_tables import BatchTables
    from genres.store.lake import Lake

    lake = Lake.of(settings)
    tables = BatchTables(lake, database, dataset.dataset)
    test = tables.split().query("part == 'test'").merge(tables.accepted(), on=["track_id", "genre", "sha256"])
    return [
        (settings.watch_folder / Path(path).parent.name / Path(path).name, lake.files.cat_file(path))
        for path in test["path"].head(_CLIPS)
    ]

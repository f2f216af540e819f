"""Bad input on the real stack: one line that says why, and a re-run repairs what was begun."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import soundfile

from genres.audio.gtzan57 import GTZAN57
from genres.datasets.split import split_tracks
from genres.datasets.synthetic import SAMPLE_RATE
from genres.settings import Settings
from genres.store import ledger, predictions, quarantine
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres_dagster.launch import failure_reason, open_instance
from local_stack.stack import start_service, stop_service

NO_CHAMPION = 3
GENRES = ("blues", "metal")


def tables_of(stack: Settings, dataset: str) -> BatchTables:
    lake = Lake.of(stack)
    return BatchTables(lake, Database(stack.database), dataset)


def only_line(done: Any) -> str:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_nothing_but_garbage(stack: Settings, run_genres: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "garbage"
    for genre in GENRES:
        (folder / genre).mkdir(parents=True)
        for number in range(3):
            (folder / genre / f"{number}.wav").write_text(f"{genre} {number}, but no samples")
    line = only_line(run_genres("demo", audio=folder))
    assert line.startswith(f"genres: raw_audio failed: none of the 6 clips in {folder} can be read (the first: 0.wav: ")
    assert not tables_of(stack, "garbage").has_manifest()


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory, write_clips: Callable[..., None]) -> Path:
    """Three clips of each genre, of which one is a text file."""
    folder = tmp_path_factory.mktemp("thin") / "thin"
    write_clips(folder, GENRES, 3)
    (folder / "metal" / "metal_1.wav").write_text("these are not samples")
    return folder


@pytest.fixture(scope="module")
def thin_demo(run_genres: Callable[..., Any], thin: Path) -> Any:
    return run_genres("demo", audio=thin)


def test_too_few_clips_are_left_after_quarantine(stack: Settings, thin_demo: Any) -> None:
    line = only_line(thin_demo)
    assert line.startswith("genres: track_split failed: genre 'metal' has 2 usable clips")
    tables = tables_of(stack, "thin")
    assert [clip.file_name for clip in quarantine.refused(tables.database, "thin")] == ["metal_1.wav"]
    assert not ledger.published(tables.database, "thin", "track_split")


@pytest.fixture
def stopped(stack: Settings, request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[str, str]]]:
    """Stop services; yield, for each, the asset that needs it first and what that says."""
    for service in request.param:
        stop_service(stack, service)
    yield request.param
    for service in request.param:
        start_service(stack, service)


@pytest.mark.parametrize(
    "stopped",
    [
        {"namenode": ("track_split", "HDFS does not answer at http://127.0.0.1:")},
        {  # side by side: each is tried three times, with pauses
            "spark-connect": ("audio_features", "Spark Connect does not answer at 127.0.0.1:"),
            "mlflow": ("champion_model", "MLflow does not answer at http://127.0.0.1:"),
        },
    ],
    ids=" and ".join,
    indirect=True,
)
@pytest.mark.usefixtures("thin_demo")
def test_a_step_that_meets_an_outage_says_so(
    stack: Settings, start_materializing: Callable[..., Any], thin: Path, stopped: dict[str, tuple[str, str]]
) -> None:
    if "spark-connect" in stopped:  # features that are there already need no engine
        forget_features(stack, "thin")
    runs = {asset: start_materializing(asset, "thin") for asset, _ in stopped.values()}
    for asset, said in stopped.values():
        assert runs[asset].wait(300) != 0
        reason = last_failure(stack, asset)
        assert reason.startswith(said) and "start the stack with `genres up`" in reason


@pytest.mark.usefixtures("thin_demo")
def test_a_run_after_the_outage_repairs_everything(
    stack: Settings, start_materializing: Callable[..., Any], thin: Path, write_clips: Callable[..., None]
) -> None:
    shutil.rmtree(thin)
    write_clips(thin, GENRES, 3)
    assert start_materializing("raw_audio,audio_features,track_split", "thin").wait(300) == 0
    tables = tables_of(stack, "thin")
    features = tables.features(GTZAN57.feature_version)
    assert features["track_id"].is_unique and len(features) == len(tables.split()) == 6
    assert quarantine.refused(tables.database, "thin") == []


@pytest.mark.long
def test_no_champion_writes_no_predictions(stack: Settings, run_genres: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "contrary"
    write_contrary_clips(folder)
    done = run_genres("demo", audio=folder)
    assert done.returncode == NO_CHAMPION, done.stdout + done.stderr
    assert done.stderr == ""
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("no champion: ")]
    assert "does not beat the majority baseline's" in said and said.endswith("no predictions were written")
    assert predictions.batch_predictions(Database(stack.database), "contrary") == []
    assert ModelRegistry(stack.tracking_uri).find_champion("contrary") is None
    line = only_line(run_genres("predict", str(folder / "high"), "--dataset", "contrary"))
    assert "no champion model for dataset 'contrary' yet" in line


def write_contrary_clips(folder: Path) -> None:
    """Write clips whose genres change places between the training part and the others.

    The split goes by a hash of the audio, so clips are made until each place has one of the right kind.
    """
    import pandas as pd

    rng = np.random.default_rng(0)
    seconds = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    genres, clips = ("high", "low"), 6

    def write(genre: str, number: int, hertz: float) -> tuple[str, str, str]:
        path = folder / genre / f"{genre}_{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.3 * np.sin(2 * np.pi * hertz * seconds) + 0.01 * rng.standard_normal(len(seconds))
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        return f"{genre}.{path.stem}", genre, hashlib.sha256(path.read_bytes()).hexdigest()

    def hertz(genre: str, is_for_training: bool) -> float:
        return 4000.0 if (genre == "high") == is_for_training else 200.0

    rows: dict[str, list[tuple[str, str, str]]] = {}
    wrong = set(genres)
    while wrong:
        for genre in sorted(wrong):
            rows[genre] = [write(genre, n, hertz(genre, n < 4)) for n in range(clips)]
        written = pd.DataFrame([row for of_genre in rows.values() for row in of_genre])
        table = split_tracks(written.set_axis(["track_id", "genre", "sha256"], axis=1)).table
        trained = table.assign(n=table["track_id"].str[-1].astype(int)).query("part == 'train'")
        wrong = {genre for genre in genres if set(trained.loc[trained["genre"] == genre, "n"]) != {0, 1, 2, 3}}


def forget_features(stack: Settings, dataset: str) -> None:
    import sqlalchemy as sa

    from genres.store.tables import LAKE_COMMITS

    with Database(stack.database).writing() as connection:
        connection.execute(
            sa.delete(LAKE_COMMITS).where(
                (LAKE_COMMITS.c.dataset == dataset) & (LAKE_COMMITS.c.table_name == "audio_features")
            )
        )


def last_failure(stack: Settings, asset: str) -> str:
    with open_instance(stack) as instance:
        run = next(run for run in instance.get_runs(limit=5) if dg.AssetKey(asset) in (run.asset_selection or ()))
        (failure,) = [
            record.event_log_entry.dagster_event
            for record in instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=10
            ).records
        ]
    assert failure is not None and failure.step_key == asset
    return failure_reason(failure.event_specific_data.error)  # type: ignore[union-attr]

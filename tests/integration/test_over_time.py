"""Genre over time: windows go through Spark beside their clips, in batch, in the stream and for a local file."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import soundfile
import sqlalchemy as sa
from pyspark.sql import SparkSession

from genre_assets.definitions import build_defs
from genres.audio.clip_features import clip_features
from genres.audio.feature_set import WINDOW_S
from genres.audio.librosa96 import LIBROSA96
from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.settings import Settings
from genres.store import ledger, predictions
from genres.store.batch_tables import BatchTables
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import ranges, results
from genres.store.tables import BATCH_PREDICTIONS, LAKE_COMMITS
from genres_dagster.launch import open_instance
from spark.over_time import WINDOW, with_windows
from spark.prepared_scorer import PreparedScorer
from spark.scoring import Scorer, score_clips
from spark.session import open_session, session_config
from streaming_sensors.range_work import RangeWork
from tests.in_process import drain, run_batch, send
from tests.stream_rig import wav
from tests.window_rows import windows_of_two_sets

GENRES = ("blues", "metal", "disco")
CLIPS = 8
DATASET = "over_time"


@pytest.fixture(scope="module")
def settings(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a dataset of clips of three windows and a bit."""
    folder = tmp_path_factory.mktemp("over time")
    for genre in GENRES:
        (folder / genre).mkdir()
        for index in range(CLIPS):
            samples = synthesise(genre, index, clip_s=9.5, seed=11)
            soundfile.write(folder / genre / f"{genre}_{index}.wav", samples, SAMPLE_RATE, subtype="PCM_16")
    yield Settings(
        audio=folder,
        dataset=DATASET,
        feature_sets=LIBROSA96.name,
        classifiers="LogisticRegression",
        topic="test_over_time",
        watch_folder=tmp_path_factory.mktemp("over time drop"),
        stream_dataset=DATASET,
        settle_s=0.1,
        drain_quiet_s=0.5,
    )


@pytest.fixture(scope="module")
def tables(settings: Settings) -> BatchTables:
    """The dataset's tables, after the whole batch pipeline."""
    return run_batch(settings)


@contextmanager
def session(settings: Settings) -> Iterator[SparkSession]:
    """Yield a session of the test's own; what the pipeline opened in this process before is closed."""
    spark = open_session(session_config(settings, app_name="test over time"))
    try:
        yield spark
    finally:
        spark.stop()


@contextmanager
def scoring(settings: Settings, tables: BatchTables) -> Iterator[tuple[Scorer, SparkSession]]:
    """Yield the champion, loaded, and its session."""
    champion = ModelRegistry(settings.tracking_uri).champion(DATASET)
    trained_on = ledger.registered_dataset(tables.database, DATASET)
    with session(settings) as spark, Scorer(champion, trained_on=trained_on, lake=Lake.of(settings)) as scorer:
        yield scorer, spark


def test_spark_cuts_rows_of_windows_as_arrow_does(settings: Settings) -> None:
    table, joined, expected = windows_of_two_sets()
    with session(settings) as spark:
        found = with_windows(spark.createDataFrame(table), joined, keep=["clip"])
        assert dict(found.dtypes) == {"clip": "string", WINDOW: "int", "a": "double", "b": "double", "c": "double"}
        assert sorted(map(tuple, found.collect()), key=str) == sorted(expected, key=str)


def test_each_track_has_a_curve_of_its_windows(settings: Settings, tables: BatchTables) -> None:
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == CLIPS * len(GENRES)
    with scoring(settings, tables) as (champion, spark):
        for row in rows:
            curve = row["over_time"]
            assert (curve["window_s"], curve["hop_s"], curve["start_s"]) == (WINDOW_S, WINDOW_S, 0)
            assert curve["genres"] == champion.genres == sorted(GENRES)
            assert np.shape(curve["probabilities"]) == (3, 3)
            np.testing.assert_allclose(np.sum(curve["probabilities"], axis=1), 1, atol=0.002)
        # Each window alone, as if it were a clip, by the kernel's own values.
        accepted = tables.accepted()
        clip = accepted.iloc[5]
        data = tables.lake.files.cat_file(clip["path"])
        windows = clip_features(data, file_suffix=".wav", feature_set=LIBROSA96, max_clip_s=60).windows
        frame = spark.createDataFrame(
            [(number, *map(float, values)) for number, values in enumerate(windows[LIBROSA96.windows_column])],
            ["number", *LIBROSA96.columns],
        )
        alone = sorted(champion.scored(frame, keep=["number"]).collect())
    (row,) = (row for row in rows if row["track_id"] == clip["track_id"])
    np.testing.assert_allclose(
        row["over_time"]["probabilities"], [answer["probabilities"] for answer in alone], atol=5.001e-4
    )
    assert len({tuple(window) for window in row["over_time"]["probabilities"]}) == 3


def test_the_stream_draws_the_same_curves_and_draws_them_again(settings: Settings, tables: BatchTables) -> None:
    accepted = tables.accepted()
    send(settings, {Path(path).name: tables.lake.files.cat_file(path) for path in accepted["path"][:3]})
    assert drain(settings)
    batch = {row["sha256"]: row["over_time"] for row in predictions.batch_predictions(tables.database, DATASET)}
    streamed = results.predictions(tables.database, topic=settings.topic)
    assert len(streamed) == 3
    assert {row["sha256"]: row["over_time"] for row in streamed} == {
        sha256: batch[sha256] for sha256 in accepted["sha256"][:3]
    }
    # From the stored features, as a range is scored again; from those of before, the whole clips alone.
    work = RangeWork(settings, tables.lake, tables.database)
    with scoring(settings, tables) as (champion, spark):
        for found in ranges.history(tables.database, settings.topic, states={"committed"}):
            stored = work.read_features(found).table
            again = work._predictions(found.key, stored, champion, spark)
            assert [row["over_time"] for row in again] == [batch[row["sha256"]] for row in again]
            of_before = stored.drop_columns([LIBROSA96.windows_column])
            old = work._predictions(found.key, of_before, champion, spark)
            assert [row["over_time"] for row in old] == [None] * len(again)
            assert [row["probabilities"] for row in old] == [row["probabilities"] for row in again]


@pytest.mark.long
def test_a_long_file_gives_a_curve(
    settings: Settings, tables: BatchTables, run_genres: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    mix = np.concatenate([synthesise(genre, 50, clip_s=90.0, seed=5) for genre in ("blues", "metal")])
    soundfile.write(tmp_path / "mix.flac", mix, SAMPLE_RATE)
    soundfile.write(tmp_path / "short.wav", mix[:SAMPLE_RATE], SAMPLE_RATE)
    answer = run_genres("predict", str(tmp_path), "--dataset", DATASET, "--json")
    assert answer.returncode == 0, answer.stderr
    long, short = json.loads(answer.stdout)
    assert len(long["over_time"]["probabilities"]) == 60
    assert short["over_time"]["probabilities"] == [
        [round(short["probabilities"][genre], 3) for genre in short["over_time"]["genres"]]
    ]
    leading = [long["over_time"]["genres"][int(np.argmax(window))] for window in long["over_time"]["probabilities"]]
    assert max(set(leading[:29]), key=leading[:29].count) == "blues"
    assert max(set(leading[31:]), key=leading[31:].count) == "metal"

    shown = run_genres("predict", str(tmp_path / "mix.flac"), "--dataset", DATASET, "--over-time")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    at = lines.index("mix.flac: probability in tenths, 3 s a digit")
    assert {line.split()[0] for line in lines[at + 1 : at + 3]} == {"blues", "metal"}
    assert all(len(line) <= 80 for line in lines[at:])
    assert "probability in tenths" not in run_genres("predict", str(tmp_path), "--dataset", DATASET).stdout


def test_parquet_of_before_is_scored_without_curves(settings: Settings, tables: BatchTables) -> None:
    """Half of the features are as they were written before there were windows."""
    (path,) = tables.feature_paths(LIBROSA96.feature_version)
    stored = tables.lake.read_table([path])
    folder = tables.feature_folder(LIBROSA96.feature_version)
    old, new = stored.slice(0, 10).drop_columns([LIBROSA96.windows_column]), stored.slice(10)
    before = {row["track_id"]: row for row in predictions.batch_predictions(tables.database, DATASET)}

    with tables.database.writing() as connection:
        connection.execute(sa.delete(BATCH_PREDICTIONS).where(BATCH_PREDICTIONS.c.dataset == DATASET))
        connection.execute(sa.delete(LAKE_COMMITS).where(LAKE_COMMITS.c.path == path))
    for part in (old, new):
        part_path = tables.lake.write_table(part, folder)
        commit = ledger.Commit(part_path, len(part), ledger.fingerprint(part["sha256"].to_pylist()), "a test")
        ledger.publish(tables.database, DATASET, "audio_features", commit)
    assert len(tables.features(LIBROSA96.feature_version)) == CLIPS * len(GENRES)
    job = build_defs(settings=settings).resolve_job_def("batch_pipeline")
    done = job.execute_in_process(
        partition_key=DATASET,
        instance=open_instance(settings),
        asset_selection=[dg.AssetKey("batch_predictions")],
    )
    assert done.success

    rows: dict[str, dict[str, Any]] = {
        row["track_id"]: row for row in predictions.batch_predictions(tables.database, DATASET)
    }
    assert {track: row["probabilities"] for track, row in rows.items()} == {
        track: pytest.approx(row["probabilities"]) for track, row in before.items()
    }
    without = set(old["track_id"].to_pylist())
    assert {track for track, row in rows.items() if row["over_time"] is None} == without
    assert all(rows[track]["over_time"] == before[track]["over_time"] for track in rows.keys() - without)
    with tables.database.reading() as connection:
        is_null = sa.select(sa.func.count()).where(BATCH_PREDICTIONS.c.over_time.is_(sa.null()))
        assert connection.execute(is_null.where(BATCH_PREDICTIONS.c.dataset == DATASET)).scalar() == len(without)


def test_a_prepared_scorer_answers_each_clip_as_a_scorer_does(settings: Settings, tables: BatchTables) -> None:
    """Of different lengths, so with other numbers of windows; none gets the answer of the one before."""
    lake = Lake.of(settings)
    with scoring(settings, tables) as (champion, spark):
        prepared = PreparedScorer(champion, spark=spark, lake=lake, settings=settings)
        features = []
        for genre, clip_s in (("blues", 9.5), ("metal", 3.5), ("disco", 1.0), ("blues", 9.5)):
            sound = wav(synthesise(genre, 40, clip_s=clip_s, seed=12))
            clip = clip_features(sound, file_suffix=".wav", feature_set=champion.feature_set, max_clip_s=60)
            features.append({**clip.values, **clip.windows})
        expected = list(score_clips(champion, features, spark=spark).values())
        assert len({str(row) for row in expected}) == 3
        assert [prepared.score(clip) for clip in features] == expected
        path = prepared._path
        assert lake.files.exists(path)
        prepared.close()
        assert not lake.files.exists(path)

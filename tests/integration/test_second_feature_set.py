"""A second feature set is a module and a line: it goes through extraction, training, prediction and the stream."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from genres.audio import feature_sets
from genres.audio.clip_features import clip_features
from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import ranges, results
from tests.in_process import drain, run_batch, send
from tests.tiny_features import TINY

GENRES = ("blues", "metal", "disco")
CLIPS = 8
DATASET = "tiny_features"


@pytest.fixture(scope="module")
def settings(
    stack: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    write_clips: Callable[..., None],
) -> Iterator[Settings]:
    """Settings of a dataset of its own, whose models are trained on the second set, which this process knows."""
    folder = tmp_path_factory.mktemp("tiny features")
    write_clips(folder, GENRES, CLIPS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(feature_sets.FEATURE_SETS, TINY.name, TINY)
        yield Settings(
            audio=folder,
            dataset=DATASET,
            feature_sets=TINY.name,
            topic="test_second_feature_set",
            watch_folder=tmp_path_factory.mktemp("tiny drop"),
            stream_dataset=DATASET,
            settle_s=0.1,
        )


@pytest.fixture(scope="module")
def tables(settings: Settings) -> BatchTables:
    """The dataset's tables, after the whole batch pipeline."""
    return run_batch(settings)


def test_extraction_honours_its_columns_and_sample_rate(tables: BatchTables) -> None:
    table = tables.features(TINY.feature_version)
    assert len(table) == CLIPS * len(GENRES)
    assert set(TINY.columns) < set(table.columns)
    assert not set(GTZAN57.columns) & set(table.columns)
    np.testing.assert_allclose(table["tiny_seconds"], 3.0, atol=1e-4)
    clip = tables.accepted().iloc[0]
    alone = clip_features(tables.lake.files.cat_file(clip["path"]), file_suffix=".wav", feature_set=TINY, max_clip_s=60)
    stored = table[table["track_id"] == clip["track_id"]].iloc[0]
    assert {column: stored[column] for column in TINY.columns} == pytest.approx(alone.values)


def test_the_model_carries_its_feature_set(settings: Settings, tables: BatchTables) -> None:
    champion = ModelRegistry(settings.tracking_uri).champion(DATASET)
    assert champion.feature_version == TINY.feature_version == "tiny-v3-numpy2"
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == CLIPS * len(GENRES)
    assert {row["feature_version"] for row in rows} == {TINY.feature_version}


def test_the_stream_computes_what_the_champion_reads(settings: Settings, tables: BatchTables) -> None:
    accepted = tables.accepted()
    send(settings, {Path(path).name: tables.lake.files.cat_file(path) for path in accepted["path"][:3]})
    assert drain(settings.model_copy(update={"drain_quiet_s": 0.5}))
    rows = results.predictions(tables.database, topic=settings.topic)
    assert {row["sha256"] for row in rows} == set(accepted["sha256"][:3])
    assert {row["feature_version"] for row in rows} == {TINY.feature_version}
    assert {row["dataset"] for row in rows} == {DATASET}
    committed = ranges.history(tables.database, settings.topic, states={"committed"})
    stored = tables.lake.read_table([found.feature_path for found in committed]).to_pandas()
    np.testing.assert_allclose(stored["tiny_seconds"], 3.0, atol=1e-4)

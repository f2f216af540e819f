"""Sets are added to a lake that has one: each is a table of its own, and a model reads two of them joined."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from genre_assets import genre_classifiers
from genre_assets.definitions import build_defs
from genres.audio import feature_sets
from genres.audio.clip_features import clip_features
from genres.audio.feature_sets import feature_sets_named
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96
from genres.settings import Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import ranges, results
from genres_dagster.launch import choose_dataset, open_instance, register
from tests.in_process import drain, run_batch, send
from tests.tiny_features import TINY

GENRES = ("blues", "metal", "disco")
CLIPS = 8
DATASET = "several_feature_sets"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def settings(
    stack: Settings, tmp_path_factory: pytest.TempPathFactory, write_clips: Callable[..., None]
) -> Iterator[Settings]:
    """Settings of a dataset of its own; models are trained on two sets of different sample rates, joined."""
    folder = tmp_path_factory.mktemp("several features")
    write_clips(folder, GENRES, CLIPS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(feature_sets.FEATURE_SETS, TINY.name, TINY)
        joined = (feature_sets_named(["librosa96", "tiny"]),)
        monkeypatch.setattr(genre_classifiers, "training_sets", lambda _: joined)
        yield Settings(
            audio=folder,
            dataset=DATASET,
            feature_sets="gtzan57",
            classifiers="LogisticRegression",
            topic="test_several_feature_sets",
            watch_folder=tmp_path_factory.mktemp("several drop"),
            stream_dataset=DATASET,
            settle_s=0.1,
        )


@pytest.fixture(scope="module")
def before(settings: Settings) -> list[str]:
    """Paths of the features of a lake that knew one set."""
    instance, database = open_instance(settings), Database(settings.database)
    database.migrate()
    register(settings, instance, choose_dataset(settings, database, on_notice=print))
    job = build_defs(settings=settings).resolve_job_def("batch_pipeline")
    assets = [dg.AssetKey("raw_audio"), dg.AssetKey("audio_features")]
    assert job.execute_in_process(partition_key=DATASET, instance=instance, asset_selection=assets).success
    return BatchTables(Lake.of(settings), database, DATASET).feature_paths(GTZAN57.feature_version)


@pytest.fixture(scope="module")
def tables(settings: Settings, before: list[str]) -> BatchTables:
    """The dataset's tables, after it was loaded again with three sets, and the whole batch pipeline."""
    return run_batch(settings.model_copy(update={"feature_sets": "gtzan57,librosa96,tiny"}))


def test_sets_lie_side_by_side_and_what_was_there_stays(before: list[str], tables: BatchTables) -> None:
    assert tables.feature_paths(GTZAN57.feature_version) == before != []
    found = {part.name: tables.features(part.feature_version) for part in (GTZAN57, LIBROSA96, TINY)}
    for part in (GTZAN57, LIBROSA96, TINY):
        table = found[part.name]
        assert len(table) == CLIPS * len(GENRES)
        assert set(table.columns) == {"track_id", "genre", "sha256", "length", "feature_version", *part.columns}
        assert set(table["feature_version"]) == {part.feature_version}
        assert set(table["length"]) == {3 * part.sample_rate}
    columns = list(GTZAN57.columns)
    pd.testing.assert_frame_equal(found["gtzan57"][columns], found["librosa96"][columns])


def test_joined_features_are_those_of_each_set(tables: BatchTables) -> None:
    joined = feature_sets_named(["librosa96", "tiny"])
    table = tables.features(joined.feature_version)
    assert set(table.columns) == {"track_id", "genre", "sha256", "length", "feature_version", *joined.columns}
    assert set(table["feature_version"]) == {joined.feature_version}
    clip = tables.accepted().iloc[0]
    data = tables.lake.files.cat_file(clip["path"])
    alone = clip_features(data, file_suffix=".wav", feature_set=joined, max_clip_s=60)
    stored = table[table["track_id"] == clip["track_id"]].iloc[0]
    assert {column: stored[column] for column in joined.columns} == pytest.approx(alone.values)
    assert stored["length"] == alone.length


def test_the_model_and_the_stream_read_the_joined_sets(settings: Settings, tables: BatchTables) -> None:
    version = "librosa96-v1-librosa0.11+tiny-v3-numpy2"
    assert ModelRegistry(settings.tracking_uri).champion(DATASET).feature_version == version
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == CLIPS * len(GENRES)
    assert {row["feature_version"] for row in rows} == {version}

    accepted = tables.accepted()
    send(settings, {Path(path).name: tables.lake.files.cat_file(path) for path in accepted["path"][:3]})
    assert drain(settings.model_copy(update={"drain_quiet_s": 0.5}))
    streamed = results.predictions(tables.database, topic=settings.topic)
    assert {row["sha256"] for row in streamed} == set(accepted["sha256"][:3])
    assert {row["feature_version"] for row in streamed} == {version}
    committed = ranges.history(tables.database, settings.topic, states={"committed"})
    stored = tables.lake.read_table([found.feature_path for found in committed]).to_pandas()
    np.testing.assert_allclose(stored["tiny_seconds"], 3.0, atol=1e-4)
    # The same clip has the same probabilities, whichever way it came.
    batch = {row["sha256"]: row["probability"] for row in rows}
    assert {row["sha256"]: row["probability"] for row in streamed} == pytest.approx(
        {sha256: batch[sha256] for sha256 in accepted["sha256"][:3]}
    )

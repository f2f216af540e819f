"""The feature set ``musicnn`` on real clips: from their files through extraction and training to predictions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from genres.audio.clip_features import clip_features
from genres.audio.musicnn import MUSICNN
from genres.settings import PROJECT_DIR, Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import results
from tests.in_process import drain, run_batch, send

CLIPS = PROJECT_DIR.parent / "shared/data/gtzan/sample_audio"
DATASET = "heard_by_musicnn"

pytestmark = [
    pytest.mark.skipif(MUSICNN.missing() is not None, reason=str(MUSICNN.missing())),
    pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not beside the project"),
]


@pytest.fixture(scope="module")
def settings(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    return Settings(
        audio=CLIPS,
        dataset=DATASET,
        feature_sets=MUSICNN.name,
        topic="test_musicnn",
        watch_folder=tmp_path_factory.mktemp("musicnn drop"),
        stream_dataset=DATASET,
        settle_s=0.1,
    )


@pytest.fixture(scope="module")
def tables(settings: Settings) -> BatchTables:
    """The dataset's tables, after the whole batch pipeline."""
    return run_batch(settings)


def test_spark_computes_what_the_kernel_computes(tables: BatchTables) -> None:
    table = tables.features(MUSICNN.feature_version).set_index("track_id")
    assert len(table) == 30
    assert (table["length"] / MUSICNN.sample_rate).between(29, 31).all()
    clip = tables.accepted().iloc[0]
    data = tables.lake.files.cat_file(clip["path"])
    alone = clip_features(data, file_suffix=".wav", feature_set=MUSICNN, max_clip_s=60)
    stored = table.loc[clip["track_id"]]
    assert {column: stored[column] for column in MUSICNN.columns} == pytest.approx(alone.values, abs=1e-6)


def test_models_are_trained_on_it_and_predict(settings: Settings, tables: BatchTables) -> None:
    champion = ModelRegistry(settings.tracking_uri).champion(DATASET)
    assert champion.feature_version == MUSICNN.feature_version
    rows = predictions.batch_predictions(tables.database, DATASET)
    assert len(rows) == 30
    right = sum(row["predicted_genre"] == row["track_id"].partition(".")[0] for row in rows)
    assert right >= 15, "ten genres, three clips each: guessing finds 3"


def test_the_stream_hears_with_it(settings: Settings, tables: BatchTables) -> None:
    accepted = tables.accepted()
    send(settings, {Path(path).name: tables.lake.files.cat_file(path) for path in accepted["path"][:3]})
    assert drain(settings.model_copy(update={"drain_quiet_s": 0.5}))
    rows = results.predictions(tables.database, topic=settings.topic)
    assert {row["sha256"] for row in rows} == set(accepted["sha256"][:3])
    assert {row["feature_version"] for row in rows} == {MUSICNN.feature_version}

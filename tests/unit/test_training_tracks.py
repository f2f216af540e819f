"""What a model was trained on is known later: from beside it, or from the split with its fingerprint."""

from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem

from genre_assets.training_tracks import dataset_fingerprint, find_split, keep_split, training_tracks, unseen
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_facts import ModelFacts


class Folder(LocalFileSystem):
    """A local folder that stands for HDFS."""

    def rename(self, path: str, to: str) -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)


@pytest.fixture
def tables(tmp_path: Path) -> BatchTables:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    return BatchTables(
        Lake(cast("Any", Folder(auto_mkdir=True)), hdfs="", root=str(tmp_path / "lake")), database, "own"
    )


def split(*parts: str) -> pd.DataFrame:
    rows = [(f"jazz.{number}", "jazz", f"sha{number}", part) for number, part in enumerate(parts)]
    return pd.DataFrame(rows, columns=["track_id", "genre", "sha256", "part"])


def model(fingerprint: str, split_path: str = "") -> ModelFacts:
    return ModelFacts(
        spark_model_path="/v1",
        spark_model_digest="",
        classifier="",
        feature_version="f1",
        is_calibrated=True,
        fingerprint=fingerprint,
        valid_macro_f1=0,
        split_path=split_path,
    )


def test_the_split_of_a_training_is_found_after_another_was_published(tables: BatchTables) -> None:
    old, new = split("train", "valid", "test", "train"), split("train", "train", "test", "valid")
    tables.publish_split(old, run_id="r")
    tables.publish_split(new, run_id="r")
    for table in (old, new):
        found = find_split(tables, fingerprint=dataset_fingerprint(table, "f1"), feature_version="f1")
        assert found is not None
        assert list(found.table["part"]) == list(table["part"])
    assert find_split(tables, fingerprint=dataset_fingerprint(old, "f2"), feature_version="f1") is None


def test_training_tracks_stay_with_the_model_when_the_splits_are_gone(tables: BatchTables) -> None:
    table = split("train", "valid", "test", "train")
    commit = tables.publish_split(table, run_id="r")
    kept = keep_split(tables, table, 7)
    assert "/models/v7-split-" in kept
    without, beside = model(dataset_fingerprint(table, "f1")), model(dataset_fingerprint(table, "f1"), kept)
    for of_model in (without, beside):
        found = training_tracks(of_model, tables)
        assert found is not None and list(found["sha256"]) == ["sha0", "sha3"]
    Path(commit.path).unlink()
    assert training_tracks(without, tables) is None, "of a version of before nobody knows it any more"
    found = training_tracks(beside, tables)
    assert found is not None and list(found["sha256"]) == ["sha0", "sha3"]


def test_neither_names_nor_audio_of_a_training_are_unseen() -> None:
    tracks = split("valid", "valid", "valid", "valid")
    trained = pd.DataFrame({"track_id": ["jazz.0", "other"], "sha256": ["replaced since", "sha2"]})
    assert list(unseen(tracks, trained)["track_id"]) == ["jazz.1", "jazz.3"]

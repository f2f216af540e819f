"""Drift: what is the same distribution is called so whatever the number of clips, and what has moved is found."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import predictions
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import ranges
from streaming_sensors import drift
from streaming_sensors.drift import drift_checks, feature_stability, stability_index, stability_limit
from streaming_sensors.stream import Stream

COLUMNS = list(GTZAN57.columns)
VERSION = GTZAN57.feature_version


def clips(count: int, seed: int, *, moved: float = 0.0, columns: int = 57) -> pd.DataFrame:
    """Draw log-normal features; those of the first columns are moved by so many deviations of their logarithm."""
    values = np.random.default_rng(seed).normal(size=(count, 57))
    values[:, :columns] += moved
    table = pd.DataFrame(np.exp(values), columns=COLUMNS)
    return table.assign(sha256=[f"{seed}-{number}" for number in range(count)])


def test_the_index_is_the_sum_over_bins_by_hand() -> None:
    expected, actual = np.array([49.5, 49.5]), np.array([24.5, 74.5])
    assert stability_index(expected, actual) == pytest.approx(-0.25 * np.log(0.5) + 0.25 * np.log(1.5))
    assert stability_index(expected, expected) == 0


@pytest.mark.parametrize("count", [10, 30, 100, 400])
def test_chance_is_rarely_taken_for_drift(count: int) -> None:
    """With the plain limit of .25 most features of 30 clips would have drifted."""
    training = clips(443, 0)
    shares = []
    for seed in range(1, 9):
        found = feature_stability(clips(count, seed), training, COLUMNS)
        shares.append(np.mean([index > limit for index, limit in found.values()]))
    assert max(shares) <= drift.MOST_DRIFTED / 2
    if count == 30:
        assert np.mean([index > 0.25 for index, _ in found.values()]) > drift.MOST_DRIFTED


@pytest.mark.parametrize("count", [30, 400])
def test_what_moved_has_drifted_and_nothing_else(count: int) -> None:
    found = feature_stability(clips(count, 5, moved=1.5, columns=20), clips(443, 0), COLUMNS)
    drifted = [name for name in COLUMNS if found[name][0] > found[name][1]]
    assert set(COLUMNS[:20]) <= set(drifted)
    assert len(drifted) <= 23


def test_another_spread_with_the_same_mean_is_seen_too() -> None:
    training, stream = clips(443, 0), clips(300, 1)
    column = COLUMNS[2]
    stream[column] = np.exp(np.log(stream[column]) * 0.2)
    index, limit = feature_stability(stream, training, COLUMNS)[column]
    assert index > limit


def test_what_never_varied_in_training_has_no_measure() -> None:
    training, stream = clips(50, 0), clips(50, 1)
    training[COLUMNS[0]], stream[COLUMNS[0]] = 4.0, 5.0
    assert feature_stability(stream, training, COLUMNS)[COLUMNS[0]][0] == 0


def test_fewer_clips_leave_more_to_chance() -> None:
    assert stability_limit(10, 443, 20) > stability_limit(10, 443, 400) > 0.25


class Rig:
    """A stream whose ranges were scored by several models, over tables that are given."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = Stream(Settings(state_dir=tmp_path).streams[0])
        self.training = clips(443, 0).assign(genre="jazz")
        self.of_path: dict[str, pd.DataFrame] = {}
        self.ranges: list[Any] = []
        self.batch: list[dict[str, Any]] = [
            {"sha256": sha256, "part": "train", "predicted_genre": ["jazz", "rock"][number % 2]}
            for number, sha256 in enumerate(self.training["sha256"])
        ]
        self.lake = SimpleNamespace(read_table=self._read)
        monkeypatch.setattr(ranges, "history", lambda database, topic, states, newest: self.ranges)
        monkeypatch.setattr(predictions, "batch_predictions", lambda database, dataset, model_version: self.batch)
        monkeypatch.setattr(BatchTables, "features", lambda tables, version: self.training)

    def _read(self, paths: list[str], *, lists: bool) -> pa.Table:
        assert not lists, "drift is measured without the windows"
        return pa.Table.from_pandas(pd.concat([self.of_path[path] for path in paths]).assign(reason=None))

    def add(self, features: pd.DataFrame, *, version: int = 1, name: str = "genres-own") -> None:
        path = f"/{len(self.ranges)}"
        self.of_path[path] = features
        found = SimpleNamespace(model_name=name, model_version=version, feature_path=path, feature_version=VERSION)
        self.ranges.append(found)

    def check(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        database, lake = cast("Database", None), cast("Lake", self.lake)
        results = drift_checks(pd.DataFrame(rows), self.stream, database, lake, dataset="own")
        return {result.check_name: result for result in results}


def row(genre: str, *, version: int = 1, dataset: str = "own") -> dict[str, Any]:
    return {
        "dataset": dataset,
        "model_name": f"genres-{dataset}",
        "model_version": version,
        "feature_version": VERSION,
        "predicted_genre": genre,
        "predicted_at": datetime(2026, 1, 2, tzinfo=UTC),
    }


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_only_the_newest_models_clips_count(rig: Rig) -> None:
    rig.add(clips(60, 1, moved=3))
    rig.add(clips(60, 2, moved=3), version=2, name="genres-other")
    rig.add(clips(60, 3), version=2)
    rows = [row("jazz"), row("jazz", version=2), row("rock", version=2)]
    assert rig.check(rows)["feature_drift"].passed
    assert "60 clips beside 443" in rig.check(rows)["feature_drift"].metadata["actual"].value
    found = rig.check(rows[:1])["feature_drift"]
    assert not found.passed
    assert found.metadata["drifted_share"].value == 1


def test_rows_of_another_datasets_model_say_nothing(rig: Rig) -> None:
    rig.add(clips(60, 3))
    assert rig.check([row("jazz"), row("ska", version=9, dataset="other")])["feature_drift"].passed
    found = rig.check([row("ska", dataset="other")])
    assert not any(result.passed for result in found.values())
    assert "none of the newest 1 is" in found["prediction_drift"].metadata["actual"].value


def test_only_the_models_own_training_tracks_are_compared_with(rig: Rig) -> None:
    rig.training = pd.concat([rig.training, clips(443, 9, moved=3).assign(genre="jazz")])
    rig.add(clips(60, 3))
    assert rig.check([row("jazz")])["feature_drift"].passed
    rig.batch = []
    assert not rig.check([row("jazz")])["feature_drift"].passed, "without them all of the dataset's tracks stand in"


def test_genres_that_are_predicted_more_often_than_for_the_dataset_are_drift(rig: Rig) -> None:
    rig.add(clips(60, 3))
    even = rig.check([row("jazz"), row("rock")] * 30)["prediction_drift"]
    assert even.passed
    onesided = rig.check([row("jazz")] * 60)["prediction_drift"]
    assert not onesided.passed
    assert onesided.metadata["shares"].value["rock"] == {"dataset": pytest.approx(0.5, abs=0.01), "stream": 0.0}
    rig.batch = []
    assert "materialize batch_predictions" in rig.check([row("jazz")])["prediction_drift"].metadata["actual"].value


def test_nothing_to_compare_is_said(rig: Rig) -> None:
    found = rig.check([row("jazz")])["feature_drift"]
    assert not found.passed and "0 clips" in found.metadata["actual"].value
    assert "drifted_share" not in found.metadata

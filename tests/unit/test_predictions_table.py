"""The prediction table: one row a key for ever, and plain rows back."""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from genre_assets.batch_predictions import by_audio, check_stale
from genres.store import predictions
from genres.store.database import Database
from genres.store.sql import tables


@pytest.fixture
def database(empty_database: Database) -> Database:
    empty_database.migrate()
    return empty_database


def row(track_id: str, **changed: Any) -> dict[str, Any]:
    return {
        "dataset": "mine",
        "track_id": track_id,
        "sha256": "a" * 64,
        "model_version": 1,
        "model_name": "genres-mine",
        "part": "test",
        "genre": "blues",
        "predicted_genre": "metal",
        "probability": 0.75,
        "probabilities": {"blues": 0.25, "metal": 0.75},
        "is_calibrated": True,
        "over_time": {"window_s": 2.992, "genres": ["blues", "metal"], "probabilities": [[0.3, 0.7], [0.2, 0.8]]},
        "is_uncertain": False,
        "distance": 0.5,
        "is_unlike": False,
        "is_synthetic": False,
        "feature_version": "gtzan57-1",
        "run_id": "first",
        "predicted_at": datetime(2026, 1, 2, tzinfo=UTC),
        "stale_since": None,
        **changed,
    }


def test_second_write_of_a_key_changes_nothing(database: Database) -> None:
    assert predictions.add_batch_predictions(database, [row("b"), row("a")]) == 2
    before = predictions.batch_predictions(database)
    assert [stored["track_id"] for stored in before] == ["a", "b"]
    again = [row("a", run_id="second", predicted_genre="blues"), row("c")]
    assert predictions.add_batch_predictions(database, again) == 1
    assert predictions.batch_predictions(database)[:2] == before


def test_what_is_stale_leaves_the_current_view_and_comes_back_with_its_audio(database: Database) -> None:
    rows = [row("a"), row("a", sha256="b" * 64), row("gone"), row("old", sha256=""), row("old gone", sha256="")]
    predictions.add_batch_predictions(database, [*rows, row("a", dataset="yours")])
    now = datetime(2026, 2, 3, tzinfo=UTC)
    audio = {"a": "b" * 64, "old": "c" * 64}
    assert predictions.mark_stale(database, "mine", audio, moment=now) == 3
    later = datetime(2026, 2, 4, tzinfo=UTC)
    assert predictions.mark_stale(database, "mine", audio, moment=later) == 3

    def current(dataset: str = "mine") -> list[tuple[str, str]]:
        return [
            (row["track_id"], row["sha256"][:1])
            for row in predictions.batch_predictions(database, dataset, current=True)
        ]

    assert current() == [("a", "b"), ("old", "")]
    assert current("yours") == [("a", "a")]
    every = predictions.batch_predictions(database, "mine")
    assert len(every) == 5
    assert {row["track_id"]: row["stale_since"] for row in every if row["stale_since"]} == dict.fromkeys(
        ("a", "gone", "old gone"), now
    )
    assert predictions.mark_stale(database, "mine", {**audio, "a": "a" * 64, "gone": "a" * 64}, moment=later) == 2
    assert current() == [("a", "a"), ("gone", "a"), ("old", "")]
    marked = {
        (row["track_id"], row["sha256"][:1]): row["stale_since"] for row in predictions.batch_predictions(database)
    }
    assert marked["a", "b"] == later and marked["old gone", ""] == now


def test_the_champions_answers_are_current(database: Database) -> None:
    rows = [row("a"), row("a", model_version=2), row("a", model_version=3), row("a", dataset="yours", model_version=7)]
    predictions.add_batch_predictions(database, rows)

    def versions() -> dict[str, int]:
        found = predictions.batch_predictions(database, current=True)
        return {row["dataset"]: row["model_version"] for row in found}

    assert versions() == {"mine": 3, "yours": 7}
    for champion, shown in ((1, 1), (2, 2), (1, 1), (4, 1)):  # the fourth has predicted nothing yet
        with database.writing() as connection:
            change = {"dataset": "mine", "model_name": "genres-mine", "model_version": champion, "action": "promote"}
            who = {"changed_by": "me", "why": "", "changed_at": datetime(2026, 1, 2, tzinfo=UTC)}
            connection.execute(tables.CHAMPION_CHANGES.insert(), [{**change, **who}])
        assert versions() == {"mine": shown, "yours": 7}


def test_versions_and_datasets_stand_side_by_side(database: Database) -> None:
    rows = [row("a"), row("a", model_version=2), row("a", dataset="yours")]
    assert predictions.add_batch_predictions(database, rows) == 3
    assert len(predictions.batch_predictions(database)) == 3
    assert len(predictions.batch_predictions(database, "mine")) == 2
    (newer,) = predictions.batch_predictions(database, "mine", model_version=2)
    assert newer["model_version"] == 2
    assert predictions.batch_predictions(database, "nobody's") == []


def test_replaced_audio_has_a_row_of_its_own(database: Database) -> None:
    before, after, unknown = row("a"), row("a", sha256="b" * 64), row("a", sha256="")
    for _ in range(2):
        predictions.add_batch_predictions(database, [before, after, unknown, row("gone")])
    stored = predictions.batch_predictions(database, "mine", model_version=1)
    assert [found["sha256"] for found in stored] == ["", "a" * 64, "b" * 64, "a" * 64]
    current, stale, of_unknown = by_audio(stored, {"a": "b" * 64})
    assert [found["sha256"] for found in current] == ["b" * 64]
    assert [found["track_id"] for found in stale] == ["a", "gone"]
    assert [found["sha256"] for found in of_unknown] == [""]
    failed, passed = (check_stale(rows, dataset="own") for rows in (stale, of_unknown[:0]))
    assert (failed.passed, failed.severity, passed.passed) == (False, dg.AssetCheckSeverity.WARN, True)
    assert failed.metadata["actual"].value.startswith("2 rows are of audio that was replaced")


def test_rows_come_back_as_they_went_in(database: Database) -> None:
    predictions.add_batch_predictions(database, [row("a")])
    (stored,) = predictions.batch_predictions(database)
    given = row("a")
    assert {key: stored[key] for key in given if key != "predicted_at"} == {
        key: value for key, value in given.items() if key != "predicted_at"
    }
    assert json.loads(json.dumps(stored, default=str)) | {"predicted_at": None} == given | {"predicted_at": None}


def test_no_rows_are_no_rows(database: Database) -> None:
    assert predictions.add_batch_predictions(database, []) == 0
    assert predictions.batch_predictions(database) == []


def test_a_row_without_its_model_is_refused_whole(database: Database) -> None:
    with pytest.raises(Exception, match=r"(?i)not.null"):
        predictions.add_batch_predictions(database, [row("a"), row("b", model_name=None)])
    assert predictions.batch_predictions(database) == []

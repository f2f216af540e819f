"""Rows of windows beside those of clips, and what is gathered of their answers."""

from typing import Any

import pyarrow as pa

from genres.audio.feature_set import WINDOW_S
from spark.over_time import WINDOW, over_time, window_rows
from tests.window_rows import windows_of_two_sets


def test_rows_of_windows_follow_those_of_clips() -> None:
    table, joined, expected = windows_of_two_sets()
    found = window_rows(table, joined, keep=["clip"])
    assert found.schema.names == ["clip", WINDOW, "a", "b", "c"]
    assert [tuple(row.values()) for row in found.to_pylist()] == expected
    # However the table is cut into pieces, and wherever it begins.
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert window_rows(pieces, joined, keep=["clip"]).equals(found)
    last = window_rows(table.slice(1), joined, keep=["clip"])
    assert [tuple(row.values()) for row in last.to_pylist()] == [row for row in expected if row[0] != "y"]


def test_features_of_before_are_rows_of_clips_alone() -> None:
    table, joined, expected = windows_of_two_sets()
    for lacking in (["windows_one"], ["windows_other"], ["windows_one", "windows_other"]):
        found = window_rows(table.drop_columns(lacking), joined, keep=["clip"])
        assert [tuple(row.values()) for row in found.to_pylist()] == expected[:3]


def test_no_clips_are_no_rows() -> None:
    table, joined, _ = windows_of_two_sets()
    assert len(window_rows(table.slice(0, 0), joined, keep=["clip"])) == 0
    assert len(window_rows(table.schema.empty_table(), joined, keep=["clip"])) == 0


def test_answers_are_gathered_in_the_windows_order_whatever_order_they_come_in() -> None:
    def answer(clip: str, window: int | None, *probabilities: float) -> Any:
        return {"clip": clip, WINDOW: window, "probabilities": list(probabilities)}

    scored = [answer("b", 1, 0.25, 0.75), answer("a", None, 0.5, 0.5), answer("a", 0, 1, 0), answer("b", None, 1, 0)]
    scored += [answer("b", 0, 0.12345, 0.87655), answer("c", None, 0.5, 0.5)]
    about = {"window_s": WINDOW_S, "hop_s": WINDOW_S, "start_s": 0.0, "genres": ["jazz", "rock"]}
    assert over_time(scored, ["jazz", "rock"], keep=["clip"]) == {
        ("a",): about | {"probabilities": [[1, 0]]},
        ("b",): about | {"probabilities": [[0.123, 0.877], [0.25, 0.75]]},
    }

"""The comparison of candidates: what is learnt from and what is judged, the choice, and what is said with it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from genre_assets.genre_classifiers import best_figures, ties
from spark.calibration import tempered
from spark.classifiers import Scale
from spark.comparison import Judged, Trial, _add_calibrated, _Round, foreign_scales, ranked
from spark.evaluation import Answers


def trial(parts: list[str | None]) -> Trial:
    return Trial(pd.Series(parts), [number % 3 for number in range(len(parts))])


def test_no_round_learns_from_the_test_part_or_judges_what_it_learnt_from() -> None:
    rounds = trial(["train"] * 6 + ["valid"] * 3 + ["test"] * 4).rounds()
    assert list(rounds) == ["fold 1", "fold 2", "fold 3", "valid", "test"]
    for name, (learnt, judged) in rounds.items():
        assert not (learnt & judged).any()
        assert not learnt[9:].any()
        assert judged[9:].all() == judged[9:].any() == (name == "test")
    assert list(rounds["valid"][0].nonzero()[0]) == list(range(6))
    in_folds = sum(rounds[f"fold {number}"][1].astype(int) for number in (1, 2, 3))
    assert list(in_folds) == [1] * 9 + [0] * 4


def test_a_part_without_rows_has_no_round() -> None:
    assert list(trial(["train"] * 6).rounds()) == ["fold 1", "fold 2", "fold 3"]
    assert list(trial(["train"] * 6 + ["test"]).rounds())[-1] == "test"


def judged(name: str, right: int, *, sure: float = 0.9, n: int = 40) -> Judged:
    one = Judged(name, is_baseline=False, has_probabilities=True)
    true = np.zeros(n, dtype=np.int64)
    answers = np.where(np.arange(n)[:, None] < right, [sure, 1 - sure], [1 - sure, sure])
    for part in ("cv", "valid", "test"):
        one.add(part, true, answers, np.arange(n))
    return one


def test_the_best_in_cross_validation_is_chosen_whatever_the_test_part_says() -> None:
    better, worse = judged("B", 30), judged("A", 10)
    worse.probabilities["test"] = [np.tile([1.0, 0.0], (40, 1))]
    rows, notices = ranked([worse, better], [])
    assert [(row["model"], row["chosen"]) for row in rows] == [("B", True), ("A", False)]
    assert rows[1]["test_accuracy"] == 1.0
    assert notices == []


def test_a_tie_is_named_and_the_least_log_loss_decides() -> None:
    rows, notices = ranked([judged("A", 20, sure=0.99), judged("B", 20, sure=0.6), judged("C", 5)], [])
    assert [row["model"] for row in rows if row["chosen"]] == ["B"]
    assert notices[0].startswith("tie: equally many of 40 answers are right in cross-validation; the least log-loss")
    assert "B 0.714, A 2.308" in notices[0]
    assert notices[1] == "not told apart from B by 40 cross-validated answers: A"


def test_the_assets_ties_are_named_too() -> None:
    scores = {name: {"valid_macro_f1": f1, "valid_log_loss": loss} for name, f1, loss in [("A", 0.5, 2), ("B", 0.5, 1)]}
    assert ties(scores) == "tie at validation macro-F1 0.500; the least log-loss decides: B 1.000, A 2.000"
    assert ties({**scores, "C": {"valid_macro_f1": 0.6, "valid_log_loss": 9.0}}) == ""


def test_the_best_candidates_figures_are_numbers_that_dagster_draws() -> None:
    names = ("valid_macro_f1", "valid_log_loss", "valid_accuracy", "test_macro_f1", "test_accuracy")
    rows = {"A": (0.5, 2.0, 0.6, 0.3, 0.4), "B": (0.5, 1.0, 0.7, 0.2, 0.1), "C": (0.4, 0.1, 0.9, 0.9, 0.9)}
    found = best_figures({name: dict(zip(names, values, strict=True)) for name, values in rows.items()})
    assert found.pop("best") == "B", "of equals the one with the least log-loss, as it is the one that is registered"
    assert found == {f"best_{name}": value for name, value in zip(names, rows["B"], strict=True)}


def test_few_clips_mean_little() -> None:
    rows, notices = ranked([judged("A", 9, n=12)], [])
    assert notices == [
        f"{part} has 12 clips: below 30 its figures mean little"
        for part in ("cross-validation", "the validation part", "the test part")
    ]
    assert {rows[0][f"{part}_n"] for part in ("cv", "valid", "test")} == {12}


def test_what_a_part_without_rows_says_is_nothing() -> None:
    one = Judged("A", is_baseline=False, has_probabilities=True)
    one.add("cv", np.zeros(40, dtype=np.int64), np.tile([0.9, 0.1], (40, 1)), np.arange(40))
    (row,), _ = ranked([one], [])
    assert row["test_accuracy"] is row["test_accuracy_ci"] is row["valid_macro_f1"] is None
    assert row["test_n"] == 0


@pytest.fixture
def values() -> Any:
    random = np.random.default_rng(1)
    return np.column_stack([random.normal(3, 2, 60), np.exp(random.normal(size=60)), np.full(60, 5.0)])


COLUMNS = ("tempo", "mfcc1_var", "same")


def scales_of(values: Any) -> tuple[Scale, ...]:
    logs = np.log(values[:, 1] + 1e-9)
    return (
        Scale(values[:, 0].mean(), values[:, 0].std(ddof=1), offset=None),
        Scale(logs.mean(), logs.std(ddof=1), offset=1e-9),
        Scale(5.0, 0.0, offset=None),
    )


def test_scales_of_other_rows_than_those_learnt_from_are_a_leak(values: Any) -> None:
    learnt = values[:40]
    assert not foreign_scales(scales_of(learnt), learnt, COLUMNS)
    assert foreign_scales(scales_of(values), learnt, COLUMNS), "fitted with the rows that are judged"
    assert foreign_scales(scales_of(values[:39]), learnt, COLUMNS)


def test_candidates_are_judged_by_calibrated_probabilities() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(900, 4))
    true = np.array([random.choice(4, p=share) for share in tempered(logits, 1.0)])
    scores, places = 5 * logits, np.arange(900)
    known = places < 600
    folds = [_Round(0, f"fold {n + 1}", known & (places % 3 != n), known & (places % 3 == n)) for n in range(3)]
    rounds = [*folds, _Round(0, "test", known, ~known)]
    one = Judged("A", is_baseline=False, has_probabilities=True)
    _add_calibrated(one, [(each, scores[each.held_out]) for each in rounds], true, places)
    assert one.temperatures == [pytest.approx(5, rel=0.15)]
    figures = one.figures("test")
    raw = Answers(true[600:], tempered(scores[600:], 1.0))
    assert figures["test_accuracy"] == raw.accuracy
    assert figures["test_ece"] < 0.05 < 0.1 < raw.calibration_error()
    assert one.figures("cv")["cv_n"] == 600

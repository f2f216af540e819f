"""The champion: better than always answering the same, and fairly better than what there is; a tie changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from genre_assets.promotion import Answers, Comparison, calibration_error, compare, f1_by_genre, judge

BETTER = Comparison(100, 0.8, 0.7, 0.97, {"jazz": -0.2, "rock": 0.0}, ece=0.08, champion_ece=0.06)
GENRES = ("jazz", "metal", "rock")


def against(present: float | None, f1: float) -> Comparison | None:
    """A comparison in which nothing but macro-F1 matters."""
    if present is None:
        return None
    return replace(BETTER, macro_f1=f1, champion_macro_f1=present, better_share=float(f1 > present))


@pytest.mark.parametrize(
    ("f1", "baseline", "present", "wins"),
    [
        (0.8, 0.1, None, True),
        (0.1, 0.1, None, False),
        (0.05, 0.1, None, False),
        (0.8, 0.1, 0.7, True),
        (0.8, 0.1, 0.8, False),
        (0.8, 0.1, 0.9, False),
        (0.1, 0.1, 0.05, False),
        (0.0, 0.0, None, False),
    ],
)
def test_who_becomes_champion(f1: float, baseline: float, present: float | None, wins: bool) -> None:
    verdict = judge(valid_macro_f1=f1, baseline=baseline, comparison=against(present, f1))
    assert verdict.is_champion is wins
    assert f"{f1:.3f}" in verdict.why
    assert "\n" not in verdict.why


def test_the_reason_names_what_was_not_beaten() -> None:
    def why(f1: float, present: float) -> str:
        return judge(valid_macro_f1=f1, baseline=0.2, comparison=against(present, f1)).why

    assert "majority baseline's 0.200" in why(0.1, 0.05)
    assert "present champion's 0.900" in why(0.8, 0.9)
    assert why(0.8, 0.7) == (
        "validation macro-F1 0.800 beats the majority baseline's 0.200 and the present champion's 0.700"
    )


@pytest.mark.parametrize(
    ("change", "condition", "told"),
    [
        ({"better_share": 0.89}, "macro_f1", "in only 89.0% of 2000 resamples"),
        ({"lost": {"jazz": 0.151, "rock": 0.15}}, "genres", "F1 of genres falls by more than 0.15: jazz by 0.15"),
        ({"ece": 0.111}, "calibration", "calibration error 0.111 is more than 0.05 above the present champion's 0.060"),
        ({"new_genres": ("disco",)}, "label_set", "it adds disco"),
        ({"missing_genres": ("disco",), "new_genres": ("metal",)}, "label_set", "it adds metal and lacks disco"),
    ],
)
def test_each_condition_refuses_alone(change: dict[str, object], condition: str, told: str) -> None:
    assert judge(valid_macro_f1=0.8, baseline=0.1, comparison=BETTER).is_champion
    verdict = judge(valid_macro_f1=0.8, baseline=0.1, comparison=replace(BETTER, **change))  # type: ignore[arg-type]
    assert not verdict.is_champion
    assert [failed.name for failed in verdict.conditions if not failed.passed] == [condition]
    assert told in verdict.why


def test_the_limits_themselves_are_allowed() -> None:
    limits = replace(BETTER, better_share=0.9, lost={"jazz": 0.15}, ece=0.11)
    assert judge(valid_macro_f1=0.8, baseline=0.1, comparison=limits).is_champion


def test_every_reason_is_said() -> None:
    verdict = judge(valid_macro_f1=0.8, baseline=0.1, comparison=replace(BETTER, better_share=0.5, new_genres=("ska",)))
    assert "in only 50.0%" in verdict.why and "it adds ska" in verdict.why


@pytest.mark.parametrize(("tracks", "little"), [(1, True), (29, True), (30, False)])
def test_the_number_of_tracks_is_said_and_that_few_say_little(tracks: int, little: bool) -> None:
    verdict = judge(valid_macro_f1=0.8, baseline=0.1, comparison=replace(BETTER, tracks=tracks))
    assert verdict.reason.startswith(f"on {tracks} validation track")
    assert "that neither model was trained on" in verdict.reason
    assert ("says little" in verdict.reason) is little
    assert ("says little" in judge(valid_macro_f1=1, baseline=0, comparison=None, tracks=tracks).reason) is little


def test_without_an_unseen_track_the_champion_stays() -> None:
    nothing = compare([], *[Answers(GENRES, np.empty((0, 3)))] * 2)
    assert nothing.tracks == 0
    verdict = judge(valid_macro_f1=0.9, baseline=0.1, comparison=nothing)
    assert not verdict.is_champion
    assert "no validation track that neither was trained on" in verdict.reason
    assert "the present champion stays" in verdict.reason and "genres models promote" in verdict.reason


def test_the_first_champion_has_no_rival_and_says_so() -> None:
    verdict = judge(valid_macro_f1=0.9, baseline=0.1, comparison=None, tracks=50, no_rival="there is no champion yet")
    assert verdict.is_champion and verdict.reason.endswith("baseline's 0.100; there is no champion yet")


def answers(predicted: list[str], confidence: float = 0.8) -> Answers:
    rest = (1 - confidence) / (len(GENRES) - 1)
    return Answers(GENRES, np.array([[confidence if g == genre else rest for g in GENRES] for genre in predicted]))


TRUTH = ["jazz", "metal", "rock"] * 20


def with_errors(errors: int) -> list[str]:
    """The truth, but for the first tracks, which are all called by the next genre's name."""
    return [GENRES[(GENRES.index(genre) + (number < errors)) % 3] for number, genre in enumerate(TRUTH)]


def test_figures_of_a_comparison_are_those_of_scikit_learn() -> None:
    new, old = with_errors(7), with_errors(18)
    found = compare(TRUTH, answers(new), answers(old))
    assert found.tracks == 60
    assert found.macro_f1 == pytest.approx(f1_score(TRUTH, new, average="macro"))
    assert found.champion_macro_f1 == pytest.approx(f1_score(TRUTH, old, average="macro"))
    by_genre = f1_score(TRUTH, old, average=None) - f1_score(TRUTH, new, average=None)
    assert found.lost == pytest.approx(dict(zip(GENRES, by_genre, strict=True)))


def test_the_resamples_tell_a_clear_gain_from_a_track_or_two() -> None:
    assert compare(TRUTH, answers(with_errors(5)), answers(with_errors(25))).better_share > 0.99
    assert compare(TRUTH, answers(with_errors(25)), answers(with_errors(5))).better_share < 0.01
    assert 0.5 < compare(TRUTH, answers(with_errors(14)), answers(with_errors(15))).better_share < 0.9
    assert compare(TRUTH, answers(with_errors(5)), answers(with_errors(5))).better_share == 0


def test_a_genre_that_was_given_up_is_seen() -> None:
    given_up = ["jazz" if genre == "rock" else genre for genre in TRUTH]
    assert compare(TRUTH, answers(given_up), answers(TRUTH)).lost["rock"] == 1


def test_a_weighting_is_the_same_as_repeating_tracks() -> None:
    predicted = with_errors(9)
    weights = np.random.default_rng(3).integers(0, 4, size=(1, len(TRUTH)))
    times = weights[0]
    repeated = f1_score(np.repeat(TRUTH, times), np.repeat(predicted, times), average=None, labels=GENRES)
    np.testing.assert_allclose(f1_by_genre(TRUTH, predicted, GENRES, weights)[0], repeated)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    right_in_half = with_errors(30)
    assert calibration_error(TRUTH, answers(right_in_half, 0.9)) == pytest.approx(0.4)
    assert calibration_error(TRUTH, answers(right_in_half, 0.5)) == pytest.approx(0)
    # Over- and under-confidence in two bins add up; they do not make up for each other.
    mixed = Answers(GENRES, np.array([[0.95, 0.03, 0.02], [0.4, 0.3, 0.3]]))
    assert calibration_error(["rock", "jazz"], mixed) == pytest.approx((0.95 + 0.6) / 2)

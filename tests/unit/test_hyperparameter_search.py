"""The search for hyperparameters: its points, what is taken and what chance alone would have chosen."""

from collections.abc import Sequence

import pytest

from genre_assets.hyperparameter_search import Trial, best_of, choose_points, grid_figure, grid_trials, is_better
from genre_assets.training_config import with_found
from spark.classifiers import CANDIDATES, LogisticRegression, WhitenedLogisticRegression

TRACKS = [f"track {number:03}" for number in range(200)]
ALONE = {track: track for track in TRACKS}


def trial(
    regularisation: float,
    right: Sequence[bool],
    *,
    loss: float = 1.0,
    is_default: bool = False,
    is_complete: bool = True,
) -> Trial:
    answers = dict(zip(TRACKS, right, strict=False))
    return Trial(
        LogisticRegression(regParam=regularisation),
        "some-1",
        is_default,
        answers,
        dict.fromkeys(answers, loss),
        is_complete,
    )


@pytest.mark.parametrize("candidate", [one for one in CANDIDATES if one.grid], ids=lambda one: one.name)
def test_a_grid_has_the_default_once_and_first_and_names_real_hyperparameters(candidate: LogisticRegression) -> None:
    trials = grid_trials(candidate, "some-1")
    assert trials[0].candidate == candidate
    assert [one.is_default for one in trials] == [True] + [False] * (len(trials) - 1)
    assert len({str(one.candidate) for one in trials}) == len(trials) > 2
    assert len({one.point for one in trials}) == len(trials)
    assert set(candidate.grid) <= set(type(candidate).model_fields)
    for one in trials:  # the grid's values are of the types that the launchpad would take
        assert type(candidate).model_validate(one.candidate.model_dump()) == one.candidate


def test_a_point_is_taken_if_it_is_told_apart_from_the_default() -> None:
    default = trial(0.02, [True] * 100 + [False] * 100, is_default=True)
    better = trial(0.05, [True] * 150 + [False] * 50)
    assert choose_points([default, better, trial(0.1, [False] * 200)], ALONE) == {
        "some-1": {"LogisticRegression": {"regParam": 0.05}}
    }


def test_the_default_stays_where_chance_may_have_chosen() -> None:
    default = trial(0.02, [True] * 100 + [False] * 100, is_default=True)
    assert choose_points([default, trial(0.05, [True] * 101 + [False] * 99)], ALONE) == {}
    assert choose_points([default, trial(0.05, [False] * 200)], ALONE) == {}


def test_whole_songs_are_drawn_so_that_the_parts_of_one_song_prove_nothing() -> None:
    default = trial(0.02, [True] * 100 + [False] * 100, is_default=True)
    better = trial(0.05, [True] * 150 + [False] * 50)
    one_song_makes_the_difference = ALONE | dict.fromkeys(TRACKS[100:150], "a song of fifty parts")
    assert choose_points([default, better], one_song_makes_the_difference) == {}


def test_what_was_stopped_early_is_neither_taken_nor_a_rival() -> None:
    default = trial(0.02, [True] * 100 + [False] * 100, is_default=True)
    stopped = trial(0.05, [True] * 40, is_complete=False)
    assert best_of([default, stopped]) is default
    assert choose_points([default, stopped], ALONE) == {}
    assert choose_points([trial(0.02, [], is_default=True, is_complete=False)], ALONE) == {}


def test_of_equals_the_least_log_loss_is_the_best() -> None:
    sure, unsure = (trial(regularisation, [True] * 10, loss=loss) for regularisation, loss in ((0.05, 0.2), (0.1, 0.9)))
    assert best_of([unsure, sure]) is sure
    assert best_of([]) is None


def test_trials_are_compared_on_the_tracks_that_both_answered() -> None:
    whole = trial(0.02, [True] * 100 + [False] * 100)
    begun = trial(0.05, [False] * 50)
    assert is_better(whole, begun, ALONE)
    assert not is_better(begun, whole, ALONE)
    assert not is_better(whole, trial(0.1, []), ALONE)


def test_candidates_and_feature_sets_have_a_search_of_their_own() -> None:
    bad, good = [True] * 50 + [False] * 150, [True] * 150 + [False] * 50
    other = trial(0.05, good)
    other.feature_version = "other-1"
    whitened = trial(0.05, good)
    whitened.candidate = WhitenedLogisticRegression()
    assert choose_points([trial(0.02, bad, is_default=True), other, whitened], ALONE) == {}


def test_somebodys_own_value_is_left_as_it_is_set() -> None:
    found = {"regParam": 0.1, "whitening": 0.7, "ofAnOlderVersion": 3.0}
    taken = with_found(WhitenedLogisticRegression(), found)
    assert taken == WhitenedLogisticRegression(regParam=0.1, whitening=0.7)
    own = with_found(WhitenedLogisticRegression(regParam=0.02), found)
    assert own == WhitenedLogisticRegression(regParam=0.02, whitening=0.7)
    assert with_found(LogisticRegression(), {}) == LogisticRegression()


def test_the_figure_shows_every_point_that_was_tried() -> None:
    tried = [trial(0.02, [True, False], is_default=True), trial(0.05, [True], is_complete=False)]
    figure = grid_figure([*tried, trial(0.1, [])], data="synthetic sound")
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "LogisticRegression\nregParam 0.05",
        "LogisticRegression\nregParam 0.02",
    ]
    assert "n = 2" in figure.get_suptitle()

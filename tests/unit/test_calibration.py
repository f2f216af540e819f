"""Temperatures, thresholds and folds of ``calibrated_classifier``, against what plain NumPy and the definitions say."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from genre_assets.calibrated_classifier import _distances, sets_to_read, sound_columns
from genre_assets.training_rows import folds_of_any_genre, song_folds
from genres.audio.feature_set import JoinedFeatureSets
from genres.audio.feature_sets import FEATURE_SETS
from genres.audio.gtzan57 import GTZAN57
from genres.audio.librosa96 import LIBROSA96
from genres.audio.musicnn import MUSICNN
from genres.datasets.split import songs_of
from genres.store.ledger import Dataset
from genres.store.model_facts import RegisteredModel
from spark.calibration import HeldOutScores, cautious_temperature, coverage, fit_temperature, tempered
from spark.classifiers import CANDIDATES, rebuilt
from spark.evaluation import Answers
from spark.scoring import Scorer


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Scores that are so many times too large, and genres that are as likely as the right ones say."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(n, 5))
    shares = tempered(logits, 1.0)
    true = np.array([random.choice(5, p=share) for share in shares])
    return temperature * logits, true


@pytest.mark.parametrize("temperature", [0.02, 1.0, 3.0, 400.0])
def test_a_temperature_that_was_put_in_comes_out(temperature: float) -> None:
    scores, true = drawn(4000, temperature)
    assert fit_temperature(scores, true) == pytest.approx(temperature, rel=0.05)


def test_no_temperature_of_a_grid_has_a_smaller_log_loss() -> None:
    scores, true = drawn(2000, 2.5, seed=1)
    found = fit_temperature(scores, true)
    losses = {t: log_loss(true, tempered(scores, t)) for t in np.geomspace(0.5, 10, 200)}
    assert log_loss(true, tempered(scores, found)) <= min(losses.values()) + 1e-5
    assert found == pytest.approx(min(losses, key=losses.__getitem__), rel=0.02)


def test_calibrated_answers_are_right_as_often_as_they_say() -> None:
    scores, true = drawn(4000, 6.0, seed=2)
    half = len(true) // 2
    found = fit_temperature(scores[:half], true[:half])
    before, after = (Answers(true[half:], tempered(scores[half:], t)).calibration_error() for t in (1.0, found))
    assert after < 0.03 < 0.2 < before


@given(arrays(float, (7, 4), elements=st.floats(-50, 50)), st.floats(1e-3, 1e3))
def test_the_order_of_the_genres_never_changes(scores: npt.NDArray[np.float64], temperature: float) -> None:
    found = tempered(scores, temperature)
    for before, after in zip(scores, found, strict=True):
        falling = after[np.argsort(-before, kind="stable")]
        assert (np.diff(falling) <= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("n", [5, 40])
def test_a_few_answers_that_are_all_right_are_not_sure_of_everything(n: int) -> None:
    true = np.arange(n) % 3
    scores = 100 * np.eye(3)[true]
    said = tempered(scores, fit_temperature(scores, true)).max(axis=1)
    assert (said > 0.9).all() if n > 10 else (said > 0.6).all()
    assert (said < 1 - 0.3 / (n + 1)).all()


def test_genres_that_a_fold_did_not_know_tell_nothing() -> None:
    scores, true = drawn(1000, 2.0, seed=3)
    known = fit_temperature(scores, true)
    lacking = np.vstack([scores, np.full((50, 5), -np.inf)])
    lacking[1000:, 0] = 1.0
    assert fit_temperature(lacking, np.append(true, np.full(50, 4))) == pytest.approx(known)
    assert np.isfinite(fit_temperature(np.where(np.arange(5) == 4, -np.inf, scores)[true < 4], true[true < 4]))
    assert fit_temperature(np.full((3, 2), -np.inf), np.zeros(3, dtype=np.int64)) == 1.0


def test_where_folds_flatter_the_validation_part_is_believed() -> None:
    honest, flattering = HeldOutScores(*drawn(400, 3.0)), HeldOutScores(*drawn(1000, 1.5, seed=1))
    assert cautious_temperature(flattering, honest) == ("validation", fit_temperature(*honest))
    assert cautious_temperature(honest, flattering) == ("out-of-fold", fit_temperature(*honest))
    few = HeldOutScores(honest.scores[:29], honest.true[:29])
    assert cautious_temperature(flattering, few) == cautious_temperature(flattering, None)
    assert cautious_temperature(flattering, few)[0] == "out-of-fold"


def answers_with(said: list[float], right: list[bool]) -> Answers:
    probabilities = np.array([[share, 1 - share] for share in said])
    return Answers(np.array([0 if one else 1 for one in right]), probabilities)


probability = st.sampled_from([0.5, 0.6, 0.6, 0.7, 0.85, 0.9, 0.99])


@given(st.lists(st.tuples(probability, st.booleans()), min_size=1, max_size=30), st.sampled_from([0.5, 0.8, 1.0]))
def test_the_threshold_is_the_smallest_that_is_right_often_enough(
    rows: list[tuple[float, bool]], wanted: float
) -> None:
    curve = coverage(answers_with([said for said, _ in rows], [right for _, right in rows]))

    def above(threshold: float) -> list[bool]:
        return [right for said, right in rows if said >= threshold]

    enough = [said for said, _ in rows if np.mean(above(said)) >= wanted]
    found = curve.certain_from(wanted)
    assert found == (min(enough) if enough else math.inf)
    share, accuracy = curve.at(found)
    assert share == pytest.approx(len(above(found)) / len(rows))
    assert accuracy == (pytest.approx(np.mean(above(found))) if enough else 0.0)
    assert curve.share[-1] == 1


def tracks_of_songs() -> pd.DataFrame:
    """Three parts of each of eight songs of two genres, and tracks that are no parts of one."""
    rows = [
        (f"{genre}.{song:05}.{part}", genre) for genre in ("blues", "rock") for song in range(8) for part in range(3)
    ]
    return pd.DataFrame([*rows, *((f"jazz.{number:05}", "jazz") for number in range(9))], columns=["track_id", "genre"])


def test_no_song_is_learnt_from_and_asked_about() -> None:
    tracks = tracks_of_songs()
    folds = song_folds(tracks)
    assert len(set(folds)) == 3
    sides = tracks.assign(song=tracks["track_id"].map(songs_of(tracks)), fold=folds)
    assert sides["song"].nunique() == 16 + 9
    assert sides.groupby("song")["fold"].nunique().max() == 1
    assert tracks.assign(fold=folds).groupby("genre")["fold"].nunique().min() == 3
    assert song_folds(tracks.sample(frac=1, random_state=1).sort_values("track_id", ignore_index=True)) == song_folds(
        tracks.sort_values("track_id", ignore_index=True)
    )


def test_many_tracks_have_five_folds_and_single_ones_none() -> None:
    many = pd.DataFrame({"track_id": [f"{number}" for number in range(120)], "genre": ["jazz", "rock"] * 60})
    assert len(set(song_folds(many))) == 5
    single = pd.DataFrame({"track_id": ["a", "b", "c"], "genre": ["blues", "jazz", "rock"]})
    assert song_folds(single) == [0, 0, 0]
    assert sorted(folds_of_any_genre(single)) == [0, 1, 2], "sounds need no second track of a genre"


def sounding(n: int) -> pd.DataFrame:
    """Training tracks with features."""
    values = np.random.default_rng(n).normal(size=(n, len(GTZAN57.columns)))
    return pd.DataFrame(values, columns=list(GTZAN57.columns))


@pytest.mark.parametrize(
    ("folds", "judged"), [([0, 1, 2], 0), ([0, 0, 1, 1], 0), ([0, 0, 0, 1, 1], 2), ([0, 1, 2, 0, 1, 2], 6)]
)
def test_distances_of_a_handful_of_tracks_are_numbers_or_unknown(folds: list[int], judged: int) -> None:
    """Of three tracks, and of four in two folds, each fold leaves two, which say nothing; of five, one leaves three."""
    tracks = sounding(len(folds))
    found = _distances(tracks, tracks[:0], GTZAN57.columns, folds)
    if not judged:
        assert found is None
        return
    assert found is not None
    assert 0 < found.learnt.threshold < math.inf
    assert len(found.held_out) == judged and found.held_out.min() > 0


def test_where_tracks_that_were_held_out_are_as_the_mean_is_no_distance_is_the_unit() -> None:
    tracks = sounding(7)
    values = tracks[list(GTZAN57.columns)].to_numpy()
    tracks[list(GTZAN57.columns)] = [values[0], -values[0], values[1], -values[1], *np.zeros((3, 57))]
    assert _distances(tracks, tracks[:0], GTZAN57.columns, [0, 0, 0, 0, 1, 1, 1]) is None


def test_a_candidate_is_rebuilt_from_its_runs_parameters() -> None:
    for candidate in CANDIDATES:
        changed = candidate.model_copy(update={"seed": 7} if "seed" in type(candidate).model_fields else {})
        logged = {"classifier": candidate.name, "genres": "10", **{k: str(v) for k, v in changed.model_dump().items()}}
        assert rebuilt(logged) == changed
        assert type(rebuilt(logged)) is type(candidate)


def dataset(*feature_sets: str) -> Dataset:
    return Dataset("own", Path("own"), is_synthetic=False, feature_sets=feature_sets)


def test_what_a_network_hears_gets_measured_sound_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = replace(MUSICNN, missing=lambda: None)
    monkeypatch.setitem(FEATURE_SETS, "musicnn", network)
    beside = sets_to_read(network, dataset("gtzan57", "librosa96", "musicnn"))
    assert [part.name for part in beside.parts] == ["librosa96", "musicnn"]
    assert sound_columns(beside) == LIBROSA96.columns
    assert sets_to_read(network, dataset("musicnn")) == network
    assert sound_columns(network) == ()
    assert sets_to_read(GTZAN57, dataset("gtzan57", "librosa96")) == GTZAN57
    joined = JoinedFeatureSets((LIBROSA96, network))
    assert sets_to_read(joined, dataset("librosa96", "musicnn")) == joined
    assert sound_columns(joined) == LIBROSA96.columns


@pytest.mark.parametrize(
    ("certain_from", "distance", "uncertain", "unlike"),
    [
        (None, None, None, None),
        (0.7, 0.5, False, False),
        (0.75, 1.0, False, False),
        (0.76, 1.01, True, True),
        (math.inf, 3.0, True, True),
    ],
)
def test_rows_say_what_is_uncertain_and_what_is_unlike(
    certain_from: float | None, distance: float | None, uncertain: bool | None, unlike: bool | None
) -> None:
    model = RegisteredModel(
        **{"name": "genres-own", "version": 2, "run_id": "r", "spark_model_path": "/v2", "spark_model_digest": ""},
        **{"classifier": "", "feature_version": "f", "is_calibrated": True, "fingerprint": "", "valid_macro_f1": 0},
        certain_from=certain_from,
    )
    answer = {"predicted_genre": "jazz", "probabilities": [0.75, 0.25], "distance": distance}
    row = {"track_id": "a", **answer, "window": None}
    scorer: Any = Scorer.__new__(Scorer)
    scorer.model, scorer.trained_on, scorer.genres = model, dataset("gtzan57"), ["jazz", "rock"]
    scorer.scored = lambda features, keep: type("Scored", (), {"collect": lambda self: [row]})()
    (found,) = cast("Scorer", scorer).rows(cast("Any", None), keep=["track_id"])
    assert (found["is_uncertain"], found["is_unlike"], found["distance"]) == (uncertain, unlike, distance)
    assert (found["probability"], found["track_id"]) == (0.75, "a")
    assert model.model_validate({**model.model_dump(), **model.to_tags()}) == model

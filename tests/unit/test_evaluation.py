"""Figures of merit agree with scikit-learn's, also where a genre is never predicted or has no clip."""

import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from genres.datasets.folder import safe_name
from spark.calibration import fit_temperature, tempered
from spark.evaluation import Answers, accuracy_interval, majority_confusion, metric_key, metrics, of_known_genres

GENRES = ["blues", "disco", "metal", "rock"]
counts = arrays(np.int64, (4, 4), elements=st.integers(0, 6))


def as_labels(confusion: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    pairs = [(true, said) for (true, said), count in np.ndenumerate(confusion) for _ in range(count)]
    return [true for true, _ in pairs], [said for _, said in pairs]


@given(counts.filter(lambda confusion: confusion.sum() > 0))
def test_metrics_are_scikit_learns(confusion: npt.NDArray[np.int64]) -> None:
    true, said = as_labels(confusion)
    found = metrics(confusion, GENRES, part="valid")
    assert found["valid_accuracy"] == pytest.approx(accuracy_score(true, said))
    labels = range(len(GENRES))
    assert found["valid_macro_f1"] == pytest.approx(
        f1_score(true, said, labels=labels, average="macro", zero_division=0)
    )
    assert found["valid_rows"] == len(true)
    precision, recall, f1, _ = precision_recall_fscore_support(true, said, labels=labels, zero_division=0)
    for values, name in ((precision, "precision"), (recall, "recall"), (f1, "f1")):
        assert [found[f"valid_{name}_{genre}"] for genre in GENRES] == pytest.approx(list(values))


ODD_NAMES = (
    *("R&B", "Drum'n'Bass", "Müzik", "ラップ", "Folk, World", "Jazz (vocal)", "Soul+Funk", "50% cover", "Rock: 80s"),
    *('say "pop"', "a=b", "null", "NaN", "1980", "what?", "star*", "x{1}[2]", "semi;colon", "trailing ", " leading"),
    *("back\\slash", "tab\there", "new\nline", "new line\n", "_under", "-dash", "é", "e\u0301", "#hash", "p|pe"),
    *(
        "AC/DC",
        "../up",
        "a//b",
        "..",
        ".",
        "/",
        "🎸",
        "\U0001f469\u200d\U0001f3a4",
        "\u200b",
        "~tilde",
        "\udcff",
        r"\xff",
    ),
    *("R:26B", "R%26B", "R~26B", "R&amp;B", "R::B", "ⅷ", "٣", "İ", "ß"),
    *("x" * 300, "x" * 299 + "y", "x" * 200, "x" * 201, "ü" * 300, "&" * 300, "&" * 299 + "+"),
)


def test_mlflow_takes_any_genre(tmp_path: Path) -> None:
    from mlflow.utils import validation

    confusion = np.eye(len(ODD_NAMES), dtype=np.int64)
    found = metrics(confusion, ODD_NAMES, part="test")
    assert len(found) == 3 + 3 * len(ODD_NAMES), "two genres share a name"
    for name in found:
        validation._validate_metric(name, 1.0, 0, 0)
    with pytest.raises(Exception, match="Invalid value"):
        validation._validate_metric("test_f1_R&B", 1.0, 0, 0)
    composed = {unicodedata.normalize("NFC", name) for name in ODD_NAMES}
    places = {safe_name(name) for name in composed}
    assert len(places) == len(composed)
    for place in places:
        (tmp_path / place).mkdir()


def test_plain_genres_keep_their_names() -> None:
    for genre in ("blues", "hip hop", "hip-hop", "drum_n_bass", "Müzik", "ラップ", "1980", "a.b"):
        assert metric_key(genre) == genre


@given(st.text(max_size=300), st.text(max_size=300))
def test_two_genres_never_share_a_metric(one: str, other: str) -> None:
    from mlflow.utils.validation import _validate_metric

    for genre in (one, other):
        _validate_metric(f"valid_precision_{metric_key(genre)}", 1.0, 0, 0)
    assert (metric_key(one) == metric_key(other)) == (one == other)


def test_figures_read_odd_genres_back() -> None:
    from genre_assets.evaluation_figures import f1_by_genre

    genres = ["R&B", "AC/DC", "x" * 300]
    found = metrics(np.diag([3, 0, 2]), genres, part="test")
    figure = f1_by_genre({"LogisticRegression": found}, genres, data="dataset odd")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.00", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == genres


def test_an_empty_part_has_no_merit() -> None:
    found = metrics(np.zeros((4, 4), dtype=np.int64), GENRES, part="test")
    assert set(found.values()) == {0.0}


@given(counts)
def test_baseline_answers_the_training_parts_largest_genre(confusion: npt.NDArray[np.int64]) -> None:
    train, part = confusion.sum(axis=0), confusion.sum(axis=1)
    baseline = majority_confusion(train, part)
    assert list(baseline.sum(axis=1)) == list(part)
    answered = np.flatnonzero(baseline.sum(axis=0))
    assert all(train[genre] == train.max() for genre in answered)
    assert len(answered) == (1 if part.sum() else 0)


def some_answers(n: int = 200, seed: int = 0) -> Answers:
    random = np.random.default_rng(seed)
    true = random.integers(0, 4, n)
    scores = random.normal(size=(n, 4)) + 2 * np.eye(4)[true]
    powers = np.exp(scores)
    return Answers(true, powers / powers.sum(axis=1, keepdims=True))


def test_figures_of_answers_are_scikit_learns() -> None:
    answers = some_answers()
    said = answers.probabilities.argmax(axis=1)
    assert answers.accuracy == pytest.approx(accuracy_score(answers.true, said))
    assert answers.macro_f1() == pytest.approx(f1_score(answers.true, said, average="macro"))
    assert answers.top_accuracy(3) == pytest.approx(top_k_accuracy_score(answers.true, answers.probabilities, k=3))
    assert answers.log_loss() == pytest.approx(log_loss(answers.true, answers.probabilities))
    assert np.trace(answers.confusion()) == answers.right.sum()


def test_genres_that_are_neither_there_nor_said_do_not_count_in_the_macro_f1() -> None:
    answers = Answers(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert answers.macro_f1() == 1.0


def test_of_equal_scores_the_first_is_the_earlier_answer() -> None:
    answers = Answers(np.array([3, 0]), np.full((2, 4), 0.25))
    assert list(answers.right) == [False, True]
    assert answers.top_accuracy(3) == 0.5


def test_calibration_error_is_of_the_first_answers_probability() -> None:
    sure = np.array([[0.9, 0.1]] * 10)
    assert Answers(np.array([0] * 9 + [1]), sure).calibration_error() == pytest.approx(0.0)
    assert Answers(np.array([0] * 5 + [1] * 5), sure).calibration_error() == pytest.approx(0.4)
    assert Answers(np.array([1] * 10), sure).calibration_error() == pytest.approx(0.9)


def test_the_interval_is_wider_where_clips_hang_together() -> None:
    right = some_answers(400).right
    low, high = accuracy_interval(right, list(range(400)))
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.01)
    in_tens = accuracy_interval(np.repeat(right[:40], 10), list(np.repeat(range(40), 10)))
    assert in_tens[1] - in_tens[0] > 2 * (high - low)


def test_a_model_that_learnt_from_one_genre_has_figures() -> None:
    sure, usual = [0.0, np.inf, 0.0], [1.0, -np.inf, 2.0]
    scores = of_known_genres(np.array([sure, sure, usual]))
    assert scores.tolist() == [[-np.inf, 0, -np.inf], [-np.inf, 0, -np.inf], usual]
    true = np.array([1, 0, 2])
    probabilities = tempered(scores, fit_temperature(scores, true))
    assert probabilities[:2].tolist() == [[0, 1, 0], [0, 1, 0]]
    found = Answers(true, probabilities)
    assert found.accuracy == 2 / 3
    assert np.isfinite([found.calibration_error(), found.log_loss()]).all()

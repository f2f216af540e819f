"""Figures of merit agree with scikit-learn's, also where a genre is never predicted or has no clip."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from spark.evaluation import majority_confusion, metrics

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

"""Evaluation: what models answered, and figures of merit of it."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def metrics(confusion: npt.NDArray[np.int64], genres: Sequence[str], *, part: str) -> dict[str, float]:
    """Accuracy, macro-F1 and each genre's precision, recall and F1, named for a part of the split.

    A genre that is never predicted has precision 0, one without clips recall 0: both count as F1 0 in the macro
    average, as in scikit-learn's ``f1_score(average="macro", zero_division=0)``.

    Parameters
    ----------
    confusion
        Clips by true genre (row) and predicted genre (column), in the order of `genres`.
    part
        Prefix of the names: ``valid`` gives ``valid_accuracy``, ``valid_macro_f1``, ``valid_f1_blues`` …; a genre is
        spelt by `metric_key`.
    """
    of_genres = figures_of_genres(confusion)
    named = {
        f"{part}_accuracy": float(np.diag(confusion).sum()) / max(float(confusion.sum()), 1.0),
        f"{part}_macro_f1": float(of_genres["f1"].mean()),
        f"{part}_rows": float(confusion.sum()),
    }
    for name, values in of_genres.items():
        keys = [f"{part}_{name}_{metric_key(genre)}" for genre in genres]
        named |= dict(zip(keys, map(float, values), strict=True))
    return named


def figures_of_genres(confusion: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return ``precision``, ``recall`` and ``f1`` of each genre, as `metrics` has them, in the confusion's order."""
    hits = np.diag(confusion).astype(float)
    precision, recall = _ratio(hits, confusion.sum(axis=0)), _ratio(hits, confusion.sum(axis=1))
    return {"precision": precision, "recall": recall, "f1": _ratio(2 * precision * recall, precision + recall)}


def metric_key(genre: str) -> str:
    """Spell a genre so that MLflow takes it in a metric's name; two genres never have the same spelling.

    Letters and digits of any script, spaces, ``_``, ``.`` and ``-`` stay; all else, ``:`` and ``/`` too, is ``:`` and
    the hexadecimal digits of its UTF-8. A spelling of more than 200 characters is cut and ends in a hash of the whole.

    Examples
    --------
    >>> metric_key("hip hop"), metric_key("R&B"), metric_key("AC/DC")
    ('hip hop', 'R:26B', 'AC:2fDC')
    """
    encode = "surrogatepass"
    spelt = re.sub(
        r"[^\w. -]", lambda found: "".join(f":{byte:02x}" for byte in found[0].encode("utf-8", encode)), genre
    )
    if len(spelt) <= _LONGEST_KEY:
        return spelt
    return f"{spelt[: _LONGEST_KEY - 18]}::{hashlib.sha256(genre.encode('utf-8', encode)).hexdigest()[:16]}"


_LONGEST_KEY = 200
"""MLflow takes names of 250 characters; the part of the split and the figure of merit stand in front."""


FEW = 30
"""Clips below which figures mean little: one clip more or less right moves the accuracy by more than .03."""

RESAMPLES = 2000
"""Resamples of each bootstrap."""
_ECE_BINS = 15


@dataclass(frozen=True)
class Answers:
    """A model's answers for some clips."""

    true: npt.NDArray[np.int64]
    """Index of each clip's genre, shape (n,)."""
    probabilities: npt.NDArray[np.float64]
    """Of each genre, shape (n, n_genres); of a model without probabilities, any scores that order the genres."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the first answer is right, shape (n,)."""
        return self.probabilities.argmax(axis=1) == self.true

    @property
    def accuracy(self) -> float:
        """Share of clips whose genre is the first answer."""
        return float(self.right.mean())

    def confusion(self) -> npt.NDArray[np.int64]:
        """Count the clips by true genre (row) and answer (column)."""
        n_genres = self.probabilities.shape[1]
        pairs = self.true * n_genres + self.probabilities.argmax(axis=1)
        return np.bincount(pairs, minlength=n_genres**2).reshape(n_genres, n_genres)

    def macro_f1(self) -> float:
        """Mean F1 of the genres that some clip has or is said to have, as scikit-learn's."""
        confusion = self.confusion()
        clips, said = confusion.sum(axis=1), confusion.sum(axis=0)
        f1 = _ratio(2.0 * np.diag(confusion), clips + said)
        return float(f1[(clips + said) > 0].mean())

    def top_accuracy(self, k: int) -> float:
        """Share of clips whose genre is among the first `k` answers."""
        own = np.take_along_axis(self.probabilities, self.true[:, None], axis=1)
        # Of equals, the one that is listed first is the earlier answer.
        first = np.arange(self.probabilities.shape[1]) < self.true[:, None]
        earlier = (self.probabilities > own) | ((self.probabilities == own) & first)
        return float((earlier.sum(axis=1) < k).mean())

    def log_loss(self) -> float:
        """Mean of ``-ln`` of the true genre's probability, which counts as 1e-15 at least."""
        own = np.take_along_axis(self.probabilities, self.true[:, None], axis=1)
        return float(-np.log(np.maximum(own, 1e-15)).mean())

    def calibration_error(self) -> float:
        """Expected calibration error: how far the first answer's probability is from its share of right ones.

        In 15 bins of equal width, weighted by their clips [1]_.

        References
        ----------
        .. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.
        """
        bins = self.reliability()
        return float(np.abs(bins.probability - bins.accuracy) @ bins.clips / bins.clips.sum())

    def reliability(self) -> "Reliability":
        """Compare the first answers' probabilities with how often they are right, in the bins of the error above."""
        said = self.probabilities.max(axis=1)
        places = np.minimum((said * _ECE_BINS).astype(int), _ECE_BINS - 1)
        clips, probability, right = (
            np.bincount(places, weights=weights, minlength=_ECE_BINS) for weights in (None, said, self.right)
        )
        return Reliability(clips, _ratio(probability, clips), _ratio(right, clips))


class Reliability(NamedTuple):
    """A reliability diagram: what stands in each bin of the first answer's probability; 0 where no clip is."""

    clips: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    """Mean of the first answers' probabilities."""
    accuracy: npt.NDArray[np.float64]
    """Share of them that is right."""


class CollectedAnswers(NamedTuple):
    """A model's answers, out of Spark, a row for each clip."""

    keys: npt.NDArray[np.object_]
    """The column that was brought along; the rows are in its order."""
    answers: Answers
    scores: npt.NDArray[np.float64]
    """Raw scores, shape (n, n_genres); minus infinity for a genre that the model does not know."""


def collect_answers(predictions: "DataFrame", *, gives_probability: bool, n_genres: int, keep: str) -> CollectedAnswers:
    """Bring a model's answers out of Spark, in one job.

    Parameters
    ----------
    predictions
        What a model made of rows with ``label``.
    gives_probability
        As for `spark.classifiers.probabilities`.
    keep
        A column that is brought along.
    """
    from spark.classifiers import probabilities, raw_scores

    wanted = probabilities(gives_probability=gives_probability).alias("probabilities"), raw_scores().alias("scores")
    rows = predictions.select(keep, "label", *wanted).toPandas().sort_values(keep, kind="stable")
    answers = Answers(rows["label"].to_numpy(np.int64), _matrix(rows["probabilities"], n_genres, lacking=0.0))
    scores = of_known_genres(_matrix(rows["scores"], n_genres, lacking=-np.inf))
    return CollectedAnswers(rows[keep].to_numpy(), answers, scores)


def of_known_genres(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return raw scores without an infinite certainty: minus infinity for every genre but the one it is of.

    MLlib's logistic regression has it where it learnt from clips of one genre, and knows no other.
    """
    certain = np.isposinf(scores)
    return np.where(certain.any(axis=1, keepdims=True), np.where(certain, 0.0, -np.inf), scores)


def _matrix(arrays: Iterable[npt.ArrayLike], width: int, *, lacking: float) -> npt.NDArray[np.float64]:
    """Lay arrays below each other; a model of rows that lack the last genres has shorter ones."""
    rows = [np.asarray(array, dtype=float) for array in arrays]
    found = np.full((len(rows), width), lacking)
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def accuracy_interval(right: npt.NDArray[np.floating | np.bool_], groups: Sequence[int]) -> tuple[float, float]:
    """95 % interval of an accuracy, or of a difference of two, by bootstrap over groups of clips.

    Clips of one track or artist are right or wrong together, so whole groups are drawn; drawn one by one, clips would
    make the interval too narrow.

    Parameters
    ----------
    right
        1 for each clip with a right answer, else 0; for a difference, the one less the other.
    groups
        Group of each clip.
    """
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    hits, sizes = np.bincount(codes, weights=right.astype(float)), np.bincount(codes)
    draws = resamples(len(sizes))
    low, high = np.percentile((draws @ hits) / (draws @ sizes), [2.5, 97.5])
    return float(low), float(high)


def resamples(n: int) -> npt.NDArray[np.int64]:
    """Draw `n` things with replacement, `RESAMPLES` times, the same each time that this is called.

    Returns
    -------
    ndarray, shape (RESAMPLES, n)
        How often each thing was drawn.
    """
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def majority_confusion(train_counts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Confusion of the baseline that always answers the training part's most frequent genre.

    Parameters
    ----------
    train_counts, counts
        Clips of each genre in the training part and in the part that is judged, shape (n_genres,).
    """
    confusion = np.zeros((len(counts), len(counts)), dtype=np.int64)
    confusion[:, int(np.argmax(train_counts))] = counts
    return confusion


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)

"""Calibration: from raw scores to probabilities that say how often they are right, and from which on one is certain.

One map for every classifier: the softmax of its raw scores divided by a temperature [1]_, whatever they are (log-odds,
margins, sums of votes). It never changes the order of the genres. What is fitted here is fitted to answers about clips
that the answering model was not trained on: out of fold, and about the validation part. Where artists are not known,
the former flatter (one artist's tracks are learnt from and asked about), so that the more cautious of both is taken.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from spark.evaluation import FEW, Answers

if TYPE_CHECKING:
    from pyspark.ml.feature import ElementwiseProduct

CALIBRATED = "calibrated"
"""The column of a calibrated model whose softmax are its probabilities: raw scores divided by the temperature."""

_COLDEST, _HOTTEST = 1e-4, 1e4
"""Temperatures that are tried, relative to the scores' spread."""


def fit_temperature(scores: npt.NDArray[np.float64], true: npt.NDArray[np.int64]) -> float:
    """Find the temperature with the least log-loss.

    To the answers one is added that is about no genre in particular: else, if all of a few answers are right, the
    least loss would be to be sure of everything.

    Parameters
    ----------
    scores
        Raw scores, shape (n, n_genres); minus infinity for a genre that the answering model did not know.
    true
        Index of each clip's genre. Clips of a genre that the model did not know tell nothing and are passed over;
        if there are no others, the temperature is 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    answerable = np.isfinite(scores[np.arange(len(true)), true])
    scores, true = scores[answerable], true[answerable]
    if not len(true):
        return 1.0
    known = np.isfinite(scores)
    spread = float(scores[known].std()) or 1.0

    def loss(log_temperature: float) -> float:
        logarithms = log_softmax(scores / (spread * math.exp(log_temperature)), axis=1)
        own = np.take_along_axis(logarithms, true[:, None], axis=1)
        of_no_genre = np.mean(logarithms, axis=1, where=known)
        return float(-(own.sum() + of_no_genre.mean()) / (len(true) + 1))

    # The loss is convex in 1/T, so that it has one minimum in ln T, too.
    found = minimize_scalar(loss, bounds=(math.log(_COLDEST), math.log(_HOTTEST)), method="bounded")
    return float(spread * math.exp(found.x))


OUT_OF_FOLD, VALIDATION = "out-of-fold", "validation"
"""What answers can be about."""


class HeldOutScores(NamedTuple):
    """Raw scores of clips that were not learnt from."""

    scores: npt.NDArray[np.float64]
    true: npt.NDArray[np.int64]


def cautious_temperature(out_of_fold: HeldOutScores, validation: HeldOutScores | None) -> tuple[str, float]:
    """Find the temperature that fits the answers out of fold or the one that fits the validation part's, if higher.

    Returns
    -------
    str
        `OUT_OF_FOLD` or `VALIDATION`: whose it is.
    float
        The temperature. A validation part of fewer than `FEW` clips says too little and is not asked.
    """
    found = [(fit_temperature(*out_of_fold), OUT_OF_FOLD)]
    if validation is not None and len(validation.true) >= FEW:
        found.append((fit_temperature(*validation), VALIDATION))
    temperature, whose = max(found)
    return whose, temperature


def tempered(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return the softmax of scores divided by a temperature, shape (n, n_genres)."""
    from scipy.special import softmax

    probabilities: npt.NDArray[np.float64] = softmax(scores / temperature, axis=1)
    return probabilities


class Coverage(NamedTuple):
    """What is gained by leaving answers out: for each probability, what the answers from it on are worth."""

    probability: npt.NDArray[np.float64]
    """Each that a first answer has, the largest first."""
    share: npt.NDArray[np.float64]
    """Share of the clips whose first answer has at least that probability."""
    accuracy: npt.NDArray[np.float64]
    """Share of right ones among these."""

    def certain_from(self, accuracy: float) -> float:
        """Return the smallest probability from which answers are right so often; infinity if there is none."""
        enough = np.flatnonzero(self.accuracy >= accuracy)
        return float(self.probability[enough[-1]]) if len(enough) else math.inf

    def at(self, probability: float) -> tuple[float, float]:
        """Return share and accuracy of the answers from a probability on; 0 and 0 if there is none."""
        above = np.flatnonzero(self.probability >= probability)
        return (float(self.share[above[-1]]), float(self.accuracy[above[-1]])) if len(above) else (0.0, 0.0)


def coverage(answers: Answers) -> Coverage:
    """Return how many answers there are from each probability on, and how many of them are right."""
    said = answers.probabilities.max(axis=1)
    order = np.argsort(-said, kind="stable")
    counts = np.arange(1, len(said) + 1)
    accuracy = np.cumsum(answers.right[order]) / counts
    # Of equal probabilities, all are in or none.
    last = np.append(np.diff(said[order]) != 0, True)
    return Coverage(said[order][last], (counts / len(said))[last], accuracy[last])


def calibrating(temperature: float, *, genres: int) -> "ElementwiseProduct":
    """Return the stage that divides the raw scores by a temperature, as `CALIBRATED`."""
    from pyspark.ml.feature import ElementwiseProduct
    from pyspark.ml.linalg import Vectors

    scale = Vectors.dense([1 / temperature] * genres)
    return ElementwiseProduct(scalingVec=scale, inputCol="rawPrediction", outputCol=CALIBRATED)

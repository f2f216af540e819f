"""Distance: how far a clip is from what a model learnt from, so that noise and speech are not taken for music.

It is the Mahalanobis distance to the training clips, in units of one that almost none of them reaches when it is not
learnt from itself. It is taken among what was measured of the sound (`FeatureSet.measures_sound`): to a network that
only ever heard music, noise and speech are as near as music is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from spark.classifiers import NEGLIGIBLE, Scale, logarithm_offset, standardising
from spark.evaluation import FEW

if TYPE_CHECKING:
    from pyspark.ml import Transformer
    from pyspark.sql import Column, DataFrame

DISTANCES = "distances"
"""The column of a model that knows distances: a vector whose length is the distance."""

HELD_OUT_QUANTILE = 0.98
"""Share of the training clips that are within the threshold while others are learnt from; of up to 50 clips, all."""

VALIDATION_QUANTILE = 0.97
"""Share of the validation clips that are within the threshold, at least. Training clips of one artist are near each
other, so that a threshold from these alone may be too low for others."""

_LIMIT = 6.0
"""Standardised values are cut off here. At ±3, where those of the classifiers are, noise comes among the music; without
any limit, one column that is hardly ever far from its mean makes the threshold of all."""


@dataclass(frozen=True)
class LearntClips:
    """What the clips are like that a model learnt from, by their mean and covariance."""

    columns: tuple[str, ...]
    scales: tuple[Scale, ...]
    """How each of `columns` is standardised."""
    covariance: npt.NDArray[np.float64]
    """Of the standardised columns."""
    threshold: float = 1.0
    """The distance that counts as 1."""

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], columns: Sequence[str]) -> Self | None:
        """Learn from some clips; None if they are all alike, or too few to say how they vary.

        The covariance is shrunk towards a multiple of the identity by the amount of Ledoit and Wolf [1]_, so that it
        can be inverted however few clips there are.

        Parameters
        ----------
        values
            Shape (n, n_columns); NaN where a value is missing.

        References
        ----------
        .. [1] O. Ledoit and M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal
           of Multivariate Analysis 88(2), 2004.
        """
        from sklearn.covariance import LedoitWolf

        scales = scales_of(values, columns)
        standardised = _standardised(values, scales)
        if not standardised.any():
            return None
        covariance = LedoitWolf().fit(standardised).covariance_
        axes = np.linalg.eigvalsh(covariance)
        if axes[0] <= NEGLIGIBLE * axes[-1]:  # of two clips, say, which lie on a line
            return None
        return cls(tuple(columns), scales, covariance)

    def distances(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the distance of each clip, shape (n,), to the mean, in units of the threshold."""
        standardised = _standardised(values, self.scales)
        solved = np.linalg.solve(self.covariance, standardised.T)
        return np.sqrt(np.einsum("ij,ji->i", standardised, solved)) / self.threshold

    def with_threshold(self, held_out: npt.NDArray[np.float64], validation: npt.NDArray[np.float64]) -> Self:
        """Return the same, where the distance counts as 1 that few of either kind of clips are beyond.

        Parameters
        ----------
        held_out
            Distances from `held_out_distances`, without those that are NaN; at least one.
        validation
            Distances of clips of the validation part; fewer than `FEW` say too little and are not asked.
        """
        threshold = np.quantile(held_out, HELD_OUT_QUANTILE, method="higher")
        if len(validation) >= FEW:
            threshold = max(threshold, np.quantile(validation, VALIDATION_QUANTILE, method="higher"))
        return replace(self, threshold=float(threshold))

    def stages(self, clips: "DataFrame") -> "list[Transformer]":
        """Return the stages that lead from the feature columns to the column `DISTANCES`.

        Parameters
        ----------
        clips
            Those that were learnt from.
        """
        from pyspark.ml import PipelineModel
        from pyspark.ml.feature import PCA, ElementwiseProduct, SQLTransformer, VectorAssembler
        from pyspark.ml.linalg import Vectors

        names = [f"sound_{number}" for number in range(len(self.columns))]
        statement = standardising(self.columns, self.scales, names, limit=_LIMIT)
        assembled: list[Transformer] = [
            SQLTransformer(statement=statement),
            VectorAssembler(inputCols=names, outputCol="sound"),
        ]
        vectors = PipelineModel(assembled).transform(clips).select("sound").coalesce(1).localCheckpoint()
        rotation = PCA(k=len(names), inputCol="sound", outputCol="sound_rotated").fit(vectors)
        # Shrinking towards a multiple of the identity leaves the axes as they are.
        axes = rotation.pc.toArray()
        variances = np.einsum("ij,ik,kj->j", axes, self.covariance, axes)
        scale = Vectors.dense(1 / (np.sqrt(variances) * self.threshold))
        scaling = ElementwiseProduct(scalingVec=scale, inputCol="sound_rotated", outputCol=DISTANCES)
        return [*assembled, rotation, scaling]


def held_out_distances(
    values: npt.NDArray[np.float64], columns: Sequence[str], folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the distance of each clip to those of the other folds, shape (n,); NaN where these say nothing.

    Parameters
    ----------
    values
        As for `LearntClips.of`.
    folds
        Fold of each clip.
    """
    found = np.full(len(values), np.nan)
    for fold in np.unique(folds):
        held_out = folds == fold
        learnt = LearntClips.of(values[~held_out], columns)
        if learnt is not None:
            found[held_out] = learnt.distances(values[held_out])
    return found


def distance() -> "Column":
    """Return the column of the distances of a model that knows them, as doubles."""
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as sf

    by_axis = vector_to_array(sf.col(DISTANCES))
    return sf.sqrt(sf.aggregate(by_axis, sf.lit(0.0), lambda total, value: total + value * value))


def scales_of(values: npt.NDArray[np.float64], columns: Sequence[str]) -> tuple[Scale, ...]:
    """Learn how each column is standardised, as `spark.classifiers.learn_scales` does in Spark.

    Parameters
    ----------
    values
        Shape (n, n_columns); NaN where a value is missing.
    """
    scales = []
    for column, raw in zip(columns, values.T, strict=True):
        known = raw[~np.isnan(raw)]
        offset = logarithm_offset(column) if len(known) > 0 and known.min() >= 0 else None
        known = known if offset is None else np.log(known + offset)
        mean = float(known.mean()) if len(known) else 0.0
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        scales.append(Scale(mean, deviation if deviation > NEGLIGIBLE * abs(mean) else 0.0, offset))
    return tuple(scales)


def _standardised(values: npt.NDArray[np.float64], scales: Sequence[Scale]) -> npt.NDArray[np.float64]:
    found = np.zeros(values.shape)
    for place, scale in enumerate(scales):
        if not scale.deviation:
            continue
        raw = values[:, place]
        raw = raw if scale.offset is None else np.log(np.maximum(raw, 0.0) + scale.offset)
        found[:, place] = np.nan_to_num((raw - scale.mean) / scale.deviation, nan=0.0)
    clipped: npt.NDArray[np.float64] = np.clip(found, -_LIMIT, _LIMIT)
    return clipped

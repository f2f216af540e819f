"""The feature sets that the pipeline knows: each a name, a version, columns and the kernel that computes them.

What a feature *is* stands in the kernel's module; this one only names it, so that assets, sensors and the
command line can speak of columns and versions without loading an audio library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class FeatureSet:
    """A named, versioned set of columns computed from one clip."""

    name: str
    version: int
    """Raised whenever a definition changes, however little: features of two versions are never mixed."""
    library: str
    """The library release whose numerical definitions the kernel relies on."""
    columns: tuple[str, ...]
    """Column names, in the order of every table."""
    kernel: "Callable[[np.ndarray], dict[str, float]]"
    """From mono float32 samples at `sample_rate` to a value for each column."""
    sample_rate: int
    """Samples per second that the kernel takes, in Hz."""
    min_samples: int
    """The shortest clip the kernel is defined for, in samples."""

    @property
    def feature_version(self) -> str:
        """What rows, models and predictions are stamped with, such as ``gtzan57-v1-librosa0.11``."""
        return f"{self.name}-v{self.version}-{self.library}"


def _gtzan57(samples: "np.ndarray") -> dict[str, float]:
    from spark.features import gtzan57

    return gtzan57(samples)


_SUMMARISED = (
    *("chroma_stft", "rms", "spectral_centroid", "spectral_bandwidth", "rolloff", "zero_crossing_rate"),
    *("harmony", "perceptr"),
)
GTZAN57 = FeatureSet(
    name="gtzan57",
    version=1,
    library="librosa0.11",
    columns=(
        *(f"{name}_{statistic}" for name in _SUMMARISED for statistic in ("mean", "var")),
        "tempo",
        *(f"mfcc{number}_{statistic}" for number in range(1, 21) for statistic in ("mean", "var")),
    ),
    kernel=_gtzan57,
    sample_rate=22_050,
    min_samples=2_048,
)
"""The 57 columns of the published GTZAN table, under its names and in its order."""

FEATURE_SETS = {feature_set.name: feature_set for feature_set in (GTZAN57,)}
"""Every feature set by its name."""

DEFAULT_FEATURE_SET = GTZAN57
"""The one that the pipeline computes unless told otherwise."""

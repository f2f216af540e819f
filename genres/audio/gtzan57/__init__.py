"""``gtzan57``: the 57 columns of the published GTZAN table, under its names and in its order.

`kernel` says what is computed, `reference` is the same in plain librosa calls. Importing this package loads neither.
"""

from typing import TYPE_CHECKING

from genres.audio.feature_set import FeatureSet, Measured
from genres.audio.spectral import is_compiled

if TYPE_CHECKING:
    import numpy as np


def _kernel(samples: "np.ndarray") -> Measured:
    from genres.audio.gtzan57.kernel import gtzan57

    return gtzan57(samples)


def _is_compiled() -> bool:
    # The loop that is compiled last.
    return is_compiled("level_and_crossings")


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
    kernel=_kernel,
    sample_rate=22_050,
    min_samples=2_048,
    shown=("tempo", "rms_mean", "spectral_centroid_mean", "rolloff_mean", "zero_crossing_rate_mean", "mfcc1_mean"),
    is_compiled=_is_compiled,
)

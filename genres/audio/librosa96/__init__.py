"""``librosa96``: `gtzan57` and 39 columns more: spectral contrast, onsets, flatness, rhythm and harmony.

`kernel` says what is computed, `reference` is the same in plain librosa and NumPy calls. Importing this package loads
neither.
"""

from typing import TYPE_CHECKING

from genres.audio.feature_set import FeatureSet, Measured
from genres.audio.gtzan57 import GTZAN57
from genres.audio.spectral import is_compiled

if TYPE_CHECKING:
    import numpy as np


def _kernel(samples: "np.ndarray") -> Measured:
    from genres.audio.librosa96.kernel import librosa96

    return librosa96(samples)


def _is_compiled() -> bool:
    # The loop that `gtzan57` does without and that is compiled last.
    return is_compiled("spectral_flux")


LIBROSA96 = FeatureSet(
    name="librosa96",
    version=1,
    library="librosa0.11",
    columns=(
        *GTZAN57.columns,
        *(f"spectral_contrast{band}_{statistic}" for band in range(1, 8) for statistic in ("mean", "std")),
        *(
            f"{name}_{statistic}"
            for name in ("onset_strength", "spectral_flatness")
            for statistic in ("max", "min", "mean", "std", "skew", "kurtosis")
        ),
        *("low_energy_rate", "spectral_flux_mean", "spectral_flux_std"),
        *("beat_peak1", "beat_peak2", "beat_peak_ratio", "beat_tempo1", "beat_tempo2", "beat_sum", "beat_salience"),
        *("chroma_peak_amplitude", "chroma_peak_class", "chroma_peak_interval"),
    ),
    kernel=_kernel,
    sample_rate=GTZAN57.sample_rate,
    min_samples=GTZAN57.min_samples,
    shown=(
        *("tempo", "spectral_centroid_mean", "spectral_contrast7_mean"),
        *("onset_strength_mean", "spectral_flatness_mean", "beat_salience"),
    ),
    contains=(GTZAN57,),
    is_compiled=_is_compiled,
)

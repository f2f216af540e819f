"""What the 39 columns of ``librosa96`` are that ``gtzan57`` does not have, computed in the same pass.

Only what these columns are belongs here; how a clip is gone through is `genres.audio.spectral.analysis`. This module
loads numba: import it where a feature is computed and nowhere else. `reference`, beside it, computes the same features
by plain librosa calls, and what librosa does not have by plain NumPy; the tests hold the two together.

Definitions
-----------
Frames have 2,048 samples, begin every 512, and are padded by reflection, as `gtzan57`'s. ``_std`` is the standard
deviation over frames, ``_skew`` the third standardised moment and ``_kurtosis`` the fourth, less 3 (both without
correction for small samples, as ``scipy.stats`` has them; 0 for values that are as good as equal, see `STILL`).

``spectral_contrast1`` ... ``7``, in dB
    ``librosa.feature.spectral_contrast``: how far the largest fiftieth of the magnitudes of a band are above its
    smallest fiftieth [1]_. Band 1 ends at 200 Hz, each of the others is an octave, and the last goes on to the top.
``onset_strength``, in dB
    ``librosa.onset.onset_strength``: how much the 128 mel bands rise from a frame to the next, in their mean. Without
    the zeros that librosa puts before the first rise, which would be the minimum of every clip.
``spectral_flatness``, from 0 (a tone) to 1 (white noise, silence)
    ``librosa.feature.spectral_flatness``: geometric mean of the power spectrum over its arithmetic mean [2]_.
``low_energy_rate``, a share of the frames
    Of those whose rms is below the mean rms of all [3]_, by a ten-thousandth of it, so that the last digit of a steady
    sound does not decide.
``spectral_flux``, from 0 (the same spectrum) to 2
    Squared distance of a frame's magnitudes to those of the frame before, both of unit Euclidean length [3]_.
``beat_...``
    Of a beat histogram [3]_: here the mean over frames of ``librosa.feature.tempogram`` [4]_, the local autocorrelation
    (1 at lag 0) of the onset strength that `gtzan57`'s tempo is read from (the median over mel bands, frames of 8 s),
    at the 52 lags from 40 to 200 beats per minute. Its two highest local maxima have the heights ``beat_peak1`` and
    ``2``, as shares of the histogram's sum, and lie at ``beat_tempo1`` and ``2``, in beats per minute;
    ``beat_peak_ratio`` is the second height over the first, ``beat_sum`` the histogram's sum, and ``beat_salience`` how
    many standard deviations of the histogram the first is above its mean. What there is none of is 0.
``chroma_peak_...``
    Of the mean over frames of `gtzan57`'s chroma, a folded pitch histogram [3]_: ``amplitude`` of the strongest pitch
    class as a share of all twelve, its ``class`` in semitones above C, and the ``interval`` to the second highest local
    maximum, in steps on the circle of fifths (1 a fifth or fourth, 6 a tritone), 0 if there is none.

References
----------
.. [1] D.-N. Jiang et al., "Music type classification by spectral contrast feature", ICME 2002.
.. [2] S. Dubnov, "Generalization of spectral flatness measure for non-Gaussian linear processes", IEEE Signal
   Processing Letters 11(8), 2004.
.. [3] G. Tzanetakis, P. Cook, "Musical genre classification of audio signals", IEEE Transactions on Speech and Audio
   Processing 10(5), 2002.
.. [4] P. Grosche, M. Müller, F. Kurth, "Cyclic tempogram", ICASSP 2010.
"""

import math
from typing import cast

import numpy as np

from genres.audio.feature_set import Measured
from genres.audio.gtzan57 import kernel as gtzan57_kernel
from genres.audio.spectral.analysis import Analysis, Textures, analyse, windows
from genres.audio.spectral.loops import HOP

SLOWEST_BEAT, FASTEST_BEAT = 40, 200
"""In beats per minute."""
LEAST_STEP = 1e-5
"""A local maximum of the beat histogram exceeds its neighbours by more than so much, which is more than rounding."""
STILL = 1e-3
"""Values whose standard deviation is less than this share of their mean, or this in dB, have no shape but rounding."""


def librosa96(samples: np.ndarray, sr: float = 22_050) -> Measured:
    """Compute the 57 features of `gtzan57`, to the bit, and the 39 others, of a clip and of its windows.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1]; at least 2,048 of them.
    sr : float
        Samples per second, in Hz; more than 12,800.

    Returns
    -------
    Measured
        The values; finite for finite samples of audible size, and for silence. Windows are those of
        `genres.audio.spectral.analysis.windows`.
    """
    analysis = analyse(samples, sr, textures=True)
    return Measured(features_of(analysis), [features_of(window) for window in windows(analysis)])


def features_of(analysis: Analysis) -> dict[str, float]:
    """Return the 96 features of a clip that was analysed with its textures, or of a window of it."""
    features = gtzan57_kernel.features_of(analysis)
    textures = cast("Textures", analysis.textures)
    for band, values in enumerate(textures.contrast, start=1):
        mean, variance = gtzan57_kernel.mean_and_variance(values)
        features |= {f"spectral_contrast{band}_mean": mean, f"spectral_contrast{band}_std": math.sqrt(variance)}
    for name, values, still in (
        ("onset_strength", textures.onset_strength, STILL),
        ("spectral_flatness", textures.flatness, STILL * textures.flatness.mean()),
    ):
        features |= {f"{name}_{statistic}": value for statistic, value in shape(values, still).items()}
    rms = analysis.rms
    features["low_energy_rate"] = float(np.mean(rms < (1 - 1e-4) * rms.mean()))
    features["spectral_flux_mean"] = float(textures.flux.mean())
    features["spectral_flux_std"] = float(textures.flux.std())
    features |= beat_features(analysis.tempogram_sum.astype(np.float64) / analysis.n_frames, analysis.sr)
    return features | chroma_features(analysis.chroma.mean(axis=0, dtype=np.float64))


def shape(values: np.ndarray, still: float) -> dict[str, float]:
    """Describe a distribution; skew and kurtosis are 0 if the standard deviation is below `still`."""
    mean, std = values.mean(), values.std()
    standardised = (values - mean) / std if std > still else np.zeros(1)
    return {
        "max": float(values.max()),
        "min": float(values.min()),
        "mean": float(mean),
        "std": float(std),
        "skew": float(np.mean(standardised**3)),
        "kurtosis": float(np.mean(standardised**4)) - 3 if std > still else 0.0,
    }


def beat_features(histogram: np.ndarray, sr: float) -> dict[str, float]:
    """Describe the beat histogram.

    Parameters
    ----------
    histogram : np.ndarray
        Mean autocorrelation of the onsets by lag, in hops.
    sr : float
        Samples per second, in Hz.
    """
    bpm = 60 * sr / (HOP * np.arange(1, len(histogram) - 1))
    before, here, after = histogram[:-2], histogram[1:-1], histogram[2:]
    inside = (bpm >= SLOWEST_BEAT) & (bpm <= FASTEST_BEAT)
    heights, total = here[inside], here[inside].sum()
    is_peak = inside & (here > np.maximum(before, after) + LEAST_STEP)
    peaks = sorted(zip(here[is_peak], bpm[is_peak], strict=True), reverse=True)
    (first, first_tempo), (second, second_tempo) = (*peaks, (0.0, 0.0), (0.0, 0.0))[:2]
    return {
        "beat_peak1": float(first / total) if first else 0.0,
        "beat_peak2": float(second / total) if second else 0.0,
        "beat_peak_ratio": float(second / first) if first else 0.0,
        "beat_tempo1": float(first_tempo),
        "beat_tempo2": float(second_tempo),
        "beat_sum": float(total),
        "beat_salience": float((first - heights.mean()) / heights.std()) if first else 0.0,
    }


def chroma_features(chroma: np.ndarray) -> dict[str, float]:
    """Describe the twelve pitch classes' mean strengths."""
    total, first = chroma.sum(), int(np.argmax(chroma))
    is_peak = (chroma > np.roll(chroma, 1)) & (chroma > np.roll(chroma, -1))
    others = [int(place) for place in np.flatnonzero(is_peak) if place != first]
    # Seven semitones are a fifth, so that times seven turns semitones into fifths.
    fifths = 7 * (max(others, key=lambda place: chroma[place]) - first) % 12 if others else 0
    return {
        "chroma_peak_amplitude": float(chroma[first] / total) if total else 0.0,
        "chroma_peak_class": float(first),
        "chroma_peak_interval": float(min(fifths, 12 - fifths)),
    }

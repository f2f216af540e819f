"""What each column of the published GTZAN table is, computed from the samples of one clip.

Only what these columns are belongs here; how a clip is gone through is `genres.audio.spectral.analysis`. This module
loads numba: import it where a feature is computed and nowhere else. `reference`, beside it, computes the same features
by plain librosa calls, and the tests hold the two together.

Definitions
-----------
The published table (``features_30_sec.csv``) was computed with a librosa older than 0.9 at its defaults. Two
of those defaults have changed since; with them put back, all 57 columns agree with the table (without them 10
are off by more than 0.1 % in the median over 25 clips, ``harmony_mean`` by 17 %):

1. Frames at both ends of the clip are padded by reflection. 0.9.0 made zeros the default of ``stft`` and
   ``rms`` [1]_; the zero-crossing rate pads with the edge value, then as now.
2. ``librosa.effects.hpss`` inverted both spectrograms without a length and filled up with zeros
   (``util.fix_length(core.istft(stft_harm, dtype=y.dtype), len(y))``), so that the samples after the last whole
   hop are zero in ``harmony`` and ``perceptr``; later it passes ``length=`` to ``istft``.

``tempo`` is the estimate that ``librosa.beat.beat_track`` starts from: the tempogram's peak under a log-normal
prior around 120 bpm [2]_, on the median onset strength over mel bands. ``harmony`` and ``perceptr`` are the
waveforms of harmonic-percussive separation by median filtering [3]_. Everything else is librosa 0.11 as it is.

References
----------
.. [1] librosa 0.9.0 changelog, "The default padding mode for most functions (including STFT) is now
   zero-padding", https://github.com/librosa/librosa/pull/1382
.. [2] D. P. W. Ellis, "Beat tracking by dynamic programming", Journal of New Music Research 36(1), 2007.
.. [3] D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFX10, 2010.
"""

from collections.abc import Iterator

import numpy as np

from genres.audio.feature_set import Measured
from genres.audio.spectral.analysis import Analysis, analyse, windows
from genres.audio.spectral.loops import HOP

TEMPO_PRIOR, FASTEST_TEMPO = 120, 320
"""Centre of the tempo's prior, which is an octave wide, and the tempo that no clip reaches, in beats per minute."""


def gtzan57(samples: np.ndarray, sr: float = 22_050) -> Measured:
    """Compute the 57 features of the published GTZAN table, of a clip and of its windows.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1]; at least 2,048 of them.
    sr : float
        Samples per second, in Hz. The published table holds features at 22,050 Hz.

    Returns
    -------
    Measured
        Mean and variance over frames (over samples for harmony and perceptr) of each feature, and the tempo in
        beats per minute. Frequencies are in Hz, MFCCs in dB. Finite for finite samples of audible size, and
        for silence, whose features are zeros but for the first MFCC. Windows are those of
        `genres.audio.spectral.analysis.windows`.
    """
    analysis = analyse(samples, sr)
    return Measured(features_of(analysis), [features_of(window) for window in windows(analysis)])


def features_of(analysis: Analysis) -> dict[str, float]:
    """Return the 57 features of a clip that was analysed, or of a window of it."""
    features = dict(
        _summary(
            {
                "chroma_stft": analysis.chroma,
                "rms": analysis.rms,
                "spectral_centroid": analysis.centroid,
                "spectral_bandwidth": analysis.bandwidth,
                "rolloff": analysis.rolloff,
                "zero_crossing_rate": analysis.zero_crossing_rate,
            }
        )
    )
    sums = analysis.hop_sums.sum(axis=0)
    for name, (total, squares) in {"harmony": sums[:2], "perceptr": sums[2:]}.items():
        mean = total / analysis.n_samples
        features |= {f"{name}_mean": float(mean), f"{name}_var": float(max(squares / analysis.n_samples - mean**2, 0))}
    features["tempo"] = _tempo(analysis)
    features.update(_summary({f"mfcc{number}": row for number, row in enumerate(analysis.mfcc, start=1)}))
    return features


def _tempo(analysis: Analysis) -> float:
    """``librosa.feature.tempo``: the lag at which the onsets repeat best, in beats per minute."""
    # Without an onset there is no tempo; `beat_track` says 0 then, `feature.tempo` the middle of its prior.
    if not analysis.onsets.any():
        return 0.0
    lags = np.arange(1, len(analysis.tempogram_sum))
    bpm = 60 * analysis.sr / (HOP * lags)
    likelihood = np.log1p(1e6 * analysis.tempogram_sum[lags].astype(np.float64) / analysis.n_frames)
    score = likelihood - 0.5 * np.log2(bpm / TEMPO_PRIOR) ** 2
    return float(bpm[np.argmax(np.where(bpm < FASTEST_TEMPO, score, -np.inf))])


def _summary(frames: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for name, values in frames.items():
        mean, variance = mean_and_variance(values)
        yield f"{name}_mean", mean
        yield f"{name}_var", variance


def mean_and_variance(values: np.ndarray) -> tuple[float, float]:
    """Return ``np.mean`` and ``np.var`` in double precision, to the bit.

    For the hundred frames of a window these two spend most of their time on their arguments.
    """
    mean = np.add.reduce(values, axis=None, dtype=np.float64) / values.size
    deviations = values - mean
    return float(mean), float(np.add.reduce(deviations * deviations, axis=None) / values.size)

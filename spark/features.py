"""The feature kernel: what each column of the published GTZAN table is, computed from the samples of one clip.

Only the maths of one clip belongs here; reading audio is `spark.audio_decode`, running over many clips is
`spark.extraction`. This module loads librosa: import it where a feature is computed and nowhere else.

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

import librosa
import numpy as np
from librosa.onset import onset_strength
from scipy.ndimage import median_filter

MEDIAN_WIDTH = 31
"""Width of both median filters of the separation: frames along time, bins along frequency."""


def gtzan57(samples: np.ndarray, sr: float = 22_050) -> dict[str, float]:
    """Compute the 57 features of the published GTZAN table.

    One short-time Fourier transform and one mel spectrogram serve all of them; each value is the one that the
    librosa functions give when they are called with the samples one by one.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1]; at least 2,048 of them.
    sr : float
        Samples per second, in Hz. The published table holds features at 22,050 Hz.

    Returns
    -------
    dict[str, float]
        Mean and variance over frames (over samples for harmony and perceptr) of each feature, and the tempo in
        beats per minute. Frequencies are in Hz, MFCCs in dB. Finite for finite samples of audible size, and
        for silence, whose features are zeros but for the first MFCC.
    """
    spectrum = librosa.stft(samples, pad_mode="reflect")
    harmonic, percussive = _separate(spectrum, len(samples))
    magnitude = np.abs(spectrum)
    del spectrum
    power = magnitude**2
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=sr))
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sr)

    frames = {
        "chroma_stft": librosa.feature.chroma_stft(S=power, sr=sr),
        "rms": librosa.feature.rms(y=samples, pad_mode="reflect"),
        "spectral_centroid": centroid,
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(S=magnitude, sr=sr, centroid=centroid),
        "rolloff": librosa.feature.spectral_rolloff(S=magnitude, sr=sr),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(samples),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    features = dict(_summary(frames))
    features["tempo"] = _tempo(decibels, sr)
    mfcc = librosa.feature.mfcc(S=decibels, sr=sr, n_mfcc=20)
    features.update(_summary({f"mfcc{number}": row for number, row in enumerate(mfcc, start=1)}))
    return features


def _summary(frames: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for name, values in frames.items():
        yield f"{name}_mean", float(np.mean(values))
        yield f"{name}_var", float(np.var(values))


def _tempo(decibels: np.ndarray, sr: float) -> float:
    onsets = onset_strength(S=decibels, sr=sr, aggregate=np.median)
    # Without an onset there is no tempo; `beat_track` says 0 then, `feature.tempo` the middle of its prior.
    if not onsets.any():
        return 0.0
    return float(librosa.feature.tempo(onset_envelope=onsets, sr=sr)[0])


def _separate(spectrum: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """``librosa.effects.hpss`` of old (see the module's docstring), with faster medians."""
    magnitude, phase = librosa.magphase(spectrum)
    harmonic = _line_medians(magnitude)
    percussive = _line_medians(magnitude.T).T
    waves = []
    for part, rest in ((harmonic, percussive), (percussive, harmonic)):
        mask = librosa.util.softmask(part, rest, power=2.0, split_zeros=True)
        wave = librosa.istft((magnitude * mask) * phase)
        waves.append(librosa.util.fix_length(wave, size=length))
    return waves[0], waves[1]


def _line_medians(magnitude: np.ndarray) -> np.ndarray:
    """``median_filter(magnitude, size=(1, 31), mode="reflect")``, bit for bit, by SciPy's one-dimensional filter.

    A two-dimensional input sends ``median_filter`` to its general code, which sorts every window anew; over
    one dimension it slides. So the lines are laid end to end, each with its own reflections at both ends.
    """
    half = MEDIAN_WIDTH // 2
    padded = np.pad(magnitude, ((0, 0), (half, half)), mode="symmetric")
    return median_filter(padded.ravel(), size=MEDIAN_WIDTH).reshape(padded.shape)[:, half:-half]

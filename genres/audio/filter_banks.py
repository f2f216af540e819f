"""The filter banks and the window of the feature kernel, which are librosa 0.11's at its defaults, to the last digit.

Written out because loading librosa for them costs each process two seconds, and compiling librosa's own loops some
twenty, once. The tests compare them with librosa's.

References
----------
.. [1] M. Slaney, "Auditory toolbox, version 2", Interval Research Corporation, 1998.
.. [2] D. P. W. Ellis, "Chroma feature analysis and synthesis", 2007, https://www.ee.columbia.edu/~dpwe/resources/matlab/chroma-ansyn/
"""

import numpy as np


def hann_window(width: int) -> np.ndarray:
    """Return the periodic Hann window of `width` samples."""
    return np.asarray(0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, width + 1)[:-1]))


def mel_filter_bank(sr: float, n_fft: int, n_mels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles of equal area from 0 Hz to half the sample rate, on Slaney's mel scale [1]_.

    The scale is linear up to 1,000 Hz, at 15 mel, and logarithmic from there on, 27 mel for a factor of 6.4.

    Parameters
    ----------
    sr : float
        Samples per second, in Hz; more than 2,000.
    n_fft, n_mels : int
        Samples of a frame, and bands.

    Returns
    -------
    weights : np.ndarray [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Of each bin in each band.
    corners : np.ndarray [shape=(n_mels + 2,)]
        In Hz; band i rises from corner i to corner i + 1 and falls to corner i + 2.
    """
    linear, octave = 200 / 3, np.log(6.4) / 27
    mels = np.linspace(0, 15 + np.log(sr / 2 / 1_000) / octave, n_mels + 2)
    corners = np.where(mels >= 15, 1_000 * np.exp(octave * (mels - 15)), linear * mels)
    hertz = np.fft.rfftfreq(n_fft, 1 / sr)
    widths, ramps = np.diff(corners), np.subtract.outer(corners, hertz)
    rising, falling = -ramps[:-2] / widths[:-1, np.newaxis], ramps[2:] / widths[1:, np.newaxis]
    weights = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    weights *= (2 / (corners[2:] - corners[:-2]))[:, np.newaxis]
    return weights, corners


def chroma_filter_bank(sr: float, n_fft: int, tuning: float) -> np.ndarray:
    """Return the weights of each bin in the twelve pitch classes from C on: Gaussian bumps, strongest near A4 [2]_.

    Parameters
    ----------
    sr : float
        Samples per second, in Hz.
    n_fft : int
        Samples of a frame.
    tuning : float
        How many semitones the clip's A4 is above 440 Hz.

    Returns
    -------
    np.ndarray [shape=(12, 1 + n_fft // 2), dtype=float32]
    """
    hertz = np.linspace(0, sr, n_fft, endpoint=False)[1:]
    # In semitones above A0, of 27.5 Hz; 0 Hz is put 1.5 octaves below the first bin.
    semitones = 12 * np.log2(hertz / (440.0 * 2.0 ** (tuning / 12) / 16))
    semitones = np.concatenate(([semitones[0] - 18], semitones))
    widths = np.concatenate((np.maximum(np.diff(semitones), 1.0), [1]))
    distance = np.remainder(np.subtract.outer(semitones, np.arange(12.0)).T + 6 + 120, 12) - 6
    weights = np.exp(-0.5 * (2 * distance / widths) ** 2)
    weights /= np.sqrt(np.sum(weights**2, axis=0))
    weights *= np.exp(-0.5 * ((semitones / 12 - 5) / 2) ** 2)
    return np.roll(weights, -3, axis=0)[:, : n_fft // 2 + 1].astype(np.float32)

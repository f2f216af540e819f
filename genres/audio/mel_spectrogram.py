"""The mel spectrogram of a clip, for people to look at; the features have their own way to theirs, made for speed."""

import numpy as np

from genres.audio.filter_banks import hann_window, mel_filter_bank

HOP = 512
"""Samples from one column to the next."""
_N_FFT, _BANDS = 2_048, 128
_FLOOR = 1e-10
"""Least power, so that silence has a logarithm."""


def mel_spectrogram(samples: np.ndarray, sr: float) -> np.ndarray:
    """Return the power of each mel band over time: librosa 0.11's ``melspectrogram`` at its defaults, in decibels.

    Parameters
    ----------
    samples : np.ndarray [shape=(n_samples,)]
        Mono, at least one.
    sr : float
        Samples per second, in Hz.

    Returns
    -------
    np.ndarray [shape=(128, 1 + n_samples // 512)]
        0 dB is the loudest band of the clip; nothing is further than 80 dB below it.
    """
    padded = np.pad(samples, _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * hann_window(_N_FFT), axis=1)) ** 2
    weights, _ = mel_filter_bank(sr, _N_FFT, _BANDS)
    bands = np.maximum(weights @ power.T, _FLOOR)
    return np.maximum(10 * np.log10(bands / bands.max()), -80.0)


def band_hz(sr: float) -> np.ndarray:
    """Return where each band is strongest, in Hz.

    Parameters
    ----------
    sr : float
        Samples per second, in Hz.

    Returns
    -------
    np.ndarray [shape=(128,)]
    """
    return mel_filter_bank(sr, _N_FFT, _BANDS)[1][1:-1]

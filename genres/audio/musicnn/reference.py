"""``musicnn`` as the paper and librosa have it: what the kernel has to return, with all filters and in plain NumPy.

Some hundred times slower than the kernel; the tests compare with it, and nothing that runs in production may import it.
"""

from collections.abc import Mapping

import librosa
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from genres.audio.musicnn import MUSICNN

Variables = Mapping[str, np.ndarray]


def reference_musicnn(samples: np.ndarray, variables: Variables) -> dict[str, float]:
    """Compute the mean taggram and the mean penultimate layer of a clip of at least 3 s, from the network's variables.

    Parameters and result are those of the kernel, and the variables those of `genres.audio.musicnn.checkpoint`.
    """
    mel = librosa.feature.melspectrogram(y=samples, sr=MUSICNN.sample_rate, n_fft=512, hop_length=256, n_mels=96).T
    bands = np.log10(10_000 * mel + 1)
    patches = [bands[first : first + 187] for first in range(0, len(bands) - 186, 187)]
    answers = np.mean([_network(patch.astype(np.float64), variables) for patch in patches], axis=0)
    return dict(zip(MUSICNN.columns, answers.tolist(), strict=True))


def _network(bands: np.ndarray, variables: Variables) -> np.ndarray:
    """Return the tags' probabilities, then the penultimate layer."""
    bands = _normalise(bands, variables, 0)
    front = np.concatenate([_convolve(bands, variables, number).max(axis=1) for number in range(5)], axis=1)
    first = _convolve(front, variables, 5)[:, 0]
    second = _convolve(first, variables, 6)[:, 0] + first
    third = _convolve(second, variables, 7)[:, 0] + second
    channels = np.concatenate([front, first, second, third], axis=1)
    # Side by side for each channel.
    pooled = np.stack([channels.max(axis=0), channels.mean(axis=0)], axis=1).ravel()
    dense = _normalise(pooled, variables, 9) @ variables["dense/kernel"] + variables["dense/bias"]
    penultimate = _normalise(np.maximum(dense, 0), variables, 10)
    logits = penultimate @ variables["dense_1/kernel"] + variables["dense_1/bias"]
    return np.concatenate([1 / (1 + np.exp(-logits)), penultimate])


def _convolve(values: np.ndarray, variables: Variables, number: int) -> np.ndarray:
    """Convolve (frames, bands), rectify, normalise; the result is of shape (frames, places on the bands, filters)."""
    name = "conv2d" + (f"_{number}" if number else "")
    kernel = variables[f"{name}/kernel"][:, :, 0]
    ahead = (len(kernel) - 1) // 2
    padded = np.pad(values, ((ahead, len(kernel) - 1 - ahead), (0, 0)))
    answers = np.tensordot(sliding_window_view(padded, kernel.shape[:2]), kernel, 2) + variables[f"{name}/bias"]
    return _normalise(np.maximum(answers, 0), variables, number + 1)


def _normalise(values: np.ndarray, variables: Variables, number: int) -> np.ndarray:
    name = "batch_normalization" + (f"_{number}" if number else "")
    gamma, beta, mean, variance = (
        variables[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return gamma * (values - mean) / np.sqrt(variance + 1e-3) + beta

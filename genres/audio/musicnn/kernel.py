"""The kernel of ``musicnn``: from the samples of a clip to what the network says of it, patch by patch.

Only the maths of one clip belongs here; the network itself is the module `network` beside this one. ONNX Runtime is
loaded at the first clip and by nothing else.

Definitions
-----------
As the authors' own extractor has them [1]_, but in single precision throughout (theirs brings the bands to half
precision before it takes their logarithm, and loud clips overflow):

1. A spectrum of 512 samples every 256, with a Hann window, centred, zeros beyond both ends of the clip; its power in 96
   bands of Slaney's mel scale; ``log10(10000 x + 1)`` of that.
2. Patches of 187 frames (3 s), one after the other. What is left at the end is not heard. A clip that is shorter than
   a patch is repeated until it fills one, as in the network's training.
3. The mean over the patches of each tag's probability and each activation of the penultimate layer.

References
----------
.. [1] https://github.com/jordipons/musicnn, version 0.1.0
"""

import functools
import os
from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from genres.audio.feature_set import Measured, window_starts
from genres.audio.filter_banks import hann_window, mel_filter_bank
from genres.audio.musicnn import MUSICNN, installed_network

if TYPE_CHECKING:
    import onnxruntime

N_FFT, HOP, BANDS = 512, 256, 96
FRAMES = 187
"""Of a patch."""


def musicnn(samples: np.ndarray) -> Measured:
    """Compute the mean taggram and the mean penultimate layer of a clip, and those of its patches, the windows.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1], at 16,000 Hz.

    Returns
    -------
    Measured
        The probabilities of 50 tags, each by itself, and 200 activations.

    Raises
    ------
    GenresError
        If the network is not installed.
    """
    session = _session()
    whole_windows = max(1, len(window_starts(len(samples), MUSICNN.sample_rate)) - 1)
    shortest = (FRAMES - 1) * HOP
    if len(samples) < shortest:
        samples = np.resize(samples, shortest)
    padded = np.pad(samples.astype(np.float32, copy=False), N_FFT // 2)
    frames = sliding_window_view(padded, N_FFT)[::HOP]
    answers = []
    for patch in range(len(frames) // FRAMES):
        bands = log_mel(frames[patch * FRAMES : (patch + 1) * FRAMES])
        tags, penultimate = session.run(None, {"mel": bands[np.newaxis, np.newaxis]})
        answers.append(np.concatenate([tags[0], penultimate[0]]))
    means = np.asarray(np.mean(answers, axis=0, dtype=np.float64))
    clip, *patches = (dict(zip(MUSICNN.columns, answer.tolist(), strict=True)) for answer in (means, *answers))
    # The last frame of a patch is centred before the patch's end: there may be one more than whole windows.
    return Measured(clip, patches[:whole_windows])


def log_mel(frames: np.ndarray) -> np.ndarray:
    """Return the logarithms of the mel bands of frames.

    Parameters
    ----------
    frames : np.ndarray [shape=(n, 512), dtype=float32]

    Returns
    -------
    np.ndarray [shape=(n, 96), dtype=float32]
    """
    window, filters = _filters()
    spectra = scipy.fft.rfft(frames * window, axis=1, overwrite_x=True)
    power = spectra.real**2 + spectra.imag**2
    return np.log10(10_000 * (power @ filters) + 1)


@functools.cache
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Return the window, and the weight of each bin in each band."""
    weights, _ = mel_filter_bank(MUSICNN.sample_rate, N_FFT, BANDS)
    return hann_window(N_FFT).astype(np.float32), np.ascontiguousarray(weights.T)


@functools.cache
def _session() -> "onnxruntime.InferenceSession":
    return session_of(installed_network())


def session_of(network: bytes) -> "onnxruntime.InferenceSession":
    """Return an ONNX model ready to run, in the thread that runs it and in as little memory as that takes."""
    # It would report home, from a thread of its own that no fork survives, and leave an id in the user's cache folder.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

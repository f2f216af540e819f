"""A feature set of the tests' own: another name, other columns and another sample rate than the project's.

In a module that Spark's workers can import, as a real set's would be. `TREACHEROUS` does to a worker what broken
decoders have done.
"""

import ctypes
import os
import signal
from dataclasses import replace

import numpy as np

from genres.audio.feature_set import FeatureSet, Measured

RATE = 44_100
KILLS, HANGS, RAISES = 0.99, 0.9, 0.8
"""Heights of square waves that kill the worker, keep it busy for good outside Python, and raise an error."""


def tiny(samples: np.ndarray) -> Measured:
    """Length in seconds at the rate that the set asks for, loudness, and zero crossings a second; no windows."""
    signs = np.signbit(samples)
    return Measured(
        {
            "tiny_seconds": len(samples) / RATE,
            "tiny_rms": float(np.sqrt(np.mean(samples.astype(float) ** 2))),
            "tiny_crossings": float(np.count_nonzero(signs[1:] != signs[:-1]) / (len(samples) / RATE)),
        }
    )


TINY = FeatureSet(
    name="tiny",
    version=3,
    library="numpy2",
    columns=("tiny_seconds", "tiny_rms", "tiny_crossings"),
    kernel=tiny,
    sample_rate=RATE,
    min_samples=2,
    shown=("tiny_rms", "tiny_crossings"),
)


def treacherous(samples: np.ndarray) -> Measured:
    """The same, but for square waves of certain heights."""
    height = float(np.median(np.abs(samples))) if len(samples) else 0.0
    if abs(height - KILLS) < 0.02:
        os.kill(os.getpid(), signal.SIGKILL)
    if abs(height - HANGS) < 0.02:
        ctypes.PyDLL(None).sleep(3600)
    if abs(height - RAISES) < 0.02:
        raise ValueError("the kernel has a mistake that this clip finds")
    return tiny(samples)


TREACHEROUS = replace(TINY, name="treacherous", kernel=treacherous)

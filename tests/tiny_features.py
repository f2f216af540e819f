"""A feature set of the tests' own: another name, other columns and another sample rate than the project's.

In a module that Spark's workers can import, as a real set's would be.
"""

import numpy as np

from genres.audio.feature_set import FeatureSet

RATE = 44_100


def tiny(samples: np.ndarray) -> dict[str, float]:
    """Length in seconds at the rate that the set asks for, loudness, and zero crossings a second."""
    signs = np.signbit(samples)
    return {
        "tiny_seconds": len(samples) / RATE,
        "tiny_rms": float(np.sqrt(np.mean(samples.astype(float) ** 2))),
        "tiny_crossings": float(np.count_nonzero(signs[1:] != signs[:-1]) / (len(samples) / RATE)),
    }


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

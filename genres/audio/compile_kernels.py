"""Compiles the feature sets' kernels before their first use: ``python -m genres.audio.compile_kernels``.

Some ten seconds of work. Numba keeps what it compiled beside the source, or in the user's cache folder if it may not
write there. Whatever starts work that needs a kernel calls `compile_kernels` first, so that nobody waits for it
unawares.
"""

from collections.abc import Callable

from genres.audio.feature_set import FeatureSet
from genres.audio.feature_sets import installed_sets


def compile_kernels(on_progress: Callable[[str], None]) -> None:
    """Compile the kernels whose loops have changed since they were last compiled.

    Parameters
    ----------
    on_progress
        Is told, in one line, before the compiler starts, and nothing if there is nothing to do.
    """
    for feature_set in installed_sets().values():
        if not feature_set.is_compiled():
            on_progress(f"compiling the kernel of {feature_set.name}, once ... (some ten seconds)")
            run_kernel(feature_set)


def run_kernel(feature_set: FeatureSet) -> None:
    """Compute the features of a second of noise, which compiles whatever is not compiled yet, and loads the rest."""
    import numpy as np

    samples = max(feature_set.sample_rate, feature_set.min_samples)
    feature_set.kernel(np.random.default_rng(0).standard_normal(samples).astype(np.float32) / 10)


if __name__ == "__main__":
    compile_kernels(print)

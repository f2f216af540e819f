"""Compiles the feature kernel before its first use, some ten seconds of work: ``python -m spark.compile_kernel``.

Numba keeps what it compiled beside the source, or in the user's cache folder if it may not write there. Whatever
starts work that needs the kernel calls `compile_kernel` first, so that nobody waits for it unawares.
"""

import sys
from collections.abc import Callable
from pathlib import Path


def compile_kernel(on_progress: Callable[[str], None]) -> None:
    """Compile the kernel's loops if that has not been done since they were last changed.

    Parameters
    ----------
    on_progress
        Is told, in one line, before the compiler starts, and nothing if there is nothing to do.
    """
    if not _is_compiled():
        on_progress("compiling the feature kernel, once ... (some ten seconds)")
        run_kernel()


def run_kernel() -> None:
    """Compute the features of some noise, which compiles whatever is not compiled yet, and loads the rest."""
    import numpy as np

    from spark.features import gtzan57

    gtzan57(np.random.default_rng(0).standard_normal(22_050).astype(np.float32) / 10)


def _is_compiled() -> bool:
    from spark import feature_loops

    source = Path(feature_loops.__file__)
    # The one that is compiled last.
    function = feature_loops.level_and_crossings
    indices = Path(function.stats.cache_path).glob(
        f"{source.stem}.{function.__name__}-*.py{sys.version_info.major}{sys.version_info.minor}.nbi"
    )
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in indices)


if __name__ == "__main__":
    compile_kernel(print)

"""One pass over a clip's spectra, which the feature sets ``gtzan57`` and ``librosa96`` share.

`analysis` says what is measured, `loops` holds what numba compiles. Importing this package loads neither.
"""

import sys
from pathlib import Path


def is_compiled(function: str) -> bool:
    """Return whether a function of `loops` has been compiled since the file was changed last."""
    from genres.audio.spectral import loops

    source = Path(loops.__file__)
    indices = Path(getattr(loops, function).stats.cache_path).glob(
        f"{source.stem}.{function}-*.py{sys.version_info.major}{sys.version_info.minor}.nbi"
    )
    return any(index.stat().st_mtime >= source.stat().st_mtime for index in indices)

"""What a feature set is: a name, a version, columns and the kernel that computes them.

What a feature *is* stands in the set's own package; `genres.audio.feature_sets` lists the sets. Assets, sensors and
the command line speak of columns and versions by these without loading an audio library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def _always() -> bool:
    return True


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class FeatureSet:
    """A named, versioned set of columns computed from one clip."""

    name: str
    version: int
    """Raised whenever a definition changes, however little: features of two versions are never mixed."""
    library: str
    """The library release whose numerical definitions the kernel relies on."""
    columns: tuple[str, ...]
    """Column names, in the order of every table."""
    kernel: "Callable[[np.ndarray], dict[str, float]]"
    """From mono float32 samples at `sample_rate` to a value for each column."""
    sample_rate: int
    """Samples per second that the kernel takes, in Hz: clips are decoded to this rate."""
    min_samples: int
    """The shortest clip the kernel is defined for, in samples."""
    shown: tuple[str, ...]
    """Up to six columns that tell people most; figures show these."""
    is_compiled: Callable[[], bool] = _always
    """Whether the kernel's first call starts no compiler."""
    missing: Callable[[], str | None] = _nothing
    """What the kernel lacks on this machine, and what to do about it, in one line; None where it can be called."""

    @property
    def feature_version(self) -> str:
        """What rows, models and predictions are stamped with, such as ``gtzan57-v1-librosa0.11``."""
        return f"{self.name}-v{self.version}-{self.library}"

"""What a feature set is: a name, a version, columns and the kernel that computes them; and several sets joined.

What a feature *is* stands in the set's own package; `genres.audio.feature_sets` lists the sets. Assets, sensors and
the command line speak of columns and versions by these without loading an audio library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


JOINT = "+"
"""Stands between the names, and the versions, of sets that are joined."""


WINDOW_S = 187 * 256 / 16_000
"""Length of the windows in which a clip is followed over time, in seconds: 2.992, a patch of ``musicnn``."""


def window_starts(samples: int, sample_rate: float) -> list[float]:
    """Return where the whole windows of a clip begin, and after them where the last one ends, in samples.

    Windows follow each other from the clip's first sample on; what is left at the end is in none of them.
    """
    step = WINDOW_S * sample_rate
    return [number * step for number in range(int(samples / step) + 1)]


class Measured(NamedTuple):
    """What a kernel measures: a value for each column of its set."""

    clip: dict[str, float]
    """Of the clip as a whole."""
    windows: Sequence[dict[str, float]] = ()
    """Of each window (see `window_starts`), of a clip that is shorter than one the clip's own; none if the set says
    nothing over time."""


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
    kernel: "Callable[[np.ndarray], Measured]"
    """From mono float32 samples at `sample_rate` to a value for each column, of the clip and over time."""
    sample_rate: int
    """Samples per second that the kernel takes, in Hz: clips are decoded to this rate."""
    min_samples: int
    """The shortest clip the kernel is defined for, in samples."""
    shown: tuple[str, ...]
    """Up to six columns that tell people most; figures show these."""
    is_compiled: Callable[[], bool] = _always
    """Whether the kernel's first call starts no compiler."""
    contains: "tuple[FeatureSet, ...]" = ()
    """Sets whose columns are among these, with the same values; where both are wanted, this kernel computes them."""
    measures_sound: bool = True
    """Whether what is no music has values unlike music's, so that distances tell the two apart. What a network that
    was trained on music alone makes of noise or speech is among what it makes of music."""
    missing: Callable[[], str | None] = _nothing
    """What the kernel lacks on this machine, and what to do about it, in one line; None where it can be called."""

    @property
    def parts(self) -> "tuple[FeatureSet, ...]":
        """The sets that it is joined of: itself."""
        return (self,)

    @property
    def windows_column(self) -> str:
        """The column of a clip's windows: of each a list of the set's columns."""
        return f"windows_{self.name}"

    @property
    def windows_columns(self) -> tuple[str, ...]:
        """The columns of a clip's windows, one a set."""
        return (self.windows_column,)

    @property
    def length_columns(self) -> dict[int, str]:
        """The column of a clip's length in samples, by sample rate."""
        return {self.sample_rate: "length"}

    @property
    def feature_version(self) -> str:
        """What rows, models and predictions are stamped with, such as ``gtzan57-v1-librosa0.11``."""
        return f"{self.name}-v{self.version}-{self.library}"


@dataclass(frozen=True)
class JoinedFeatureSets:
    """Several feature sets side by side, which a model reads as one: a clip has all of their columns or none."""

    parts: tuple[FeatureSet, ...]

    @property
    def name(self) -> str:
        """The sets' names, such as ``librosa96+musicnn``."""
        return JOINT.join(part.name for part in self.parts)

    @property
    def feature_version(self) -> str:
        """What rows, models and predictions are stamped with: the sets' versions."""
        return JOINT.join(part.feature_version for part in self.parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The sets' columns; what two of them share, once."""
        return tuple(dict.fromkeys(column for part in self.parts for column in part.columns))

    @property
    def windows_columns(self) -> tuple[str, ...]:
        """The columns of a clip's windows, one a set."""
        return tuple(part.windows_column for part in self.parts)

    @property
    def shown(self) -> tuple[str, ...]:
        """Up to six columns that tell people most, as many of each set."""
        share = max(1, 6 // len(self.parts))
        return tuple(dict.fromkeys(column for part in self.parts for column in part.shown[:share]))[:6]

    @property
    def length_columns(self) -> dict[int, str]:
        """The column of a clip's length in samples, by sample rate; ``length`` is at the first set's."""
        first = self.parts[0].sample_rate
        others = {part.sample_rate: f"length_{part.sample_rate}" for part in self.parts}
        return {**others, first: "length"}


AnyFeatureSet = FeatureSet | JoinedFeatureSets
"""What is computed for a clip, and what a model reads."""

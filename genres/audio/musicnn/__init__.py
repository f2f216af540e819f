"""``musicnn``: what a published network, trained on a million songs, hears in a clip: 50 tags and 200 activations.

`kernel` says what is computed, `network` is the network as an ONNX graph, `checkpoint` reads its published weights,
`install` fetches these and writes the graph to the cache folder, `reference` is the same network in plain NumPy.
Importing this package loads none of them. Where the graph was not installed, the set is absent.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from genres.audio.feature_set import FeatureSet, Measured
from genres.errors import GenresError
from genres.settings import Settings

if TYPE_CHECKING:
    import numpy as np


NETWORK_SHA256 = "a286155fee4b3b5bc1234dd03a16d8a549e110514394ce5abb017844076515f6"
"""Of the file that `install` writes."""


def network_file() -> Path:
    """Return where the network is kept on this machine."""
    return Settings().cache_dir / "msd_musicnn_v1.onnx"


def installed_network() -> bytes:
    """Return the network, as an ONNX model.

    Raises
    ------
    GenresError
        If it is not there, or is not the one that this code was written for.
    """
    return _read(network_file())


def _read(path: Path) -> bytes:
    try:
        network = path.read_bytes()
    except OSError as error:
        raise GenresError(f"{path} cannot be read ({error.strerror}): run {_INSTALL}") from None
    if (sha256 := hashlib.sha256(network).hexdigest()) != NETWORK_SHA256:
        raise GenresError(f"{path} has sha256 {sha256}, but {NETWORK_SHA256} is expected: run {_INSTALL}")
    return network


_INSTALL = "`python -m genres.audio.musicnn.install`, which fetches its weights"


def _kernel(samples: "np.ndarray") -> Measured:
    from genres.audio.musicnn.kernel import musicnn

    return musicnn(samples)


def _missing() -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: run `make install`, or `pip install onnxruntime`"
    path = network_file()
    try:
        return _what_is_wrong_with(path, path.stat().st_mtime_ns)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): run {_INSTALL}"


@functools.lru_cache(maxsize=2)
def _what_is_wrong_with(path: Path, _mtime_ns: int) -> str | None:
    """Read the network once for each time that it was written: this is asked for every range of a stream."""
    try:
        _read(path)
    except GenresError as error:
        return str(error)
    return None


_TAGS = (
    *("rock", "pop", "alternative", "indie", "electronic", "female_vocalists", "dance", "00s", "alternative_rock"),
    *("jazz", "beautiful", "metal", "chillout", "male_vocalists", "classic_rock", "soul", "indie_rock", "mellow"),
    *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard_rock", "ambient"),
    *("acoustic", "experimental", "female_vocalist", "guitar", "hip_hop", "70s", "party", "country", "easy_listening"),
    *("sexy", "catchy", "funk", "electro", "heavy_metal", "progressive_rock", "60s", "rnb", "indie_pop", "sad"),
    *("house", "happy"),
)
MUSICNN = FeatureSet(
    name="musicnn",
    version=1,
    library="musicnn0.1",
    columns=(*(f"tag_{tag}" for tag in _TAGS), *(f"penultimate_{number}" for number in range(200))),
    kernel=_kernel,
    sample_rate=16_000,
    min_samples=2_048,
    shown=("tag_rock", "tag_metal", "tag_jazz", "tag_blues", "tag_country", "tag_hip_hop"),
    measures_sound=False,
    missing=_missing,
)

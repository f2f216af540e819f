"""Installs the network of ``musicnn``: ``python -m genres.audio.musicnn.install``.

Its weights are fetched by pip, from wherever pip fetches packages here, as the wheel that ``wheel.txt`` names by its
checksum. Only two files of it are read; nothing of it is installed or run. What is kept is the network alone.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

from genres.audio.musicnn import NETWORK_SHA256, installed_network, network_file
from genres.errors import GenresError

_WHEEL = Path(__file__).with_name("wheel.txt")
_INDEX, _DATA = "musicnn/MSD_musicnn/.index", "musicnn/MSD_musicnn/.data-00000-of-00001"
_CONNECT_S = 15
"""How long to wait for an index that does not answer, in seconds."""


def install() -> bool:
    """Write the network to the cache folder, and return whether it was not there yet.

    Raises
    ------
    GenresError
        If the weights cannot be fetched, or the network made of them is not the expected one.
    """
    with suppress(GenresError):
        installed_network()
        return False
    try:
        from genres.audio.musicnn.checkpoint import float_variables
        from genres.audio.musicnn.network import onnx_network

        network = onnx_network(float_variables(*fetched_checkpoint()))
    except ImportError as error:
        raise GenresError(f"{error.name} is not installed: run `make install`, or `pip install {error.name}`") from None
    if (sha256 := hashlib.sha256(network).hexdigest()) != NETWORK_SHA256:
        raise GenresError(f"the network made of the weights has sha256 {sha256}, but {NETWORK_SHA256} is expected")
    write(network_file(), network)
    return True


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place first, and renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise GenresError(f"cannot write {path} ({error.strerror}): set GENRES_CACHE_DIR to another folder") from error


def fetched_checkpoint() -> tuple[bytes, bytes]:
    """Return the checkpoint's index and data, out of the published wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--timeout", str(_CONNECT_S), "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(_WHEEL)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, "--dest", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            reasons = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            reason = reasons[-1] if reasons else done.stderr.strip().rpartition("\n")[2]
            again = "`python -m genres.audio.musicnn.install` tries again"
            raise GenresError(f"pip cannot download its weights ({reason}); {again}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            return files.read(_INDEX), files.read(_DATA)


def main() -> None:
    """Install the network, and say in one line what was done, or why not."""
    try:
        if install():
            print(f"the feature set musicnn is installed: {network_file()}")  # noqa: T201
    except GenresError as error:
        sys.exit(f"the feature set musicnn is not installed: {error}; everything else works")


if __name__ == "__main__":
    main()

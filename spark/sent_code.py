"""The project's own code as one file, for the workers of an engine that have its requirements but not the project.

Belongs here: which files that is and how the file is built. `spark.session` sends it.
"""

import hashlib
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

_DISTRIBUTION = "genres"
_PREFIX = "genres-code-"
_KEPT_S = 24 * 3600.0
"""For how long a zip of other code is kept: a process that runs it may be about to send it."""
_NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip knows: the same code is the same file."""


def code_zip(folder: Path) -> Path:
    """Return the zip of the project's packages, which is built unless it is there.

    Parameters
    ----------
    folder
        Where it is kept; made if it is not there.

    Returns
    -------
    pathlib.Path
        Named by a digest of what it holds.
    """
    files = list(_files())
    digest = hashlib.sha256()
    for name, data in files:
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    target = folder / f"{_PREFIX}{digest.hexdigest()[:16]}.zip"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        _write(target, files)
    return target


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield the files of every package of the distribution, by their names in the zip, in order."""
    for package in _packages():
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(package.parent).as_posix(), path.read_bytes()


def _packages() -> list[Path]:
    """Return the folders of the distribution's packages, wherever this process would import them from."""
    from importlib.metadata import distribution
    from importlib.util import find_spec

    names = (distribution(_DISTRIBUTION).read_text("top_level.txt") or "").split()
    specs = [find_spec(name) for name in sorted(names)]
    return [Path(place) for spec in specs if spec is not None for place in spec.submodule_search_locations or ()]


def _write(target: Path, files: list[tuple[str, bytes]]) -> None:
    handle, beside = tempfile.mkstemp(dir=target.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    Path(beside).replace(target)


def _remove_old(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*.zip"):
        if time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink(missing_ok=True)

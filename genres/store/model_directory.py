"""A model's native Spark directory: its digest, and whether what lies in the lake is still what was registered."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from genres.errors import GenresError
from genres.store.lake import Lake
from genres.store.model_facts import RegisteredModel


class UnusableModelError(GenresError):
    """A registered version that cannot be loaded for a reason of its own, whatever the services do."""


def directory_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a local folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return _digest((path.relative_to(folder).as_posix(), _sha256(path.read_bytes())) for path in files)


def require_intact(model: RegisteredModel, lake: Lake) -> None:
    """Refuse a version whose directory is not the one that was registered: it was changed, cut or deleted since.

    Raises
    ------
    UnusableModelError
        With what to do.
    """
    found = _lake_digest(lake, model.spark_model_path)
    if found == model.spark_model_digest:
        return
    what = "is gone" if found is None else "is not what was registered: its digest is another one"
    raise UnusableModelError(
        f"the directory of {model.name} version {model.version}, {lake.uri(model.spark_model_path)}, {what}; point the "
        "champion at another version (`genres models rollback`), or materialize genre_classifiers and champion_model"
    )


def _lake_digest(lake: Lake, path: str) -> str | None:
    """Return the `directory_digest` of a directory of the lake; None if there is none."""
    try:
        files = lake.read_directory(path)
    except FileNotFoundError:
        return None
    return _digest((name, _sha256(data)) for name, data in files.items())


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    # Path by path, as pathlib sorts them: "a/b" stands before "a-b".
    for name, content in sorted(files, key=lambda file: file[0].split("/")):
        digest.update(name.encode())
        digest.update(content)
    return digest.hexdigest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()

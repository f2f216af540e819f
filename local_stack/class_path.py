"""A daemon's class path: the jars of a committed lock file, fetched through Maven and checked against it."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jgo.env import LockFile
from jgo.maven import MavenContext

from genres.errors import GenresError

HADOOP_LOCK = Path(__file__).parent / "jars" / "hadoop.lock.toml"
"""The NameNode's and DataNode's jars."""

KAFKA_LOCK = Path(__file__).parent / "jars" / "kafka.lock.toml"
"""The Kafka broker's jars."""


def jar_folder(repository: Path | None) -> Path:
    """Return the local Maven repository that jars are kept in; without one of its own, the user's."""
    return Path(MavenContext(repo_cache=repository).repo_cache)


def class_path(lock_file: Path, *, on_progress: Callable[[str], None], repository: Path | None = None) -> list[Path]:
    """Resolve the jars of a lock file and check every sha256 (150 MB take 0.1 s, so on each call).

    A jar that is not there, or is another one or half of one, is downloaded.

    Parameters
    ----------
    lock_file
        `HADOOP_LOCK` or `KAFKA_LOCK`.
    on_progress
        Told, in one line, what is being downloaded.
    repository
        Local Maven repository; None: the user's own, ``~/.m2/repository``.

    Returns
    -------
    list[Path]
        Jar files in the order of the lock file.

    Raises
    ------
    GenresError
        If a jar can neither be found nor downloaded, or what is downloaded differs from the lock file.
    """
    lock = LockFile.load(lock_file)
    folder = jar_folder(repository)
    paths = [Path(artifact.cached_path) for artifact in _artifacts(lock, folder)]
    if lacking := _lacking(lock, paths):
        on_progress(f"downloading {len(lacking)} of {len(paths)} {lock.environment_name} jars to {folder}")
        try:
            with _unfinished(folder) as place:
                artifacts = _artifacts(lock, place)

                def fetch(number: int) -> None:
                    _fetch(artifacts[number], paths[number], lock.dependencies[number].sha256, lock_file.name)

                with ThreadPoolExecutor(max_workers=8) as pool:
                    # Asked again: another command may have fetched some while this one waited for its turn.
                    list(pool.map(fetch, _lacking(lock, paths)))
        except OSError as error:
            raise GenresError(
                f"jars cannot be kept in {folder} ({error}); set GENRES_JAR_DIR to another folder"
            ) from error
    return paths


def _artifacts(lock: LockFile, repository: Path) -> list[Any]:
    """Return jgo's artifacts of a lock file, which it would download to `repository`."""
    context = MavenContext(repo_cache=repository, timeout=60)
    return [
        context.project(jar.groupId, jar.artifactId).at_version(jar.version).artifact() for jar in lock.dependencies
    ]


def _lacking(lock: LockFile, paths: list[Path]) -> list[int]:
    """Return the places in a lock file of the jars that are not there as it says."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(_sha256, paths))
    return [number for number, jar in enumerate(lock.dependencies) if found[number] != jar.sha256]


def _fetch(artifact: Any, path: Path, sha256: str, lock_name: str) -> None:
    """Download a jar to where `artifact` says, and move it to `path` if it is the locked one."""
    try:
        fetched = Path(artifact.resolve())
    except Exception as error:  # jgo raises what its HTTP library and its XML parser raise
        raise GenresError(
            f"cannot download {artifact} ({error}); check the network, or put the jar at {path}"
        ) from error
    if (found := _sha256(fetched)) != sha256:
        raise GenresError(
            f"{artifact} was downloaded with sha256 {found}, but {lock_name} says {sha256}; "
            f"check what the network puts in place of it, or put the jar at {path}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fetched.replace(path)


def _sha256(path: Path) -> str:
    """Return a file's checksum; of one that is not there or cannot be read, nothing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield a place beside the jars to download to, for one command at a time; jgo writes straight to where a jar ends.

    What a command that was killed left there is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / ".genres-unfinished"
    with (folder / ".genres-lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shutil.rmtree(place, ignore_errors=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

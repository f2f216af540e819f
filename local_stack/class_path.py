"""A daemon's class path: the jars of a committed lock file, fetched through Maven and checked against it."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
        If a jar can neither be found nor downloaded, or differs from the lock file.
    """
    lock = LockFile.load(lock_file)
    context = MavenContext(repo_cache=repository, timeout=60)
    artifacts = [
        context.project(jar.groupId, jar.artifactId).at_version(jar.version).artifact() for jar in lock.dependencies
    ]
    missing = sum(not artifact.cached_path.exists() for artifact in artifacts)
    if missing:
        on_progress(f"downloading {missing} of {len(artifacts)} {lock.environment_name} jars to {context.repo_cache}")

    def fetch(jar_number: int) -> Path:
        artifact, locked = artifacts[jar_number], lock.dependencies[jar_number]
        try:
            path = Path(artifact.resolve())
        except Exception as error:  # jgo raises what its HTTP library and its XML parser raise
            raise GenresError(
                f"cannot download {artifact} ({error}); check the network, or put the jar at {artifact.cached_path}"
            ) from error
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != locked.sha256:
            raise GenresError(
                f"{path} has sha256 {sha256}, but {lock_file.name} says {locked.sha256}; "
                "delete the file and run the command again"
            )
        return path

    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(fetch, range(len(artifacts))))

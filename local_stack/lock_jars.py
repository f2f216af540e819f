"""Re-create the lock files of the daemons' jars: ``python -m local_stack.lock_jars``, after changing a version.

A lock file lists every jar of a daemon's class path by Maven coordinates and sha256, without addresses, so
that it holds for whichever mirror serves the jars.
"""

import importlib.metadata
import sys

from jgo.env import LockFile
from jgo.maven import Dependency, MavenContext

from local_stack.class_path import HADOOP_LOCK, KAFKA_LOCK

HADOOP_VERSION = "3.5.0"
"""The version of the Hadoop client inside pyspark 4.2.0."""

KAFKA_VERSION = "4.2.0"

# Hadoop and Kafka log through slf4j 1.7 and bring no binding; without one they are mute.
_SLF4J_SIMPLE = "org.slf4j:slf4j-simple:1.7.36"

# Hadoop's daemons call it when they end, and otherwise bury the reason under a stack trace of its absence.
_LOG4J_1 = "ch.qos.reload4j:reload4j:1.2.22"

ROOTS = {
    HADOOP_LOCK: [f"org.apache.hadoop:hadoop-client-minicluster:{HADOOP_VERSION}", _SLF4J_SIMPLE, _LOG4J_1],
    KAFKA_LOCK: [f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", _SLF4J_SIMPLE],
}
"""What each lock file's class path is resolved from."""


def main() -> None:
    """Resolve the class paths of `ROOTS` with Maven's rules, download the jars and write the lock files."""
    context = MavenContext(timeout=120)
    for lock_file, coordinates in ROOTS.items():
        roots = [
            Dependency(context.project(group, artifact).at_version(version).artifact(), scope="compile")
            for group, artifact, version in (coordinate.split(":") for coordinate in coordinates)
        ]
        _, resolved = context.resolver.resolve(roots)
        lock = LockFile.from_resolved_dependencies(
            [*roots, *(jar for jar in resolved if jar.artifact not in {root.artifact for root in roots})],
            environment_name=lock_file.name.partition(".")[0],
            min_java_version=17,
        )
        lock.jgo_version = importlib.metadata.version("jgo")
        lock.save(lock_file)
        sys.stdout.write(f"{lock_file}: {len(lock.dependencies)} jars\n")


if __name__ == "__main__":
    main()

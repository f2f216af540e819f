"""The jars: locked by checksum and without addresses, and refused when they differ."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from genres.errors import GenresError
from local_stack.class_path import HADOOP_LOCK, KAFKA_LOCK, class_path

CONTENT = b"what the lock file's author saw"


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    path = tmp_path / "example.lock.toml"
    path.write_text(
        f"""
        [metadata]
        jgo_version = "3.2.0"
        [environment]
        name = "example"
        [[dependencies]]
        groupId = "org.example"
        artifactId = "thing"
        version = "1.0"
        packaging = "jar"
        sha256 = "{hashlib.sha256(CONTENT).hexdigest()}"
        """
    )
    return path


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "repository" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


def test_jars_that_are_there_are_not_downloaded(lock_file: Path, jar: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    assert class_path(lock_file, on_progress=lines.append, repository=tmp_path / "repository") == [jar]
    assert lines == []


def test_jar_with_another_checksum_is_refused(lock_file: Path, jar: Path, tmp_path: Path) -> None:
    jar.write_bytes(CONTENT + b"!")
    with pytest.raises(GenresError) as refused:
        class_path(lock_file, on_progress=print, repository=tmp_path / "repository")
    message = str(refused.value)
    assert str(jar) in message
    assert "example.lock.toml says " + hashlib.sha256(CONTENT).hexdigest() in message
    assert "delete the file" in message


@pytest.mark.parametrize("path", [HADOOP_LOCK, KAFKA_LOCK], ids=lambda path: path.name)
def test_committed_locks_hold_checksums_and_no_addresses(path: Path) -> None:
    assert "://" not in path.read_text()
    jars = tomllib.loads(path.read_text())["dependencies"]
    assert all(len(jar["sha256"]) == 64 for jar in jars)
    artifacts = [jar["artifactId"] for jar in jars]
    assert len(artifacts) == len(set(artifacts))
    assert "slf4j-simple" in artifacts


def test_hadoop_is_the_version_of_the_client_inside_pyspark() -> None:
    import pyspark

    inside = {jar.name for jar in (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-*.jar")}
    locked = {
        f"{jar['artifactId']}-{jar['version']}.jar"
        for jar in tomllib.loads(HADOOP_LOCK.read_text())["dependencies"]
        if jar["groupId"] == "org.apache.hadoop"
    }
    assert inside == locked - {jar for jar in locked if "minicluster" in jar}

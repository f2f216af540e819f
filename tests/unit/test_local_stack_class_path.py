"""The jars: locked by checksum and without addresses, whole or not there, and refused when they differ."""

import hashlib
import threading
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from genres.errors import GenresError
from local_stack import class_path as module
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


class Maven(ThreadingHTTPServer):
    """A remote repository that answers each request for the jar with the next of `answers`, and then with the last."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = [sends(CONTENT)]
        self.asked = 0
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Maven)
        if not self.path.endswith(".jar"):
            self.send_error(404)
            return
        self.server.asked += 1
        self.server.answers[min(self.server.asked, len(self.server.answers)) - 1](self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def sends(content: bytes, *, of_length: int = 0) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(of_length or len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Maven]:
    with Maven() as server:
        there = {"here": f"http://127.0.0.1:{server.server_port}"}
        monkeypatch.setattr(module, "MavenContext", partial(module.MavenContext, remote_repos=there))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_half_a_jar_is_fetched_again(lock_file: Path, jar: Path, tmp_path: Path, maven: Maven) -> None:
    jar.write_bytes(CONTENT[:5])
    lines: list[str] = []
    assert class_path(lock_file, on_progress=lines.append, repository=tmp_path / "repository") == [jar]
    assert jar.read_bytes() == CONTENT
    assert lines == [f"downloading 1 of 1 example jars to {tmp_path / 'repository'}"]
    assert maven.asked == 1


def test_a_download_that_breaks_off_leaves_nothing(lock_file: Path, tmp_path: Path, maven: Maven) -> None:
    maven.answers = [sends(CONTENT[:5], of_length=len(CONTENT)), sends(CONTENT)]
    repository = tmp_path / "repository"
    with pytest.raises(GenresError, match=r"cannot download org\.example:thing.*check the network, or put the jar at "):
        class_path(lock_file, on_progress=print, repository=repository)
    assert not list(repository.rglob("*.jar"))
    (jar,) = class_path(lock_file, on_progress=print, repository=repository)
    assert jar.read_bytes() == CONTENT


def test_what_a_killed_command_left_is_not_taken_for_a_jar(lock_file: Path, tmp_path: Path, maven: Maven) -> None:
    left = tmp_path / "repository" / ".genres-unfinished" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    left.parent.mkdir(parents=True)
    left.write_bytes(CONTENT[:5])
    (jar,) = class_path(lock_file, on_progress=print, repository=tmp_path / "repository")
    assert jar.read_bytes() == CONTENT
    assert not left.exists()


def test_a_command_waits_for_what_another_one_fetches(lock_file: Path, tmp_path: Path, maven: Maven) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def in_two_pieces(request: BaseHTTPRequestHandler) -> None:
        sends(CONTENT[:5], of_length=len(CONTENT))(request)
        request.wfile.flush()
        begun.set()
        assert may_go_on.wait(60)
        request.wfile.write(CONTENT[5:])

    def second_has_seen_that_it_lacks(_: str) -> None:
        may_go_on.set()

    maven.answers = [in_two_pieces]
    repository = tmp_path / "repository"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(class_path, lock_file, on_progress=print, repository=repository)
        assert begun.wait(60)
        second = pool.submit(class_path, lock_file, on_progress=second_has_seen_that_it_lacks, repository=repository)
        assert first.result(60) == second.result(60)
    assert maven.asked == 1
    assert first.result()[0].read_bytes() == CONTENT


def test_a_download_with_another_checksum_is_refused(lock_file: Path, jar: Path, tmp_path: Path, maven: Maven) -> None:
    maven.answers = [sends(CONTENT + b"!")]
    jar.write_bytes(b"somebody's own")
    with pytest.raises(GenresError) as refused:
        class_path(lock_file, on_progress=print, repository=tmp_path / "repository")
    message = str(refused.value)
    assert "org.example:thing" in message and f"put the jar at {jar}" in message
    assert "example.lock.toml says " + hashlib.sha256(CONTENT).hexdigest() in message
    assert jar.read_bytes() == b"somebody's own", "it is replaced by the locked one or by none"


def test_a_folder_that_takes_no_jars_is_named(lock_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        GenresError, match=r"jars cannot be kept in .*/file/repository \(.*; set GENRES_JAR_DIR to another folder"
    ):
        class_path(lock_file, on_progress=print, repository=tmp_path / "file" / "repository")


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

"""Opening a Connect session that processes share: a closed id is passed over, and any other error is told."""

import socket
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException

from genres.errors import GenresError
from genres.settings import Settings
from spark import sent_code, session

CLOSED = PySparkException("[INVALID_HANDLE.SESSION_CLOSED] The handle is invalid. Session was closed.")
CONFIG = {"spark.remote": "sc://127.0.0.1:1"}


class Opened:
    release_session_on_close = True

    def __init__(self) -> None:
        self.sent: list[tuple[str, bool]] = []

    def addArtifacts(self, *paths: str, pyfile: bool) -> None:  # noqa: N802 - Spark's name
        for path in paths:
            self.sent.append((path, pyfile))
            sys.path.insert(1, path)  # as the client does


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The remotes that a server was asked for; it has closed the first two."""
    remotes: list[str] = []

    def build(config: dict[str, str]) -> Any:
        remotes.append(config["spark.remote"])
        if len(remotes) < 3:
            raise CLOSED
        return Opened()

    monkeypatch.setattr(session, "_wait_for_server", lambda remote: None)
    monkeypatch.setattr(session, "_build", build)
    return remotes


def test_closed_sessions_are_passed_over(asked: list[str]) -> None:
    opened = session.open_session(CONFIG, shared_as="stream")
    assert not opened.release_session_on_close
    assert len(set(asked)) == 3
    assert session.open_session(CONFIG, shared_as="stream") is not opened
    assert asked[3] == asked[0], "the next process looks for the same sessions, in the same order"
    session.open_session(CONFIG, shared_as="other")
    assert asked[4] not in asked[:4]


def test_hosts_share_no_session(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods of one image have equal paths, addresses and names."""
    for host in ("genres-drain-0", "genres-drain-1"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        session.open_session(CONFIG, shared_as="stream")
    assert asked[3] not in asked[:3]


def test_parameters_of_the_address_are_kept(asked: list[str]) -> None:
    session.open_session({"spark.remote": "sc://host:1/;token=secret"}, shared_as="stream")
    assert all(remote.startswith("sc://host:1/;token=secret;session_id=") for remote in asked)


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    def refuse(config: dict[str, str]) -> Any:
        raise PySparkException("[UNAUTHENTICATED] no")

    monkeypatch.setattr(session, "_build", refuse)
    with pytest.raises(PySparkException, match="UNAUTHENTICATED"):
        session.open_session(CONFIG, shared_as="stream")


def test_a_server_that_closes_everything_is_named_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: dict[str, str]) -> Any:
        raise CLOSED

    monkeypatch.setattr(session, "_wait_for_server", lambda remote: None)
    monkeypatch.setattr(session, "_build", refuse)
    with pytest.raises(GenresError, match="sc://host:1 closed 50 sessions of 'stream' today") as said:
        session.open_session({"spark.remote": "sc://host:1/;token=secret"}, shared_as="stream")
    assert "secret" not in str(said.value)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_server_that_is_gone_is_not_asked_to_forget_a_session(is_there: bool) -> None:
    class Stopped(Opened):
        asked: bool | None = None

        def stop(self) -> None:
            self.asked = self.release_session_on_close

    opened: Any = Stopped()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not is_there:
            server.close()
        session.stop_session(opened, remote=f"sc://127.0.0.1:{port}")
    assert opened.asked is is_there


def test_the_embedded_engine_is_sent_no_code(monkeypatch: pytest.MonkeyPatch, asked: list[str], tmp_path: Path) -> None:
    config = session.session_config(Settings(state_dir=tmp_path, spark_remote=""), app_name="test")
    opened: Any = session.open_session(config, shared_as="stream")
    assert opened.sent == []
    assert not list(tmp_path.iterdir())


def test_another_engine_is_sent_the_code(asked: list[str], tmp_path: Path) -> None:
    config = session.session_config(Settings(state_dir=tmp_path, spark_remote="sc://spark:1"), app_name="test")
    before = list(sys.path)
    opened: Any = session.open_session(config, shared_as="stream")
    ((path, is_python),) = opened.sent
    assert is_python and zipfile.is_zipfile(path) and Path(path).is_relative_to(tmp_path)
    assert sys.path == before, "this process goes on with the code that it runs"


def test_other_code_goes_to_another_session(monkeypatch: pytest.MonkeyPatch, asked: list[str], tmp_path: Path) -> None:
    config = session.session_config(Settings(state_dir=tmp_path, spark_remote="sc://spark:1"), app_name="test")
    monkeypatch.setattr(sent_code, "code_zip", lambda folder: folder / "genres-code-one.zip")
    session.open_session(config, shared_as="stream")
    monkeypatch.setattr(sent_code, "code_zip", lambda folder: folder / "genres-code-other.zip")
    session.open_session(config, shared_as="stream")
    assert asked[3] not in asked[:3]


@pytest.mark.parametrize("error", [None, PySparkException("[INVALID_HANDLE.SESSION_CHANGED] It was restarted.")])
def test_a_server_that_was_started_again_has_forgotten_the_session(error: PySparkException | None) -> None:
    class Conf:
        def get(self, name: str) -> str:
            if error is not None:
                raise error
            return name

    idle: Any = type("Session", (), {"conf": Conf()})()
    with socket.create_server(("127.0.0.1", 0)) as server:
        remote = f"sc://127.0.0.1:{server.getsockname()[1]}"
        assert session.still_knows(idle, remote=remote) is (error is None)


@pytest.mark.parametrize(
    ("remote", "said"),
    [("sc://127.0.0.1:99999", "is no Spark Connect address"), ("sc://a..b:1", "does not answer at a..b:1")],
)
def test_an_address_that_cannot_be_is_said(remote: str, said: str) -> None:
    with pytest.raises(GenresError, match=said):
        session.open_session({"spark.remote": remote})


def test_a_server_that_is_away_is_no_forgotten_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_PATIENCE_S", 0.1)
    with pytest.raises(GenresError, match="Spark Connect does not answer"):
        session.still_knows(object(), remote="sc://127.0.0.1:1")  # type: ignore[arg-type]

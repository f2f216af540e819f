"""Answers to single clips while the Connect server forgets the session, is started again, or is away.

The session is the client's own; the server is one that knows sessions and nothing else.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from pyspark.sql.connect.proto import base_pb2 as pb2
from pyspark.sql.connect.proto import base_pb2_grpc as services

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres_page import answers
from genres_page.answers import Answerer
from spark import prepared_scorer, scoring, session


class Connect(services.SparkConnectServiceServicer):
    """A Connect server that is asked for sessions' configurations."""

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self._closed: set[str] = set()
        self._id = str(uuid4())
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        services.add_SparkConnectServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.stop(None).wait()
        self.sessions, self._closed, self._id = set(), set(), str(uuid4())

    def close_idle_sessions(self) -> None:
        self._closed |= self.sessions
        self.sessions = set()

    def Config(self, request: Any, context: Any) -> Any:  # noqa: N802 - Spark's name
        observed = request.client_observed_server_side_session_id
        if request.session_id in self._closed:
            self._refuse(context, "SESSION_CLOSED")
        if observed and observed != self._id:
            self._refuse(context, "SESSION_CHANGED")
        self.sessions.add(request.session_id)
        pairs = [pb2.KeyValue(key=key, value="") for key in request.operation.get.keys]
        return pb2.ConfigResponse(session_id=request.session_id, server_side_session_id=self._id, pairs=pairs)

    def ReleaseSession(self, request: Any, _: Any) -> Any:  # noqa: N802 - Spark's name
        self.sessions.discard(request.session_id)
        return pb2.ReleaseSessionResponse(session_id=request.session_id, server_side_session_id=self._id)

    def _refuse(self, context: Any, why: str) -> None:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(metadata={"errorClass": f"INVALID_HANDLE.{why}"}))
        status = Status(code=grpc.StatusCode.INTERNAL.value[0], message=why, details=[detail])
        context.abort_with_status(rpc_status.to_status(status))


class Loaded:
    """Stands for a `PreparedScorer`: a model of a session, of no use without it."""

    made: list["Loaded"]

    def __init__(self, scorer: object, *, spark: Any, **_: object) -> None:
        self.scorer = SimpleNamespace(feature_set=None)
        self._spark = spark
        self.is_closed = False
        self.made.append(self)

    def score(self, _: object) -> dict[str, Any]:
        assert not self.is_closed
        self._spark.conf.get("spark.app.name")
        return {"predicted_genre": "ska"}

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.setenv("SPARK_CONNECT_MODE_ENABLED", "")  # which the client sets, and which is taken away at the end
    monkeypatch.delenv("SPARK_CONNECT_MODE_ENABLED")
    server = Connect()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def answerer(
    connect: Connect, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Answerer]:
    register_dataset(database, Dataset("mine", tmp_path, is_synthetic=False, feature_sets=("gtzan57",)))
    monkeypatch.setattr(Loaded, "made", [], raising=False)
    monkeypatch.setattr(prepared_scorer, "PreparedScorer", Loaded)
    monkeypatch.setattr(scoring, "Scorer", lambda *_, **__: None)
    monkeypatch.setattr(answers, "ModelRegistry", lambda _: SimpleNamespace(champion=lambda _: None))
    clip = SimpleNamespace(values={}, windows={})
    monkeypatch.setattr("genres.audio.clip_features.clip_features", lambda *_, **__: clip)
    monkeypatch.setattr(session, "_PATIENCE_S", 0.1)
    found = Answerer(Settings(state_dir=tmp_path, spark_remote=f"sc://127.0.0.1:{connect.port}"))
    monkeypatch.setattr(session, "session_config", lambda settings, **_: {"spark.remote": settings.remote})
    yield found
    assert found.close(timeout_s=60)
    assert all(one.is_closed for one in Loaded.made) and not connect.sessions


def predicted(answerer: Answerer) -> str:
    return cast("str", answerer.answer(b"", file_name="a.wav")["predicted_genre"])


def test_a_champion_stays_loaded_while_the_server_knows_the_session(answerer: Answerer, connect: Connect) -> None:
    assert [predicted(answerer) for _ in range(3)] == ["ska"] * 3
    assert len(Loaded.made) == len(connect.sessions) == 1


def test_a_session_that_was_closed_for_its_idleness_is_opened_again(answerer: Answerer, connect: Connect) -> None:
    for round_ in (1, 2, 3):
        assert predicted(answerer) == "ska"
        assert [one.is_closed for one in Loaded.made] == [True] * (round_ - 1) + [False]
        connect.close_idle_sessions()


def test_a_server_that_was_started_again_is_asked_at_once(answerer: Answerer, connect: Connect) -> None:
    for round_ in (1, 2, 3):
        assert predicted(answerer) == "ska"
        assert [one.is_closed for one in Loaded.made] == [True] * (round_ - 1) + [False]
        connect.stop()
        connect.start()


def test_a_server_that_is_away_is_said_to_be(answerer: Answerer, connect: Connect) -> None:
    assert predicted(answerer) == "ska"
    connect.stop()
    for _ in range(2):
        with pytest.raises(GenresError, match="Spark Connect does not answer"):
            predicted(answerer)
    connect.start()
    assert predicted(answerer) == "ska"

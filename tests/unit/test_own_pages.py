"""Dagster's pages answer who opened them and nobody else's pages."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver import app
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from genres_dagster.webserver import GuardedWebserver

MUTATION = "mutation { setNuxSeen }"
URL = "http://127.0.0.1:18030"
SOCKET = "ws://127.0.0.1:18030/graphql"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The webserver as Dagster's own command builds it."""
    assert app.DagsterWebserver is GuardedWebserver
    with (
        instance_for_test() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget(), version=dg.__version__) as context,
    ):
        yield TestClient(app.create_app_from_workspace_process_context(context), base_url=URL)


def test_its_own_page_is_answered(client: TestClient) -> None:
    assert client.get("/server_info").json()["dagster_version"] == dg.__version__
    for headers in ({}, {"Origin": URL}, {"Origin": "http://localhost:18030", "Host": "localhost:18030"}):
        answer = client.post("/graphql", json={"query": "{ version }"}, headers=headers)
        assert answer.json()["data"]["version"] == dg.__version__


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "null",
        "http://127.0.0.1:8888",
        "http://localhost",
        "https://127.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost@example.com",
        "http://[",
    ],
)
def test_another_sites_page_is_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/graphql", json={"query": MUTATION}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "only pages of the same address" in answer.text
    simple = client.post(
        "/graphql", content=json.dumps({"query": MUTATION}), headers={"Origin": origin, "Content-Type": "text/plain"}
    )
    assert simple.status_code == 403


@pytest.mark.parametrize("origin", ["https://localhost", "http://localhost", "http://localhost:80"])
def test_behind_a_proxy_the_port_may_be_left_out(client: TestClient, origin: str) -> None:
    answer = client.post("/graphql", json={"query": "{ version }"}, headers={"Origin": origin, "Host": "localhost"})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["example.com", "example.com:18030", "127.0.0.1.example.com", ""])
def test_another_name_that_leads_here_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/server_info", headers={"Host": host})
    assert answer.status_code == 403
    assert "127.0.0.1" in answer.text


def test_a_mutation_in_an_address_is_refused(client: TestClient) -> None:
    answer = client.get("/graphql", params={"query": MUTATION})
    assert (answer.status_code, "POST" in answer.text) == (403, True)


def test_websockets_are_looked_at_too(client: TestClient) -> None:
    with (
        pytest.raises(WebSocketDisconnect) as raised,
        client.websocket_connect(SOCKET, headers={"Origin": "https://example.com"}, subprotocols=["graphql-ws"]),
    ):
        pass
    assert raised.value.code == 1008
    with client.websocket_connect(SOCKET, headers={"Origin": URL}, subprotocols=["graphql-ws"]) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json()["type"] == "connection_ack"

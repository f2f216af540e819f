"""A proxy in the environment is for the world outside: nothing of ours on loopback goes through it."""

import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genres.addresses import bypass_proxies
from genres.settings import Settings

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXCEPTIONS = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
PROGRAM = """
import contextlib, sys, urllib.request
{door}
import grpc, requests
http, grpc_address = sys.argv[1:]
with contextlib.suppress(requests.RequestException):
    requests.get(http, timeout=20)
with contextlib.suppress(OSError):
    urllib.request.urlopen(http, timeout=20)
with contextlib.suppress(grpc.FutureTimeoutError):
    grpc.channel_ready_future(grpc.insecure_channel(grpc_address)).result(timeout=3)
"""


@contextmanager
def recording() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port; yield it, and the first bytes of whatever comes."""
    heard: list[bytes] = []

    class Record(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(200))
            self.request.sendall(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Record) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], heard
        server.shutdown()


def run(proxy: int, *arguments: str, **variables: str) -> None:
    """Run Python with every variable that names a proxy set."""
    kept = {name: value for name, value in os.environ.items() if name not in _EXCEPTIONS}
    proxies = dict.fromkeys(_PROXY_VARIABLES, f"http://127.0.0.1:{proxy}")
    command = [sys.executable, *arguments]
    subprocess.run(command, env={**kept, **proxies, **variables}, capture_output=True, timeout=300, check=True)


@pytest.mark.parametrize(
    ("door", "excepted"),
    [
        ("", ()),
        ("import genre_assets.definitions as location; location.defs()", ("http", "grpc")),
        ("import streaming_sensors.definitions as location; location.defs()", ("http", "grpc")),
        (
            "from genres.addresses import bypass_proxies; from genres.settings import Settings\n"
            "bypass_proxies(Settings())",
            ("http", "grpc"),
        ),
    ],
    ids=["no door", "batch location", "streaming location", "by hand"],
)
def test_clients_leave_the_proxy_out(tmp_path: Path, door: str, excepted: tuple[str, ...]) -> None:
    with recording() as (proxy, heard), recording() as (http, http_heard), recording() as (rpc, rpc_heard):
        program = PROGRAM.format(door=door)
        run(proxy, "-c", program, f"http://127.0.0.1:{http}/", f"127.0.0.1:{rpc}", GENRES_STATE_DIR=str(tmp_path))
    if excepted:
        assert heard == []
        assert len(http_heard) == 2 and rpc_heard
    else:
        asked = b" ".join(heard)
        assert f"GET http://127.0.0.1:{http}/".encode() in asked and f"CONNECT 127.0.0.1:{rpc}".encode() in asked
        assert http_heard == rpc_heard == []


def test_the_command_leaves_the_proxy_out(tmp_path: Path) -> None:
    with recording() as (proxy, heard), recording() as (mlflow, mlflow_heard):
        variables = {"GENRES_STATE_DIR": str(tmp_path), "GENRES_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}"}
        run(proxy, "-m", "genres_cli", "status", "--json", **variables)
    assert heard == []
    assert mlflow_heard


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in _EXCEPTIONS:
        monkeypatch.setenv(name, "")  # put back at the end
        monkeypatch.delenv(name)
    return monkeypatch


def test_what_the_user_excepts_stays(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("no_proxy", "lower.example, 10.0.0.0/8")
    environment.setenv("NO_PROXY", "UPPER.example,127.0.0.1")
    environment.setenv("no_grpc_proxy", "rpc.example")
    variables = Settings().no_proxy_variables
    assert variables["no_proxy"] == "lower.example,10.0.0.0/8,UPPER.example,127.0.0.1,localhost,::1"
    assert variables["NO_PROXY"] == variables["no_proxy"]
    assert variables["no_grpc_proxy"] == "rpc.example," + variables["no_proxy"]
    for _ in range(2):
        bypass_proxies(Settings())
        assert {name: os.environ[name] for name in ("no_proxy", "NO_PROXY")} == {
            name: variables[name] for name in ("no_proxy", "NO_PROXY")
        }


def test_configured_addresses_are_excepted(environment: pytest.MonkeyPatch) -> None:
    settings = Settings(
        hdfs_url="hdfs://namenode:8020",
        webhdfs_url="http://web.hdfs:9870/",
        kafka_bootstrap_servers="broker1:9092, [2001:db8::1]:9092",
        spark_remote="sc://spark-connect:15002/;session_id=x",
        mlflow_tracking_uri="https://mlflow.example/path",
    )
    excepted = settings.no_proxy_variables["no_proxy"].split(",")
    assert excepted[3:] == ["namenode", "web.hdfs", "broker1", "2001:db8::1", "spark-connect", "mlflow.example"]
    assert Settings(spark_remote="sc://[bad").no_proxy_variables["no_proxy"] == "localhost,127.0.0.1,::1"


def test_a_lone_star_still_means_everything(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NO_PROXY", "*")
    variables = Settings().no_proxy_variables
    assert (variables["no_proxy"], variables["NO_PROXY"]) == ("*", "*")
    assert "127.0.0.1" in variables["no_grpc_proxy"]

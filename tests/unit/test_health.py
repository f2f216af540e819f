"""Health probes, and HDFS's client, of services that somebody else runs: TLS, gateways, a NameNode on standby."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from genres.addresses import bypass_proxies
from genres.errors import GenresError
from genres.kafka_client import KafkaAccess
from genres.settings import Settings
from genres.store.hdfs import Hdfs
from genres.store.model_registry import _wait_for_server
from local_stack.health import (
    UnhealthyError,
    probe_datanode,
    probe_kafka,
    probe_mlflow,
    probe_namenode,
    probe_spark_connect,
    probe_spark_ui,
    probe_webhdfs,
)
from local_stack.services import services
from tests.certificates import Authority
from tests.http_server import served

FILE_STATUS = b'{"FileStatus": {"type": "DIRECTORY", "length": 0, "pathSuffix": ""}}'
STANDBY = (
    b'{"RemoteException": {"exception": "StandbyException", "message": "Operation category READ is not supported in '
    b'state standby\\nmore"}}'
)
_TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
Answers = dict[str, tuple[int, bytes]]


@contextmanager
def serving(answers: Answers, files: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Answer by the beginning of the path, with 404 to what is not there; over TLS, if there is a certificate."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = [answer for path, answer in answers.items() if self.path.startswith(path)]
            code, body = found[0] if found else (404, b"no such page")
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    with served(Answer, context) as url:
        yield url


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GENRES_CA_FILE", "MLFLOW_TRACKING_SERVER_CERT_PATH", _TOKEN):
        monkeypatch.setenv(name, "")  # put back at the end
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[str]:
    """A WebHDFS and an MLflow server whose certificate is signed by an authority of one's own."""
    answers = {"/webhdfs/v1/": (200, FILE_STATUS), "/health": (200, b"OK")}
    with serving(answers, authority.issue("127.0.0.1")) as address:
        yield address


def test_an_authority_of_one_s_own_is_trusted_where_the_setting_names_it(secured: str, authority: Authority) -> None:
    probe_mlflow(secured, ca_file=authority.ca_file)
    probe_webhdfs(secured, user="me", ca_file=authority.ca_file)
    assert Hdfs(secured, user="me", patience_s=0, ca_file=authority.ca_file).isdir("/")


def test_the_settings_reach_every_client(
    secured: str, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from genres.store.lake import Lake
    from genres_dagster.resources import resources
    from streaming_sensors.kafka_clips import KafkaClips

    monkeypatch.setenv("GENRES_CA_FILE", str(authority.ca_file))
    settings = Settings(
        state_dir=tmp_path, hdfs_url="hdfs://127.0.0.1:1", webhdfs_url=secured, mlflow_tracking_uri=secured
    )
    probes = {service.name: service.probe for service in services(settings)}
    probes["namenode"]()
    probes["mlflow"]()
    assert Lake.of(settings).files.isdir("/")
    assert resources(settings)["lake"].open().files.isdir("/")
    assert KafkaClips.of(settings).hdfs.ca_file == authority.ca_file
    _wait_for_server(secured)
    bypass_proxies(settings)
    from mlflow.utils.credentials import get_default_host_creds

    assert get_default_host_creds(secured).server_cert_path == str(authority.ca_file)


@pytest.mark.parametrize(
    "ask",
    [
        probe_mlflow,
        lambda url: probe_webhdfs(url, user="me", ca_file=None),
        lambda url: Hdfs(url, user="me", patience_s=60).exists("/"),
        _wait_for_server,
    ],
    ids=["MLflow's probe", "HDFS's probe", "HDFS", "MLflow"],
)
def test_an_unknown_authority_is_said_to_be_one(secured: str, ask: Callable[[str], Any]) -> None:
    with pytest.raises((UnhealthyError, GenresError), match=r"authority that GENRES_CA_FILE = \(empty.*PEM file") as it:
        ask(secured)
    assert secured in str(it.value) and "answer" not in str(it.value)


def test_other_ways_in_which_tls_fails_are_said(authority: Authority, tmp_path: Path) -> None:
    with (
        serving({}, authority.issue("10.1.2.3")) as other,
        pytest.raises(UnhealthyError, match="certificate is of another host"),
    ):
        probe_mlflow(other, ca_file=authority.ca_file)
    with serving({}) as plain, pytest.raises(GenresError, match=r"does not speak TLS.*http://"):
        Hdfs(plain.replace("http:", "https:"), user="me", patience_s=60).exists("/")
    for file in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(GenresError, match=rf"GENRES_CA_FILE = {file}: .*PEM file"):
            Hdfs("https://127.0.0.1:1", user="me", patience_s=0, ca_file=file)
        with pytest.raises(UnhealthyError, match=rf"GENRES_CA_FILE = {file}: .*PEM file"):
            probe_mlflow("https://127.0.0.1:1", ca_file=file)


@pytest.mark.parametrize(
    "probe",
    [
        lambda host: probe_mlflow(f"http://{host}:1"),
        lambda host: probe_spark_connect(f"sc://{host}:1"),
        lambda host: probe_kafka(KafkaAccess.of(Settings(kafka_bootstrap_servers=f"{host}:1,{host}:2"))),
    ],
    ids=["MLflow", "Spark", "Kafka"],
)
@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_name_that_no_client_takes_is_a_service_that_does_not_answer(probe: Callable[[str], None], host: str) -> None:
    with pytest.raises(UnhealthyError, match=host):
        probe(host)


def test_an_answer_that_leads_to_no_address_is_none() -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://mlflow..internal/health")
            self.end_headers()

    with served(Elsewhere) as url:
        with pytest.raises(UnhealthyError, match=f"{url}/health is no address, or leads to none"):
            probe_mlflow(url)
        with pytest.raises(GenresError, match=f"MLflow does not answer at {url}"):
            _wait_for_server(url)


def jmx(live: int, safe_mode: str = "") -> Answers:
    return {
        "/webhdfs/v1/?op=GETFILESTATUS&user.name=me": (200, FILE_STATUS),
        "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState": (
            200,
            f'{{"beans": [{{"NumLiveDataNodes": {live}}}]}}'.encode(),
        ),
        "/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo": (
            200,
            f'{{"beans": [{{"Safemode": "{safe_mode}"}}]}}'.encode(),
        ),
    }


def test_a_gateway_without_jmx_is_healthy_when_it_answers() -> None:
    with serving({"/webhdfs/v1/": (200, FILE_STATUS)}) as gateway:
        probe_webhdfs(gateway, user="me", ca_file=None)
    with serving({"/webhdfs/v1/": (200, FILE_STATUS), "/": (200, b"<html>a page of its own</html>")}) as gateway:
        probe_webhdfs(gateway, user="me", ca_file=None)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (jmx(0), "no live DataNode"),
        (jmx(1, "Safe mode is ON."), "Safe mode is ON"),
        ({"/webhdfs": (403, STANDBY), **jmx(1)}, "HTTP 403 .*not supported in state standby$"),
        ({"/webhdfs": (401, b"who?")}, "HTTP 401 at http"),
    ],
    ids=["no DataNode", "safe mode", "standby", "it asks who"],
)
def test_a_namenode_that_is_of_no_use_now_says_why(answers: Answers, reason: str) -> None:
    with serving(answers) as namenode, pytest.raises(UnhealthyError, match=reason):
        probe_webhdfs(namenode, user="me", ca_file=None)
    with serving(jmx(1)) as namenode:
        probe_webhdfs(namenode, user="me", ca_file=None)


BROKEN_OFF = {
    "in a chunk": b"Transfer-Encoding: chunked\r\n\r\n64\r\nall of",
    "between chunks": b"Transfer-Encoding: chunked\r\n\r\n6\r\nall of\r\n",
    "before its length": b"Content-Length: 100\r\n\r\nall of",
    "compressed badly": b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nall of",
    "at once": None,
}


@contextmanager
def breaking_off(answer: bytes | None, times: int) -> Iterator[str]:
    """Answer 200 and break off, as a server that is just starting or stopping does, `times`; then wholly."""
    left = iter(range(times))

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if next(left, None) is None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
            elif answer is not None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n" + answer)

    with served(Broken) as url:
        yield url


@pytest.mark.parametrize("how", BROKEN_OFF)
@pytest.mark.parametrize(
    "probe",
    [
        probe_spark_ui,
        probe_mlflow,
        probe_namenode,
        lambda url: probe_datanode(url, url),
        lambda url: probe_webhdfs(url, user="me", ca_file=None),
    ],
    ids=["Spark's pages", "MLflow", "NameNode", "DataNode", "HDFS"],
)
def test_a_service_whose_answer_breaks_off_is_not_healthy_yet(probe: Callable[[str], None], how: str) -> None:
    with breaking_off(BROKEN_OFF[how], times=1) as url, pytest.raises(UnhealthyError, match=url):
        probe(url)


@pytest.mark.parametrize("how", BROKEN_OFF)
def test_mlflow_is_asked_again_when_its_answer_breaks_off(how: str) -> None:
    with breaking_off(BROKEN_OFF[how], times=1) as url:
        _wait_for_server(url)


def test_something_else_at_a_daemons_address_is_said() -> None:
    for page in (
        b"<html>somebody's page</html>",
        b"[]",
        b'"healthy"',
        b'{"beans": "many"}',
        b'{"beans": {"a": 1}}',
        b'{"beans": [1]}',
        b'{"beans": [{"name": "coffee"}]}',
        b'{"beans": [{"NumLiveDataNodes": "1"}]}',
        b'{"beans": [{"NumLiveDataNodes": 1}]}',
    ):
        with serving({"/": (200, page)}) as url, pytest.raises(UnhealthyError, match=f"at {url} is no Hadoop daemon"):
            probe_namenode(url)


@pytest.mark.parametrize(
    ("parameters", "variables", "uses_tls"),
    [
        ("", {}, False),
        ("/;user_id=me;use_ssl=false", {}, False),
        ("/;use_ssl=TRUE", {}, True),
        ("/;user_id=me;token=secret", {}, True),
        ("", {_TOKEN: "secret"}, True),
    ],
)
def test_pyspark_and_the_settings_agree_on_tls(
    parameters: str, variables: dict[str, str], uses_tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql.connect.client import DefaultChannelBuilder

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings(spark_remote=f"sc://spark:15002{parameters}")
    assert settings.spark_uses_tls is uses_tls
    assert DefaultChannelBuilder(settings.remote).secure is uses_tls
    assert "secret" not in repr(settings) + str(settings)


def test_an_engine_that_takes_a_token_is_healthy_when_it_listens(tmp_path: Path) -> None:
    """A plain channel never gets ready there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        remote = f"sc://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UnhealthyError, match="no gRPC answer"):
            probe_spark_connect(remote)
        settings = Settings(state_dir=tmp_path, spark_remote=f"{remote}/;token=secret")
        (probe,) = [service.probe for service in services(settings) if service.name == "spark-connect"]
        probe()

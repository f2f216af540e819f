"""Every Kafka client's way to the brokers: options, secrets, a line for each refusal, and one server of many."""

import contextlib
import logging
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import SaslAuthenticationFailedError, TopicAuthorizationFailedError, UnsupportedSaslMechanismError
from pydantic import ValidationError
from pyspark import cloudpickle

from genres import kafka_client
from genres.errors import GenresError
from genres.kafka_client import KafkaAccess, KafkaRefusedError, KafkaUnreachableError, explained, open_client
from genres.settings import Settings
from local_stack.health import UnhealthyError, probe_kafka
from streaming_sensors.kafka_clips import KafkaClips
from tests.certificates import Authority

PASSWORD, KEY_PASSWORD = "hunter2-kafka", "hunter2-key"
SECURED = {
    "kafka_bootstrap_servers": "broker1:9093,broker2:9093",
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_username": "genres",
    "kafka_password": PASSWORD,
    "kafka_key_password": KEY_PASSWORD,
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path))


def access(**values: Any) -> KafkaAccess:
    return KafkaAccess.of(Settings(**{**SECURED, **values}))


def plain(*servers: str) -> KafkaAccess:
    return access(kafka_bootstrap_servers=",".join(servers), kafka_security_protocol="PLAINTEXT")


def test_a_plain_broker_needs_no_more_than_its_address() -> None:
    options = KafkaAccess.of(Settings(port_base=20_000, kafka_bootstrap_servers="")).options()
    assert options == {"bootstrap_servers": "127.0.0.1:20092", "security_protocol": "PLAINTEXT"}


def test_options_are_those_of_the_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    options = access(kafka_ca_file=authority.ca_file).options()
    assert options["bootstrap_servers"] == "broker1:9093,broker2:9093"
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("genres", PASSWORD)
    context = options["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert [x["subject"] for x in context.get_ca_certs()] == [((("commonName", "authority"),),)]
    context = access(kafka_check_hostname=False).options()["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED), "only the name is not checked"


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_every_client_takes_the_options(kind: Any) -> None:
    assert set(access().options()) <= set(kind.DEFAULT_CONFIG)


def test_no_secret_is_printed_logged_or_pickled(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(**SECURED)  # type: ignore[arg-type]
    secured = KafkaAccess.of(settings)
    shown = [repr(settings), settings.model_dump_json(), repr(secured), repr(secured.options()), str(secured.options())]
    # The logger's own level: the producer turns it down in its process.
    with caplog.at_level(logging.DEBUG, logger="kafka"), pytest.raises(GenresError) as caught:
        open_client(
            KafkaAdminClient,
            replace(secured, bootstrap_servers="127.0.0.1:1", security_protocol="SASL_PLAINTEXT"),
            bootstrap_timeout_ms=200,
        )
    assert "KafkaAdminClient with configuration" in caplog.text, "the client prints what it is given"
    source = KafkaClips.of(settings)
    pickled = [pickle.dumps(source), cloudpickle.dumps(lambda: source)]
    for text in (*shown, str(caught.value), caplog.text, *map(str, pickled)):
        assert PASSWORD not in text and KEY_PASSWORD not in text
    assert all(b"SCRAM-SHA-512" in data for data in pickled)


def test_a_worker_uses_the_password_of_its_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    there = pickle.loads(pickle.dumps(access()))  # noqa: S301
    assert there == access()
    with pytest.raises(GenresError, match=r"no GENRES_KAFKA_PASSWORD for user 'genres' on .*\.env there"):
        there.options()
    monkeypatch.setenv("GENRES_KAFKA_PASSWORD", "of the worker")
    assert there.options()["sasl_plain_password"] == "of the worker"


def test_the_token_comes_from_the_function_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "our_tokens.py").write_text(
        "calls = []\ndef token():\n    calls.append(1)\n    if len(calls) > 2: raise OSError('no token today')\n"
        "    return f'token {len(calls)}'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    named = {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_username": "", "kafka_password": ""}
    provider = access(**named, kafka_oauth_token="our_tokens:token").options()["sasl_oauth_token_provider"]
    assert [provider.token(), provider.token()] == ["token 1", "token 2"]
    with pytest.raises(SaslAuthenticationFailedError, match="no token today"):
        provider.token()
    for missing in ("our_tokens:nobody", "nobodys_module:token"):
        with pytest.raises(GenresError, match=f"GENRES_KAFKA_OAUTH_TOKEN = {missing}: "):
            access(**named, kafka_oauth_token=missing).options()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"kafka_bootstrap_servers": ""}, "SASL_SSL is for brokers of your own"),
        ({"kafka_sasl_mechanism": ""}, "SASL_SSL needs GENRES_KAFKA_SASL_MECHANISM"),
        ({"kafka_username": "", "kafka_password": ""}, "needs GENRES_KAFKA_USERNAME and GENRES_KAFKA_PASSWORD too"),
        ({"kafka_sasl_mechanism": "OAUTHBEARER"}, "OAUTHBEARER needs GENRES_KAFKA_OAUTH_TOKEN too"),
        ({"kafka_key_file": "key.pem"}, "set GENRES_KAFKA_CERT_FILE too"),
        ({"kafka_security_protocol": "TLS"}, "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        ({"kafka_oauth_token": "os.system('x')"}, "String should match pattern"),
    ],
    ids=str,
)
def test_half_a_way_in_is_refused_without_a_secret(wrong: dict[str, str], line: str) -> None:
    with pytest.raises(ValidationError, match=line) as caught:
        access(**wrong)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("name", ["kafka_ca_file", "kafka_cert_file"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_cannot_be_used_is_named(name: str, content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(GenresError, match=rf"GENRES_{name.upper()}.* = {file}: .*PEM file"):
        access(**{name: file}).options()


def test_the_clients_key_may_be_encrypted(tmp_path: Path) -> None:
    cert_file, key_file = Authority(tmp_path).issue("client", key_password=KEY_PASSWORD)
    files = {"kafka_cert_file": cert_file, "kafka_key_file": key_file}
    assert isinstance(access(**files).options()["ssl_context"], ssl.SSLContext)
    with pytest.raises(GenresError, match="GENRES_KAFKA_KEY_PASSWORD if it is encrypted"):
        access(**files, kafka_key_password="").options()


def test_relative_files_mean_the_same_in_other_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(kafka_ca_file="ca.pem")  # type: ignore[arg-type]
    assert settings.kafka_ca_file == tmp_path / "ca.pem"
    assert settings.path_variables["GENRES_KAFKA_CA_FILE"] == str(tmp_path / "ca.pem")


def test_each_refusal_names_its_setting() -> None:
    wrong = SaslAuthenticationFailedError("SaslAuthenticationFailedError: Authentication failed: Invalid password")
    line = str(explained(access(), wrong))
    assert line == (
        "Kafka at broker1:9093,broker2:9093 does not accept user 'genres' with this password (Authentication failed: "
        "Invalid password): fix GENRES_KAFKA_USERNAME and GENRES_KAFKA_PASSWORD"
    )
    assert "fix GENRES_KAFKA_SASL_MECHANISM" in str(explained(access(), UnsupportedSaslMechanismError("no")))
    assert "does not let user 'genres' do that" in str(explained(access(), TopicAuthorizationFailedError("clips")))


def test_an_unknown_authority_is_named_within_seconds(tmp_path: Path) -> None:
    theirs, ours = Authority(tmp_path / "theirs"), Authority(tmp_path / "ours")
    with tls_server(*theirs.issue("127.0.0.1")) as server:
        line = refusal_of(server, kafka_ca_file=ours.ca_file)
    assert f"shows a certificate that GENRES_KAFKA_CA_FILE = {ours.ca_file} does not vouch for (" in line


def test_a_certificate_of_another_host_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with tls_server(*authority.issue("10.1.2.3")) as server:
        line = refusal_of(server, kafka_ca_file=authority.ca_file)
    assert "shows a certificate of another host" in line and "GENRES_KAFKA_CHECK_HOSTNAME=false" in line


def refusal_of(server: str, **values: Any) -> str:
    refusing = access(kafka_bootstrap_servers=server, **values)
    threads = set(threading.enumerate())
    began = time.monotonic()
    with pytest.raises(KafkaRefusedError) as caught:
        open_client(KafkaAdminClient, refusing, bootstrap_timeout_ms=60_000)
    assert time.monotonic() - began < 30, "it does not wait for an outage to pass"
    with pytest.raises(UnhealthyError) as probed:
        probe_kafka(refusing)
    assert str(probed.value) == str(caught.value)
    assert set(threading.enumerate()) <= threads
    assert "\n" not in str(caught.value) and server in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_silent_server_takes_no_longer_than_it_may(protocol: str) -> None:
    with listening(lambda connection: None) as silent, pytest.raises(KafkaUnreachableError, match="does not answer"):
        open_client(
            KafkaAdminClient,
            access(kafka_bootstrap_servers=silent, kafka_security_protocol=protocol),
            bootstrap_timeout_ms=500,
        )


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that take connections late, on a machine that is busy, are asked as well."""
    monkeypatch.setattr(kafka_client, "_OTHERS_S", 30.0)


@pytest.mark.usefixtures("unhurried")
def test_servers_are_tried_in_turn_each_for_its_share() -> None:
    """One is down, one accepts and is silent, one drops what is sent: the fourth is asked all the same."""
    asked = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        asked.set()

    with (
        listening(lambda connection: None) as silent,
        listening(lambda connection: connection.close()) as closing,
        listening(answer) as good,
        closed_port() as down,
        pytest.raises(KafkaUnreachableError),
    ):
        open_client(KafkaAdminClient, plain(down, silent, closing, good), bootstrap_timeout_ms=4000)
    assert asked.is_set()


@pytest.mark.usefixtures("unhurried")
def test_each_of_several_servers_has_time_enough_to_look_its_client_up() -> None:
    def given(*servers: str, answer_s: float) -> dict[str, Any]:
        how = replace(plain(*servers), answer_s=answer_s)
        found: dict[str, Any] = open_client(lambda **options: options, how, bootstrap_timeout_ms=3000)
        return found

    with contextlib.ExitStack() as opened:
        six = [opened.enter_context(listening(lambda connection: None)) for _ in range(6)]
        assert given(*six, answer_s=2.5)["bootstrap_timeout_ms"] == 15_000
        assert given(*six, answer_s=0.1)["bootstrap_timeout_ms"] == 3000, "no less than was asked for"
        assert given(six[0], answer_s=9)["bootstrap_timeout_ms"] == 3000, "one alone has all of it"
    assert access(kafka_answer_s=7).answer_s == 7


def test_a_host_that_swallows_connections_is_not_waited_for() -> None:
    """Its queue of connections is full: what more comes gets no answer, as from a host that is down."""
    asked = threading.Event()

    def answer(connection: socket.socket) -> None:
        if connection.recv(4096):
            asked.set()

    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            socket.create_connection(full.getsockname(), timeout=0.3)
        good = opened.enter_context(listening(answer))
        with pytest.raises(KafkaUnreachableError):
            open_client(KafkaAdminClient, plain(address, good), bootstrap_timeout_ms=1500)
    assert asked.is_set()


def test_why_a_broker_hangs_up_is_heard(tmp_path: Path) -> None:
    """Its answer and the end of the connection come at once."""

    def hang_up(connection: socket.socket) -> None:
        size = int.from_bytes(connection.recv(4), "big")
        request = connection.recv(size)
        # ApiVersions, version 0: error 33 (the mechanism is not offered), no APIs.
        answer = request[4:8] + (33).to_bytes(2, "big") + (0).to_bytes(4, "big")
        connection.sendall(len(answer).to_bytes(4, "big") + answer)
        connection.close()

    with listening(hang_up) as broker, pytest.raises(KafkaRefusedError, match="GENRES_KAFKA_SASL_MECHANISM"):
        open_client(KafkaAdminClient, plain(broker), bootstrap_timeout_ms=20_000)


@pytest.mark.parametrize("alert", [b"", bytes.fromhex("15030300020250")], ids=["silence", "a TLS alert"])
def test_a_listener_of_another_protocol_is_suspected(alert: bytes) -> None:
    def hang_up(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(alert)
        connection.close()

    with listening(hang_up) as other, pytest.raises(KafkaUnreachableError) as caught:
        open_client(KafkaAdminClient, plain(other), bootstrap_timeout_ms=1000)
    assert "and GENRES_KAFKA_SECURITY_PROTOCOL (it is PLAINTEXT)" in str(caught.value)


def test_probe_names_all_servers_where_nothing_listens_at_any() -> None:
    with (
        closed_port() as one,
        closed_port() as other,
        pytest.raises(UnhealthyError, match=f"nothing answers at {one}; nothing answers at {other}"),
    ):
        probe_kafka(plain(one, other))


def test_probe_asks_the_broker_that_listens() -> None:
    asked = threading.Event()

    def answer(connection: socket.socket) -> None:
        if connection.recv(4096):
            asked.set()

    with closed_port() as down, listening(answer) as up, pytest.raises(UnhealthyError, match="does not answer"):
        probe_kafka(plain(down, up))
    assert asked.is_set()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept connections and hand each to `serve`; yield the address. Connections stay open until the end."""
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed: the end
                    return
                opened.append(connection)
                try:
                    serve(connection)
                except OSError:  # the client is gone
                    continue

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in opened:
        connection.close()


@contextmanager
def tls_server(cert_file: Path, key_file: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    with listening(lambda connection: context.wrap_socket(connection, server_side=True).close()) as address:
        yield address


@contextmanager
def closed_port() -> Iterator[str]:
    """Yield an address where nobody listens, and where nobody else can meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"

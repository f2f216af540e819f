"""The stream on a broker that asks who is there: SASL over TLS, from the producer to the prediction's row."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from genres.errors import last_words
from genres.kafka_client import KafkaAccess
from genres.settings import Settings
from genres.store.stream_ledger import ranges, results
from local_stack import kafka_broker
from local_stack import stack as stack_module
from local_stack.health import UnhealthyError, probe_kafka
from local_stack.stack import down, up
from tests.certificates import Authority
from tests.in_process import drain, send
from tests.secured_broker import with_listeners
from tests.stream_rig import prepared_stream, set_champion, sha256_of, short_clips

RunGenres = Callable[..., subprocess.CompletedProcess[str]]

USER, PASSWORD, OTHER_PASSWORD = "clips", "hunter2-plain", "hunter2-scram"
TOPIC = "test_secured_kafka"
_SECONDS = 240
"""Within which a command that is refused has ended, a good part of which a slow machine needs to start it."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(
    stack: Settings,
    authority: Authority,
    free_port_base: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, str]]:
    """Run a broker with listeners for SASL_SSL and for clients with a certificate; yield the settings for the first."""
    own = Settings(
        state_dir=Path(tmp_path_factory.mktemp("broker")),
        port_base=free_port_base(),
        hdfs_url=stack.hdfs,
        webhdfs_url=stack.webhdfs,
        spark_remote=stack.remote,
        mlflow_tracking_uri=stack.tracking_uri,
    )
    sasl, certified = (f"127.0.0.1:{own.port_base + end}" for end in (94, 95))
    plain = kafka_broker.broker

    def broker(settings: Settings) -> dict[str, str]:
        listeners = {"SASL_SSL": sasl, "SSL": certified}
        return with_listeners(plain(settings), authority, listeners, user=USER, password=PASSWORD)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kafka_broker, "broker", broker)
        monkeypatch.setattr(stack_module, "_require_able_engine", lambda *_: None)  # it is the session's own
        up(own, on_progress=lambda line: sys.stderr.write(f"{line}\n"))
    try:
        admin = KafkaAdminClient(bootstrap_servers=own.bootstrap_servers)
        credential = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, OTHER_PASSWORD)
        assert admin.alter_user_scram_credentials([credential]) == {USER: None}
        admin.close()
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": sasl,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD": PASSWORD,
            "KAFKA_CA_FILE": str(authority.ca_file),
        }
    finally:
        down(own)


@pytest.fixture
def worker_password(stack: Settings) -> Iterator[None]:
    """Let Spark's workers find the password in a file of the place where they run, as on a cluster."""
    stack_env = stack.state_dir / "stack.env"
    before = stack_env.read_text() if stack_env.exists() else ""
    stack_env.write_text(f"{before}GENRES_KAFKA_PASSWORD={PASSWORD}\n")
    yield
    stack_env.write_text(before)


def test_clips_go_from_the_folder_to_their_rows(
    stack: Settings, secured: dict[str, str], worker_password: None, tmp_path: Path, run_genres: RunGenres
) -> None:
    """Of three brokers that the settings name, one answers: producer, admin, workers and probe find it."""
    one_of_three = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:1,{secured['KAFKA_BOOTSTRAP_SERVERS']},127.0.0.1:2"}
    with prepared_stream(stack, tmp_path / "drop", TOPIC, **{**secured, **one_of_three}) as stream:
        set_champion(stream.settings, 1)
        clips = short_clips(4, seed=71)
        send(stream.settings, clips)
        while {row["sha256"] for row in results.predictions(stream.database, topic=TOPIC)} != set(
            map(sha256_of, clips.values())
        ):
            drain(stream.settings)
        shown = run_genres("status", "--json")
        assert '"kafka"' in shown.stdout and "unhealthy" not in shown.stdout, shown.stdout
        for text in (shown.stdout, shown.stderr, *all_logs(stack)):
            assert PASSWORD not in text


def test_a_worker_without_the_password_says_where_to_put_it(
    stack: Settings, secured: dict[str, str], tmp_path: Path
) -> None:
    """Nothing that goes to a task holds it; the clip is not blamed, its range waits."""
    with prepared_stream(stack, tmp_path / "drop", f"{TOPIC}_without", **secured) as stream:
        set_champion(stream.settings, 1)
        send(stream.settings, short_clips(1, seed=72))
        with pytest.raises(Exception) as failed:
            drain(stream.settings)
        (found,) = ranges.known(stream.database, f"{TOPIC}_without")
        assert "no GENRES_KAFKA_PASSWORD for user 'clips'" in (found.reason or last_words(failed.value))
        assert results.quarantine(stream.database, topic=f"{TOPIC}_without") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"KAFKA_PASSWORD": "wrong"}, ("does not accept user 'clips'", "GENRES_KAFKA_PASSWORD")),
        ({"KAFKA_USERNAME": "nobody"}, ("does not accept user 'nobody'", "GENRES_KAFKA_USERNAME")),
        ({"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, ("does not offer SCRAM-SHA-256", "GENRES_KAFKA_SASL_MECHANISM")),
        ({"KAFKA_CA_FILE": ""}, ("does not vouch for", "GENRES_KAFKA_CA_FILE")),
        ({"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, ("does not answer", "GENRES_KAFKA_SECURITY_PROTOCOL")),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, ("does not answer", "GENRES_KAFKA_SECURITY_PROTOCOL")),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_within_seconds(
    secured: dict[str, str], changes: dict[str, str], words: tuple[str, ...], tmp_path: Path, run_genres: RunGenres
) -> None:
    variables = {f"GENRES_{name}": value for name, value in {**secured, **changes}.items()}
    for command in (("up",), ("watch", str(tmp_path), "--once")):
        began = time.monotonic()
        done = run_genres(*command, **variables)
        assert done.returncode == 1
        assert time.monotonic() - began < _SECONDS
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("genres: ")]
        for word in (*words, secured["KAFKA_BOOTSTRAP_SERVERS"]):
            assert word in line
        for text in (done.stdout, done.stderr):
            assert PASSWORD not in text and "Traceback" not in text


def test_scram_and_a_clients_certificate_are_taken_too(secured: dict[str, str], authority: Authority) -> None:
    values = {name.lower(): value for name, value in secured.items()}
    scram = {"kafka_sasl_mechanism": "SCRAM-SHA-512", "kafka_password": OTHER_PASSWORD}
    probe_kafka(KafkaAccess.of(Settings(**{**values, **scram})))  # type: ignore[arg-type]
    with pytest.raises(UnhealthyError, match="does not accept user 'clips'"):
        probe_kafka(KafkaAccess.of(Settings(**{**values, **scram, "kafka_password": "wrong"})))  # type: ignore[arg-type]

    host, port = values["kafka_bootstrap_servers"].split(":")
    certified = {
        "kafka_bootstrap_servers": f"{host}:{int(port) + 1}",
        "kafka_security_protocol": "SSL",
        "kafka_ca_file": authority.ca_file,
    }
    cert_file, key_file = authority.issue("client", key_password="of the key")
    key = {"kafka_cert_file": cert_file, "kafka_key_file": key_file, "kafka_key_password": "of the key"}
    probe_kafka(KafkaAccess.of(Settings(**{**certified, **key})))  # type: ignore[arg-type]
    with pytest.raises(UnhealthyError, match="GENRES_KAFKA_CERT_FILE"):
        probe_kafka(KafkaAccess.of(Settings(**certified)))  # type: ignore[arg-type]


def all_logs(stack: Settings) -> Iterator[str]:
    for log in (stack.state_dir / "logs").rglob("*.log"):
        yield log.read_text(errors="replace")

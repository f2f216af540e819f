"""How every client of Kafka reaches the brokers: address and security, and one line for why it cannot.

Belongs here: what producer, consumer, admin client and health probe have in common. What they send and ask does not.
"""

import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from genres.certificates import NO_TLS, OTHER_NAME, load_authorities, tls_error
from genres.errors import GenresError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from genres.settings import Settings

_ACCEPT_S = 3.0
"""How long a server may take to accept a connection, where there are several, in seconds."""
_OTHERS_S = 0.2
"""How long the others are waited for once one has accepted, in seconds."""


class KafkaUnreachableError(GenresError):
    """No broker answers: an outage, not a mistake in the settings, as far as one can tell from here."""


class KafkaRefusedError(GenresError):
    """Broker and client do not accept each other: a mistake in the settings of one of them."""


class _Hidden(str):
    """A text that the Kafka client may use, and that it does not print when it logs its configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


@dataclass(frozen=True)
class KafkaAccess:
    """Where the brokers are and how they let a client in. Build it with `of`.

    It may be pickled into Spark's tasks: it leaves its secrets behind then, and takes those of the settings where it
    is used (a worker's environment, or its ``.env``).
    """

    bootstrap_servers: str
    security_protocol: str
    sasl_mechanism: str
    username: str
    oauth_token: str
    ca_file: Path | None
    check_hostname: bool
    cert_file: Path | None
    key_file: Path | None
    answer_s: float
    """How long each of several brokers may take at least to let a client in."""
    password: "SecretStr | None" = field(repr=False, compare=False)
    """None after it was pickled, like `key_password`."""
    key_password: "SecretStr | None" = field(repr=False, compare=False)

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Build it from the settings."""
        return cls(
            bootstrap_servers=settings.bootstrap_servers,
            security_protocol=settings.kafka_security_protocol,
            sasl_mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_username,
            oauth_token=settings.kafka_oauth_token,
            ca_file=settings.kafka_ca_file,
            check_hostname=settings.kafka_check_hostname,
            cert_file=settings.kafka_cert_file,
            key_file=settings.kafka_key_file,
            answer_s=settings.kafka_answer_s,
            password=settings.kafka_password,
            key_password=settings.kafka_key_password,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "password": None, "key_password": None}

    def options(self) -> dict[str, Any]:
        """Return the options that every client of kafka-python takes.

        Raises
        ------
        GenresError
            If a file cannot be used, or a secret or the token's function is not to be found here.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol == "PLAINTEXT":
            return options
        here = self if self.password is not None else self._with_secrets_of_this_place()
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = here._ssl_context()
        if self.security_protocol.startswith("SASL_"):
            options["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = _token_provider(self.oauth_token)
            else:
                options["sasl_plain_username"] = self.username
                options["sasl_plain_password"] = _Hidden(_value(here.password))
        return options

    def _with_secrets_of_this_place(self) -> Self:
        from genres.settings import PROJECT_DIR, Settings

        settings = Settings()
        here = replace(self, password=settings.kafka_password, key_password=settings.kafka_key_password)
        asks_password = self.security_protocol.startswith("SASL_") and self.sasl_mechanism != "OAUTHBEARER"
        if asks_password and not _value(here.password):
            raise GenresError(
                f"there is no GENRES_KAFKA_PASSWORD for user '{self.username}' on {socket.gethostname()}, where a "
                f"worker of Spark runs: put it into {PROJECT_DIR / '.env'} there, or into the environment that Spark "
                "is started with"
            )
        return here

    def _ssl_context(self) -> ssl.SSLContext:
        # Not the default context, which from Python 3.13 on is stricter with authorities than Kafka's other clients.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_file:
            load_authorities(context, self.ca_file, setting="GENRES_KAFKA_CA_FILE")
        else:
            context.load_default_certs()
        context.check_hostname = self.check_hostname
        if self.cert_file:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: _value(self.key_password))
            except OSError as error:
                files = ", ".join(str(path) for path in (self.cert_file, self.key_file) if path)
                raise GenresError(
                    f"GENRES_KAFKA_CERT_FILE, GENRES_KAFKA_KEY_FILE = {files}: {error.strerror or error}: name PEM "
                    "files of a certificate and its key that this user may read, and the key's "
                    "GENRES_KAFKA_KEY_PASSWORD if it is encrypted"
                ) from error
        return context


def open_client(kind: Callable[..., Any], access: KafkaAccess, **options: Any) -> Any:
    """Open a client of kafka-python.

    Any one of the bootstrap servers is enough: of those that accept connections each is tried in its turn, for its
    share of ``bootstrap_timeout_ms``, which is made longer where that would be less than ``answer_s`` for each of
    several.

    Parameters
    ----------
    kind
        ``KafkaAdminClient``, ``KafkaConsumer`` or ``KafkaProducer``.
    access
        Where and how.
    options
        The client's other options.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within that time.
    KafkaRefusedError
        If one answers and broker and client do not accept each other; as soon as every server was tried once.
    GenresError
        As from `KafkaAccess.options`.
    """
    from kafka.errors import KafkaError

    started: list[Any] = []

    def client(**config: Any) -> Any:
        started.append(_net_client()(access, **config))
        return started[-1]

    given = access.options()
    servers = given["bootstrap_servers"] = _accepting(access.bootstrap_servers)
    if "bootstrap_timeout_ms" in options and len(servers) > 1:
        # Of six brokers that ask a directory or an identity provider first, each would be given up after half a second.
        least_ms = int(1000 * access.answer_s * len(servers))
        options["bootstrap_timeout_ms"] = max(options["bootstrap_timeout_ms"], least_ms)
    try:
        return kind(**given, **options, kafka_client=client)
    except (KafkaError, OSError) as error:
        last = started[-1].last_failure if started else None
        # The constructors leave their thread running when they fail (kafka-python 3.0.12).
        for net_client in started:
            net_client.close()
        raise explained(access, error, last) from error


def _accepting(bootstrap_servers: str) -> list[str]:
    """Return those of several servers that accept a connection; all of them, if none does, or if there is one alone.

    A host that is down may swallow what is sent to it: it is not waited for once another one has accepted.
    """
    servers = [server.strip() for server in bootstrap_servers.split(",")]
    if len(servers) == 1:
        return servers
    pool = ThreadPoolExecutor(max_workers=len(servers))
    asked = {pool.submit(_accepts, server): server for server in servers}
    pool.shutdown(wait=False)
    for answer in as_completed(asked):
        if answer.result():
            wait(asked, timeout=_OTHERS_S)
            break
    return [server for answer, server in asked.items() if answer.done() and answer.result()] or servers


def _accepts(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ACCEPT_S).close()
    except OSError:
        return False
    return True


def explained(access: KafkaAccess, error: Exception, last: Exception | None = None) -> GenresError:
    """Return the error that says in one line why there is no connection.

    Parameters
    ----------
    error
        What the client raised.
    last
        Why the last attempt to connect failed, where `error` only says that time was up.
    """
    from kafka.errors import KafkaProtocolError

    if why := _refusal(access, error):
        return KafkaRefusedError(f"Kafka at {access.bootstrap_servers} {why}")
    what, hint = type(error).__name__, ""
    if last is not None:
        what = " ".join(str(last.args[0] if last.args else last).split()) or type(last).__name__
        # It listens, and does not like what it hears or says what is no Kafka.
        if isinstance(last, KafkaProtocolError) or any(sign in what for sign in ("disconnected", "EOF", "reset")):
            hint = f" and GENRES_KAFKA_SECURITY_PROTOCOL (it is {access.security_protocol})"
    return KafkaUnreachableError(
        f"Kafka at {access.bootstrap_servers} does not answer ({what}): start the stack with `genres up`, or fix "
        f"GENRES_KAFKA_BOOTSTRAP_SERVERS{hint}"
    )


def _refusal(access: KafkaAccess, error: BaseException) -> str | None:
    """Return what broker and client do not accept of each other; None if that is not why there is no connection."""
    from kafka.errors import (
        AuthorizationError,
        IllegalSaslStateError,
        SaslAuthenticationFailedError,
        UnsupportedSaslMechanismError,
    )

    if isinstance(error, SaslAuthenticationFailedError):
        said = str(error.args[0]).rpartition("Error: ")[2] if error.args else "it does not say why"
        if access.sasl_mechanism == "OAUTHBEARER":
            return f"does not accept the token ({said}): fix GENRES_KAFKA_OAUTH_TOKEN = {access.oauth_token}"
        return (
            f"does not accept user '{access.username}' with this password ({said}): fix GENRES_KAFKA_USERNAME and "
            "GENRES_KAFKA_PASSWORD"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"does not offer {access.sasl_mechanism}: fix GENRES_KAFKA_SASL_MECHANISM"
    if isinstance(error, IllegalSaslStateError):
        return f"asks for no user: GENRES_KAFKA_SECURITY_PROTOCOL = {access.security_protocol} is of another listener"
    if isinstance(error, AuthorizationError):
        who = f"user '{access.username}'" if access.username else "this client"
        return f"does not let {who} do that ({type(error).__name__}): let its administrator give the right to"
    tls = tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        if tls.verify_code in OTHER_NAME:
            return (
                f"shows a certificate of another host ({tls.verify_message}): write the name that the certificate has "
                "into GENRES_KAFKA_BOOTSTRAP_SERVERS, or set GENRES_KAFKA_CHECK_HOSTNAME=false"
            )
        return (
            f"shows a certificate that GENRES_KAFKA_CA_FILE = {access.ca_file or 'the authorities of this system'} "
            f"does not vouch for ({tls.verify_message}): name the file of its authority"
        )
    if tls is not None and any(word in (tls.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")):  # its alert
        return f"does not accept our certificate ({tls.reason}): fix GENRES_KAFKA_CERT_FILE and GENRES_KAFKA_KEY_FILE"
    if tls is not None and tls.reason in NO_TLS:
        return f"does not speak TLS: GENRES_KAFKA_SECURITY_PROTOCOL = {access.security_protocol} is of another listener"
    return None


def _value(secret: "SecretStr | None") -> str:
    return secret.get_secret_value() if secret is not None else ""


def _token_provider(name: str) -> Any:
    """Make kafka-python's token provider of the function that the settings name."""
    from importlib import import_module

    from kafka.errors import SaslAuthenticationFailedError
    from kafka.net.sasl.oauth import AbstractTokenProvider

    module, _, function = name.partition(":")
    try:
        ask = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise GenresError(
            f"GENRES_KAFKA_OAUTH_TOKEN = {name}: {error}: name a function, module:function, that can be imported here"
        ) from error

    class Provider(AbstractTokenProvider):
        def token(self) -> str:
            try:
                return str(ask())
            except Exception as error:  # what an identity provider's client may raise
                raise SaslAuthenticationFailedError(f"it raises {type(error).__name__}: {error}") from error

    return Provider()


@cache
def _net_client() -> Any:
    """Return kafka-python's network client, with a connection manager that tries each bootstrap server in its turn.

    Its own takes one at random with all the time there is: a host that does not answer uses that up. And it tries for
    as long where a broker does not let it in, and does not tell why afterwards (kafka-python 3.0.12).
    """
    from kafka.errors import KafkaTimeoutError, NodeNotReadyError
    from kafka.net.compat import KafkaNetClient
    from kafka.net.manager import KafkaConnectionManager
    from kafka.net.selector import NetworkSelector

    class Manager(KafkaConnectionManager):
        def __init__(self, access: KafkaAccess, net: Any, **configs: Any) -> None:
            self.access = access
            self.tried: set[Any] = set()
            """Bootstrap servers of this round."""
            self.failures: dict[Any, Exception] = {}
            self.last_failure: Exception | None = None
            super().__init__(net, **configs)

        async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
            transport = await super()._build_transport(node, timeout_at=timeout_at)
            receive = transport._sock_recv

            def receive_answer_first() -> Any:
                # A broker that does not let us in says why and hangs up. Where both come together, the answer would
                # be thrown away; the end of the connection is found again by the next look.
                data, error = receive()
                return (data, None) if data else (data, error)

            transport._sock_recv = receive_answer_first
            return transport

        def get_connection(self, node_id: Any, timeout_ms: float | None = None, **options: Any) -> Any:
            if self.cluster.is_bootstrap(node_id) and not self.bootstrapped:
                timeout_ms = self._share(node_id, timeout_ms)
            connection = super().get_connection(node_id, timeout_ms=timeout_ms, **options)
            if not connection.init_future.is_done:
                limit_ms = timeout_ms or self.socket_connection_setup_timeout_ms(node_id)

                def give_up() -> None:
                    # A server that accepts and is silent: a TLS handshake has no time limit of its own.
                    if not connection.init_future.is_done:
                        connection.close(KafkaTimeoutError(f"no answer within {limit_ms / 1000:.1f} s"))

                def note(error: Exception) -> None:
                    self.failures[node_id] = self.last_failure = error

                self._net.call_later(limit_ms / 1000, give_up)
                connection.close_future.add_errback(note)
            return connection

        def _share(self, node_id: Any, timeout_ms: float | None) -> float | None:
            """Return how long a bootstrap server may take; raise if it is not its turn, or if none will ever do."""
            servers = {server.node_id for server in self.cluster.bootstrap_brokers()}
            untried = servers - self.tried
            if not untried:
                for error in self.failures.values():
                    if _refusal(self.access, error):
                        raise error
                self.tried.clear()
                untried = servers
            elif node_id not in untried:
                raise NodeNotReadyError(node_id)
            self.tried.add(node_id)
            return timeout_ms and timeout_ms / len(untried)

    class Client(KafkaNetClient):
        def __init__(self, access: KafkaAccess, **configs: Any) -> None:
            net = NetworkSelector(**configs)
            super().__init__(net=net, manager=Manager(access, net, **configs), **configs)

        @property
        def last_failure(self) -> Exception | None:
            return self._manager.last_failure

    return Client

"""Is a service healthy? One probe for each, through the service's own protocol.

A probe returns nothing when the service is healthy, and raises `UnhealthyError` with the reason when it is not.
Every probe ends within a few seconds, whatever the other side does.
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from genres.certificates import https_refusal, trusted
from genres.errors import GenresError
from genres.kafka_client import KafkaAccess, open_client

TIMEOUT_S = 3.0
"""How long a probe waits for an answer."""


class UnhealthyError(Exception):
    """Why a service is not (yet) healthy, in a few words."""


def probe_namenode(webhdfs: str) -> None:
    """HDFS can be written to: the NameNode answers, is out of safe mode and has a live DataNode.

    `webhdfs` is ``http://host:port`` of the NameNode.
    """
    if _live_datanodes(webhdfs) < 1:
        raise UnhealthyError("no live DataNode")
    if safe_mode := _safe_mode(webhdfs):
        raise UnhealthyError(safe_mode)


def probe_webhdfs(webhdfs: str, *, user: str, ca_file: Path | None) -> None:
    """HDFS that somebody else runs takes requests of `user`, and, where its state may be seen, can be written to.

    A NameNode that is on standby refuses the request. A gateway (HttpFS) has no JMX beans, and a secured NameNode may
    keep them for its administrators: then the answer alone has to do.
    """
    address = webhdfs.rstrip("/")
    _get(f"{address}/webhdfs/v1/?op=GETFILESTATUS&user.name={quote(user)}", ca_file)
    try:
        live, safe_mode = _live_datanodes(address, ca_file), _safe_mode(address, ca_file)
    except UnhealthyError:
        return
    if live < 1:
        raise UnhealthyError("no live DataNode")
    if safe_mode:
        raise UnhealthyError(safe_mode)


def probe_datanode(address: str, webhdfs: str) -> None:
    """The DataNode answers and has joined the cluster; both addresses are ``http://host:port``."""
    # The whole bean cannot be read before the DataNode has registered: each try costs a stack trace in its log.
    if not _jmx(address, "Hadoop:service=DataNode,name=DataNodeInfo", "ClusterId").get("ClusterId"):
        raise UnhealthyError("it has not reached the NameNode")
    if _live_datanodes(webhdfs) < 1:
        raise UnhealthyError("the NameNode does not know it")


def probe_kafka(access: KafkaAccess) -> None:
    """Any broker answers a metadata request: that others are down is the cluster's matter.

    Where several accept connections and none lets us in, it takes ``kafka_answer_s`` for each.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    _require_any_listener(access.bootstrap_servers.split(","))
    timeout_ms = int(max(TIMEOUT_S, access.answer_s) * 1000)
    try:
        admin = open_client(KafkaAdminClient, access, bootstrap_timeout_ms=timeout_ms, request_timeout_ms=timeout_ms)
        try:
            brokers = admin.describe_cluster()["brokers"]
        finally:
            admin.close()
    except (KafkaError, GenresError) as error:
        raise UnhealthyError(str(error) or type(error).__name__) from error
    if not brokers:
        raise UnhealthyError("the controller knows no broker yet")


def probe_spark_connect(remote: str, *, uses_tls: bool = False) -> None:
    """The Spark Connect server takes gRPC connections.

    `remote` is ``sc://host:port[/;…]``. With `uses_tls`, as ``Settings.spark_uses_tls``
    says it, a server that listens is taken to be healthy: it would refuse the plain channel that is tried else.
    """
    import grpc

    url = urlsplit(remote)
    host, port = url.hostname or "", url.port or 15002
    _require_listener(host, port)
    if uses_tls:
        return
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise UnhealthyError("no gRPC answer") from error


def probe_spark_ui(ui: str) -> None:
    """Spark's pages are shown; `ui` is ``http://host:port``."""
    _get(f"{ui}/jobs/")


def probe_mlflow(tracking_uri: str, *, ca_file: Path | None = None) -> None:
    """The MLflow server says it is healthy; `tracking_uri` is ``http://host:port``."""
    _get(f"{tracking_uri.rstrip('/')}/health", ca_file)


def _live_datanodes(webhdfs: str, ca_file: Path | None = None) -> int:
    """Return how many DataNodes a NameNode takes for live ones."""
    live = _jmx(webhdfs, "Hadoop:service=NameNode,name=FSNamesystemState", ca_file=ca_file).get("NumLiveDataNodes")
    if not isinstance(live, int):
        raise _no_hadoop(webhdfs)
    return live


def _safe_mode(webhdfs: str, ca_file: Path | None = None) -> str:
    """Return what a NameNode says of its safe mode; nothing if it is out of it."""
    said = _jmx(webhdfs, "Hadoop:service=NameNode,name=NameNodeInfo", ca_file=ca_file).get("Safemode")
    if not isinstance(said, str):
        raise _no_hadoop(webhdfs)
    return said


def _jmx(address: str, bean: str, attribute: str = "", *, ca_file: Path | None = None) -> dict[str, Any]:
    """Return the attributes of one JMX bean of a Hadoop daemon, or only one of them."""
    query = f"get={bean}::{attribute}" if attribute else f"qry={bean}"
    try:
        beans = _get(f"{address}/jmx?{query}", ca_file).json().get("beans")
        attributes = beans[0] if beans else {}
    except (ValueError, AttributeError, TypeError, LookupError) as error:
        raise _no_hadoop(address) from error
    if not isinstance(attributes, dict):
        raise _no_hadoop(address)
    if not attributes:
        raise UnhealthyError("it is still initialising")
    return attributes


def _no_hadoop(address: str) -> UnhealthyError:
    return UnhealthyError(f"what answers at {address} is no Hadoop daemon")


def _get(url: str, ca_file: Path | None = None) -> requests.Response:
    try:
        verify = trusted(ca_file)
    except GenresError as error:
        raise UnhealthyError(str(error)) from error
    shown = url.partition("?")[0]
    try:
        # A proxy that the user's environment names has no business between us and our own daemons.
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(url, timeout=TIMEOUT_S, verify=verify)
    except requests.exceptions.SSLError as error:  # a ConnectionError, too
        raise UnhealthyError(f"TLS fails at {shown}: {https_refusal(error, ca_file) or error}") from error
    except requests.ConnectionError as error:
        raise UnhealthyError(f"nothing answers at {shown}") from error
    except requests.Timeout as error:
        raise UnhealthyError(f"no answer within {TIMEOUT_S:g} s at {shown}") from error
    except requests.RequestException as error:  # it breaks off, as of a server that is just starting or stopping
        raise UnhealthyError(f"no whole answer at {shown}: {error}") from error
    except ValueError as error:  # urllib3's, of a host whose name is none
        raise UnhealthyError(f"{shown} is no address, or leads to none: {error}") from error
    if not response.ok:
        with suppress(ValueError, KeyError, TypeError):  # what Hadoop says of it
            said = str(response.json()["RemoteException"]["message"]).splitlines()[0]
            raise UnhealthyError(f"HTTP {response.status_code} at {shown}: {said}")
        raise UnhealthyError(f"HTTP {response.status_code} at {shown}")
    return response


def _require_any_listener(servers: list[str]) -> None:
    """Raise `UnhealthyError` if nothing listens at any of some ``host:port``, all of them asked at the same time."""

    def refusal(server: str) -> str:
        host, _, port = server.strip().rpartition(":")
        try:
            _require_listener(host.strip("[]"), int(port))
        except UnhealthyError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max_workers=len(servers)) as pool:
        refusals = list(pool.map(refusal, servers))
    if all(refusals):
        raise UnhealthyError("; ".join(refusals))


def _require_listener(host: str, port: int) -> None:
    """Raise `UnhealthyError` if nothing listens there: gRPC and Kafka clients take seconds to say so."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except (OSError, ValueError) as error:  # a name that is none, too
        raise UnhealthyError(f"nothing answers at {host}:{port}") from error

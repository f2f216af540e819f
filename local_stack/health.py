"""Is a service healthy? One probe for each, through the service's own protocol.

A probe returns nothing when the service is healthy, and raises `UnhealthyError` with the reason when it is not.
Every probe ends within a few seconds, whatever the other side does.
"""

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import requests

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
    state = _jmx(webhdfs, "Hadoop:service=NameNode,name=FSNamesystemState")
    if state["NumLiveDataNodes"] < 1:
        raise UnhealthyError("no live DataNode")
    if safe_mode := _jmx(webhdfs, "Hadoop:service=NameNode,name=NameNodeInfo")["Safemode"]:
        raise UnhealthyError(safe_mode)


def probe_datanode(address: str, webhdfs: str) -> None:
    """The DataNode answers and has joined the cluster; both addresses are ``http://host:port``."""
    # The whole bean cannot be read before the DataNode has registered: each try costs a stack trace in its log.
    if not _jmx(address, "Hadoop:service=DataNode,name=DataNodeInfo", "ClusterId").get("ClusterId"):
        raise UnhealthyError("it has not reached the NameNode")
    if _jmx(webhdfs, "Hadoop:service=NameNode,name=FSNamesystemState")["NumLiveDataNodes"] < 1:
        raise UnhealthyError("the NameNode does not know it")


def probe_kafka(access: KafkaAccess) -> None:
    """Any broker answers a metadata request: that others are down is the cluster's matter."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    _require_any_listener(access.bootstrap_servers.split(","))
    timeout_ms = int(TIMEOUT_S * 1000)
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


def probe_spark_connect(remote: str, ui: str | None) -> None:
    """The Spark Connect server takes gRPC connections and, where `ui` names it, its web UI answers.

    `remote` is ``sc://host:port[/;…]``, `ui` is ``http://host:port``.
    """
    import grpc

    url = urlsplit(remote)
    host, port = url.hostname or "", url.port or 15002
    _require_listener(host, port)
    if ui:
        _get(f"{ui}/jobs/")
    # A TLS server would refuse this plain channel, but then it listens, which is all there is to see.
    if "use_ssl=true" in url.path.lower():
        return
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        except grpc.FutureTimeoutError as error:
            raise UnhealthyError("no gRPC answer") from error


def probe_mlflow(tracking_uri: str) -> None:
    """The MLflow server says it is healthy; `tracking_uri` is ``http://host:port``."""
    _get(f"{tracking_uri.rstrip('/')}/health")


def _jmx(address: str, bean: str, attribute: str = "") -> dict[str, Any]:
    """Return the attributes of one JMX bean of a Hadoop daemon, or only one of them."""
    query = f"get={bean}::{attribute}" if attribute else f"qry={bean}"
    beans = _get(f"{address}/jmx?{query}").json().get("beans")
    if not beans:
        raise UnhealthyError("it is still initialising")
    attributes: dict[str, Any] = beans[0]
    return attributes


def _get(url: str) -> requests.Response:
    try:
        # A proxy that the user's environment names has no business between us and our own daemons.
        with requests.Session() as session:
            session.trust_env = False
            response = session.get(url, timeout=TIMEOUT_S)
    except requests.ConnectionError as error:
        raise UnhealthyError(f"nothing answers at {url}") from error
    except requests.Timeout as error:
        raise UnhealthyError(f"no answer within {TIMEOUT_S:g} s at {url}") from error
    if not response.ok:
        raise UnhealthyError(f"HTTP {response.status_code} at {url}")
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
    except OSError as error:
        raise UnhealthyError(f"nothing answers at {host}:{port}") from error

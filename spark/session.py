"""Spark sessions: the configuration of both kinds, classic and Connect.

A classic session is a JVM of this process; MLflow's Spark flavour and training need it. A Connect session talks
to a server whose engine is warm and whose UI stays up; everything else uses it. One process holds one kind only.
"""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit
from uuid import UUID

from genres.errors import GenresError
from genres.retrying import retried
from genres.settings import Settings

_PATIENCE_S = 30.0
_GENERATIONS = 50
"""Sessions of one name and day that may be closed before a person should look."""

SessionKind = Literal["classic", "connect"]


def session_config(kind: SessionKind, settings: Settings, *, app_name: str) -> dict[str, str]:
    """Configuration from which a session of the wanted kind is built.

    Parameters
    ----------
    kind
        ``classic`` or ``connect``.
    settings
        Addresses and limits.
    app_name
        Name shown in the Spark UI and the history server.
    """
    common = {
        "spark.app.name": app_name,
        "spark.sql.session.timeZone": "UTC",
        # Genre names such as "1980" are text.
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    }
    if kind == "connect":
        return {**common, "spark.remote": settings.remote}
    classic = {
        **common,
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.hadoop.fs.defaultFS": settings.hdfs,
        "spark.executorEnv.HADOOP_USER_NAME": settings.hdfs_user,
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
    }
    if "hdfs" in settings.embedded:
        # Both are the client's choice, and the defaults ask for more than one DataNode.
        classic |= {
            "spark.hadoop.dfs.replication": "1",
            "spark.hadoop.dfs.client.block.write.replace-datanode-on-failure.policy": "NEVER",
        }
    if settings.spark_master.startswith("local"):
        events = settings.state_dir / "spark-events"
        classic |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.eventLog.enabled": "true",  # the history server shows the session after its JVM is gone
            "spark.eventLog.dir": events.as_uri(),
            "spark.ui.port": "0",
            "spark.local.dir": str(settings.state_dir / "spark-local"),
            "spark.sql.warehouse.dir": (settings.state_dir / "spark-warehouse").as_uri(),
            # A laptop's tables are small: one task a stage beats the default's two hundred.
            "spark.sql.shuffle.partitions": "2",
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
        }
    return classic


def open_session(config: dict[str, str], *, shared_as: str = "") -> Any:
    """Open the session that a configuration asks for.

    Parameters
    ----------
    config
        From `session_config`.
    shared_as
        Name of a Connect session that processes use one after the other: the server's side stays open when the
        caller stops it, so that the next process finds its Python workers running. Empty for a session of one's own.

    Returns
    -------
    pyspark.sql.SparkSession
        The caller stops it.

    Raises
    ------
    GenresError
        If nothing answers at the Connect server's address, or there is no Java for a classic session.
    """
    if "spark.remote" in config:
        _wait_for_server(config["spark.remote"])
    else:
        from local_stack.java import java_home

        os.environ["JAVA_HOME"] = str(java_home())
        if events := config.get("spark.eventLog.dir"):
            Path(unquote(urlsplit(events).path)).mkdir(parents=True, exist_ok=True)
        os.environ["HADOOP_USER_NAME"] = config["spark.executorEnv.HADOOP_USER_NAME"]
    if config.get("spark.driver.bindAddress") == "127.0.0.1":
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"  # else the session's UI listens on every address
    if shared_as:
        return _open_shared(config, shared_as)
    return _build(config)


def _build(config: dict[str, str]) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in config.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _open_shared(config: dict[str, str], name: str) -> Any:
    """Open the first of the name's sessions today that the server has not closed; a closed id is never opened again."""
    from pyspark.errors import PySparkException

    remote = config["spark.remote"]
    parameters = remote.rstrip("/") + ("" if "/;" in remote else "/")
    today = datetime.now(UTC).date()
    for generation in range(_GENERATIONS):
        digest = hashlib.sha256(f"{remote} {name} {today} {generation}".encode()).digest()
        session_id = UUID(bytes=digest[:16], version=4)  # the client takes no other version
        try:
            session = _build({**config, "spark.remote": f"{parameters};session_id={session_id}"})
        except PySparkException as error:
            if "SESSION_CLOSED" not in str(error):
                raise
        else:
            session.release_session_on_close = False
            return session
    raise GenresError(
        f"the Spark Connect server at {remote.split('/;')[0]} closed {_GENERATIONS} sessions of '{name}' today; "
        "restart it, see `genres status`"
    )


def _wait_for_server(remote: str) -> None:
    # Left to itself the Connect client retries for minutes without a word.
    import socket

    address = urlsplit(remote)
    if address.scheme != "sc" or not address.hostname:
        raise GenresError(f"'{remote}' is no Spark Connect address: set GENRES_SPARK_REMOTE to sc://<host>:<port>")
    server = (address.hostname, address.port or 15002)
    try:
        retried(lambda: socket.create_connection(server, timeout=5), on=OSError, patience_s=_PATIENCE_S).close()
    except OSError as error:
        raise GenresError(
            f"Spark Connect does not answer at {address.hostname}:{address.port or 15002}: start the stack with "
            "`genres up`, or mend GENRES_SPARK_REMOTE"
        ) from error

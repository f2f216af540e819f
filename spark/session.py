"""Spark Connect sessions: their configuration and how they are opened.

Every session talks to a Connect server, whose engine is warm and whose UI stays up.
"""

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from genres.errors import GenresError
from genres.retrying import retried
from genres.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_PORT = 15002
"""Of a Connect server whose address names none."""
_PATIENCE_S = 30.0
_GENERATIONS = 50
"""Sessions of one name and day that may be closed before a person should look."""


def session_config(settings: Settings, *, app_name: str) -> dict[str, str]:
    """Return the configuration that a session is built from.

    Parameters
    ----------
    settings
        Where the Connect server is.
    app_name
        Name of the session's purpose.
    """
    return {
        "spark.app.name": app_name,
        "spark.sql.session.timeZone": "UTC",
        # Genre names such as "1980" are text.
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        # A larger table that is handed over is kept by the server until the session closes, which a stream's does
        # after a day; the default is one megabyte, and a message may have twice this.
        "spark.sql.session.localRelationCacheThreshold": str(64 * 2**20),
        "spark.remote": settings.remote,
    }


def open_session(config: dict[str, str], *, shared_as: str = "") -> "SparkSession":
    """Open the session that a configuration asks for.

    Parameters
    ----------
    config
        From `session_config`.
    shared_as
        Name of a session that processes use one after the other: the server's side stays open when the caller stops
        it, so that the next process finds its Python workers running. Empty for a session of one's own.

    Returns
    -------
    pyspark.sql.SparkSession
        The caller stops it.

    Raises
    ------
    GenresError
        If nothing answers at the Connect server's address.
    """
    _wait_for_server(config["spark.remote"])
    return _open_shared(config, shared_as) if shared_as else _build(config)


def _build(config: dict[str, str]) -> "SparkSession":
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in config.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _open_shared(config: dict[str, str], name: str) -> "SparkSession":
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
            session.release_session_on_close = False  # type: ignore[attr-defined]
            return session
    raise GenresError(
        f"the Spark Connect server at {remote.split('/;')[0]} closed {_GENERATIONS} sessions of '{name}' today; "
        "restart it, see `genres status`"
    )


def stop_session(session: "SparkSession", *, remote: str) -> None:
    """Stop a session. A server that is gone is not asked to forget it: the client would ask for a quarter of an hour.

    Parameters
    ----------
    remote
        The server's address, as the session was opened with it.
    """
    import socket

    try:
        socket.create_connection(_server(remote), timeout=5).close()
    except OSError:
        session.release_session_on_close = False  # type: ignore[attr-defined]
    session.stop()


def _wait_for_server(remote: str) -> None:
    # Left to itself the Connect client retries for minutes without a word.
    import socket

    server = _server(remote)
    try:
        retried(lambda: socket.create_connection(server, timeout=5), on=OSError, patience_s=_PATIENCE_S).close()
    except OSError as error:
        raise GenresError(
            f"Spark Connect does not answer at {server[0]}:{server[1]}: start the stack with `genres up`, or fix "
            "GENRES_SPARK_REMOTE"
        ) from error


def _server(remote: str) -> tuple[str, int]:
    address = urlsplit(remote)
    if address.scheme != "sc" or not address.hostname:
        raise GenresError(f"'{remote}' is no Spark Connect address: set GENRES_SPARK_REMOTE to sc://<host>:<port>")
    return address.hostname, address.port or _PORT

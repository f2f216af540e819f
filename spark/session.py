"""Spark Connect sessions: their configuration and how they are opened.

Every session talks to a Connect server, whose engine is warm and whose UI stays up. To one that somebody else runs, a
session takes the project's code along (`spark.sent_code`).
"""

import hashlib
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from genres.addresses import without_secrets
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
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""What a session is set to that works on a table of clips at most: to compile a plan takes longer than to interpret
it."""
_CODE_FOLDER = "genres.code.folder"
"""Ours, among Spark's names in a session's configuration: where the code that is sent lies; absent: none is sent."""


def session_config(settings: Settings, *, app_name: str) -> dict[str, str]:
    """Return the configuration that a session is built from.

    Parameters
    ----------
    settings
        Where the Connect server is.
    app_name
        Name of the session's purpose.
    """
    # The embedded engine's workers run the code that lies here.
    code = {} if "spark" in settings.embedded else {_CODE_FOLDER: str(settings.state_dir / "code")}
    return {
        **code,
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
    """Open the session that a configuration asks for, and send the project's code if it says so.

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
    code = _code(config)
    if shared_as and code:
        # Workers that have imported a module import it no more: other code goes to a session of its own.
        shared_as = f"{shared_as} {code.stem}"
    session = _open_shared(config, shared_as) if shared_as else _build(config)
    if code:
        _send(session, code)
    return session


def _build(config: Mapping[str, str]) -> "SparkSession":
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in config.items():
        if key != _CODE_FOLDER:
            builder = builder.config(key, value)
    return builder.getOrCreate()


def _code(config: Mapping[str, str]) -> Path | None:
    """Return the file to send, or None if the engine has the code."""
    from spark.sent_code import code_zip

    folder = config.get(_CODE_FOLDER)
    return code_zip(Path(folder)) if folder else None


def _send(session: "SparkSession", code: Path) -> None:
    """Send the code; a session that has it takes no notice."""
    session.addArtifacts(str(code), pyfile=True)
    # The client puts it on the path of this process too, before the code that runs here.
    if str(code) in sys.path:
        sys.path.remove(str(code))


def _open_shared(config: dict[str, str], name: str) -> "SparkSession":
    """Open the first of the name's sessions today that the server has not closed; a closed id is never opened again."""
    from pyspark.errors import PySparkException

    remote = config["spark.remote"]
    parameters = remote.rstrip("/") + ("" if "/;" in remote else "/")
    today, host = datetime.now(UTC).date(), socket.gethostname()  # two pods may have equal addresses and paths
    for generation in range(_GENERATIONS):
        digest = hashlib.sha256(f"{remote} {host} {name} {today} {generation}".encode()).digest()
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
        f"the Spark Connect server at {without_secrets(remote)} closed {_GENERATIONS} sessions of '{name}' today; "
        "restart it, see `genres status`"
    )


def stop_session(session: "SparkSession", *, remote: str) -> None:
    """Stop a session. A server that is gone is not asked to forget it: the client would ask for a quarter of an hour.

    Parameters
    ----------
    remote
        The server's address, as the session was opened with it.
    """
    try:
        socket.create_connection(_server(remote), timeout=5).close()
    except OSError:
        session.release_session_on_close = False  # type: ignore[attr-defined]
    session.stop()


def still_knows(session: "SparkSession", *, remote: str) -> bool:
    """Return whether the server still has a session that was idle; one that was started again has not.

    Parameters
    ----------
    remote
        The server's address, as the session was opened with it.

    Raises
    ------
    GenresError
        If nothing answers at the address.
    """
    _wait_for_server(remote)
    try:
        session.conf.get("spark.app.name")
    except Exception:  # whatever gRPC and the server make of it: it is of no more use
        return False
    return True


def _wait_for_server(remote: str) -> None:
    # Left to itself the Connect client retries for minutes without a word.
    import socket

    server = _server(remote)
    try:
        retried(lambda: socket.create_connection(server, timeout=5), on=OSError, patience_s=_PATIENCE_S).close()
    except (OSError, UnicodeError) as error:  # also of a name that is none
        raise GenresError(
            f"Spark Connect does not answer at {server[0]}:{server[1]}: start the stack with `genres up`, or fix "
            "GENRES_SPARK_REMOTE"
        ) from error


def _server(remote: str) -> tuple[str, int]:
    try:
        address = urlsplit(remote)
        if address.scheme == "sc" and address.hostname:
            return address.hostname, address.port or _PORT
    except ValueError:  # a port that is none
        pass
    raise GenresError(
        f"'{without_secrets(remote)}' is no Spark Connect address: set GENRES_SPARK_REMOTE to sc://<host>:<port>"
    )

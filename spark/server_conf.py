"""What a Connect server should be started with for this project's work, and how another one's configuration differs.

The embedded server has these; somebody else's server is asked for them. Where it listens and how much it may use is
its owner's matter.
"""

from collections.abc import Mapping
from typing import NamedTuple


class ServerSetting(NamedTuple):
    """One of Spark's settings."""

    value: str
    without: str
    """What happens with another value."""


DAEMON_MODULE = "spark.python.daemon.module"

SERVER_CONF: Mapping[str, ServerSetting] = {
    # Imports the feature kernel before it forks. It is imported before any session's code is there.
    DAEMON_MODULE: ServerSetting(
        "spark.worker_daemon",
        "each session's workers start for some seconds, and a stopped one is not ended; needs this project installed "
        "on the workers",
    ),
    "spark.python.worker.reuse": ServerSetting("true", "each task starts a worker of its own"),
    # Over TCP each task waits 40 ms for its first rows: small writes meet delayed acknowledgements.
    "spark.python.unix.domain.socket.enabled": ServerSetting("true", "each task waits 40 ms for its first rows"),
    # Jobs share the cores: the scores of a micro-batch do not wait for all features of the next one, or of a batch.
    "spark.scheduler.mode": ServerSetting("FAIR", "a batch's jobs go before the stream's"),
    # Sessions keep their id between batches, over a quiet night too.
    "spark.connect.session.manager.defaultSessionTimeout": ServerSetting(
        "24h", "the stream's session is closed when it was quiet for so long, and its workers start again"
    ),
    "spark.sql.execution.arrow.pyspark.enabled": ServerSetting("true", "tables come to Python row by row"),
    # What Spark writes lies beside its place until we rename it, once it is whole (`genres.store.lake`): its own
    # renames and its _SUCCESS files, half of all files of a model, would be for nobody.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": ServerSetting("2", "each table is renamed twice"),
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": ServerSetting(
        "false", "HDFS keeps an empty file for each table and each part of a model"
    ),
}
"""By Spark's name of it."""


def differences(found: Mapping[str, str | None]) -> list[str]:
    """Return what a server has in another way, in a few words each.

    Parameters
    ----------
    found
        The values that the server has, by name; None where it has none.
    """
    return [
        f"{name} is {value or 'not set'}, {SERVER_CONF[name].value} is better ({SERVER_CONF[name].without})"
        for name, value in found.items()
        if (value or "").lower() != SERVER_CONF[name].value.lower()
    ]

"""Spark sessions: the configuration of both kinds, classic and Connect.

A classic session is a JVM of this process; MLflow's Spark flavour and training need it. A Connect session talks
to a server whose engine is warm and whose UI stays up; everything else uses it. One process holds one kind only.
"""

from typing import Any, Literal

from genres.settings import Settings

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
        "spark.hadoop.dfs.client.use.datanode.hostname": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "WARN",
    }
    if settings.spark_master.startswith("local"):
        events = settings.state_dir / "spark-events"
        events.mkdir(parents=True, exist_ok=True)
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


def open_session(kind: SessionKind, settings: Settings, *, app_name: str) -> Any:
    """Open a session of the wanted kind.

    Returns
    -------
    pyspark.sql.SparkSession
        The caller stops it.
    """
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for key, value in session_config(kind, settings, app_name=app_name).items():
        builder = builder.config(key, value)
    return builder.getOrCreate()

"""How the Spark Connect server is started, from the pyspark wheel."""

import importlib.util
import os
import sys
from pathlib import Path

from genres.settings import Settings
from local_stack.program import PYTHON_PATH, Program
from spark.server_conf import SERVER_CONF


def spark_programs(settings: Settings, java_home: Path) -> list[Program]:
    """Return the Connect server, whose engine and UI stay up."""
    folder = settings.state_dir / "spark"
    connect_file = folder / "connect.conf"
    spark_home = _spark_home()
    environment = {
        "JAVA_HOME": str(java_home),
        "SPARK_HOME": str(spark_home),
        # Not the user's: a spark-defaults.conf or an hdfs-site.xml of another cluster must not mix in.
        "SPARK_CONF_DIR": str(folder / "conf"),
        "HADOOP_CONF_DIR": str(folder / "conf"),
        # Without it the UI listens on every address.
        "SPARK_LOCAL_IP": "127.0.0.1",
        "HADOOP_USER_NAME": settings.hdfs_user,
        "PYSPARK_PYTHON": sys.executable,
        # The workers import the feature kernel.
        **PYTHON_PATH,
    }
    return [
        Program(
            "spark-connect",
            [
                *(str(spark_home / "bin" / "spark-submit"), "--properties-file", str(connect_file)),
                *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"),
            ],
            folder,
            environment,
            {connect_file: _properties(connect_conf(settings))},
            prepare=lambda: _make_folders(settings),
        ),
    ]


def connect_conf(settings: Settings) -> dict[str, str]:
    """Return the configuration of the Connect server and of all its sessions."""
    folder, ports = settings.state_dir / "spark", settings.ports
    conf = {
        **{name: setting.value for name, setting in SERVER_CONF.items()},
        "spark.app.name": "genres (Spark Connect)",
        "spark.master": "local[*]",
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(ports.spark_connect),
        "spark.ui.port": str(ports.spark_ui),
        # Any site's page could end jobs with it: it takes a plain GET.
        "spark.ui.killEnabled": "false",
        # A taken port is an error that we name, not a reason to move to the next one.
        "spark.port.maxRetries": "0",
        "spark.ui.showConsoleProgress": "false",
        "spark.hadoop.fs.defaultFS": settings.hdfs,
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": (folder / "warehouse").as_uri(),
        "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
    }
    if "hdfs" in settings.embedded:
        # Both are the client's choice, and the defaults ask for more than one DataNode.
        conf["spark.hadoop.dfs.replication"] = "1"
        conf["spark.hadoop.dfs.client.block.write.replace-datanode-on-failure.policy"] = "NEVER"
    return conf


def _make_folders(settings: Settings) -> None:
    for name in ("conf", "local"):
        (settings.state_dir / "spark" / name).mkdir(parents=True, exist_ok=True)


def _spark_home() -> Path:
    """Return pyspark's folder, which is a Spark distribution, without importing pyspark."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None and spec.origin is not None  # noqa: S101 - a requirement of this project
    return Path(spec.origin).parent


def _properties(conf: dict[str, str]) -> str:
    return "".join(f"{name} {value}\n" for name, value in conf.items())

"""How the Spark Connect server is started, from the pyspark wheel, and what shows its pages."""

import base64
import importlib.util
import os
import sys
from pathlib import Path
from secrets import token_bytes

from genres.settings import Settings
from local_stack.program import PYTHON_PATH, Program
from local_stack.spark_ui import TOKEN_VARIABLE
from spark.server_conf import SERVER_CONF

_UI_FILTER = "org.apache.spark.ui.JWSFilter"
_UI_KEY = f"spark.{_UI_FILTER}.param.secretKey"


def spark_programs(settings: Settings, java_home: Path) -> list[Program]:
    """Return the Connect server, whose engine stays up, and the process that shows its pages."""
    folder = settings.state_dir / "spark"
    connect_file = folder / "connect.conf"
    spark_home = _spark_home()
    ui_key = _kept(connect_file, _UI_KEY) or base64.urlsafe_b64encode(token_bytes(32)).decode()
    # Only who has a token that this key signed is shown a page. Spark hides the key itself on its page of settings.
    guarded = {"spark.ui.filters": _UI_FILTER, _UI_KEY: ui_key}
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
            {connect_file: _properties({**connect_conf(settings), **guarded})},
            prepare=lambda: _make_folders(settings),
        ),
        Program(
            "spark-ui",
            [
                *(sys.executable, "-m", "local_stack.spark_ui", str(settings.ports.spark_ui)),
                f"http://127.0.0.1:{settings.ports.spark_own_ui}",
            ],
            folder,
            {**PYTHON_PATH, TOKEN_VARIABLE: _token(ui_key)},
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
        "spark.ui.port": str(ports.spark_own_ui),
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


def _kept(file: Path, name: str) -> str:
    """Return what a file of properties has of that name, if anything: another value would start Spark again."""
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")), "")


def _token(key: str) -> str:
    """Return a token that is signed by a key in URL-safe base64, as Spark's filter expects it."""
    import jwt

    return jwt.encode({"sub": "spark-ui"}, base64.urlsafe_b64decode(key), algorithm="HS256")

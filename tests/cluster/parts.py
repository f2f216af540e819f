"""The parts of a cluster: the local stack's daemons, several of a kind, with what a cluster has and a laptop has not.

Each function describes the programs of one part and says where clients find it; `Daemons` runs them.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from kafka import KafkaAdminClient
from pydantic import SecretStr

from genres.retrying import retried
from genres.settings import Settings
from local_stack import hdfs_daemons, kafka_broker, spark_server
from local_stack.class_path import HADOOP_LOCK, KAFKA_LOCK, class_path
from local_stack.health import UnhealthyError, probe_mlflow, probe_spark_connect
from local_stack.java import java_home
from local_stack.mlflow_server import mlflow_programs
from local_stack.program import Program
from spark.server_conf import DAEMON_MODULE
from tests.certificates import Authority
from tests.cluster.daemons import Daemons
from tests.other_interpreter import interpreter_without_the_project
from tests.secured_broker import with_listeners

PATIENCE_S = 180.0
USER, PASSWORD = "clips", "hunter2"
"""Who logs in to the brokers."""
HDFS_SUPERUSER = "hdfs"
"""Not the user whose lake it is: permissions count for that one."""
_CLUSTER_ID = "Z2VucmVzLXRlc3RzLTEyMw"

FreePortBase = Callable[[], int]


class SparkCluster:
    """A standalone master, two workers of one core, and a Connect server; the workers have not got the project."""

    def __init__(
        self,
        daemons: Daemons,
        folder: Path,
        free_port_base: FreePortBase,
        *,
        hdfs: str,
        replication: int,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Describe it; `secrets` are in the environment of its daemons alone, where whoever runs it has put them."""
        folder.mkdir()
        settings = Settings(state_dir=folder / "connect", port_base=free_port_base())
        self.workers = ("spark-worker-1", "spark-worker-2")
        self.remote = settings.remote
        self._daemons = daemons
        self._ui = f"http://127.0.0.1:{settings.ports.spark_ui}"
        master, self._web, *webs = (settings.port_base + end for end in (77, 80, 81, 82))
        self._webs = dict(zip(self.workers, webs, strict=True))
        address = f"spark://127.0.0.1:{master}"
        with _patched(spark_server, "connect_conf", lambda plain: _on_standalone(plain, address, hdfs, replication)):
            connect, pages = spark_server.spark_programs(settings, java_home())
        environment = {
            **connect.environment,
            **(secrets or {}),
            "PYSPARK_PYTHON": str(interpreter_without_the_project(folder)),
            # Nothing of the tests' own: what the workers find of the project, it was sent to them.
            "PYTHONPATH": "",
            # A worker's user has a cache of its own: what was compiled here is not there.
            "GENRES_CACHE_DIR": str(folder / "cache"),
            "SPARK_LOCAL_DIRS": str(folder / "local"),
        }
        # Not of the Connect server, which would take it for its own memory.
        small = {
            **environment,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",  # it has a port of its own choice
        }
        spark_class = str(Path(connect.command[0]).with_name("spark-class"))
        run = (spark_class, "org.apache.spark.deploy.master.Master")
        where = ("--host", "127.0.0.1", "--port", str(master), "--webui-port", str(self._web))
        self._programs = [
            replace(connect, name="spark-master", command=[*run, *where], environment=small, files={}),
        ]
        for name, web in self._webs.items():
            run = (spark_class, "org.apache.spark.deploy.worker.Worker")
            size = ("--cores", "1", "--memory", "1g", "--work-dir", str(folder / name))
            where = ("--host", "127.0.0.1", "--webui-port", str(web), address)
            self._programs.append(
                replace(connect, name=name, command=[*run, *size, *where], environment=small, files={})
            )
        self._programs += [replace(connect, environment=environment), pages]

    def start(self) -> None:
        """Start the master and, once it answers, what asks it: a server that comes too early waits for 20 s."""
        master, *others = self._programs
        self._daemons.start(master)
        _wait(self._state)
        self._daemons.start(*others)

    def wait(self) -> None:
        """Wait until both workers have joined and the Connect server answers."""

        def ask() -> None:
            state = self._state()
            if state["aliveworkers"] < len(self.workers):
                raise UnhealthyError(f"{state['aliveworkers']} workers")
            probe_spark_connect(self.remote)

        _wait(ask)

    def has_tasks(self, worker: str) -> bool:
        """Whether tasks run on a worker now."""
        page = f":{self._webs[worker]}/"  # each executor's logs are on its worker's pages
        executors = self._asked("executors")
        return any(found["activeTasks"] for found in executors if page in found["executorLogs"].get("stderr", ""))

    def failed_tasks(self) -> int:
        """How many tasks have failed so far; those of executors that were lost did."""
        return sum(found["numFailedTasks"] for found in self._asked("stages"))

    def _asked(self, what: str) -> list[dict[str, Any]]:
        applications = f"{self._ui}/api/v1/applications"
        (application,) = requests.get(applications, timeout=30).json()
        found: list[dict[str, Any]] = requests.get(f"{applications}/{application['id']}/{what}", timeout=30).json()
        return found

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = requests.get(f"http://127.0.0.1:{self._web}/json/", timeout=5).json()
        return state


def _on_standalone(plain: dict[str, str], master: str, hdfs: str, replication: int) -> dict[str, str]:
    """The embedded server's configuration for a cluster whose workers have not got the project."""
    kept = {name: value for name, value in plain.items() if name != DAEMON_MODULE and ".dfs." not in name}
    return kept | {
        "spark.master": master,
        "spark.cores.max": "2",
        "spark.executor.memory": "768m",
        "spark.executor.extraJavaOptions": "-XX:+UseSerialGC",
        "spark.hadoop.fs.defaultFS": hdfs,
        "spark.hadoop.dfs.replication": str(replication),
    }


class Brokers:
    """Three brokers that are controllers too; a message is on all of them and has to be on two.

    Clients log in over TLS; the brokers talk plainly among themselves.
    """

    def __init__(self, folder: Path, free_port_base: FreePortBase) -> None:
        self.names = ("kafka-1", "kafka-2", "kafka-3")
        all_settings = [Settings(state_dir=folder / name, port_base=free_port_base()) for name in self.names]
        self._plain = [settings.bootstrap_servers for settings in all_settings]
        authority = Authority(folder / "authority")
        secured = [f"127.0.0.1:{settings.port_base + 94}" for settings in all_settings]
        self.settings = {
            "KAFKA_BOOTSTRAP_SERVERS": ",".join(secured),
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD": PASSWORD,
            "KAFKA_CA_FILE": str(authority.ca_file),
        }
        """What clients need."""
        voters = [
            f"{number}@127.0.0.1:{settings.ports.kafka_controller}"
            for number, settings in enumerate(all_settings, start=1)
        ]
        replicated = {
            f"{what}.{which}": number
            for which, number in (("replication.factor", "3"), ("min.isr", "2"))
            for what in ("transaction.state.log", "share.coordinator.state.topic")
        }
        jars = class_path(KAFKA_LOCK, on_progress=print)
        self.programs = []
        for number, (settings, address) in enumerate(zip(all_settings, secured, strict=True), start=1):
            own = {
                "node.id": str(number),
                "controller.quorum.voters": ",".join(voters),
                "default.replication.factor": "3",
                "min.insync.replicas": "2",
                "offsets.topic.replication.factor": "3",
                **replicated,
            }

            def broker(plain: dict[str, str], own: dict[str, str] = own, address: str = address) -> dict[str, str]:
                listeners = {"SASL_SSL": address}
                return with_listeners(plain | own, authority, listeners, user=USER, password=PASSWORD)

            with _patched(kafka_broker, "broker", broker):
                (program,) = kafka_broker.kafka_programs(settings, java_home(), jars)
            self.programs.append(replace(program, name=self.names[number - 1], prepare=_formatting(program)))

    def wait(self) -> None:
        """Wait until all brokers have registered."""

        def ask() -> None:
            admin = KafkaAdminClient(bootstrap_servers=self._plain, request_timeout_ms=5000)
            try:
                known = admin.describe_cluster()["brokers"]
            finally:
                admin.close()
            if len(known) < len(self.names):
                raise UnhealthyError(f"{len(known)} brokers")

        _wait(ask)


def _formatting(program: Program) -> Callable[[], None]:
    """Format a broker's storage with the id that the brokers of one cluster have in common."""
    *java, _, _, properties_file = program.command

    def format_once() -> None:
        if not (program.directory / "data" / "meta.properties").exists():
            how = ("--cluster-id", _CLUSTER_ID, "--config", properties_file)
            command = [*java, "kafka.tools.StorageTool", "format", *how]
            subprocess.run(command, cwd=program.directory, check=True, stdout=subprocess.DEVNULL)

    return format_once


class HdfsOfTwo:
    """A NameNode and two DataNodes, with permissions; the lake belongs to the settings' user, HDFS to another one."""

    def __init__(self, folder: Path, free_port_base: FreePortBase) -> None:
        first = Settings(state_dir=folder / "one", port_base=free_port_base())
        second = Settings(
            state_dir=folder / "two", port_base=free_port_base(), hdfs_url=first.hdfs, webhdfs_url=first.webhdfs
        )
        self.hdfs, self.webhdfs = first.hdfs, first.webhdfs
        self.datanodes = ("datanode-1", "datanode-2")
        self._settings = first
        names = ("dfs.namenode.rpc-address", "dfs.namenode.http-address")
        shared = {name: hdfs_daemons.hdfs_site(first)[name] for name in names} | {
            "dfs.permissions.enabled": "true",
            "dfs.replication": "2",
        }
        jars = class_path(HADOOP_LOCK, on_progress=print)
        with _patched(hdfs_daemons, "hdfs_site", lambda plain: plain | shared):
            namenode, datanode = hdfs_daemons.hdfs_programs(first, java_home(), jars)
            _, other = hdfs_daemons.hdfs_programs(second, java_home(), jars)
        environment = {"HADOOP_USER_NAME": HDFS_SUPERUSER}
        named = zip(("namenode", *self.datanodes), (namenode, datanode, other), strict=True)
        self.programs = [replace(program, name=name, environment=environment) for name, program in named]

    def wait(self) -> None:
        """Wait until both DataNodes have joined and HDFS takes writes."""

        def ask() -> None:
            bean = "Hadoop:service=NameNode,name="
            (state,) = requests.get(f"{self.webhdfs}/jmx?qry={bean}FSNamesystemState", timeout=5).json()["beans"]
            (info,) = requests.get(f"{self.webhdfs}/jmx?qry={bean}NameNodeInfo", timeout=5).json()["beans"]
            if state["NumLiveDataNodes"] < len(self.datanodes) or info["Safemode"]:
                raise UnhealthyError(f"{state['NumLiveDataNodes']} DataNodes; {info['Safemode']}")

        _wait(ask)

    def make_lake(self) -> None:
        """Make the lake's folder, which nobody but its user may write to, as an administrator does."""
        lake, user = self._settings.lake_path, self._settings.hdfs_user
        for what in ({"op": "MKDIRS", "permission": "750"}, {"op": "SETOWNER", "owner": user, "group": user}):
            address = f"{self.webhdfs}/webhdfs/v1{lake}"
            parameters = {**what, "user.name": HDFS_SUPERUSER}
            requests.put(address, params=parameters, timeout=30).raise_for_status()


class Mlflow:
    """An MLflow server that somebody else runs, on a database server."""

    def __init__(self, folder: Path, free_port_base: FreePortBase, database_url: str) -> None:
        settings = Settings(state_dir=folder, port_base=free_port_base(), mlflow_database_url=SecretStr(database_url))
        self.tracking_uri = settings.tracking_uri
        self.programs = mlflow_programs(settings)

    def wait(self) -> None:
        """Wait until it answers."""
        _wait(lambda: probe_mlflow(self.tracking_uri))


@dataclass(frozen=True)
class Cluster:
    """All of it."""

    settings: Settings
    daemons: Daemons
    hdfs: HdfsOfTwo
    brokers: Brokers
    spark: SparkCluster

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Kill daemons, and start them again behind the block."""
        for name in names:
            self.daemons.kill(name)
        try:
            yield
        finally:
            for name in names:
                self.daemons.start_again(name)
            for part in (self.hdfs, self.brokers, self.spark):
                part.wait()


def _wait(ask: Callable[[], object]) -> None:
    retried(ask, on=(Exception,), patience_s=PATIENCE_S)


@contextmanager
def _patched(module: object, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> Iterator[None]:
    """Change what a function of the local stack returns for a set of settings."""
    plain = getattr(module, name)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, name, lambda settings: change(plain(settings)))
        yield

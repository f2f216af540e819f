"""The local stack's real daemons: healthy, on the loopback address only, and unhurt by ``kill -9``."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from genres.errors import GenresError
from genres.settings import Settings
from local_stack import stack as stack_module
from local_stack.program import Program
from local_stack.stack import ServiceStatus, down, start_service, status, stop_service, up
from local_stack.supervision import ProcessState, Supervisor
from tests.stream_rig import wait_until

EVERY_SERVICE = {"namenode", "datanode", "kafka", "spark-connect", "spark-ui", "mlflow"}


def test_every_service_runs(stack: Settings) -> None:
    rows = status(stack)
    assert {row.service for row in rows} == EVERY_SERVICE
    for row in rows:
        assert row.state == "running", row
        assert row.pid is not None and psutil.pid_exists(row.pid)
        assert row.memory_bytes is not None and row.memory_bytes > 2**20
        if row.service == "spark-ui":  # it shows what Spark has
            assert row.data_dir is None
        else:
            assert row.data_dir is not None and row.data_dir.is_dir()
        assert row.log is not None and row.log.stat().st_size > 0


def test_user_interfaces_answer_with_a_page(stack: Settings) -> None:
    for row in status(stack):
        if row.ui:
            page = requests.get(row.ui, timeout=10)
            assert page.ok and "<html" in page.text.lower(), row.service


def test_listens_on_loopback_only(stack: Settings) -> None:
    supervisor_pid = int((stack.state_dir / "supervisor" / "supervisord.pid").read_text())
    pids = {process.pid for process in psutil.Process(supervisor_pid).children(recursive=True)}
    listening = [
        connection.laddr
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    ]
    assert {address.port for address in listening} >= set(stack.ports) - {stack.ports.dagster, stack.ports.page}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_up_again_changes_nothing(stack: Settings) -> None:
    before = {row.service: row.pid for row in status(stack)}
    lines: list[str] = []
    after = up(stack, on_progress=lines.append)
    assert {row.service: row.pid for row in after} == before
    assert lines == []


def test_killed_datanode_is_restarted_and_keeps_its_blocks(stack: Settings) -> None:
    write_hdfs(stack, "/kept.txt", b"before the kill")
    pid = pid_of(stack, "datanode")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: row_of(stack, "datanode").pid not in (pid, None))
    wait_until(lambda: all(row.state == "running" for row in status(stack)))
    assert read_hdfs(stack, "/kept.txt") == b"before the kill"


def test_stopped_service_is_shown_and_starts_again(stack: Settings) -> None:
    pid = pid_of(stack, "mlflow")
    stop_service(stack, "mlflow")
    assert row_of(stack, "mlflow").state == "stopped"
    start_service(stack, "mlflow")
    assert row_of(stack, "mlflow").state == "running"
    assert pid_of(stack, "mlflow") != pid


def test_unknown_service_is_named(stack: Settings) -> None:
    with pytest.raises(GenresError, match=r"no embedded service 'zookeeper'; there are: namenode, .*mlflow"):
        start_service(stack, "zookeeper")


@pytest.mark.long
@pytest.mark.usefixtures("engine_not_asked")
def test_data_survives_kill_9_of_every_process(
    stack: Settings, state_dir: Path, free_port_base: Callable[[], int]
) -> None:
    # Spark keeps no data, so the first stack's serves this one too.
    own = Settings(state_dir=state_dir, port_base=free_port_base(), spark_remote=stack.remote)
    rows = up(own, on_progress=lambda _: None)
    assert {row.service: row.state for row in rows} == {
        **dict.fromkeys(("namenode", "datanode", "kafka", "mlflow"), "running"),
        "spark-connect": "external",
    }
    write_hdfs(own, "/genres/note.txt", b"written before")
    experiment = create_experiment(own, "written before")
    offset = send(own, b"written before")

    supervisor = psutil.Process(int((state_dir / "supervisor" / "supervisord.pid").read_text()))
    processes = [supervisor, *supervisor.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)
    assert {row.state for row in status(own)} == {"stopped", "external"}

    up(own, on_progress=lambda _: None)
    assert read_hdfs(own, "/genres/note.txt") == b"written before"
    assert experiment_named(own, "written before") == experiment
    assert receive(own, offset) == b"written before"
    write_hdfs(own, "/genres/another.txt", b"written after")

    # Only the supervisor this time: the daemons live on, and must not be in the way.
    supervisor = psutil.Process(int((state_dir / "supervisor" / "supervisord.pid").read_text()))
    orphans = supervisor.children(recursive=True)
    supervisor.kill()
    supervisor.wait(timeout=30)
    up(own, on_progress=lambda _: None)
    assert all(map(has_ended, orphans))
    assert read_hdfs(own, "/genres/another.txt") == b"written after"

    # A NameNode whose image is gone gets a new one, the old folder is kept, and the DataNode takes part.
    down(own)
    for image in (state_dir / "hdfs" / "name" / "current").glob("fsimage_*"):
        image.unlink()
    up(own, on_progress=lambda _: None)
    write_hdfs(own, "/genres/again.txt", b"on a new namespace")
    assert read_hdfs(own, "/genres/again.txt") == b"on a new namespace"
    assert len(list((state_dir / "hdfs").glob("name.unusable-*"))) == 1


def test_down_leaves_no_process_and_may_be_repeated(state_dir: Path, stack: Settings, only_kafka: Settings) -> None:
    up(only_kafka, on_progress=lambda _: None)
    supervisor = psutil.Process(int((state_dir / "supervisor" / "supervisord.pid").read_text()))
    processes = [supervisor, *supervisor.children(recursive=True)]
    down(only_kafka)
    assert all(map(has_ended, processes))
    assert {row.state for row in status(only_kafka)} == {"stopped", "external"}
    down(only_kafka)


def test_service_that_ends_is_named_with_the_tail_of_its_log(state_dir: Path, only_kafka: Settings) -> None:
    # The data folder of another broker.
    data_dir = state_dir / "kafka" / "data"
    data_dir.mkdir(parents=True)
    (data_dir / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=somebody-elses\n")
    with pytest.raises(GenresError) as failed:
        up(only_kafka, on_progress=lambda _: None)
    message = str(failed.value)
    assert message.startswith("kafka ended while it was starting; the end of ")
    assert str(state_dir / "logs" / "kafka.log") in message
    assert "Stored node id 7 doesn't match" in message
    assert row_of(only_kafka, "kafka").state == "stopped"
    assert nothing_runs_in(state_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_is_undone(state_dir: Path, only_kafka: Settings, number: signal.Signals) -> None:
    variables = {
        "GENRES_STATE_DIR": str(state_dir),
        "GENRES_PORT_BASE": str(only_kafka.port_base),
        "GENRES_MLFLOW_TRACKING_URI": only_kafka.mlflow_tracking_uri,
        "GENRES_SPARK_REMOTE": only_kafka.spark_remote,
        "GENRES_HDFS_URL": only_kafka.hdfs_url,
        "GENRES_WEBHDFS_URL": only_kafka.webhdfs_url,
    }
    command = [sys.executable, "-m", "genres_cli", "up"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL) as starting:
        supervisor = Supervisor(state_dir)
        while not any(info.alive for info in (supervisor.processes() or {}).values()):
            assert starting.poll() is None
            time.sleep(0.02)
        starting.send_signal(number)
        assert starting.wait(240) != 0
    assert nothing_runs_in(state_dir)


def nothing_runs_in(state_dir: Path) -> bool:
    """Return whether neither a supervisor nor a daemon of this state folder is there."""
    return not Supervisor(state_dir).is_running() and Supervisor(state_dir).end_leftovers() == 0


def test_service_that_misses_its_deadline_is_named(only_kafka: Settings) -> None:
    # No JVM has a broker up after a twentieth of a second.
    hurried = only_kafka.model_copy(update={"start_timeout_s": 0.05})
    with pytest.raises(GenresError, match=r"kafka was not healthy after 0\.05 s \(nothing answers at 127"):
        up(hurried, on_progress=lambda _: None)


def test_taken_port_is_named_with_its_holder(only_kafka: Settings) -> None:
    port = only_kafka.ports.kafka
    with socket.create_server(("127.0.0.1", port)), pytest.raises(GenresError) as failed:
        up(only_kafka, on_progress=lambda _: None)
    message = str(failed.value)
    assert f"port {port}, which kafka needs for clients, is taken by process {os.getpid()} (" in message
    assert "GENRES_PORT_BASE" in message


def test_external_service_that_does_not_answer_is_named(only_kafka: Settings) -> None:
    wrong = Settings(state_dir=only_kafka.state_dir, mlflow_tracking_uri="http://127.0.0.1:1")
    with pytest.raises(GenresError, match=r"mlflow at http://127\.0\.0\.1:1, .* is not healthy: nothing answers"):
        up(wrong, on_progress=lambda _: None)


def test_supervisor_works_in_a_deep_folder_with_odd_names(state_dir: Path) -> None:
    folder = state_dir / "a folder, with 100% 'odd' names" / ("deep" * 30)
    supervisor = Supervisor(folder)
    try:
        supervisor.ensure([sleeper(folder, "3000")])
        supervisor.start_process("sleeper")
        first = supervisor.info("sleeper")
        assert first.alive and first.pid is not None
        deadline = time.monotonic() + 30
        while "ODD" not in psutil.Process(first.pid).environ() and time.monotonic() < deadline:
            time.sleep(0.05)  # forked, but not the program yet
        assert psutil.Process(first.pid).environ()["ODD"] == "100% 'odd' names"

        supervisor.ensure([sleeper(folder, "3000")])
        assert supervisor.info("sleeper").pid == first.pid
        supervisor.ensure([sleeper(folder, "4000")])
        assert supervisor.info("sleeper").state is ProcessState.STOPPED
        assert not psutil.pid_exists(first.pid)
    finally:
        supervisor.end_leftovers()


def test_leftovers_are_this_stacks_processes_only(state_dir: Path) -> None:
    ours, theirs = Supervisor(state_dir / "ours"), Supervisor(state_dir / "theirs")
    # Names the folder on its command line, as an editor or a pager would, and is none of ours.
    reader = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3000)", str(ours.log_file("sleeper"))])
    try:
        for supervisor in (ours, theirs):
            supervisor.ensure([sleeper(supervisor.state_dir, "3000")])
            supervisor.start_process("sleeper")
        assert ours.end_leftovers() == 2  # supervisord and its child
        assert not ours.is_running()
        assert theirs.info("sleeper").alive
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()
        theirs.end_leftovers()


@pytest.fixture
def engine_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take it that an engine that somebody else runs is able: to ask takes ten seconds at each start."""
    monkeypatch.setattr(stack_module, "_require_able_engine", lambda *_: None)


@pytest.fixture
def only_kafka(stack: Settings, state_dir: Path, free_port_base: Callable[[], int], engine_not_asked: None) -> Settings:
    """Settings of a stack that runs Kafka and uses the test session's stack for the rest."""
    return Settings(
        state_dir=state_dir,
        port_base=free_port_base(),
        hdfs_url=stack.hdfs,
        webhdfs_url=stack.webhdfs,
        spark_remote=stack.remote,
        mlflow_tracking_uri=stack.tracking_uri,
    )


def sleeper(folder: Path, seconds: str) -> Program:
    code = "import sys, time; time.sleep(float(sys.argv[1]))"
    return Program("sleeper", [sys.executable, "-c", code, seconds], folder, {"ODD": "100% 'odd' names"})


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or waits for nothing but to be reaped."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def row_of(settings: Settings, name: str) -> ServiceStatus:
    return next(row for row in status(settings) if row.service == name)


def pid_of(settings: Settings, name: str) -> int:
    pid = row_of(settings, name).pid
    assert pid is not None
    return pid


def write_hdfs(settings: Settings, path: str, content: bytes) -> None:
    url = f"{settings.webhdfs}/webhdfs/v1{path}?op=CREATE&overwrite=true&user.name={settings.hdfs_user}"
    to_datanode = requests.put(url, allow_redirects=False, timeout=30).headers["Location"]
    assert urlsplit(to_datanode).netloc == f"127.0.0.1:{settings.ports.datanode_http}"
    requests.put(to_datanode, data=content, timeout=30).raise_for_status()


def read_hdfs(settings: Settings, path: str) -> bytes:
    answer = requests.get(f"{settings.webhdfs}/webhdfs/v1{path}?op=OPEN", timeout=30)
    answer.raise_for_status()
    return answer.content


def create_experiment(settings: Settings, name: str) -> str:
    url = f"{settings.tracking_uri}/api/2.0/mlflow/experiments/create"
    answer = requests.post(url, json={"name": name}, timeout=30)
    answer.raise_for_status()
    identity: str = answer.json()["experiment_id"]
    return identity


def experiment_named(settings: Settings, name: str) -> str:
    url = f"{settings.tracking_uri}/api/2.0/mlflow/experiments/get-by-name"
    answer = requests.get(url, params={"experiment_name": name}, timeout=30)
    answer.raise_for_status()
    experiment = answer.json()["experiment"]
    assert experiment["artifact_location"].startswith("mlflow-artifacts:/")
    identity: str = experiment["experiment_id"]
    return identity


def send(settings: Settings, value: bytes) -> int:
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    admin.create_topics([NewTopic("survives", num_partitions=1, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, acks="all", enable_idempotence=True)
    offset: int = producer.send("survives", value).get(timeout=30).offset
    producer.close()
    return offset


def receive(settings: Settings, offset: int) -> bytes:
    consumer = KafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers,
        group_id=None,
        auto_offset_reset="none",
        consumer_timeout_ms=30_000,
    )
    partition = TopicPartition("survives", 0)
    consumer.assign([partition])
    consumer.seek(partition, offset)
    value: bytes = next(consumer).value
    consumer.close()
    return value

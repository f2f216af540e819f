"""How the Kafka broker (its own KRaft controller, one node) is started, and how its storage is made."""

import base64
import uuid
from pathlib import Path

from genres.settings import Settings
from local_stack.program import JAVA_OPTIONS, LOGGING_OPTIONS, Program, format_folder

MAX_MESSAGE_BYTES = 16 * 2**20
"""Largest message the broker takes: twice the audio that is sent inline, so that nobody has to count headers."""


def kafka_programs(settings: Settings, java_home: Path, jars: list[Path]) -> list[Program]:
    """Return the broker."""
    folder = settings.state_dir / "kafka"
    properties_file = folder / "server.properties"
    java = [
        *(str(java_home / "bin" / "java"), *JAVA_OPTIONS, *LOGGING_OPTIONS),
        # One line a second says that the controller is well; its own log is a topic.
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.controller=warn",
        *("-cp", ":".join(map(str, jars))),
    ]
    return [
        Program(
            "kafka",
            [*java, "-Xmx384m", "kafka.Kafka", str(properties_file)],
            folder,
            files={properties_file: "".join(f"{name}={value}\n" for name, value in broker(settings).items())},
            prepare=lambda: format_storage(folder / "data", [*java, "kafka.tools.StorageTool"], properties_file),
        )
    ]


def broker(settings: Settings) -> dict[str, str]:
    """Return the properties of a one-node broker on 127.0.0.1."""
    ports = settings.ports
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        # A voter named here, not in the storage, may move to other ports.
        "controller.quorum.voters": f"1@127.0.0.1:{ports.kafka_controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{ports.kafka},CONTROLLER://127.0.0.1:{ports.kafka_controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports.kafka}",
        "log.dirs": str(settings.state_dir / "kafka" / "data"),
        # A mistyped topic should be an error, not a new topic.
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(MAX_MESSAGE_BYTES),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # The default is 128 MiB of heap, for millions of keys.
        "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }


def format_storage(data_dir: Path, storage_tool: list[str], properties_file: Path) -> None:
    """Write the cluster id into the broker's data folder, once (``meta.properties`` is what the tool writes last).

    Raises
    ------
    GenresError
        If the tool fails, with the end of its output.
    """
    if (data_dir / "meta.properties").exists():
        return
    # Kafka's ids are UUIDs in URL-safe base64; a leading dash would look like an option.
    cluster_id = "-"
    while cluster_id.startswith("-"):
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    command = [*storage_tool, "format", "--cluster-id", cluster_id, "--config", str(properties_file)]
    format_folder("kafka", data_dir, command, folder=properties_file.parent)

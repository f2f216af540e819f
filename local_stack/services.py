"""What the local stack consists of: each service's name, address, ports, data folder, UI and health probe.

How a service is started is not here but in the module named after it (``hdfs_daemons`` …).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from genres.addresses import without_secrets
from genres.kafka_client import KafkaAccess
from genres.settings import Settings
from genres.store.model_registry import experiments_page
from local_stack import health


@dataclass(frozen=True)
class Service:
    """One service of the stack, embedded or elsewhere."""

    name: str
    address: str
    """Where clients find it; as it may be shown."""
    probe: Callable[[], None]
    """Raises `health.UnhealthyError` unless the service is healthy."""
    external: bool = False
    """The settings name an address: somebody else runs this service."""
    ports: dict[str, int] = field(default_factory=dict)
    """What it listens on, by purpose; of embedded services only."""
    data_dir: Path | None = None
    ui: str | None = None
    behind: str = ""
    """The service without which it cannot be healthy, if there is one."""


def services(settings: Settings) -> list[Service]:
    """Return the services that `settings` ask for; of an external one, only what a client talks to."""
    state_dir, ports = settings.state_dir, settings.ports
    listed: list[Service] = []

    if "hdfs" in settings.embedded:
        datanode = f"http://127.0.0.1:{ports.datanode_http}"
        listed += [
            Service(
                "namenode",
                settings.hdfs,
                lambda: health.probe_namenode(settings.webhdfs),
                ports={"RPC": ports.namenode, "HTTP": ports.namenode_http},
                data_dir=state_dir / "hdfs" / "name",
            ),
            Service(
                "datanode",
                datanode,
                lambda: health.probe_datanode(datanode, settings.webhdfs),
                ports={"data": ports.datanode, "HTTP": ports.datanode_http, "IPC": ports.datanode_ipc},
                data_dir=state_dir / "hdfs" / "data",
            ),
        ]
    else:
        listed.append(
            Service(
                "namenode",
                without_secrets(settings.hdfs),
                lambda: health.probe_webhdfs(settings.webhdfs, user=settings.hdfs_user, ca_file=settings.ca_file),
                external=True,
            )
        )

    if "kafka" in settings.embedded:
        listed.append(
            Service(
                "kafka",
                settings.bootstrap_servers,
                lambda: health.probe_kafka(KafkaAccess.of(settings)),
                ports={"clients": ports.kafka, "controller": ports.kafka_controller},
                data_dir=state_dir / "kafka" / "data",
            )
        )
    else:
        listed.append(
            Service(
                "kafka",
                without_secrets(settings.bootstrap_servers),
                lambda: health.probe_kafka(KafkaAccess.of(settings)),
                external=True,
            )
        )

    if "spark" in settings.embedded:
        ui = f"http://127.0.0.1:{ports.spark_ui}"
        listed.append(
            Service(
                "spark-connect",
                settings.remote,
                lambda: health.probe_spark_connect(settings.remote),
                ports={"gRPC": ports.spark_connect, "UI": ports.spark_own_ui},
                data_dir=state_dir / "spark",
                ui=ui,
            )
        )
        listed.append(
            Service(
                "spark-ui",
                ui,
                lambda: health.probe_spark_ui(ui),
                ports={"HTTP": ports.spark_ui},
                behind="spark-connect",
            )
        )
    else:
        listed.append(
            Service(
                "spark-connect",
                without_secrets(settings.remote),
                lambda: health.probe_spark_connect(settings.remote, uses_tls=settings.spark_uses_tls),
                external=True,
            )
        )

    mlflow_external = "mlflow" not in settings.embedded
    listed.append(
        Service(
            "mlflow",
            without_secrets(settings.tracking_uri),
            lambda: health.probe_mlflow(settings.tracking_uri, ca_file=settings.ca_file),
            external=mlflow_external,
            ports={} if mlflow_external else {"HTTP": ports.mlflow},
            data_dir=None if mlflow_external else state_dir / "mlflow",
            ui=experiments_page(without_secrets(settings.tracking_uri)),
        )
    )
    return listed

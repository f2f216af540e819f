"""What `deploy/` says: versions that are those of the lock files, settings and addresses that exist, and no secrets."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from genres.settings import PROJECT_DIR, Settings
from genres_cli.main import app
from spark.server_conf import SERVER_CONF, differences

DEPLOY = PROJECT_DIR / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: dict[str, list[dict[str, Any]]] = {
    path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
}
OBJECTS = [found for name, objects in KUBERNETES.items() if name != "kustomization.yaml" for found in objects]
REQUIREMENTS = (PROJECT_DIR / "requirements.txt").read_text()
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|DATABASE_URL|BACKEND_STORE_URI")


def locked(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", REQUIREMENTS, re.MULTILINE)
    assert found is not None
    return found[1]


def kafka_version() -> str:
    lock = tomllib.loads((PROJECT_DIR / "local_stack" / "jars" / "kafka.lock.toml").read_text())
    (version,) = {jar["version"] for jar in lock["dependencies"] if jar["artifactId"] == "kafka_2.13"}
    return str(version)


def project_version() -> str:
    return str(tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]["version"])


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and pod specifications of what runs on Kubernetes."""
    for found in OBJECTS:
        if "template" in found.get("spec", {}):
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def containers() -> Iterator[dict[str, Any]]:
    for _, pod in pods():
        yield from pod["containers"]


def images() -> set[str]:
    return {service["image"] for service in COMPOSE["services"].values()} | {found["image"] for found in containers()}


def variables() -> Iterator[tuple[str, object]]:
    """Every variable that is set for a container, with what it is set to."""
    for service in COMPOSE["services"].values():
        yield from service.get("environment", {}).items()
    for container in containers():
        for variable in container.get("env", ()):
            yield variable["name"], variable.get("value", variable.get("valueFrom"))
    for found in OBJECTS:
        if found["kind"] == "ConfigMap":
            yield from found["data"].items()


def addresses(values: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Hosts and ports of the services that settings name."""
    for name in ("HDFS_URL", "WEBHDFS_URL", "KAFKA_BOOTSTRAP_SERVERS", "SPARK_REMOTE", "MLFLOW_TRACKING_URI"):
        for address in values[f"GENRES_{name}"].split(","):
            parts = urlsplit(address if "://" in address else f"//{address}")
            assert parts.hostname and parts.port
            yield parts.hostname, parts.port


def test_images_are_those_that_the_project_was_tested_with() -> None:
    expected = {
        f"genres:{project_version()}",
        f"genres-mlflow:{locked('mlflow')}",
        f"apache/spark:{locked('pyspark')}",
        f"apache/kafka:{kafka_version()}",
    }
    assert expected <= images()
    for image in images() - expected:
        assert re.fullmatch(r"[\w/.-]+:\d+\.\d+(\.\d+)?", image), f"{image} is not pinned"


def test_the_image_is_built_from_pinned_ones_with_every_package() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    assert f"ghcr.io/mlflow/mlflow:v{locked('mlflow')}" in bases
    assert f"psycopg2-binary=={locked('psycopg2-binary')}" in dockerfile
    assert all(re.search(r":v?\d+\.\d+\.\d+", base) for base in bases)
    packages = {path.parent.name for path in PROJECT_DIR.glob("*/__init__.py")}
    assert set(re.findall(r"^COPY --chown=genres (\w+) build/\1$", dockerfile, re.MULTILINE)) == packages
    let_in = set(re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert packages <= let_in
    assert all((PROJECT_DIR / name).exists() for name in let_in)


def test_every_variable_of_ours_is_a_setting() -> None:
    ours = {name for name, _ in variables() if name.startswith("GENRES_")}
    ours |= set(re.findall(r"\bGENRES_\w+(?==)", (DEPLOY / "Dockerfile").read_text()))
    assert ours
    assert {name.removeprefix("GENRES_").lower() for name in ours} <= set(Settings.model_fields)


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_the_settings_are_valid_and_leave_nothing_embedded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings_of(kind).items():
        monkeypatch.setenv(name, value)
    assert not Settings().embedded


def settings_of(kind: str) -> dict[str, str]:
    if kind == "compose":
        return dict(COMPOSE["services"]["genres"]["environment"])
    (found,) = [found for found in OBJECTS if (found["kind"], found["metadata"]["name"]) == ("ConfigMap", "genres")]
    return dict(found["data"])


def test_addresses_on_compose_are_services_that_listen_there() -> None:
    for host, port in addresses(settings_of("compose")):
        assert str(port) in COMPOSE["services"][host]["expose"], (host, port)


def test_addresses_on_kubernetes_are_services_whose_pods_listen_there() -> None:
    services = {found["metadata"]["name"]: found["spec"] for found in OBJECTS if found["kind"] == "Service"}
    labels = {found["spec"]["template"]["metadata"]["labels"]["app"]: pod for found, pod in labelled_pods()}
    for host, port in addresses(settings_of("kubernetes")):
        service = services[host.split(".")[-1]]
        assert port in [entry["port"] for entry in service["ports"]], (host, port)
        pod = labels[service["selector"]["app"]]
        listening = [entry["containerPort"] for container in pod["containers"] for entry in container["ports"]]
        assert port in listening, (host, port)


def labelled_pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for found in OBJECTS:
        if "template" in found.get("spec", {}):
            assert found["spec"].get("selector", {}).get("matchLabels") in (
                None,
                found["spec"]["template"]["metadata"]["labels"],
            )
            yield found, found["spec"]["template"]["spec"]


def test_secrets_are_references() -> None:
    seen = 0
    for name, value in variables():
        if not SECRET.search(name):
            continue
        seen += 1
        if isinstance(value, dict):
            assert value["secretKeyRef"]["name"] == "genres", name
        else:
            without = re.sub(r"\$\{\w+:\?[\w ]+\}", "", str(value))
            is_file = name.endswith("_FILE") and str(value).startswith("/run/secrets/")
            assert is_file or (without != value and "postgres:@postgres/" in without), name
    assert seen >= 5
    assert not [found for found in OBJECTS if found["kind"] == "Secret"]
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            assert not re.search(r"://\w+:[^$@\s]+@", path.read_text()), path


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert {found["spec"].get("type", "ClusterIP") for found in OBJECTS if found["kind"] == "Service"} == {"ClusterIP"}


def test_the_connect_server_is_started_as_it_should_be() -> None:
    text = (DEPLOY / "spark-connect.conf").read_text()
    conf: dict[str, str | None] = dict(line.split() for line in text.splitlines() if line.startswith("spark."))  # type: ignore[misc]
    assert differences({name: conf.get(name) for name in SERVER_CONF}) == []
    (found,) = [found for found in OBJECTS if found["kind"] == "ConfigMap" and "spark-connect.conf" in found["data"]]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert found["data"]["spark-connect.conf"].splitlines() == lines
    (databases,) = [found for found in OBJECTS if "databases.sql" in found.get("data", {})]
    assert databases["data"]["databases.sql"] == (DEPLOY / "databases.sql").read_text()


def test_each_shard_has_a_drain_with_time_to_end_in_order() -> None:
    (found,) = [found for found in OBJECTS if (found["kind"], found["metadata"]["name"]) == ("Deployment", "drain")]
    values = settings_of("kubernetes")
    assert found["spec"]["replicas"] == int(values["GENRES_DRAINS"]) <= int(values["GENRES_TOPIC_PARTITIONS"])
    pod = found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, command = container["args"]
    assert program == "genres" and command in app.commands
    settings = Settings()
    # Two ranges may be begun.
    assert pod["terminationGracePeriodSeconds"] > 4 * settings.batch_s
    assert {variable["name"] for variable in container["env"]} == {"GENRES_DATABASE_URL", "GENRES_DAGSTER_DATABASE_URL"}
    assert container["envFrom"] == [{"configMapRef": {"name": "genres"}}]


def test_nothing_in_the_images_folder_hides_a_package() -> None:
    """``python -m`` looks in the working folder first."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (link,) = re.findall(r"ln -s \S+ (\S+)$", dockerfile, re.MULTILINE)
    assert f"SPARK_HOME=/home/genres/{link} " in dockerfile
    assert link not in {path.parent.name for path in PROJECT_DIR.glob("*/__init__.py")}
    ours = [one for one in (*COMPOSE["services"].values(), *containers()) if one["image"].startswith("genres:")]
    commands = [word for one in ours for word in one.get("command", ()) if "/bin/spark" in word]
    assert len(commands) == 4
    assert {word.removeprefix("/home/genres/").partition("/")[0] for word in commands} == {link}


def test_a_database_is_ready_when_it_answers_others() -> None:
    """While the image makes the databases, a server answers on a socket alone."""
    checks = [
        COMPOSE["services"]["postgres"]["healthcheck"]["test"][1],
        *(
            " ".join(container["readinessProbe"]["exec"]["command"])
            for container in containers()
            if container["name"] == "postgres"
        ),
    ]
    assert len(checks) == 2
    assert all("pg_isready --host 127.0.0.1 " in check for check in checks)


def test_what_is_started_again_finds_its_network() -> None:
    """The one that holds it is the front, which has nothing to end for; the other one joins it at each start."""
    services = COMPOSE["services"]
    sharing = {name: service["network_mode"] for name, service in services.items() if "network_mode" in service}
    assert sharing == {"genres": "service:front"}
    assert services["genres"]["depends_on"]["front"]["restart"] is True
    assert services["front"]["ports"] and "ports" not in services["genres"]


def test_every_manifest_is_applied() -> None:
    (kustomization,) = KUBERNETES["kustomization.yaml"]
    assert set(kustomization["resources"]) == set(KUBERNETES) - {"kustomization.yaml"}


def test_files_that_are_mounted_are_there() -> None:
    mounted = [
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert mounted
    for path in mounted:
        assert (DEPLOY / path).is_file()
    named = {
        volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", ())
    } - set(mounted)
    assert named == set(COMPOSE["volumes"])


def test_the_front_leads_to_where_dagster_listens() -> None:
    ports = Settings(port_base=Settings.model_fields["port_base"].default).ports
    assert f"127.0.0.1:{ports.dagster};" in (DEPLOY / "front.conf").read_text()
    (pod,) = [pod for name, pod in pods() if name == "genres"]
    assert pod["containers"][0]["ports"] == [{"name": "dagster", "containerPort": ports.dagster}]
    assert Path(COMPOSE["services"]["front"]["volumes"][0].split(":")[0]).name == "front.conf"

"""Addresses as they are shown: no user, password or token of theirs is anywhere that people look."""

import json
from pathlib import Path

import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from genre_assets.definitions import build_defs
from genres.addresses import require_addresses, without_secrets
from genres.errors import GenresError
from genres.settings import Settings
from genres_cli import report
from local_stack import stack
from local_stack.stack import prepare, status

TOKEN = "hunter2-token"
REMOTE = f"sc://127.0.0.1:1/;use_ssl=true;token={TOKEN}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of somebody whose services are all elsewhere, here nowhere."""
    return Settings(
        state_dir=tmp_path,
        hdfs_url="hdfs://127.0.0.1:1",
        webhdfs_url="http://127.0.0.1:1",
        kafka_bootstrap_servers="127.0.0.1:1",
        spark_remote=REMOTE,
        mlflow_tracking_uri="http://127.0.0.1:1",
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sc://host:15002", "sc://host:15002"),
        (REMOTE, "sc://127.0.0.1:1"),
        (f"sc://host:15002;token={TOKEN}", "sc://host:15002;***"),
        (f"sc://host/{TOKEN}", "sc://host/***"),
        (f"sc://me@host:1/;token=a@{TOKEN}", "sc://***"),
        (f"https://me:{TOKEN}@mlflow:5000/path", "https://***@mlflow:5000/path"),
        (f"https://me:{TOKEN}/a@mlflow", "https://***@mlflow"),
        (f"https://me:{TOKEN}#a@mlflow", "https://***"),
        (f"me:{TOKEN}@mlflow:5000", "***@mlflow:5000"),
        (f"http://mlflow/?key={TOKEN}", "http://mlflow/?***"),
        ("broker1:9092,broker2:9092", "broker1:9092,broker2:9092"),
        ("", ""),
    ],
)
def test_what_is_shown_of_an_address(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


LONG = "a" * 63


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("spark_remote", "sc://127.0.0.1:99999", "at most 65535"),
        ("spark_remote", "sc://a..b:15002", "1 to 63 characters"),
        ("spark_remote", f"sc://{LONG}a.b", "1 to 63 characters"),
        ("kafka_bootstrap_servers", "a:9092, .b:9092", "1 to 63 characters"),
        ("kafka_bootstrap_servers", "a:9092,[::1]:65536", "at most 65535"),
        ("mlflow_tracking_uri", "http://mlflow..internal:5000", "1 to 63 characters"),
        ("mlflow_tracking_uri", "http://[::::]:5000/path", "IPv6"),
        ("spark_remote", "sc://host:65535/;token=a..b:99999", ""),
        ("spark_remote", f"sc://{LONG}.b./", ""),
        ("kafka_bootstrap_servers", "a:9092, [::1]:9092,10.0.0.1:1", ""),
        ("mlflow_tracking_uri", "https://mlflow.internal/a..b,c:99999", ""),
    ],
)
def test_a_host_or_port_that_cannot_be_is_refused(tmp_path: Path, name: str, address: str, said: str) -> None:
    settings = Settings(state_dir=tmp_path, **{name: address})  # type: ignore[arg-type]
    if said:
        with pytest.raises(GenresError, match=f"^GENRES_{name.upper()} = .*{said}"):
            require_addresses(settings)
    else:
        require_addresses(settings)


def test_the_status_has_no_token(settings: Settings) -> None:
    rows = status(settings)
    lines = [
        *map(str, report.status_lines(rows)),
        *report.page_lines(settings, mlflow="", page_is_open=False, dagster_is_open=False),
    ]
    assert any("sc://127.0.0.1:1" in line for line in lines)
    as_json = json.dumps([row._asdict() for row in rows], default=str)
    assert TOKEN not in as_json and all(TOKEN not in line for line in lines)


def test_a_service_that_is_down_is_named_without_its_token(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    only_spark = [service for service in stack.services(settings) if service.name == "spark-connect"]
    monkeypatch.setattr(stack, "services", lambda _: only_spark)
    with pytest.raises(GenresError, match=r"spark-connect at sc://127\.0\.0\.1:1, which") as caught:
        prepare(settings, on_progress=lambda _: None)
    assert TOKEN not in str(caught.value)


def test_dagsters_pages_have_no_token(settings: Settings) -> None:
    """What the page of resources shows comes from the location's snapshot."""
    from dagster import serialize_value

    snapshot = RepositorySnap.from_def(build_defs(settings=settings).get_repository_def())
    assert {one.name for one in snapshot.resources or ()} >= {"mlflow", "spark_connect"}
    assert TOKEN not in serialize_value(snapshot)


def test_a_location_does_not_load_with_an_address_that_its_pages_must_not_show(tmp_path: Path) -> None:
    with pytest.raises(GenresError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as caught:
        build_defs(settings=Settings(state_dir=tmp_path, mlflow_tracking_uri=f"https://me:{TOKEN}@mlflow"))
    assert TOKEN not in str(caught.value)

"""Clusters that end with a module's tests, and their addresses in the settings."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from genres.settings import Settings
from tests.cluster.daemons import Daemons
from tests.cluster.parts import Brokers, Cluster, HdfsOfTwo, Mlflow, SparkCluster

_DAEMONS = pytest.StashKey[Daemons]()
"""Those of the present module. An item's ``funcargs`` lack them while a fixture that needs them is set up."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the daemons said last with a failed test or fixture; their logs go with them."""
    report = yield
    if report.failed and (daemons := item.config.stash.get(_DAEMONS, None)):
        report.sections.append(("ends of the daemons' logs", daemons.ends_of_logs()))
    return report


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield an empty folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="genres-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def daemons(folder: Path, pytestconfig: pytest.Config) -> Iterator[Daemons]:
    """Yield what starts daemons; all of them end with the module."""
    daemons = pytestconfig.stash[_DAEMONS] = Daemons(folder / "logs")
    yield daemons
    daemons.stop()


@pytest.fixture(scope="module")
def use_settings(folder: Path) -> Iterator[Callable[..., Settings]]:
    """Set what the module's processes find in their environment; return it as settings."""
    with pytest.MonkeyPatch.context() as monkeypatch:

        def use(**variables: str) -> Settings:
            common = {
                "STATE_DIR": str(folder / "state"),
                "CLASSIFIERS": "LogisticRegression,DecisionTree",
                "FEATURE_SETS": "gtzan57",
                "START_TIMEOUT_S": "300",
                "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
                **dict.fromkeys(("DATABASE_URL", "DAGSTER_DATABASE_URL", "AUDIO", "DATASET"), ""),
            }
            for name, value in {**common, **variables}.items():
                monkeypatch.setenv(f"GENRES_{name}", value)
            settings = Settings()
            settings.make_state_dir()
            settings.dagster_home.mkdir(exist_ok=True)
            monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
            assert not settings.embedded
            return settings

        yield use


@pytest.fixture(scope="module")
def cluster(
    folder: Path,
    daemons: Daemons,
    free_port_base: Callable[[], int],
    new_postgres_database: Callable[[], str],
    use_settings: Callable[..., Settings],
) -> Cluster:
    """Start all that there is of a cluster."""
    hdfs = HdfsOfTwo(folder / "hdfs", free_port_base)
    brokers = Brokers(folder / "kafka", free_port_base)
    mlflow = Mlflow(folder / "mlflow", free_port_base, new_postgres_database())
    secrets = {"GENRES_KAFKA_PASSWORD": brokers.settings["KAFKA_PASSWORD"]}
    spark = SparkCluster(daemons, folder / "spark", free_port_base, hdfs=hdfs.hdfs, replication=2, secrets=secrets)
    daemons.start(*hdfs.programs, *brokers.programs, *mlflow.programs)
    spark.start()
    for part in (hdfs, brokers, mlflow, spark):
        part.wait()
        sys.stderr.write(f"{type(part).__name__} is there\n")
    hdfs.make_lake()
    dagster = Settings(dagster_database_url=SecretStr(new_postgres_database())).dagster_database
    settings = use_settings(
        HDFS_URL=hdfs.hdfs,
        WEBHDFS_URL=hdfs.webhdfs,
        **brokers.settings,
        SPARK_REMOTE=spark.remote,
        MLFLOW_TRACKING_URI=mlflow.tracking_uri,
        DATABASE_URL=new_postgres_database(),
        DAGSTER_DATABASE_URL=dagster,
    )
    return Cluster(settings, daemons, hdfs, brokers, spark)

"""Resources: thin wrappers that build plain objects of ``store`` and sessions of ``spark`` and hand them over."""

import gc
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

# What is imported stays. Python would look through all of it for garbage again and again while Spark is imported, and
# once more when the process ends: half a second for each run, step and command. Both code locations come by here.
gc.freeze()

from dagster_pyspark import LazyPySparkResource
from pydantic import PrivateAttr

from genres.addresses import bypass_proxies, require_addresses, without_secrets
from genres.settings import Settings
from genres.store.database import Database
from genres.store.hdfs_access import HdfsAccess
from genres.store.lake import Lake
from genres.store.model_registry import MODEL_TRAINING, ModelRegistry
from spark.session import open_session, session_config, stop_session
from spark.starvation import starvation_told

if TYPE_CHECKING:
    from mlflow.entities import Run


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake on HDFS."""

    webhdfs: str
    hdfs: str
    root: str
    user: str
    ca_file: str = ""
    """PEM file of the authorities that sign WebHDFS's certificate; empty: those that certifi lists."""

    def open(self) -> Lake:
        """Open the lake; nothing is asked of HDFS yet."""
        access = HdfsAccess(self.webhdfs, self.user, Path(self.ca_file) if self.ca_file else None)
        return Lake(access.open(), hdfs=self.hdfs, root=self.root)


class MlflowResource(dg.ConfigurableResource[ModelRegistry]):
    """The MLflow server."""

    tracking_uri: str

    def open(self) -> ModelRegistry:
        """Find the server and open its registry."""
        return ModelRegistry(self.tracking_uri)

    def run_url(self, run: "Run") -> str:
        """Address of a run's page."""
        place = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        return f"{self.tracking_uri}/#/{place}?{MODEL_TRAINING}"


class SparkResource(LazyPySparkResource):
    """A Spark session that is opened when first asked for and stopped when the step ends."""

    shared_as: str = ""
    """Name of a Connect session that the runs share one after the other; see `spark.session.open_session`."""

    _spark_session: Any = PrivateAttr(default=None)
    _opened: Any = PrivateAttr(default=None)
    _log: Any = PrivateAttr(default=None)

    def _init_session(self) -> None:
        if self._spark_session is None:
            self._spark_session = open_session(self.spark_config, shared_as=self.shared_as)
            engine = without_secrets(self.spark_config["spark.remote"])
            self._opened.callback(stop_session, self._spark_session, remote=self.spark_config["spark.remote"])
            self._opened.enter_context(starvation_told(self._spark_session, engine=engine, tell=self._log.warning))

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["SparkResource", None, None]:
        """Stop the session after the step, also a failed one; meanwhile its log says when Spark has no cores for it."""
        with ExitStack() as self._opened:
            self._log = context.log
            yield self


def spark_resource(config: dict[str, str], *, shared_as: str = "") -> dg.ResourceDefinition:
    """Build a `SparkResource` whose configuration the launchpad does not show: it is nobody's to choose there."""

    def opened(context: dg.InitResourceContext) -> Generator[SparkResource, None, None]:
        with SparkResource(spark_config=config, shared_as=shared_as).yield_for_execution(context) as resource:
            yield resource

    return dg.ResourceDefinition(opened)


def resources(settings: Settings) -> dict[str, Any]:
    """Build every resource of the batch assets from the settings."""
    bypass_proxies(settings)
    # The UI shows the addresses; one that holds a user or a token is not of the form that is asked for.
    require_addresses(settings)
    # Opened when a step or a sensor first wants it, once: a process that only loads the location needs no SQLAlchemy.
    database = cache(lambda: Database(settings.database))
    return {
        "settings": settings,
        "lake": LakeResource(
            webhdfs=settings.webhdfs,
            hdfs=settings.hdfs,
            root=settings.lake_path,
            user=settings.hdfs_user,
            ca_file=str(settings.ca_file or ""),
        ),
        # Not a ConfigurableResource: the UI shows their configuration, and the address may hold a password.
        "database": dg.ResourceDefinition(lambda _: database()),
        "mlflow": MlflowResource(tracking_uri=settings.tracking_uri),
        "spark_connect": spark_resource(session_config(settings, app_name="genres batch")),
    }

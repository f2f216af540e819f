"""The model registry: runs, registered models and the champion, as MLflow keeps them."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genres.errors import GenresError
from genres.retrying import retried
from genres.store.model_facts import ModelFacts, RegisteredModel

if TYPE_CHECKING:
    from mlflow import ActiveRun
    from mlflow.entities import Run

_PATIENCE_S = 30.0
_MODEL = "model"


class ModelRegistry:
    """A dataset's experiment and registered model on an MLflow server.

    Parameters
    ----------
    tracking_uri
        ``http://host:port`` of the MLflow server.

    Raises
    ------
    GenresError
        If no MLflow server answers there.
    """

    def __init__(self, tracking_uri: str) -> None:
        _wait_for_server(tracking_uri)
        from genres.store.mlflow_quiet import MlflowClient

        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
        self.tracking_uri = tracking_uri
        self.client = MlflowClient(tracking_uri)

    @staticmethod
    def name_for(dataset: str) -> str:
        """Name of the dataset's experiment and of its registered model."""
        return f"genres-{dataset}"

    @contextmanager
    def run(
        self, dataset: str, *, run_name: str, stage: str, tags: dict[str, str], parent: "Run | None" = None
    ) -> "Iterator[ActiveRun]":
        """Open an MLflow run in the dataset's experiment and close it, as failed if an error passes through.

        Parameters
        ----------
        stage
            The asset that logs it; kept as the tag ``stage``.
        parent
            The run that it is a child of, if any; each thread has an open run of its own.
        """
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_experiment(self.name_for(dataset))
        labels = {"stage": stage, "dataset": dataset, **tags}
        parent_id = None if parent is None else parent.info.run_id
        nested = parent is not None  # also in the thread of its parent
        with mlflow.start_run(run_name=run_name, parent_run_id=parent_id, nested=nested, tags=labels) as active:
            yield active

    def latest_run(self, dataset: str, *, stage: str) -> "Run":
        """Find the newest finished top-level run of a stage.

        Raises
        ------
        GenresError
            If there is none.
        """
        experiment = self.client.get_experiment_by_name(self.name_for(dataset))
        found = experiment and self.client.search_runs(
            [experiment.experiment_id],
            f"attributes.status = 'FINISHED' and tags.stage = '{stage}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not found:
            raise GenresError(f"dataset '{dataset}' has no finished {stage} run in MLflow: materialize {stage} first")
        return found[0]

    def child_runs(self, parent: "Run") -> "list[Run]":
        """List the finished children of a run, the best validation macro-F1 first; of equals, the least log-loss."""
        return list(
            self.client.search_runs(
                [parent.info.experiment_id],
                f"attributes.status = 'FINISHED' and tags.mlflow.parentRunId = '{parent.info.run_id}'",
                order_by=["metrics.valid_macro_f1 DESC", "metrics.valid_log_loss ASC", "attributes.run_name ASC"],
            )
        )

    def log_spark_model(self, directory: Path, *, columns: Sequence[str]) -> None:
        """Log a native Spark directory as the open run's model, with its input signature.

        Parameters
        ----------
        directory
            What a fitted pipeline was saved as.
        columns
            The feature columns that it reads.
        """
        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        from genres.store import mlflow_spark_flavor

        inputs = Schema([ColSpec(DataType.double, column) for column in columns])
        outputs = Schema([ColSpec(DataType.string, "predicted_genre")])
        Model.log(
            artifact_path=None,
            name=_MODEL,
            flavor=mlflow_spark_flavor,
            spark_directory=directory,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=[f"pyspark=={version('pyspark')}"],
        )

    def read_json(self, run: "Run", artifact_path: str) -> Any:
        """Read a JSON artifact of a run."""
        from mlflow.artifacts import load_dict

        return load_dict(f"runs:/{run.info.run_id}/{artifact_path}")

    def register(self, dataset: str, *, run: "Run") -> int:
        """Register a run's model as the next version of the dataset's model, and return the version."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return int(mlflow.register_model(f"runs:/{run.info.run_id}/{_MODEL}", self.name_for(dataset)).version)

    def describe_version(self, dataset: str, version: int, facts: ModelFacts) -> None:
        """Set a version's facts."""
        for key, value in facts.to_tags().items():
            self.client.set_model_version_tag(self.name_for(dataset), str(version), key, value)

    def set_alias(self, dataset: str, alias: str, version: int) -> None:
        """Point an alias (``champion``, ``challenger``) at a version."""
        self.client.set_registered_model_alias(self.name_for(dataset), alias, str(version))

    def find_aliased(self, dataset: str, alias: str) -> RegisteredModel | None:
        """Resolve an alias; None if it points at no version.

        Raises
        ------
        GenresError
            If the version lacks facts.
        """
        from mlflow.exceptions import RestException

        try:
            return RegisteredModel.of(self.client.get_model_version_by_alias(self.name_for(dataset), alias))
        except RestException as error:
            # The first code is an unknown model's, the second an unknown alias's.
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise

    def find_champion(self, dataset: str) -> RegisteredModel | None:
        """Resolve the alias ``champion``; None if the dataset has no champion yet."""
        return self.find_aliased(dataset, "champion")

    def champion(self, dataset: str) -> RegisteredModel:
        """Resolve the alias ``champion``.

        Raises
        ------
        GenresError
            If the dataset has no champion yet.
        """
        found = self.find_champion(dataset)
        if found is None:
            raise GenresError(
                f"no champion model for dataset '{dataset}' yet: materialize champion_model, or run `genres demo`"
            )
        return found


def directory_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _wait_for_server(tracking_uri: str) -> None:
    # MLflow's own client retries for minutes, and says nothing until it gives up.
    import requests

    if not tracking_uri.startswith(("http://", "https://")):
        raise GenresError(
            f"'{tracking_uri}' is no MLflow address: set GENRES_MLFLOW_TRACKING_URI to http://<host>:<port>"
        )
    health, no_answer = f"{tracking_uri.rstrip('/')}/health", (requests.ConnectionError, requests.Timeout)
    try:
        retried(lambda: requests.get(health, timeout=5), on=no_answer, patience_s=_PATIENCE_S)
    except no_answer as error:
        raise GenresError(
            f"MLflow does not answer at {tracking_uri}: start the stack with `genres up`, "
            "or fix GENRES_MLFLOW_TRACKING_URI"
        ) from error

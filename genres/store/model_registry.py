"""The model registry: runs, registered models and the champion, as MLflow keeps them."""

import inspect
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar

from genres.addresses import without_secrets
from genres.certificates import https_refusal, trusted
from genres.errors import GenresError, last_words
from genres.retrying import retried
from genres.settings import Settings
from genres.store.model_facts import ModelFacts, RegisteredModel

if TYPE_CHECKING:
    import requests
    from matplotlib.figure import Figure
    from mlflow import ActiveRun
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException

_Class = TypeVar("_Class", bound=type)

TRAINING = "genre_classifiers"
"""The stage of a training's run, under which its candidates' are."""
CANDIDATE = "candidate"
"""The stage of a candidate's run."""
CALIBRATED = "calibrated_classifier"
"""The stage of the run in which the best candidate is calibrated: a child of its training's, as the candidates are."""

_PATIENCE_S = 30.0
_SAID_CHARACTERS = 300
"""Of an error of MLflow's client, which may hold a whole page."""
LONGEST_DESCRIPTION = 5000
"""Characters that MLflow's own tables have for the description of a version or of a registered model."""
_MODEL = "model"
_KIND, _MODELS = "mlflow.experimentKind", "custom_model_development"
MODEL_TRAINING = "workflowType=machine_learning"
"""What an address of MLflow's pages needs at its end: in a browser that was never told otherwise, MLflow 3.17 shows its
side for language models whatever the experiment's kind is."""
_VIEW = "genres"
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW}"
_VIEW_OF_RUNS = json.dumps(
    {
        "searchFilter": "",
        "orderByKey": "metrics.`valid_macro_f1`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": ["metrics.`valid_macro_f1`", "metrics.`test_accuracy`"],
    }
)
"""What the page of an experiment's runs shows, as MLflow keeps a view that somebody shares: the best candidate first,
with the figures that it was chosen and is judged by. By itself the page shows no figure."""
_DIGEST_CHARACTERS = 16
"""Of the dataset's fingerprint, which MLflow has no room for as a whole."""
_ABOUT_THE_MODEL = """Tells the genre of music by the feature columns of a clip; trained on the dataset `{dataset}`.

- `champion`: the version that scores the dataset, its streams and `genres predict`. It became that by beating the one
  before on tracks that neither was trained on, or by `genres models promote` and `rollback`.
- `challenger`: the newest version that did not.

Each version's description is its model card."""
_MOST_VERSIONS = 1000
"""Versions that are listed: MLflow answers no more at once than ten thousand."""


def experiments_page(tracking_uri: str, experiment_id: str = "", *, tags: Collection[str] = ()) -> str:
    """Return the address of MLflow's page of an experiment's runs, or of the list of all experiments.

    Parameters
    ----------
    tags
        Names of the experiment's tags: one from before has no view of its runs yet.
    """
    place = f"experiments/{experiment_id}/runs" if experiment_id else "experiments"
    view = f"&viewStateShareKey={_VIEW}" if _VIEW_TAG in tags else ""
    return f"{tracking_uri}/#/{place}?{MODEL_TRAINING}{view}"


@contextmanager
def _told_plainly(tracking_uri: str) -> "Iterator[None]":
    """Turn what MLflow's client raises into one line that says what a person has to do."""
    import requests
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise GenresError(_refusal(tracking_uri, error)) from error
    except requests.RequestException as error:  # artifacts'; HDFS is asked with requests, too
        if error.request is None or not str(error.request.url).startswith(tracking_uri):
            raise
        raise GenresError(_refusal(tracking_uri, error)) from error


def _refusal(tracking_uri: str, error: "MlflowException | requests.RequestException") -> str:
    """Say whether credentials, address or question are wrong, or whether MLflow is out of order and will come back."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, MlflowException):
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        is_anothers = (
            error.error_code == "ENDPOINT_NOT_FOUND"
            or "not in a valid JSON format" in str(error)  # a page
            or (isinstance(error, RestException) and "error_code" not in error.json)
        )
    else:
        status, is_anothers = 500 if error.response is None else error.response.status_code, False
    said = shorten(last_words(error), _SAID_CHARACTERS)
    if status in (401, 403):
        return (
            f"MLflow at {tracking_uri} refuses its user ({said}): check MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and what its administrator lets that user do"
        )
    if is_anothers:
        return f"what answers at {tracking_uri} is no MLflow server ({said}): fix GENRES_MLFLOW_TRACKING_URI"
    if status < 500 and status != 429:
        return f"MLflow at {tracking_uri} refuses what it is asked for ({said})"
    return (
        f"MLflow at {tracking_uri} does not answer, or with an error of its own ({said}): try again when it is up, see "
        "`genres status` and its log"
    )


def _each_told_plainly(registry: _Class) -> _Class:
    """Have each method of a registry raise `GenresError` where MLflow's client raises errors of its own."""

    def plain(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def asked(self: Any, *arguments: Any, **options: Any) -> Any:
            with _told_plainly(self.tracking_uri):
                return method(self, *arguments, **options)

        return asked

    for name, method in list(vars(registry).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(registry, name, plain(method))
    return registry


@contextmanager
def _as_long_as_training_is_worth() -> "Iterator[None]":
    """Let MLflow's client be at least as patient as by itself: hours of training outlive that MLflow is started again.

    Elsewhere it is as patient as the settings have it.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT

    variables: tuple[Any, ...] = (MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT)
    before = {variable.name: str(variable.get()) for variable in variables}
    os.environ |= {variable.name: str(max(variable.get(), variable.default)) for variable in variables}
    try:
        yield
    finally:
        os.environ |= before


@_each_told_plainly
class ModelRegistry:
    """A dataset's experiment and registered model on an MLflow server.

    Each method raises `GenresError`, one line that says what to do, where MLflow refuses or does not answer.

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

    def page(self, dataset: str) -> str:
        """Address of the page with the dataset's runs; of the list of experiments, if it has none."""
        experiment = self.client.get_experiment_by_name(self.name_for(dataset))
        if experiment is None:
            return experiments_page(self.tracking_uri)
        return experiments_page(self.tracking_uri, experiment.experiment_id, tags=experiment.tags)

    @contextmanager
    def run(
        self, dataset: str, *, run_name: str, stage: str, tags: dict[str, str], parent: "Run | None" = None
    ) -> "Iterator[ActiveRun]":
        """Open an MLflow run in the dataset's experiment and close it, as failed if an error passes through.

        What MLflow does not take while it is open is told plainly too, after MLflow's own long patience.

        Parameters
        ----------
        stage
            The asset that logs it; kept as the tag ``stage``.
        parent
            The run that it is a child of, if any; each thread has an open run of its own.
        """
        labels = {"stage": stage, "dataset": dataset, **tags}
        with (
            _told_plainly(self.tracking_uri),
            _as_long_as_training_is_worth(),
            self._run(dataset, run_name=run_name, labels=labels, parent=parent) as active,
        ):
            yield active

    def _run(self, dataset: str, *, run_name: str, labels: dict[str, str], parent: "Run | None") -> "ActiveRun":
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        experiment = mlflow.set_experiment(self.name_for(dataset))
        if experiment.tags.get(_KIND) != _MODELS:
            # MLflow 3.17's pages follow the switch in the browser instead; those of other versions follow this.
            self.client.set_experiment_tag(experiment.experiment_id, _KIND, _MODELS)
        if experiment.tags.get(_VIEW_TAG) != _VIEW_OF_RUNS:
            self.client.set_experiment_tag(experiment.experiment_id, _VIEW_TAG, _VIEW_OF_RUNS)
        parent_id = None if parent is None else parent.info.run_id
        nested = parent is not None  # also in the thread of its parent
        return mlflow.start_run(run_name=run_name, parent_run_id=parent_id, nested=nested, tags=labels)

    def latest_training(self, dataset: str) -> "Run":
        """Find the newest finished training, whose children are its candidates.

        Raises
        ------
        GenresError
            If there is none.
        """
        found = self.find_latest_run(dataset, stage=TRAINING)
        if found is None:
            raise GenresError(
                f"dataset '{dataset}' has no finished {TRAINING} run in MLflow: materialize {TRAINING} first"
            )
        return found

    def find_latest_run(self, dataset: str, *, stage: str) -> "Run | None":
        """Find the newest finished top-level run of a stage; None if there is none."""
        experiment = self.client.get_experiment_by_name(self.name_for(dataset))
        found = experiment and self.client.search_runs(
            [experiment.experiment_id],
            f"attributes.status = 'FINISHED' and tags.stage = '{stage}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return found[0] if found else None

    def runs_on(self, dataset: str, *, stage: str, fingerprint: str) -> "list[Run]":
        """List the finished runs of a stage that are tagged with a dataset's fingerprint, the oldest first."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        found: list[Run] = mlflow.search_runs(
            experiment_names=[self.name_for(dataset)],
            filter_string=f"attributes.status = 'FINISHED' and tags.stage = '{stage}' "
            f"and tags.dataset_fingerprint = '{fingerprint}'",
            order_by=["attributes.start_time ASC"],
            output_format="list",
        )
        return found

    def child_runs(self, parent: "Run") -> "list[Run]":
        """List a training's finished candidates, the best validation macro-F1 first; of equals, the least log-loss."""
        best_first = ["metrics.valid_macro_f1 DESC", "metrics.valid_log_loss ASC", "attributes.run_name ASC"]
        return self._children(parent, stage=CANDIDATE, order_by=best_first)

    def calibrated_run(self, parent: "Run") -> "Run":
        """Find the newest calibration of a training's best candidate.

        Raises
        ------
        GenresError
            If it was not calibrated yet.
        """
        found = self._children(parent, stage=CALIBRATED, order_by=["attributes.start_time DESC"])
        if not found:
            raise GenresError(
                f"the newest candidates of dataset '{parent.data.tags.get('dataset', '')}' are not calibrated yet: "
                f"materialize {CALIBRATED} first"
            )
        return found[0]

    def _children(self, parent: "Run", *, stage: str, order_by: list[str]) -> "list[Run]":
        chosen = (
            f"attributes.status = 'FINISHED' and tags.mlflow.parentRunId = '{parent.info.run_id}' "
            f"and tags.stage = '{stage}'"
        )
        return list(self.client.search_runs([parent.info.experiment_id], chosen, order_by=order_by))

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

    def log_dataset(
        self,
        run: "Run",
        *,
        dataset: str,
        fingerprint: str,
        uri: str,
        columns: Sequence[str],
        tracks: Mapping[str, int],
    ) -> None:
        """Say what a run is trained on, as ``mlflow.log_input`` does, which wants the whole table for that.

        Parameters
        ----------
        fingerprint
            Of tracks, genres, parts and features.
        uri
            Where the features lie.
        columns
            The feature columns.
        tracks
            Number of tracks by part.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.types import ColSpec, DataType, Schema

        schema = Schema([ColSpec(DataType.string, "genre"), *(ColSpec(DataType.double, name) for name in columns)])
        entity = Dataset(
            name=dataset,
            digest=fingerprint[:_DIGEST_CHARACTERS],
            source_type="hdfs",
            source=json.dumps({"uri": uri}),
            schema=json.dumps({"mlflow_colspec": schema.to_dict()}),
            profile=json.dumps({"num_rows": sum(tracks.values()), **tracks}),
        )
        used = DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
        self.client.log_inputs(run.info.run_id, [used])

    def show_best(self, parent: "Run", *, metrics: Iterable[str]) -> None:
        """Copy these of the best child's metrics to its parent, so that a list of trainings says what each came to."""
        from mlflow.entities import Metric

        best = self.child_runs(parent)[0]
        now = int(time.time() * 1000)
        shown = [Metric(name, best.data.metrics[name], now, 0) for name in metrics]
        self.client.log_batch(parent.info.run_id, metrics=shown)
        self.client.set_tag(parent.info.run_id, "best_classifier", best.info.run_name)

    def log_text(self, run: "Run", text: str, artifact_path: str) -> None:
        """Keep a text as an artifact of a run, open or over."""
        self.client.log_text(run.info.run_id, text, artifact_path)

    def log_figure(self, run: "Run", figure: "Figure", artifact_path: str) -> None:
        """Keep a figure as an artifact of a run, open or over."""
        self.client.log_figure(run.info.run_id, figure, artifact_path)

    def read_json(self, run: "Run", artifact_path: str) -> Any:
        """Read a JSON artifact of a run."""
        from mlflow.artifacts import load_dict

        return load_dict(f"runs:/{run.info.run_id}/{artifact_path}")

    def register(self, dataset: str, *, run: "Run") -> int:
        """Register a run's model as the next version of the dataset's model, and return the version."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        name = self.name_for(dataset)
        version = int(mlflow.register_model(f"runs:/{run.info.run_id}/{_MODEL}", name).version)
        if not self.client.get_registered_model(name).description:  # else somebody may have written a better one
            self.client.update_registered_model(name, description=_ABOUT_THE_MODEL.format(dataset=dataset))
        return version

    def describe_version(self, dataset: str, version: int, facts: ModelFacts, *, card: str = "") -> None:
        """Set a version's facts and its description.

        Parameters
        ----------
        card
            The description, of no more than `LONGEST_DESCRIPTION` characters.
        """
        if card:
            self.client.update_model_version(self.name_for(dataset), str(version), description=card)
        for key, value in facts.to_tags().items():
            self.client.set_model_version_tag(self.name_for(dataset), str(version), key, value)

    def set_alias(self, dataset: str, alias: str, version: int) -> None:
        """Point an alias (``champion``, ``challenger``) at a version."""
        self.client.set_registered_model_alias(self.name_for(dataset), alias, str(version))

    def drop_alias(self, dataset: str, alias: str) -> None:
        """Take an alias from whichever version has it."""
        self.client.delete_registered_model_alias(self.name_for(dataset), alias)

    def version(self, dataset: str, version: int) -> RegisteredModel:
        """Look a version up.

        Raises
        ------
        GenresError
            If there is none of this number, or it lacks facts.
        """
        from mlflow.exceptions import RestException

        try:
            return RegisteredModel.of(self.client.get_model_version(self.name_for(dataset), str(version)))
        except RestException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise GenresError(
                f"there is no version {version} of {self.name_for(dataset)}: `genres models` lists those that there are"
            ) from error

    def versions(self, dataset: str) -> "list[ModelVersion]":
        """List the versions as MLflow keeps them, the newest first; their aliases are those of `aliases`."""
        found = self.client.search_model_versions(f"name = '{self.name_for(dataset)}'", max_results=_MOST_VERSIONS)
        return sorted(found, key=lambda version: -int(version.version))

    def aliases(self, dataset: str) -> dict[str, int]:
        """Return which version each alias points at; empty if no version was ever registered."""
        from mlflow.exceptions import RestException

        try:
            aliases = self.client.get_registered_model(self.name_for(dataset)).aliases
        except RestException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: int(version) for alias, version in aliases.items()}

    def delete_versions(self, dataset: str) -> None:
        """Delete every version of the dataset's model. Its name stays, so that later versions count on."""
        for registered in self.versions(dataset):
            self.client.delete_model_version(registered.name, registered.version)

    def retire_experiment(self, dataset: str) -> None:
        """Put the dataset's experiment in MLflow's trash, under another name: there, too, it would keep its own."""
        experiment = self.client.get_experiment_by_name(self.name_for(dataset))
        if experiment and experiment.lifecycle_stage == "active":
            retired = f"{experiment.name} (deleted {datetime.now(UTC):%Y-%m-%d %H:%M:%S})"
            self.client.rename_experiment(experiment.experiment_id, retired)
            self.client.delete_experiment(experiment.experiment_id)

    def datasets_with_champion(self) -> list[str]:
        """List the datasets whose model has a champion, by name."""
        prefix = self.name_for("")
        found = self.client.search_registered_models(f"name LIKE '{prefix}%'")
        return sorted(model.name.removeprefix(prefix) for model in found if "champion" in model.aliases)

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
            If the dataset has no champion yet; it names the datasets that have one.
        """
        found = self.find_champion(dataset)
        if found is None:
            others = self.datasets_with_champion()
            instead = (
                f" There is one of {', '.join(others)}: name it with --dataset, GENRES_DATASET or, over HTTP, "
                f"?dataset=, or make it the current one with `genres datasets use {others[0]}`"
                if others
                else ""
            )
            raise GenresError(
                f"no champion model for dataset '{dataset}' yet: materialize champion_model, or run `genres retrain "
                f"--dataset {dataset}`.{instead}"
            )
        return found


def _wait_for_server(tracking_uri: str) -> None:
    # MLflow's own client retries for minutes, and says nothing until it gives up.
    import requests

    if not tracking_uri.startswith(("http://", "https://")):
        raise GenresError(
            f"'{without_secrets(tracking_uri)}' is no MLflow address: set GENRES_MLFLOW_TRACKING_URI to http://<host>:<port>"
        )
    ca_file = Settings().ca_file  # of which MLflow's own client learns by its variable
    health = f"{tracking_uri.rstrip('/')}/health"
    verify = trusted(ca_file)

    def ask() -> None:
        try:
            answer = requests.get(health, timeout=5, verify=verify)
            if answer.status_code >= 500:  # a proxy's, before an MLflow that is just starting
                answer.raise_for_status()
        except requests.exceptions.SSLError as error:
            if refusal := https_refusal(error, ca_file):
                raise GenresError(f"MLflow at {tracking_uri} is not used: {refusal}") from error
            raise

    try:
        retried(ask, on=requests.RequestException, patience_s=_PATIENCE_S)
    except (requests.RequestException, ValueError) as error:  # urllib3's, of a name that is none
        raise GenresError(
            f"MLflow does not answer at {tracking_uri}: start the stack with `genres up`, "
            "or fix GENRES_MLFLOW_TRACKING_URI"
        ) from error

"""The MLflow flavor that logs a native Spark model directory: what `mlflow.models.Model.log` takes as ``flavor``.

``mlflow.spark.log_model`` wants a model in a classic session's JVM, and saves it there. Ours are fitted over Spark
Connect and saved by the server, so that all there is to log is a directory. What comes out is what
``mlflow.spark.log_model`` makes: ``mlflow.spark.load_model`` and ``mlflow.pyfunc.load_model`` read it.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

FLAVOR_NAME = "spark"
_DATA = "sparkml"


def save_model(
    path: str,
    mlflow_model: "Model",
    *,
    spark_directory: Path,
    signature: "ModelSignature",
    pip_requirements: Sequence[str],
) -> None:
    """Write an MLflow model of a native Spark directory into a new folder.

    Parameters
    ----------
    path
        The new folder.
    mlflow_model
        The `mlflow.models.Model` that describes it.
    spark_directory
        What ``PipelineModel.write().save`` wrote.
    signature
        A `mlflow.models.ModelSignature`.
    pip_requirements
        What somebody installs to use the model.
    """
    from mlflow import pyfunc
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.utils.environment import (
        _CONDA_ENV_FILE_NAME,
        _PYTHON_ENV_FILE_NAME,
        _REQUIREMENTS_FILE_NAME,
        _process_pip_requirements,
        _PythonEnv,
    )
    from mlflow.utils.yaml_utils import write_yaml

    folder = Path(path)
    shutil.copytree(spark_directory, folder / _DATA)
    mlflow_model.signature = signature
    mlflow_model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    mlflow_model.add_flavor(
        FLAVOR_NAME,
        pyspark_version=version("pyspark"),
        model_data=_DATA,
        code=None,
        model_class="pyspark.ml.pipeline.PipelineModel",
    )
    pyfunc.add_to_model(
        mlflow_model,
        loader_module="mlflow.spark",
        data=_DATA,
        conda_env=_CONDA_ENV_FILE_NAME,
        python_env=_PYTHON_ENV_FILE_NAME,
    )
    mlflow_model.save(str(folder / MLMODEL_FILE_NAME))
    conda_env, requirements, _ = _process_pip_requirements(None, list(pip_requirements))  # type: ignore[no-untyped-call]
    write_yaml(path, _CONDA_ENV_FILE_NAME, conda_env)  # type: ignore[no-untyped-call]
    (folder / _REQUIREMENTS_FILE_NAME).write_text("\n".join(requirements))
    _PythonEnv.current().to_yaml(str(folder / _PYTHON_ENV_FILE_NAME))  # type: ignore[no-untyped-call]

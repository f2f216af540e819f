"""MLflow with its usage reports off, which would leave the machine: whoever imports MLflow first imports this."""

import os

# MLflow reads it once, while it is imported.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow import MlflowClient

__all__ = ["MlflowClient"]

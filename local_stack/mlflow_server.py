"""How the MLflow server is started: SQLite for its tables by default, one folder for artifacts, no telemetry."""

import sys

from genres.settings import Settings
from local_stack.mlflow_process import DATABASE_VARIABLE
from local_stack.program import PYTHON_PATH, Program


def mlflow_programs(settings: Settings) -> list[Program]:
    """Return the MLflow server, which also serves the artifacts (clients need no path of ours)."""
    folder = settings.state_dir / "mlflow"
    return [
        Program(
            "mlflow",
            [
                *(sys.executable, "-m", "local_stack.mlflow_process"),
                *(str(folder / "artifacts"), str(settings.ports.mlflow)),
            ],
            folder,
            {
                **PYTHON_PATH,
                DATABASE_VARIABLE: settings.mlflow_database,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
                # Background jobs are for judging language models, and ``mlflow_process`` starts no runner.
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        )
    ]

"""The MLflow server in one process: ``python -m local_stack.mlflow_process ARTIFACTS PORT``.

``mlflow server`` does the same in two: it imports MLflow, prepares the database and then starts uvicorn, which
imports MLflow again. That takes twice the time and memory, and four seconds to stop.
"""

import os
from pathlib import Path

import click

DATABASE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"
"""The variable by which ``mlflow server`` takes the same address."""


@click.command()
@click.argument("artifacts", type=click.Path(path_type=Path))
@click.argument("port", type=int)
# By environment alone: everybody on the machine may read a command line, and the address may hold a password.
@click.option("--database-uri", envvar=DATABASE_VARIABLE, required=True, help="SQLAlchemy URL of the tables.")
def main(artifacts: Path, port: int, database_uri: str) -> None:
    """Create or upgrade the tables, then serve the API, the UI and the artifacts on 127.0.0.1."""
    from mlflow.server import constants

    # What ``mlflow server`` hands to its workers; the application reads it when it is imported.
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database_uri,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(artifacts),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    import mlflow.server
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database_uri, database_uri, "mlflow-artifacts:/")
    log_config = Path(mlflow.server.__file__).parent / "uvicorn_log_config.yaml"
    uvicorn.run(
        "mlflow.server.fastapi_app:app", host="127.0.0.1", port=port, log_config=str(log_config), access_log=False
    )


if __name__ == "__main__":
    main()

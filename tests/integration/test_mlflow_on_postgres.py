"""The embedded MLflow server with its tables in Postgres, by a setting alone."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from genres.retrying import retried
from genres.settings import Settings
from genres.store.model_registry import ModelRegistry
from local_stack.mlflow_server import mlflow_programs


def test_runs_are_rows_of_postgres(
    tmp_path: Path,
    free_port_base: Callable[[], int],
    new_postgres_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # put back at the end
    url = new_postgres_database()
    settings = Settings(state_dir=tmp_path / "state", port_base=free_port_base(), mlflow_database_url=SecretStr(url))
    (program,) = mlflow_programs(settings)
    assert not [word for word in program.command if url in word], "everybody may read a command line"
    program.directory.mkdir(parents=True)
    log = tmp_path / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            program.command, cwd=program.directory, env=os.environ | program.environment, stdout=output, stderr=output
        )
    try:
        registry = retried(lambda: ModelRegistry(settings.tracking_uri), on=(Exception,), patience_s=300)
        with registry.run("music", run_name="one", stage="genre_classifiers", tags={}) as run:
            pass
    finally:
        server.terminate()
        server.wait(120)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT run_uuid FROM runs").scalars().all()
    engine.dispose()
    assert kept == [run.info.run_id], log.read_text()
    assert not list(settings.state_dir.rglob("mlflow.db"))

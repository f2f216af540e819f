"""A candidate's native Spark directory: saved to the lake whole or not at all, and logged to MLflow as it lies."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genres.store.batch_tables import BatchTables
from genres.store.model_registry import ModelRegistry

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel


def save_candidate(
    model: "PipelineModel", path: str, *, tables: BatchTables, registry: ModelRegistry, columns: Sequence[str]
) -> None:
    """Save a fitted pipeline at `path`, and log it as the open MLflow run's model.

    Parameters
    ----------
    path
        From `BatchTables.candidate_path`.
    columns
        The feature columns that it reads.
    """
    attempt = tables.candidate_attempt()
    model.write().save(tables.lake.uri(attempt))
    tables.lake.files.rename(attempt, path)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "model")
        tables.lake.fetch_directory(path, directory)
        registry.log_spark_model(directory, columns=columns)

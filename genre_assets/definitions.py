"""The batch code location's Definitions, built by one function that tests and the command line call as well."""

import dagster as dg

from genre_assets.audio_features import audio_features
from genre_assets.batch_predictions import batch_predictions
from genre_assets.calibrated_classifier import calibrated_classifier
from genre_assets.champion_model import champion_model
from genre_assets.dataset_report import dataset_report
from genre_assets.evaluation_figures import evaluation_figures
from genre_assets.feature_figures import feature_figures
from genre_assets.genre_classifiers import genre_classifiers
from genre_assets.hyperparameter_search import hyperparameter_search
from genre_assets.raw_audio import raw_audio
from genre_assets.retraining import (
    build_drift_sensor,
    build_retraining_sensor,
    build_weekly_schedule,
    with_retraining,
)
from genre_assets.track_split import track_split
from genres.settings import Settings
from genres_dagster.alerts import build_alert_sensors
from genres_dagster.partitions import DATASETS
from genres_dagster.resources import resources

ASSETS = [
    raw_audio,
    audio_features,
    feature_figures,
    track_split,
    genre_classifiers,
    calibrated_classifier,
    champion_model,
    batch_predictions,
    evaluation_figures,
    dataset_report,
]

_PRELOADED = [
    *("genre_assets.definitions", "genres.store.hdfs", "genres.store.tables", "alembic.command", "requests"),
    *("pandas", "pyarrow.dataset", "pyarrow.parquet", "tabulate", "genres.store.mlflow_quiet", "mlflow.pyfunc"),
    *("matplotlib.pyplot", "matplotlib.figure", "matplotlib.backends.backend_agg", "git"),
    *("scipy.optimize", "sklearn.covariance", "sklearn.model_selection"),
    *("pyspark.sql.connect.session", "pyspark.ml.connect", "pyspark.ml.classification", "pyspark.ml.feature"),
]
"""What the server that the steps are forked from imports; nothing in it may start a Python thread or open a session."""


def build_defs(*, settings: Settings) -> dg.Definitions:
    """Build fresh Definitions of the batch half.

    Parameters
    ----------
    settings
        Addresses, paths and limits of everything that the assets touch.
    """
    whole = dg.define_asset_job(
        "batch_pipeline",
        selection=dg.AssetSelection.assets(*ASSETS),
        partitions_def=DATASETS,
        description="The whole batch half for one dataset: from its folder to predictions and report. Start here.",
    )
    return dg.Definitions(
        assets=[*with_retraining(ASSETS, settings), hyperparameter_search],
        jobs=[
            whole,
            dg.define_asset_job(
                "load_dataset",
                selection=dg.AssetSelection.assets(raw_audio),
                partitions_def=DATASETS,
                description="Only bring a dataset's clips to HDFS.",
            ),
        ],
        schedules=[build_weekly_schedule(whole)],
        sensors=[
            *build_alert_sensors(settings),
            build_retraining_sensor(),
            build_drift_sensor(whole),
            dg.AutomationConditionSensorDefinition(
                "figures_follow",
                target=dg.AssetSelection.assets(feature_figures, evaluation_figures, dataset_report),
                default_status=dg.DefaultSensorStatus.RUNNING,
                minimum_interval_seconds=60,
                description="Draws figures and writes reports again when what they show was materialized without them.",
            ),
        ],
        resources=resources(settings),
        # Each step is a process, so that one which crashes is one step. Forking from a server that has imported what
        # the steps use saves every one of them the imports.
        executor=dg.multiprocess_executor.configured(
            {"max_concurrent": 2, "start_method": {"forkserver": {"preload_modules": _PRELOADED}}}
        ),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Build the batch half from the environment's settings, when Dagster loads the location."""
    return build_defs(settings=Settings())

"""The streaming code location's Definitions, built by one function that tests and the command line call as well."""

import dagster as dg

from genres.settings import Settings
from genres_dagster.resources import SparkResource, resources
from spark.session import session_config
from streaming_sensors.sensors import audio_clips_sensor, range_reconciler, stream_job
from streaming_sensors.stream_assets import audio_clips, nothing_lost, stream_batch
from streaming_sensors.streaming_results import results_job, streaming_results, streaming_results_sensor


def build_defs(*, settings: Settings) -> dg.Definitions:
    """Build fresh Definitions of the streaming half.

    Parameters
    ----------
    settings
        Addresses, paths and limits of everything that the assets and sensors touch.
    """
    stream_session = session_config(settings, app_name="genres stream")
    common = resources(settings)
    return dg.Definitions(
        assets=[audio_clips, stream_batch, streaming_results],
        asset_checks=[nothing_lost],
        jobs=[stream_job, results_job],
        sensors=[audio_clips_sensor, range_reconciler, streaming_results_sensor],
        resources={
            **{name: common[name] for name in ("settings", "lake", "database", "mlflow")},
            "spark_stream": SparkResource(spark_config=stream_session, shared_as=f"stream of {settings.state_dir}"),
        },
        executor=dg.in_process_executor,
    )


defs = build_defs(settings=Settings())

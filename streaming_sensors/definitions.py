"""The streaming code location's Definitions, built by one function that tests and the command line call as well."""

import dagster as dg

from genres.settings import Settings, StreamSettings
from genres_dagster.alerts import build_alert_sensors
from genres_dagster.resources import resources, spark_resource
from spark.session import session_config
from streaming_sensors.maintenance import build_maintenance_job, build_maintenance_schedule, maintenance
from streaming_sensors.sensors import build_audio_clips_sensor, build_job, build_range_reconciler
from streaming_sensors.stream import Stream
from streaming_sensors.stream_assets import build_audio_clips, build_stream_batch
from streaming_sensors.stream_checks import build_audio_clips_observer, build_stream_checks
from streaming_sensors.streaming_results import (
    build_results_job,
    build_streaming_results,
    build_streaming_results_sensor,
)


def build_stream(stream_settings: StreamSettings, *, settings: Settings) -> dg.Definitions:
    """Build the assets, checks, jobs and sensors of one stream; resources are the location's.

    Parameters
    ----------
    stream_settings
        The stream's name, topic, folder and dataset.
    settings
        Whose dataset is meant where the stream names none.
    """
    stream = Stream(stream_settings)
    return dg.Definitions(
        assets=[build_audio_clips(stream, settings), build_stream_batch(stream), build_streaming_results(stream)],
        asset_checks=build_stream_checks(stream),
        jobs=[build_job(stream), build_results_job(stream)],
        sensors=[
            build_audio_clips_sensor(stream),
            build_audio_clips_observer(stream),
            build_range_reconciler(stream),
            build_streaming_results_sensor(stream),
        ],
    )


def build_defs(*, settings: Settings) -> dg.Definitions:
    """Build fresh Definitions of the streaming half: of every stream that the settings have.

    Parameters
    ----------
    settings
        Addresses, paths and limits of everything that the assets and sensors touch.
    """
    stream_session = session_config(settings, app_name="genres stream")
    common = resources(settings)
    sweeping = build_maintenance_job()
    location = dg.Definitions(
        assets=[maintenance],
        jobs=[sweeping],
        schedules=[build_maintenance_schedule(sweeping)],
        sensors=build_alert_sensors(settings),
        resources={
            **{name: common[name] for name in ("settings", "lake", "database", "mlflow")},
            "spark_stream": spark_resource(stream_session, shared_as=f"stream of {settings.state_dir}"),
        },
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(location, *(build_stream(stream, settings=settings) for stream in settings.streams))


@dg.definitions
def defs() -> dg.Definitions:
    """Build the streaming half from the environment's settings, when Dagster loads the location."""
    return build_defs(settings=Settings())

"""Both code locations in one view, for ``dg list defs`` and ``dg check defs``, which know one module for a project.

What runs is what ``workspace.yaml`` names: two locations with executors of their own, which do not know each other.
"""

import dagster as dg

from genre_assets.definitions import build_defs as build_batch
from genres.settings import Settings
from streaming_sensors.definitions import build_defs as build_stream


@dg.definitions
def defs() -> dg.Definitions:
    """Join the definitions of both locations; each name must be one location's, but for the resources that they share.

    Raises
    ------
    dagster.DagsterInvalidDefinitionError
        If both have an asset, a check, a job or a sensor of one name.
    """
    settings = Settings()
    halves = [build_batch(settings=settings), build_stream(settings=settings)]
    return dg.Definitions(
        assets=[asset for half in halves for asset in half.assets or ()],
        asset_checks=[check for half in halves for check in half.asset_checks or ()],
        jobs=[job for half in halves for job in half.jobs or ()],
        sensors=[sensor for half in halves for sensor in half.sensors or ()],
        schedules=[schedule for half in halves for schedule in half.schedules or ()],
        resources={name: resource for half in halves for name, resource in (half.resources or {}).items()},
    )

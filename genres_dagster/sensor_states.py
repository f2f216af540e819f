"""Whether sensors are on, and turning them on and off from outside the UI, as its switch does."""

from collections.abc import Collection

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus


def are_running(instance: dg.DagsterInstance, names: Collection[str]) -> dict[str, bool]:
    """Return which of these sensors are on; one that no daemon has evaluated yet is left out."""
    return {state.instigator_name: state.is_running for state in _states(instance, names)}


def switch(instance: dg.DagsterInstance, names: Collection[str], *, on: bool) -> None:
    """Turn sensors on or off; those that no daemon has evaluated yet stay as their code says."""
    status = InstigatorStatus.RUNNING if on else InstigatorStatus.STOPPED
    for state in _states(instance, names):
        if state.is_running != on:
            instance.update_instigator_state(state.with_status(status))


def job_origin(instance: dg.DagsterInstance, sensor: str, job: str) -> RemoteJobOrigin | None:
    """Return what ties a run to a sensor's job in the UI; None if no daemon has evaluated the sensor yet."""
    origins = [state.origin.repository_origin.get_job_origin(job) for state in _states(instance, [sensor])]
    return origins[0] if origins else None


def _states(instance: dg.DagsterInstance, names: Collection[str]) -> list[InstigatorState]:
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    return [state for state in states if state.instigator_name in names]

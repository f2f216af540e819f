"""A stream's sensors are turned off and on as the UI's switch does it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData

from genres.errors import GenresError
from genres.settings import Settings
from genres_cli import streams
from genres_dagster import sensor_states
from genres_dagster.launch import open_instance

NAMES = ("audio_clips_sensor", "range_reconciler")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", port_base=64_000)


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", "")  # which opening sets, put back
    with open_instance(settings) as opened:
        yield opened


def evaluated(instance: dg.DagsterInstance, name: str, status: Any = InstigatorStatus.DECLARED_IN_CODE) -> None:
    """Add what a daemon keeps of a sensor that it has evaluated."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("streaming_sensors"), "__repository__")
    data = SensorInstigatorData(min_interval=1, cursor="0=7")
    state = InstigatorState(RemoteInstigatorOrigin(repository, name), InstigatorType.SENSOR, status, data)
    instance.add_instigator_state(state)


def test_only_the_named_sensors_are_switched(instance: dg.DagsterInstance) -> None:
    for name in (*NAMES, "radio_audio_clips_sensor", "figures_follow"):
        evaluated(instance, name)
    sensor_states.switch(instance, NAMES, on=False)
    everything = (*NAMES, "radio_audio_clips_sensor", "figures_follow", "no_such_sensor")
    assert sensor_states.are_running(instance, everything) == {
        **dict.fromkeys(NAMES, False),
        "radio_audio_clips_sensor": True,
        "figures_follow": True,
    }
    sensor_states.switch(instance, NAMES, on=True)
    assert set(sensor_states.are_running(instance, everything).values()) == {True}
    cursors = {state.instigator_data.cursor for state in instance.all_instigator_state()}  # type: ignore[union-attr]
    assert cursors == {"0=7"}, "where they are is kept"


def test_a_stream_is_paused_and_goes_on(instance: dg.DagsterInstance, settings: Settings) -> None:
    for name in NAMES:
        evaluated(instance, name)
    said = " ".join(streams.pause(settings, ""))
    assert "168 h (GENRES_TOPIC_RETENTION_H)" in said and "600 s old (GENRES_MAX_RUN_S)" in said
    assert set(sensor_states.are_running(instance, NAMES).values()) == {False}
    assert streams.resume(settings, "") == ["stream audio_clips goes on, as soon as Dagster is open (`genres ui`)"]
    assert set(sensor_states.are_running(instance, NAMES).values()) == {True}


def test_a_stream_whose_sensors_never_ran_cannot_be_paused(instance: dg.DagsterInstance, settings: Settings) -> None:
    for change in (streams.pause, streams.resume):
        with pytest.raises(GenresError, match="sensors of stream audio_clips have never run: open Dagster"):
            change(settings, "")
    with pytest.raises(GenresError, match="no stream 'radio'"):
        streams.pause(settings, "radio")

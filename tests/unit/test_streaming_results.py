"""What `streaming_results` draws and measures, on tables small enough to do by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings, StreamSettings
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres.store.stream_ledger import ranges, sent_files
from genres.store.stream_ledger.commits import RangeResult, commit_range
from genres.store.stream_ledger.sent_files import SentFile
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_dagster.partitions import provenance
from streaming_sensors.drift import feature_shifts
from streaming_sensors.stream import Stream
from streaming_sensors.streaming_results import build_streaming_results_sensor, results_figure

COLUMNS = list(GTZAN57.columns)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def rows(**changes: Any) -> pd.DataFrame:
    """Four predictions, three of clips whose genre is known, two of these right."""
    table = {
        "predicted_at": [NOW + timedelta(seconds=number) for number in range(4)],
        "predicted_genre": ["jazz", "rock", "jazz", "jazz"],
        "genre": ["jazz", "jazz", None, "jazz"],
        "probability": [0.9, 0.6, 0.5, 0.7],
        "latency_s": [1.0, 2.0, 3.0, 5.0],
        "is_calibrated": [True] * 4,
        "is_uncertain": [False, True, None, True],
        "is_unlike": [False, False, None, True],
        **changes,
    }
    return pd.DataFrame(table)


def drawn(table: pd.DataFrame, *, is_synthetic: bool = False) -> tuple[Figure, dict[str, Any]]:
    data = provenance(Dataset("own", Path("own"), is_synthetic=is_synthetic, feature_sets=("gtzan57",)))
    figure = results_figure(table, data=data)
    figure.canvas.draw()
    return figure, {axes.get_title().split(" ")[0]: axes for axes in figure.axes}


@pytest.mark.parametrize("is_synthetic", [True, False])
def test_title_says_what_the_clips_are(is_synthetic: bool) -> None:
    figure, _ = drawn(rows(), is_synthetic=is_synthetic)
    title = figure.get_suptitle()
    assert title.startswith("The newest 4 predictions")
    assert ("synthetic sound: these results say nothing about music" in title) is is_synthetic
    assert ("dataset own" in title) is not is_synthetic


def test_figures_show_what_the_rows_say() -> None:
    _, axes = drawn(rows())
    assert axes["seconds"].get_title() == "seconds from file to row: p50 2.5, p95 4.7"
    assert axes["running"].get_title().endswith("of the 3 clips whose genre is known")
    np.testing.assert_allclose(axes["running"].lines[0].get_ydata(), [1, 1 / 2, 2 / 3])
    assert sum(patch.get_height() for patch in axes["probability"].patches) == 4
    assert [text.get_text() for text in axes["predicted"].get_legend().get_texts()] == ["jazz", "rock"]


def test_uncalibrated_probabilities_are_called_so() -> None:
    _, axes = drawn(rows(is_calibrated=[True, True, False, True]))
    assert "(uncalibrated)" in axes["probability"].get_title()
    _, axes = drawn(rows())
    assert "(uncalibrated)" not in axes["probability"].get_title()


def test_uncertain_and_unlike_answers_are_counted() -> None:
    _, axes = drawn(rows())
    assert axes["probability"].get_title().endswith(": 2 uncertain, 1 unlike anything learnt")


def test_one_prediction_of_unknown_genre_is_drawn() -> None:
    _, axes = drawn(rows().iloc[2:3])
    assert axes["running"].get_title().endswith("of the 0 clips whose genre is known")


def test_figures_wait_for_predictions_by_the_streams_own_dataset(tmp_path: Path) -> None:
    """What another dataset's model said of the same topic is not mixed in; nobody looks into the dataset's folder."""
    settings = Settings(state_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'genres.db'}")  # type: ignore[arg-type]
    stream, database = Stream(settings.streams[0]), Database(settings.database)
    database.migrate()
    key = PartitionKey(stream.topic, "A", 0, 0, 9)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    sensor = build_streaming_results_sensor(stream)

    def tick() -> dg.SensorResult | dg.SkipReason:
        resources = {"settings": settings, "database": database}
        context = dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral(), resources=resources)
        found = sensor(context)
        assert isinstance(found, (dg.SensorResult, dg.SkipReason))
        return found

    def unplugged(dataset: str) -> Dataset:
        return Dataset(dataset, tmp_path / "unplugged" / dataset, is_synthetic=False, feature_sets=("gtzan57",))

    def predict(dataset: str) -> None:
        register_dataset(database, unplugged(dataset))
        row = {"sha256": dataset, "dataset": dataset, "model_name": f"genres-{dataset}", "model_version": 1}
        answer = {"predicted_genre": "jazz", "probability": 1.0, "probabilities": {"jazz": 1.0}, "is_calibrated": True}
        about = {"file_name": "a.wav", "genre": None, "kafka_offset": 0, "event_time": NOW}
        version = {"is_synthetic": False, "feature_version": GTZAN57.feature_version}
        commit_range(database, RangeResult(key, "r", predictions=[row | answer | about | version]))

    predict("old")
    assert isinstance(tick(), dg.SensorResult)
    register_dataset(database, unplugged("new"))
    skipped = tick()
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "stream audio_clips has predicted nothing by dataset 'new' yet"
    predict("new")
    assert isinstance(tick(), dg.SensorResult)


def test_a_stream_that_another_one_was_ahead_of_says_so(tmp_path: Path) -> None:
    """A clip has one row of a model, that of the stream which had it first."""
    radio = StreamSettings(name="radio", topic="radio", watch_folder=tmp_path / "radio", dataset="mine")
    settings = Settings(state_dir=tmp_path, stream_dataset="mine", more_streams=(radio,))
    database = Database(settings.database)
    database.migrate()
    answer = {"predicted_genre": "jazz", "probability": 1.0, "probabilities": {"jazz": 1.0}, "is_calibrated": True}
    about = {"file_name": "a.wav", "genre": None, "kafka_offset": 0, "event_time": NOW, "is_synthetic": False}
    model = {"dataset": "mine", "model_name": "genres-mine", "model_version": 1}
    row = {"sha256": "a" * 64, "feature_version": GTZAN57.feature_version, **model, **answer, **about}
    committed = []
    for stream in settings.streams:
        key = PartitionKey(stream.topic, "A", 0, 0, 1)
        ranges.record_plan(database, Plan(new=(Attempt(key),)))
        place = (stream.topic, "A", 0, 0, NOW)
        sent_files.remember(database, [SentFile("here", f"/{stream.topic}", 1, 1, 1, 1, "a" * 64, *place)])
        committed.append(commit_range(database, RangeResult(key, "r", predictions=[row])))
    assert [(one.new_predictions, one.duplicates) for one in committed] == [(1, 0), (0, 1)]

    def tick(stream: StreamSettings) -> dg.SensorResult | dg.SkipReason:
        resources = {"settings": settings, "database": database}
        context = dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral(), resources=resources)
        found = build_streaming_results_sensor(Stream(stream))(context)
        assert isinstance(found, (dg.SensorResult, dg.SkipReason))
        return found

    assert isinstance(tick(settings.streams[0]), dg.SensorResult)
    skipped = tick(settings.streams[1])
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == (
        "stream radio has predicted nothing by dataset 'mine' yet "
        "(1 clip sent to it had a row by that dataset's models from another stream before)"
    )


def test_shifts_are_in_standard_deviations_of_the_training_set() -> None:
    training = pd.DataFrame(np.tile([[0.0], [2.0]], (2, len(COLUMNS))), columns=COLUMNS)
    stream = training.copy()
    moved, constant = COLUMNS[3], COLUMNS[5]
    stream[moved] -= 3 * training[moved].std()
    training[constant], stream[constant] = 4.0, 5.0
    shifts = feature_shifts(stream.assign(genre="jazz"), training.assign(genre="rock"), COLUMNS)
    assert shifts[moved] == pytest.approx(3)
    assert shifts[constant] == 0, "what never varied in training has no measure"
    assert (shifts.drop(moved) == 0).all()
    assert list(shifts.index) == COLUMNS

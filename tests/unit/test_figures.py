"""Figures: those that both code locations draw, on rows small enough to do by hand; and the axes of all of them."""

import ast
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from genre_assets import calibration_figures, evaluation_figures, feature_figures
from genre_assets.genre_classifiers import confusion_figure
from genre_assets.hyperparameter_search import Trial, grid_figure
from genre_assets.raw_audio import clips_of_each_genre
from genres.settings import PROJECT_DIR
from genres_dagster.figures import figure_metadata, over_time_figure
from spark.calibration import coverage
from spark.classifiers import LogisticRegression
from spark.evaluation import Answers, metrics
from streaming_sensors.streaming_results import results_figure
from tests.audio_files import music, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def row(name: str, *windows: list[float], genres: tuple[str, ...] = ("jazz", "rock"), **more: Any) -> dict[str, Any]:
    curve = {"window_s": 3.0, "hop_s": 3.0, "start_s": 0.0, "genres": list(genres), "probabilities": list(windows)}
    return {"track_id": name, "genre": None, "predicted_genre": "jazz", "over_time": curve, **more}


def test_genre_over_time_shows_each_window_of_each_clip() -> None:
    rows = [
        row("a", [0.9, 0.1], [0.2, 0.8]),
        row("old", over_time=None),
        row("b", [0.5, 0.5], genre="rock"),
        row("costs $5, or $6.wav", [1.0, 0.0]),
    ]
    figure = over_time_figure(rows, name="track_id", title="the newest clips", data="dataset own")
    assert figure is not None
    assert figure.get_suptitle() == "Genre over time, windows of 3.0 s: the newest clips (n = 3)\n(dataset own)"
    first, second, third, unused = figure.axes
    assert [axes.get_title() for axes in (first, second, third)] == [
        "a: predicted jazz",
        "b: predicted jazz, labelled rock",
        "costs $5, or $6.wav: predicted jazz",
    ]
    assert first.get_xlim() == (0, 6)
    assert not unused.axison
    jazz, rock = first.collections
    heights = jazz.get_paths()[0].vertices
    assert {(0, 0.9), (3, 0.2), (6, 0.2)} <= {(x, round(y, 6)) for x, y in heights}
    assert np.isclose(rock.get_paths()[0].vertices[:, 1].max(), 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["jazz", "rock"]
    assert "data:image/png;base64," in str(figure_metadata(figure).value)


def test_six_clips_are_drawn_and_none_is_no_figure() -> None:
    many = over_time_figure([row(f"{n}", [0.5, 0.5]) for n in range(9)], name="track_id", title="clips", data="own")
    assert many is not None
    assert [axes.get_title()[0] for axes in many.axes] == list("012345")
    assert over_time_figure([row("old", over_time=None)], name="track_id", title="clips", data="own") is None


# ------------------------------------------------------------------------------------------- the axes of every figure

GENRES = ["jazz", "rock"]
CONFUSION = np.array([[3, 1], [0, 2]])
SCORES = metrics(CONFUSION, GENRES, part="test") | metrics(CONFUSION, GENRES, part="valid")
ANSWERS = Answers(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
FEATURES = pd.DataFrame({"tempo": [90.0, 120.0, 100.0], "rolloff_var": [1.0, 4.0, 9.0], "rms_mean": [0.1, 0.3, 0.2]})
LATENCIES = [0.5, 4.0, 900.0, -0.1]


def predictions() -> pd.DataFrame:
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    rows = [
        {
            "predicted_at": start + timedelta(minutes=number),
            "predicted_genre": "jazz",
            "genre": "jazz" if number else None,
            "probability": 0.5,
            "latency_s": latency,
            "is_calibrated": True,
            "is_uncertain": False,
            "is_unlike": False,
        }
        for number, latency in enumerate(LATENCIES)
    ]
    return pd.DataFrame(rows)


def over_time() -> "Figure":
    figure = over_time_figure([row("a", [0.9, 0.1])], name="track_id", title="clips", data="own")
    assert figure is not None
    return figure


def trials() -> list[Trial]:
    trial = Trial(LogisticRegression(), "gtzan57-v1", is_default=True)
    trial.right = {"a": True, "b": False, "c": True}
    return [trial]


def mel_spectrograms() -> "Figure":
    return feature_figures.mel_spectrograms({genre: written("WAV", music(2.0)) for genre in GENRES}, data="own")


FIGURES: dict[str, tuple[int, Callable[[], "Figure"]]] = {
    "results_figure": (4, lambda: results_figure(predictions(), data="own")),
    "over_time_figure": (1, over_time),
    "model_comparison": (
        6,
        lambda: evaluation_figures.model_comparison(
            {"forest": SCORES}, {"valid_rows": 6, "test_rows": 6, "baseline_test_accuracy": 0.5}, data="own"
        ),
    ),
    "confusion_matrices": (
        6,
        lambda: evaluation_figures.confusion_matrices(
            {"forest": {"confusion": CONFUSION.tolist(), "genres": GENRES}}, data="own"
        ),
    ),
    "f1_by_genre": (6, lambda: evaluation_figures.f1_by_genre({"forest": SCORES}, GENRES, data="own")),
    "confusion_figure": (6, lambda: confusion_figure("forest", "test", CONFUSION, GENRES)),
    "grid_figure": (3, lambda: grid_figure(trials(), data="own")),
    "reliability_figure": (
        3,
        lambda: calibration_figures.reliability_figure(ANSWERS, ANSWERS, 1.2, "out-of-fold", data="own"),
    ),
    "coverage_figure": (
        3,
        lambda: calibration_figures.coverage_figure(coverage(ANSWERS), 0.8, 0.9, "out-of-fold", n=3, data="own"),
    ),
    "distance_figure": (3, lambda: calibration_figures.distance_figure(np.array([0.5, 0.9, 1.2]), data="own")),
    "clips_of_each_genre": (3, lambda: clips_of_each_genre(pd.Series(["jazz", "rock", "jazz"]), data="own")),
    "mel_spectrograms": (2, mel_spectrograms),
    "feature_distributions": (
        3,
        lambda: feature_figures.feature_distributions(
            FEATURES.assign(genre=["jazz", "rock", "jazz"]), list(FEATURES.columns), data="own"
        ),
    ),
    "feature_correlations": (3, lambda: feature_figures.feature_correlations(FEATURES, data="own")),
    "feature_pca": (
        3,
        lambda: feature_figures.feature_pca(FEATURES, pd.Series(["jazz", "rock", "jazz"]), data="own"),
    ),
}
"""Each figure by its function's name, and how many clips it is of."""
UNITS = {
    "results_figure": {"latency, s", "(UTC)"},
    "over_time_figure": {"s"},
    "mel_spectrograms": {"s", "Hz", "dB"},
    "feature_distributions": {"beats per minute", "Hz²", "no unit"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_has_its_label_and_every_panel_says_of_how_many_clips_it_is(name: str) -> None:
    clips, draw = FIGURES[name]
    figure = draw()
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.axison]
    bars = [axes for axes in panels if axes.get_label() == "<colorbar>"]
    labels = []
    for axes in panels:
        own = [axes.get_ylabel()] if axes in bars else [axes.get_xlabel(), axes.get_ylabel()]
        assert all(own), f"{axes.get_title()}: {own}"
        labels += own
        said = re.findall(r"n = (\d+)", " ".join([figure.get_suptitle(), axes.get_title(), *own]))
        if axes not in bars and name != "results_figure":
            assert str(clips) in said, said
    for unit in UNITS.get(name, ()):
        assert any(unit in label for label in labels), (unit, labels)


def test_the_newest_predictions_say_in_each_panel_of_how_many_clips_it_is() -> None:
    figure = results_figure(predictions(), data="own")
    said = [re.findall(r"n = (\d+)", axes.get_ylabel()) for axes in figure.axes]
    assert said == [["4"], ["4"], ["4"], ["3"]], "the genre of one of the four is not known"


def test_latencies_have_a_logarithmic_scale() -> None:
    figure = results_figure(predictions(), data="own")
    figure.canvas.draw()
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel().startswith("latency")]
    assert axes.get_yscale() == "log"
    assert "1 not above 0 are left out" in axes.get_ylabel()
    places = {text.get_text() for text in axes.get_yticklabels()}
    assert {"1", "10", "100"} <= places, places


def test_no_figure_is_left_out() -> None:
    rooms = ("genre_assets", "streaming_sensors", "genres_dagster")
    drawing = {
        found.name
        for room in rooms
        for path in (PROJECT_DIR / room).rglob("*.py")
        for found in ast.walk(ast.parse(path.read_text()))
        if isinstance(found, ast.FunctionDef) and "= new_figure(" in ast.unparse(found)
    }
    assert drawing == FIGURES.keys()

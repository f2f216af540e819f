"""Figures that both code locations draw, on rows small enough to do by hand."""

from typing import Any

import numpy as np

from genres_dagster.figures import figure_metadata, over_time_figure


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

"""Figures: how a Matplotlib figure becomes asset metadata that the UI shows, and how all of them look."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.file_names import display_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 80
_PANELS = 6


def new_figure(width: float, height: float, *, title: str, data: str, **subplots: Any) -> tuple["Figure", Any]:
    """Make a figure with its axes.

    Parameters
    ----------
    width, height
        In inches.
    title
        What is shown.
    data
        What it is shown of (``genres_dagster.partitions.provenance``); stands under the title.
    **subplots
        For ``Figure.subplots``.

    Returns
    -------
    Figure
        Made without pyplot, so that nothing global grows from run to run.
    Axes or ndarray of Axes
        As ``Figure.subplots`` returns them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(f"{title}\n({data})", fontsize=11)
    return figure, figure.subplots(**subplots)


def figure_metadata(figure: "Figure") -> dg.MetadataValue:
    """Turn a figure into Markdown with the picture inside, which the asset's page shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return dg.MetadataValue.md(f"![figure](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def over_time_figure(rows: Sequence[dict[str, Any]], *, name: str, title: str, data: str) -> "Figure | None":
    """Draw the probabilities of each genre over time, a panel a clip.

    Parameters
    ----------
    rows
        Rows of a prediction table; those that say nothing over time are left out, and the first six are drawn.
    name
        The column that names a clip.
    title
        Which clips they are.

    Returns
    -------
    Figure or None
        None if no row says anything over time.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    shown = [row for row in rows if row["over_time"]][:_PANELS]
    if not shown:
        return None
    lines = -(-len(shown) // 2)
    window_s = shown[0]["over_time"]["window_s"]
    figure, axes = new_figure(
        11,
        1.2 + 1.9 * lines,
        title=f"Genre over time, windows of {window_s:.1f} s: {title} (n = {len(shown)})",
        data=data,
        nrows=lines,
        ncols=2,
        squeeze=False,
    )
    genres = sorted({genre for row in shown for genre in row["over_time"]["genres"]})
    colours = {genre: colormaps["tab20"](number % 20) for number, genre in enumerate(genres)}
    for axis, row in zip(axes.flat, shown, strict=False):
        curve = row["over_time"]
        draw_over_time(axis, curve, [colours[genre] for genre in curve["genres"]])
        labelled = f", labelled {row['genre']}" if row["genre"] else ""
        # A dollar in a name begins no formula.
        shown_name = display_name(row[name])
        axis.set_title(f"{shown_name}: predicted {row['predicted_genre']}{labelled}", fontsize=8, parse_math=False)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("s", fontsize=7)
        axis.set_ylabel("probability", fontsize=7)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    handles = [Patch(color=colours[genre], label=genre) for genre in genres]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(genres), 10), fontsize=7)
    return figure


def draw_over_time(axes: "Axes", curve: dict[str, Any], colours: Sequence[Any]) -> None:
    """Draw the probabilities of a clip's genres over time, stacked.

    Parameters
    ----------
    axes
        Matplotlib axes.
    curve
        ``over_time`` of a prediction's row.
    colours
        Of its genres, in their order.
    """
    places = [curve["start_s"] + number * curve["hop_s"] for number in range(len(curve["probabilities"]) + 1)]
    # Steps end with the last window, whose values stand twice for that.
    values = list(zip(*curve["probabilities"], curve["probabilities"][-1], strict=True))
    axes.stackplot(places, values, colors=colours, step="post", labels=curve["genres"])
    axes.set_xlim(places[0], places[-1])
    axes.set_ylim(0, 1)


def draw_confusion(axes: "Axes", confusion: "npt.NDArray[np.int64]", genres: Sequence[str]) -> None:
    """Draw a confusion matrix with counts, coloured by the share of the true genre's clips.

    Parameters
    ----------
    axes
        Matplotlib axes.
    confusion
        Counts, shape (n_genres, n_genres); row: true genre, column: predicted genre.
    genres
        Names, in the matrix's order.
    """
    import numpy as np

    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    # A dollar in a name begins no formula.
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(len(genres)), genres, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted genre", fontsize=8)
    axes.set_ylabel("true genre", fontsize=8)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)

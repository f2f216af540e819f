"""Figures: how a Matplotlib figure becomes asset metadata that the UI shows, and how all of them look."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 80


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
        As ``Figure.subplots`` gives them.
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
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(genres)), genres, fontsize=8)
    axes.set_xlabel("predicted genre", fontsize=8)
    axes.set_ylabel("true genre", fontsize=8)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)

"""What the page draws: a clip's mel spectrogram, its genres over time, and a dataset's confusions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genres_dagster.figures import draw_confusion, draw_over_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATE = 22_050


def spectrogram(data: bytes) -> "Figure":
    """Draw the mel spectrogram of a clip that the gate has let in."""
    from matplotlib.figure import Figure

    from genres.audio.decode import decode
    from genres.audio.mel_spectrogram import HOP, band_hz, mel_spectrogram

    samples = decode(data, sample_rate=_RATE)
    bands = mel_spectrogram(samples, _RATE)
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    seconds = bands.shape[1] * HOP / _RATE
    picture = axes.imshow(
        bands, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0, extent=(0, seconds, 0, len(bands))
    )
    hertz = band_hz(_RATE)
    marks = range(0, len(bands), 16)
    axes.set_yticks(list(marks), [f"{hertz[mark]:,.0f}" for mark in marks])
    axes.set_xlabel("s")
    axes.set_ylabel("Hz")
    figure.colorbar(picture, label="dB below the loudest")
    return figure


def over_time(answer: dict[str, Any]) -> "Figure | None":
    """Draw the probability of each genre over time; None if the model says nothing about that."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    curve = answer["over_time"]
    if not curve:
        return None
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    draw_over_time(axes, curve, [colormaps["tab20"](number % 20) for number in range(len(curve["genres"]))])
    axes.set_xlabel("s")
    axes.set_ylabel("probability")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def confusion(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Draw how often each genre's tracks are taken for which.

    Parameters
    ----------
    rows
        Rows of a prediction table with ``genre`` and ``predicted_genre``.
    """
    import numpy as np
    from matplotlib.figure import Figure

    genres = sorted({row[column] for row in rows for column in ("genre", "predicted_genre")})
    counts = np.zeros((len(genres), len(genres)), np.int64)
    for row in rows:
        counts[genres.index(row["genre"]), genres.index(row["predicted_genre"])] += 1
    figure = Figure(figsize=(6, 5), layout="constrained")
    draw_confusion(figure.subplots(), counts, genres)
    figure.suptitle(f"all tracks, those that it was trained on too (n = {len(rows)})", fontsize=10)
    return figure

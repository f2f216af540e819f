"""What the page draws: a clip's waveform, genres over time and mel spectrogram, and a dataset's confusions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genres_dagster.figures import draw_confusion

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

_RATE = 22_050
_PEAKS = 400
"""Columns of a waveform."""
_FONT = 12
"""Of the spectrogram, in points: on a phone it is drawn half as wide."""
_LONGEST_LABEL = 20
"""Characters of a genre beside the confusions, which keep the room that they need."""


def samples_of(data: bytes) -> "np.ndarray":
    """Return the samples that the pictures of a clip are drawn from; the gate has let it in."""
    from genres.audio.decode import decode

    return decode(data, sample_rate=_RATE)


def curve(samples: "np.ndarray", over_time: dict[str, Any] | None) -> dict[str, Any]:
    """Return what ``curve.js`` draws: a waveform, and the probability of each genre over time below it.

    Parameters
    ----------
    samples
        From `samples_of`.
    over_time
        Of a prediction's row; None if the model says nothing about that.

    Returns
    -------
    dict
        ``seconds``; ``peaks``, from 0 to 100, the loudest; ``over_time``; and ``colours``, of its genres.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    loud = np.abs(samples)
    places = np.linspace(0, len(loud), min(_PEAKS, len(loud)), endpoint=False).astype(int)
    peaks = np.maximum.reduceat(loud, places)
    colours = colormaps["tab20"]
    return {
        "seconds": round(len(samples) / _RATE, 3),
        "peaks": np.round(100 * peaks / max(float(peaks.max()), 1e-9)).astype(int).tolist(),
        "over_time": over_time,
        "colours": [to_hex(colours(number % 20)) for number in range(len(over_time["genres"]) if over_time else 0)],
    }


def spectrogram(samples: "np.ndarray") -> "Figure":
    """Draw the mel spectrogram of a clip.

    Parameters
    ----------
    samples
        From `samples_of`.
    """
    from matplotlib.figure import Figure

    from genres.audio.mel_spectrogram import HOP, band_hz, mel_spectrogram

    bands = mel_spectrogram(samples, _RATE)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    seconds = bands.shape[1] * HOP / _RATE
    picture = axes.imshow(
        bands, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=0, extent=(0, seconds, 0, len(bands))
    )
    hertz = band_hz(_RATE)
    marks = range(0, len(bands), 16)
    axes.set_yticks(list(marks), [f"{hertz[mark]:,.0f}" for mark in marks])
    axes.set_xlabel("s", fontsize=_FONT)
    axes.set_ylabel("Hz", fontsize=_FONT)
    scale = figure.colorbar(picture)
    scale.set_label("dB below the loudest", fontsize=_FONT)
    for marked in (axes, scale.ax):
        marked.tick_params(labelsize=_FONT)
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
    labels = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…" for name in genres]
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    draw_confusion(figure.subplots(), counts, labels)
    figure.suptitle(f"all tracks, those that it was trained on too (n = {len(rows)})", fontsize=10)
    return figure

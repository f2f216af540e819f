"""What calibration comes to, as pictures: reliability, coverage, and distances of music that was not learnt from."""

from typing import TYPE_CHECKING

from genres_dagster.figures import new_figure

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from spark.calibration import Coverage
    from spark.evaluation import Answers


def reliability_figure(before: "Answers", after: "Answers", temperature: float, whose: str, *, data: str) -> "Figure":
    """Draw how often answers are right by their probability, before and after calibration, with the clips of each bin.

    Parameters
    ----------
    before, after
        The same answers about tracks that were not learnt from.
    whose
        Which answers these are.
    """
    n = len(after.true)
    title = f"Probability and share of right answers (n = {n} {whose} answers)"
    figure, axes = new_figure(11, 5, title=title, data=data, ncols=2, sharey=True)
    for axis, name, answers in ((axes[0], "before", before), (axes[1], f"temperature {temperature:.3g}", after)):
        bins = answers.reliability()
        width = 1 / len(bins.clips)
        starts = [place * width for place in range(len(bins.clips))]
        axis.bar(starts, bins.accuracy, width, align="edge", color="#9ecae1", edgecolor="white")
        axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
        has_clips = bins.clips > 0
        axis.plot(bins.probability[has_clips], bins.accuracy[has_clips], ".", color="#08519c")
        for start, count in zip(starts, bins.clips, strict=True):
            if count:
                axis.text(start + width / 2, 0.01, str(count), ha="center", fontsize=7, rotation=90)
        axis.set_title(f"{name}: expected calibration error {answers.calibration_error():.3f}", fontsize=10)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_xlabel("probability of the answer; the numbers are clips", fontsize=8)
        axis.set_ylabel("share of right answers", fontsize=8)
    return figure


def coverage_figure(
    curve: "Coverage", certain_from: float, accuracy: float, whose: str, *, n: int, data: str
) -> "Figure":
    """Draw what the surest answers are worth, by how many of them are taken, and where the threshold is.

    Parameters
    ----------
    certain_from
        The threshold that was chosen; infinite if there is none.
    accuracy
        What it was chosen for.
    whose
        Which answers these are.
    n
        How many there are.
    """
    figure, axes = new_figure(7, 5, title=f"Accuracy of the surest of the {whose} answers (n = {n})", data=data)
    axes.plot(curve.share, curve.accuracy, drawstyle="steps-post")
    axes.axhline(accuracy, color="gray", linestyle="--", linewidth=1)
    share, reached = curve.at(certain_from)
    if share:
        axes.plot([share], [reached], "o", color="#d94801")
        chosen = f"from {certain_from:.2f} on: {share:.0%} of the answers, {reached:.3f} right"
    else:
        chosen = f"none is right {accuracy:g} of the time: all are uncertain"
    axes.set_title(chosen, fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the clips that are answered", fontsize=8)
    axes.set_ylabel("share of right ones among them", fontsize=8)
    return figure


def distance_figure(held_out: "npt.NDArray[np.float64]", *, data: str) -> "Figure":
    """Draw how far training tracks are from the others when they are not learnt from, in units of the threshold."""
    beyond = int((held_out > 1).sum())
    title = f"Distance of tracks that were held out (n = {len(held_out)})"
    figure, axes = new_figure(7, 4, title=title, data=data)
    axes.hist(held_out, bins=30, color="#9ecae1", edgecolor="white")
    axes.axvline(1, color="#d94801", linestyle="--")
    axes.set_title(f"above 1, a clip counts as unlike anything learnt: {beyond} of these", fontsize=10)
    axes.set_xlabel("distance, in units of the threshold", fontsize=8)
    axes.set_ylabel("tracks", fontsize=8)
    return figure

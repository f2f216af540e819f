"""Whether a new model takes the champion's place: two models' answers about the same tracks, and the conditions.

Pure functions of arrays; which tracks these are, and what happens with the verdict, is ``champion_model``'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WANTED_SHARE = 0.9
"""Share of the resamples in which the new model has to be better."""
MOST_LOST = 0.15
"""F1 that no genre may lose."""
MOST_MISCALIBRATED = 0.05
"""What the expected calibration error may rise by."""


@dataclass(frozen=True)
class Answers:
    """What a model answers about some tracks."""

    genres: tuple[str, ...]
    """The genres that it tells apart."""
    probabilities: "npt.NDArray[np.float64]"
    """Shape (n_tracks, n_genres), in the order of `genres`."""

    @property
    def predicted(self) -> list[str]:
        """The most likely genre of each track."""
        return [self.genres[index] for index in self.probabilities.argmax(axis=1)]


@dataclass(frozen=True)
class Comparison:
    """A new model and the present champion on the tracks that neither was trained on."""

    tracks: int
    macro_f1: float
    champion_macro_f1: float
    better_share: float
    """Share of the resamples in which the new model's macro-F1 is the higher one."""
    lost: dict[str, float]
    """What each genre's F1 loses by the change; negative where it gains."""
    ece: float
    champion_ece: float
    new_genres: tuple[str, ...] = ()
    """Genres that only the new model knows."""
    missing_genres: tuple[str, ...] = ()
    """Genres that only the champion knows."""


class Condition(NamedTuple):
    """One of the conditions of a promotion."""

    name: str
    passed: bool
    expected: str
    actual: str
    """A sentence if it failed."""


@dataclass(frozen=True)
class Verdict:
    """Whether a candidate becomes the champion, and why."""

    conditions: tuple[Condition, ...]
    granted: str
    """What is said if every condition is met."""
    judged_on: str
    """Which tracks, and how many of them."""

    @property
    def is_champion(self) -> bool:
        """Whether every condition is met."""
        return all(condition.passed for condition in self.conditions)

    @property
    def why(self) -> str:
        """What was beaten, or each condition that was not met."""
        failed = [condition.actual for condition in self.conditions if not condition.passed]
        return "; ".join(failed) or self.granted

    @property
    def reason(self) -> str:
        """The whole sentence, with the tracks that it rests on."""
        return f"{self.judged_on}: {self.why}"


def judge(
    *, valid_macro_f1: float, baseline: float, comparison: Comparison | None, tracks: int = 0, no_rival: str = ""
) -> Verdict:
    """Decide whether the best candidate becomes the champion.

    Parameters
    ----------
    valid_macro_f1, baseline
        Macro-F1 of the candidate and of the majority baseline on the tracks that are judged on.
    comparison
        With the present champion; None if there is none that can be used.
    tracks
        How many tracks the candidate was judged on, if there is no comparison.
    no_rival
        Why there is no comparison, or no track to compare on.
    """
    if comparison is not None and not comparison.tracks:
        untouched = Condition(
            "unseen_tracks",
            False,
            "validation tracks that neither model was trained on",
            f"{no_rival or 'there is none to compare on'}: the present champion stays; `genres models promote` makes "
            "the change by hand",
        )
        return Verdict((untouched,), "", "no validation track that neither was trained on")
    beats = f"validation macro-F1 {valid_macro_f1:.3f} beats the majority baseline's {baseline:.3f}"
    conditions = [
        Condition(
            "baseline",
            valid_macro_f1 > baseline,
            "macro-F1 above the majority baseline's",
            f"validation macro-F1 {valid_macro_f1:.3f} does not beat the majority baseline's {baseline:.3f}",
        )
    ]
    if comparison is None:
        on = f"on {_counted(tracks)}" if tracks else "on the validation tracks"
        return Verdict(tuple(conditions), f"{beats}; {no_rival}" if no_rival else beats, on)
    conditions += _against(comparison)
    granted = f"{beats} and the present champion's {comparison.champion_macro_f1:.3f}"
    return Verdict(tuple(conditions), granted, f"on {_counted(comparison.tracks, 'that neither model was trained on')}")


def compare(truth: Sequence[str], candidate: Answers, champion: Answers) -> Comparison:
    """Compare two models on the same tracks.

    Parameters
    ----------
    truth
        The true genre of each track, shape (n_tracks,).
    candidate, champion
        What they answer about these tracks, in the same order.

    Returns
    -------
    Comparison
        Macro-F1 is over the genres that these tracks have. Each resample draws the tracks again, with replacement, for
        both models at once; only then is a share of resamples about the models and not about the tracks.
    """
    genres = sorted(set(truth))
    known, old = set(candidate.genres), set(champion.genres)
    new_genres, missing = tuple(sorted(known - old)), tuple(sorted(old - known))
    if not genres:
        return Comparison(0, 0.0, 0.0, 0.0, {}, 0.0, 0.0, new_genres, missing)
    import numpy as np

    from spark.evaluation import resamples

    weights = np.vstack([np.ones(len(truth)), resamples(len(truth))])
    new, present = (f1_by_genre(truth, model.predicted, genres, weights) for model in (candidate, champion))
    better = new[1:].mean(axis=1) > present[1:].mean(axis=1)
    return Comparison(
        len(truth),
        float(new[0].mean()),
        float(present[0].mean()),
        float(better.mean()),
        dict(zip(genres, map(float, present[0] - new[0]), strict=True)),
        calibration_error(truth, candidate),
        calibration_error(truth, champion),
        new_genres,
        missing,
    )


def f1_by_genre(
    truth: Sequence[str], predicted: Sequence[str], genres: Sequence[str], weights: "npt.NDArray[np.number]"
) -> "npt.NDArray[np.float64]":
    """F1 of each genre for each weighting of the tracks; 0 for a genre without clips and without answers.

    Parameters
    ----------
    truth, predicted
        Shape (n_tracks,).
    genres
        Shape (n_genres,).
    weights
        How often each track counts, shape (n_weightings, n_tracks).

    Returns
    -------
    ndarray, shape (n_weightings, n_genres)
    """
    import numpy as np

    is_true = np.equal.outer(np.array(truth, dtype=object), np.array(genres, dtype=object)).astype(float)
    is_answer = np.equal.outer(np.array(predicted, dtype=object), np.array(genres, dtype=object)).astype(float)
    hits = weights @ (is_true * is_answer)
    named = weights @ is_true + weights @ is_answer
    return np.divide(2 * hits, named, out=np.zeros_like(hits), where=named > 0)


def calibration_error(truth: Sequence[str], answers: Answers) -> float:
    """Return the expected calibration error of the answers, as `spark.evaluation` has it; 0 of no track."""
    import numpy as np

    from spark import evaluation

    if not len(truth):
        return 0.0
    places = {genre: place for place, genre in enumerate(answers.genres)}
    # What is no genre of the model is none of its answers.
    true = np.array([places.get(genre, -1) for genre in truth])
    return evaluation.Answers(true, answers.probabilities).calibration_error()


def _against(comparison: Comparison) -> list[Condition]:
    """Return the conditions that the present champion sets."""
    from spark.evaluation import RESAMPLES

    new, old, share = comparison.macro_f1, comparison.champion_macro_f1, comparison.better_share
    if new <= old:
        better = f"validation macro-F1 {new:.3f} does not beat the present champion's {old:.3f}"
    else:
        better = (
            f"validation macro-F1 {new:.3f} beats the present champion's {old:.3f} in only {share:.1%} of "
            f"{RESAMPLES} resamples of these tracks"
        )
    falling = {genre: lost for genre, lost in comparison.lost.items() if lost > MOST_LOST}
    told = ", ".join(f"{genre} by {lost:.2f}" for genre, lost in sorted(falling.items(), key=lambda item: -item[1]))
    rise = comparison.ece - comparison.champion_ece
    labels = [
        f"{what} {', '.join(genres)}"
        for what, genres in (("adds", comparison.new_genres), ("lacks", comparison.missing_genres))
        if genres
    ]
    return [
        Condition(
            "genres",
            not falling,
            f"no genre's F1 falls by more than {MOST_LOST:g}",
            f"F1 of genres falls by more than {MOST_LOST:g}: {told}" if falling else "none does",
        ),
        Condition(
            "calibration",
            rise <= MOST_MISCALIBRATED,
            f"expected calibration error at most {MOST_MISCALIBRATED:g} above the champion's",
            f"expected calibration error {comparison.ece:.3f} is more than {MOST_MISCALIBRATED:g} above the present "
            f"champion's {comparison.champion_ece:.3f}"
            if rise > MOST_MISCALIBRATED
            else f"{comparison.ece:.3f}, the champion's {comparison.champion_ece:.3f}",
        ),
        Condition(
            "label_set",
            not labels,
            "the champion's genres",
            f"it tells other genres apart than the present champion: it {' and '.join(labels)}"
            if labels
            else "its own",
        ),
        Condition(
            "macro_f1",
            new > old and share >= WANTED_SHARE,
            f"macro-F1 above the champion's in at least {WANTED_SHARE:.0%} of the resamples",
            better,
        ),
    ]


def _counted(tracks: int, which: str = "") -> str:
    from spark.evaluation import FEW

    words = f"{tracks} validation track{'' if tracks == 1 else 's'}{' ' if which else ''}{which}"
    return f"{words} (fewer than {FEW}: this says little)" if tracks < FEW else words

"""Comparison of candidates on a table of features: cross-validation, the choice, figures on validation and test part.

Nothing is chosen, standardised or fitted with a look at the test part. Each model is trained by the same code as the
assets' (`spark.classifiers`), and calibrated as theirs is (`spark.calibration`).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spark.calibration import HeldOutScores, cautious_temperature, tempered
from spark.classifiers import TRAINING_CONF, Candidate, Scale, index_genres, logarithm_offset, neutral_name
from spark.evaluation import FEW, Answers, accuracy_interval
from spark.out_of_fold import held_out_answers

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

BASELINES = ("majority", "nearest centroid")
"""What every candidate stands beside: the most frequent genre, and the nearest of the genres' means."""


@dataclass(frozen=True)
class Trial:
    """One way to split a table: who is learnt from, and who is judged."""

    parts: "pd.Series"
    """``train``, ``valid`` or ``test`` for each row; missing for rows that are left out."""
    folds: Sequence[int]
    """Fold of each row in cross-validation; means nothing for rows of the test part."""

    def rounds(self) -> "dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]":
        """Return, by name, which rows are learnt from and which are judged each time that the candidates are trained.

        The folds are of training and validation part; the validation part is judged by models of the training part,
        the test part by models of both.
        """
        parts, folds = self.parts.to_numpy(), np.asarray(self.folds)
        train, valid, test = (parts == part for part in ("train", "valid", "test"))
        known = train | valid
        found = {
            f"fold {fold + 1}": (known & (folds != fold), known & (folds == fold)) for fold in sorted({*folds[known]})
        }
        found |= {"valid": (train, valid)} if valid.any() and train.any() else {}
        return found | ({"test": (known, test)} if test.any() else {})


@dataclass
class Judged:
    """What one candidate answered, over all trials."""

    name: str
    is_baseline: bool
    has_probabilities: bool
    true: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)
    probabilities: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    groups: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)
    by_trial: list[float] = field(default_factory=list)
    """Test accuracy of each trial."""
    temperatures: list[float] = field(default_factory=list)
    """What the raw scores of each trial were divided by; of a baseline, none."""

    def add(
        self,
        part: str,
        true: npt.NDArray[np.int64],
        probabilities: npt.NDArray[np.float64],
        groups: npt.NDArray[np.int64],
    ) -> None:
        """Add answers on ``cv``, ``valid`` or ``test``."""
        self.true.setdefault(part, []).append(true)
        self.probabilities.setdefault(part, []).append(probabilities)
        self.groups.setdefault(part, []).append(groups)
        if part == "test":
            self.by_trial.append(Answers(true, probabilities).accuracy)

    def answers(self, part: str) -> Answers | None:
        """Return all answers on a part; None if it has no rows."""
        if part not in self.true:
            return None
        return Answers(np.concatenate(self.true[part]), np.concatenate(self.probabilities[part]))

    def figures(self, part: str) -> dict[str, Any]:
        """Return the figures on a part, None where there are none, with names that begin with it."""
        answers = self.answers(part)
        found: dict[str, Any] = dict.fromkeys(
            ("accuracy", "accuracy_ci", "macro_f1", "top3_accuracy", "ece", "log_loss")
        )
        if answers is not None:
            found |= {
                "accuracy": answers.accuracy,
                "accuracy_ci": list(accuracy_interval(answers.right, list(np.concatenate(self.groups[part])))),
                "macro_f1": answers.macro_f1(),
                "top3_accuracy": answers.top_accuracy(3),
            }
            if self.has_probabilities:
                found |= {"ece": answers.calibration_error(), "log_loss": answers.log_loss()}
        found["n"] = 0 if answers is None else len(answers.true)
        return {f"{part}_{name}": value for name, value in found.items()}


@dataclass(frozen=True)
class Comparison:
    """How the candidates compare."""

    rows: list[dict[str, Any]]
    """Figures of each candidate, best first, then of the baselines: ``model``, ``chosen``, ``is_baseline``, and for
    each of ``cv``, ``valid`` and ``test`` its accuracy, interval, macro-F1 and so on."""
    notices: list[str]
    """What to know when reading them: ties, parts of few clips, leaks."""


def compare(
    spark: "SparkSession",
    table: "pd.DataFrame",
    *,
    columns: Sequence[str],
    trials: Sequence[Trial],
    groups: Sequence[int],
    candidates: Sequence[Candidate],
    on_progress: Callable[[str], None],
) -> Comparison:
    """Train and judge the candidates.

    Parameters
    ----------
    spark
        The session; it is set to `TRAINING_CONF`.
    table
        ``genre`` and `columns`, which may have missing values.
    trials
        The splits; figures are over all of them.
    groups
        Group of each row, by track or artist, for the intervals.

    Returns
    -------
    Comparison
        The candidate with the best cross-validated accuracy is chosen, of equals the one with the least log-loss.
    """
    for name, value in TRAINING_CONF.items():
        spark.conf.set(name, value)
    rounds = [
        _Round(number, name, *sides) for number, trial in enumerate(trials) for name, sides in trial.rounds().items()
    ]
    frame, names, genres = _frame(spark, table, columns, rounds)
    true = np.array([genres.index(genre) for genre in table["genre"]], dtype=np.int64)
    values = table[list(columns)].to_numpy(float)
    judged = {one.name: Judged(one.name, is_baseline=False, has_probabilities=True) for one in candidates}
    judged |= {name: Judged(name, is_baseline=True, has_probabilities=name == "majority") for name in BASELINES}
    notices: list[str] = []
    scores: dict[str, dict[int, npt.NDArray[np.float64]]] = {one.name: {} for one in candidates}
    for step, one in enumerate(rounds, 1):
        name, learnt, held_out = one.name, one.learnt, one.held_out
        of = f" of split {one.split + 1}" if len(trials) > 1 else ""
        on_progress(f"{step} of {len(rounds)}: {name}{of}, {held_out.sum()} rows by models of {learnt.sum()}")
        rows = frame.filter(f"{one.column} != ''").select(
            "row", "genre", "label", frame[one.column].alias("part"), *names
        )
        found = held_out_answers(rows, columns=names, genres=genres, candidates=candidates, key="row")
        if foreign_scales(found.scales, values[learnt], names):
            notices.append(f"leak: in {name}{of} the features were standardised with other rows than those learnt from")
        for model, collected in found.by_candidate.items():
            scores[model][step] = collected.scores
        for model, answers in _baselines(values[learnt], true[learnt], values[held_out], len(genres)).items():
            judged[model].add(one.part, true[held_out], answers, np.asarray(groups)[held_out])
    for model, of_rounds in scores.items():
        for number in range(len(trials)):
            _add_calibrated(
                judged[model],
                [(one, of_rounds[step]) for step, one in enumerate(rounds, 1) if one.split == number],
                true,
                np.asarray(groups),
            )
    return Comparison(*ranked(list(judged.values()), notices))


def _add_calibrated(
    judged: Judged,
    rounds: "Sequence[tuple[_Round, npt.NDArray[np.float64]]]",
    true: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
) -> None:
    """Add a candidate's answers of one split; the temperature fits those of cross-validation and validation part."""

    def of_part(part: str) -> HeldOutScores | None:
        own = [(scores, true[one.held_out]) for one, scores in rounds if one.part == part]
        return HeldOutScores(*(np.concatenate(found) for found in zip(*own, strict=True))) if own else None

    validated = of_part("cv")
    assert validated is not None  # noqa: S101 - every model is cross-validated
    _, temperature = cautious_temperature(validated, of_part("valid"))
    judged.temperatures.append(temperature)
    for one, scores in rounds:
        judged.add(one.part, true[one.held_out], tempered(scores, temperature), groups[one.held_out])


class _Round(NamedTuple):
    """One time that all candidates are trained."""

    split: int
    name: str
    learnt: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]

    @property
    def part(self) -> str:
        """What the round's answers are counted among: ``cv``, ``valid`` or ``test``."""
        return self.name if self.name in ("valid", "test") else "cv"

    @property
    def column(self) -> str:
        """The frame's column that says which side each row is on."""
        return f"split_{self.split}_{self.name.replace(' ', '_')}"


def foreign_scales(scales: Sequence[Scale], values: npt.NDArray[np.float64], columns: Sequence[str]) -> bool:
    """Return whether any scale is another than these rows have: it was learnt from other rows.

    Parameters
    ----------
    scales
        What a model standardises with.
    values
        Rows that it was trained on, shape (n, n_columns).
    columns
        Names of the columns.
    """
    for scale, column, raw in zip(scales, columns, values.T, strict=True):
        known = raw[~np.isnan(raw)]
        if scale.offset is not None and (scale.offset != logarithm_offset(column) or (known < 0).any()):
            return True
        if len(known) < 2 or scale.deviation == 0:
            continue
        known = known if scale.offset is None else np.log(known + scale.offset)
        near = 1e-6 * scale.deviation
        if abs(known.mean() - scale.mean) > near or abs(known.std(ddof=1) - scale.deviation) > near:
            return True
    return False


def _frame(
    spark: "SparkSession", table: "pd.DataFrame", columns: Sequence[str], rounds: Sequence[_Round]
) -> "tuple[DataFrame, list[str], list[str]]":
    """Bring the table to Spark; return it, the names of its feature columns there, and the genres by their index.

    Beside the features it has each row's number, genre and label, and a column for each round.
    """
    import pandas as pd

    names = [neutral_name(number, column) for number, column in enumerate(columns)]
    sent = pd.DataFrame(table[list(columns)].to_numpy(float), columns=names)
    sent.insert(0, "row", np.arange(len(table)))
    sent.insert(1, "genre", table["genre"].to_numpy())
    sides = {one.column: np.where(one.learnt, "train", np.where(one.held_out, "judged", "")) for one in rounds}
    sent = pd.concat([sent, pd.DataFrame(sides)], axis=1)
    indexed, genres = index_genres(spark.createDataFrame(sent).localCheckpoint())
    return indexed.localCheckpoint(), names, genres


def _baselines(
    values: npt.NDArray[np.float64], true: npt.NDArray[np.int64], judged: npt.NDArray[np.float64], n_genres: int
) -> dict[str, npt.NDArray[np.float64]]:
    counts = np.bincount(true, minlength=n_genres)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may have no value among these rows
        mean, deviation = (np.nan_to_num(found(values, axis=0)) for found in (np.nanmean, np.nanstd))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    learnt, asked = ((np.where(np.isnan(rows), mean, rows) - mean) * scale for rows in (values, judged))
    distances = np.full((len(asked), n_genres), np.inf)
    for genre in np.flatnonzero(counts):
        distances[:, genre] = np.linalg.norm(asked - learnt[true == genre].mean(axis=0), axis=1)
    return {
        "majority": np.tile(counts / counts.sum(), (len(asked), 1)),
        "nearest centroid": -distances,
    }


def ranked(judged: list[Judged], notices: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the figures of candidates and baselines, best first, and `notices` with those about the choice."""
    notices = list(notices)
    candidates = [one for one in judged if not one.is_baseline]
    rows: dict[str, dict[str, Any]] = {
        one.name: {"model": one.name, "chosen": False, "is_baseline": one.is_baseline}
        | {name: value for part in ("cv", "valid", "test") for name, value in one.figures(part).items()}
        | {"test_accuracy_by_split": one.by_trial, "temperature_by_split": one.temperatures}
        for one in judged
    }
    candidates.sort(key=lambda one: (-rows[one.name]["cv_accuracy"], rows[one.name]["cv_log_loss"]))
    best = candidates[0]
    rows[best.name]["chosen"] = True
    n = rows[best.name]["cv_n"]
    ties = [one for one in candidates[1:] if rows[one.name]["cv_accuracy"] == rows[best.name]["cv_accuracy"]]
    if ties:
        losses = ", ".join(f"{one.name} {rows[one.name]['cv_log_loss']:.3f}" for one in [best, *ties])
        notices.append(
            f"tie: equally many of {n} answers are right in cross-validation; the least log-loss decides: {losses}"
        )
    right = best.answers("cv")
    alike = []
    for one in candidates[1:]:
        theirs = one.answers("cv")
        assert right is not None and theirs is not None  # noqa: S101 - every model is cross-validated
        difference = right.right.astype(float) - theirs.right.astype(float)
        low, _ = accuracy_interval(difference, list(np.concatenate(best.groups["cv"])))
        if low <= 0:
            alike.append(one.name)
    if alike:
        notices.append(f"not told apart from {best.name} by {n} cross-validated answers: {', '.join(alike)}")
    for part, title in (("cv", "cross-validation"), ("valid", "the validation part"), ("test", "the test part")):
        if 0 < (count := rows[best.name][f"{part}_n"]) < FEW:
            notices.append(f"{title} has {count} clips: below {FEW} its figures mean little")
    order = [*candidates, *(one for one in judged if one.is_baseline)]
    return [rows[one.name] for one in order], notices

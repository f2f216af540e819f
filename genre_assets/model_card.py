"""The model card of a registered version: what it is, what it is worth, and what it must not be used for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from genre_assets.promotion import Answers, Verdict, calibration_error, f1_by_genre
from genres.audio.feature_set import AnyFeatureSet
from genres.store.ledger import Dataset
from genres.store.model_facts import ModelFacts

if TYPE_CHECKING:
    import pandas as pd

_PAIRS = 5
_NAMES = 4


def model_card(
    *,
    title: str,
    facts: ModelFacts,
    dataset: Dataset,
    feature_set: AnyFeatureSet,
    split: "pd.DataFrame",
    judged: "pd.DataFrame",
    genres: Sequence[str],
    verdict: Verdict,
    metrics: Mapping[str, float],
) -> str:
    """Write a version's card.

    Parameters
    ----------
    title
        Name and version of the model.
    facts
        What is known of the version.
    dataset, feature_set
        What it was trained on.
    split
        Columns ``genre`` and ``part``: the tracks of its training and their parts.
    judged
        The version's answers: ``track_id``, ``genre``, ``part`` and ``probabilities``, in the order of `genres`.
    verdict
        What the comparison with the champion of that time came to.
    metrics
        Of its calibration's run.

    Returns
    -------
    str
        Markdown.
    """
    from spark.evaluation import RESAMPLES

    about = "synthetic sound, which says nothing about music" if dataset.is_synthetic else f"dataset {dataset.dataset}"
    lines = [
        f"# {title}",
        f"{facts.classifier}, trained on {about}. {verdict.reason[:1].upper()}{verdict.reason[1:]}.",
        "",
        "## Data",
        *_data(split),
        "",
        f"Features: {feature_set.feature_version}, {len(feature_set.columns)} columns.",
        "",
        "## Figures",
        "",
        "| part | n | accuracy (95 %) | macro-F1 (95 %) | calibration error |",
        "|---|---|---|---|---|",
    ]
    for part in ("valid", "test"):
        rows = judged[judged["part"] == part]
        lines.append(_figures(part, rows, genres))
    lines += [
        "",
        "The validation part chose the model, so that its figures are too good; the test part only reports. Intervals "
        f"are over {RESAMPLES} resamples of the tracks; they say nothing about other music than this dataset's.",
        "",
        "## Calibration",
        "",
        *_calibration(facts, metrics),
        "",
        "## Worst confusions of the test part",
        "",
        *_confusions(judged[judged["part"] == "test"], genres),
        "",
        "## Not to be used",
        "",
        *_limits(facts, dataset, judged, genres, metrics),
    ]
    return "\n".join(lines)


def cut(card: str, longest: int) -> str:
    """Cut a card to what fits somewhere, at the end of a line, and say so."""
    note = "\n\n… the whole card is the run's artifact model_card.md"
    if len(card) <= longest:
        return card
    return card[: longest - len(note)].rsplit("\n", 1)[0] + note


def _data(split: "pd.DataFrame") -> list[str]:
    counts = split.groupby(["genre", "part"]).size().unstack(fill_value=0)
    parts = [part for part in ("train", "valid", "test", "excluded") if part in counts]
    table = [f"| genre | {' | '.join(parts)} |", f"|---|{'---|' * len(parts)}"]
    for genre, row in counts.iterrows():
        table.append(f"| {_cell(str(genre))} | {' | '.join(str(row[part]) for part in parts)} |")
    sums = counts.sum()
    return ["", *table, f"| all | {' | '.join(str(sums[part]) for part in parts)} |"]


def _figures(part: str, rows: "pd.DataFrame", genres: Sequence[str]) -> str:
    """Return a part's row of the table: each figure with the interval that the middle 95 % of resamples span."""
    import numpy as np

    from spark.evaluation import FEW, resamples

    if rows.empty:
        return f"| {part} | 0 | | | |"
    truth, answers = list(rows["genre"]), answers_of(rows, genres)
    weights = np.vstack([np.ones(len(truth)), resamples(len(truth))])
    hits = np.array([true == answer for true, answer in zip(truth, answers.predicted, strict=True)], dtype=float)
    labels = sorted(set(truth))
    f1 = f1_by_genre(truth, answers.predicted, labels, weights)
    # Of the genres that were drawn: in a small part some never are, and would count as never found.
    drawn = weights @ (np.array(truth)[:, np.newaxis] == np.array(labels)) > 0
    told = []
    for values in (weights @ hits / len(truth), np.mean(f1, axis=1, where=drawn)):
        low, high = np.quantile(values[1:], [0.025, 0.975])
        told.append(f"{values[0]:.3f} ({low:.2f} to {high:.2f})")
    few = ", little" if len(truth) < FEW else ""
    return f"| {part} | {len(truth)}{few} | {told[0]} | {told[1]} | {calibration_error(truth, answers):.3f} |"


def answers_of(rows: "pd.DataFrame", genres: Sequence[str]) -> Answers:
    """Return the answers that stand in the column ``probabilities``."""
    import numpy as np

    return Answers(tuple(genres), np.array(list(rows["probabilities"]), dtype=float).reshape(len(rows), len(genres)))


def _confusions(rows: "pd.DataFrame", genres: Sequence[str]) -> list[str]:
    """Return a line for each of the most frequent mistakes, with some of the tracks."""
    rows = rows.assign(answer=answers_of(rows, genres).predicted)
    wrong = rows[rows["genre"] != rows["answer"]]
    if wrong.empty:
        return [f"None of the {len(rows)} test tracks is taken for another genre."]
    pairs = sorted(wrong.groupby(["genre", "answer"]), key=lambda pair: (-len(pair[1]), pair[0]))
    of = Counter(rows["genre"])
    lines = []
    for (genre, answer), tracks in pairs[:_PAIRS]:
        named = ", ".join(f"`{track}`" for track in sorted(tracks["track_id"])[:_NAMES])
        more = f" and {len(tracks) - _NAMES} more" if len(tracks) > _NAMES else ""
        lines.append(f"- {genre} taken for {answer}: {len(tracks)} of {of[genre]} ({named}{more})")
    return lines


def _calibration(facts: ModelFacts, metrics: Mapping[str, float]) -> Iterator[str]:
    """Return how probabilities were made, which answers are certain, and what is unlike the training tracks."""
    if not facts.calibration:
        yield "There were too few training tracks: probabilities are as they come, and every answer is uncertain."
        return
    n = f"{metrics['calibration_rows']:.0f} answers about tracks that were not learnt from"
    yield (
        f"- Probabilities: {facts.calibration}. Of these {n}, the expected calibration error is "
        f"{metrics['calibration_ece']:.3f}; without, it would be {metrics['calibration_ece_before']:.3f}."
    )
    if share := metrics["certain_share"]:
        yield (
            f"- Certain from a probability of {facts.certain_from:.2f} on: {share:.0%} of the {n}, of which "
            f"{metrics['certain_accuracy']:.3f} are right. All others are marked as uncertain."
        )
    else:
        yield f"- Every answer is marked as uncertain: from no probability on are enough of the {n} right."
    if "distance_threshold" in metrics:
        shares = [
            f"{metrics[f'{part}_unlike_share']:.1%} of the {metrics[f'{part}_rows']:.0f} {part} tracks"
            for part in ("valid", "test")
            if f"{part}_unlike_share" in metrics
        ]
        yield (
            "- `is_unlike` marks clips whose sound is further from the training tracks than nearly all music that was "
            f"not learnt from: noise, silence, speech, tones; and {' and '.join(shares)}. Their genre means nothing."
        )
    else:
        yield "- It cannot tell what is unlike its training tracks: none of its features measures the sound."


def _limits(
    facts: ModelFacts, dataset: Dataset, judged: "pd.DataFrame", genres: Sequence[str], metrics: Mapping[str, float]
) -> Iterator[str]:
    from spark.evaluation import FEW

    nothing_else = f"- On anything that is not one of {', '.join(genres)}: it knows no other answer"
    if "distance_threshold" in metrics:
        yield (
            f"{nothing_else}. Much of what is no music is marked by `is_unlike`; music of another genre is not, and "
            "may be given one of these with a high probability."
        )
    else:
        yield f"{nothing_else}, and gives one of these to speech, noise and silence too, often with a high probability."
    if dataset.is_synthetic:
        yield "- On music: it was trained on synthetic sound, to show that the pipeline works."
    if not facts.is_calibrated:
        yield "- As a probability: its scores order the genres, but are calibrated to nothing."
    if (tests := int((judged["part"] == "test").sum())) < FEW:
        yield f"- As a measure of anything: it was tested on {tests} tracks, fewer than {FEW}."
    yield (
        "- On recordings unlike the training data's (their years, countries, loudness and formats) without a test of "
        "its own; one artist's tracks may be on both sides of the split."
    )
    yield "- For decisions about people or rights, or without a person where a wrong label does harm."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

"""Held-out answers: candidates are fitted to some rows and asked about others, once or fold by fold."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spark.classifiers import Candidate, Scale, prepare
from spark.evaluation import Answers, CollectedAnswers, collect_answers

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_AT_A_TIME = 2
"""Models in training: one's small jobs leave the cores idle half of the time."""


class HeldOutAnswers(NamedTuple):
    """What candidates answered about rows that they were not fitted to."""

    scales: tuple[Scale, ...]
    """How the columns were standardised."""
    by_candidate: dict[str, CollectedAnswers]


def held_out_answers(
    rows: "DataFrame", *, columns: Sequence[str], genres: Sequence[str], candidates: Sequence[Candidate], key: str
) -> HeldOutAnswers:
    """Fit candidates to the training part of some rows, and ask them about the others.

    Parameters
    ----------
    rows
        As for `spark.classifiers.prepare`, with the column `key`.
    columns
        The feature columns.
    genres
        The genres by their index.
    key
        A column that tells the rows apart; the answers are in its order.
    """
    from pyspark.util import inheritable_thread_target

    prepared = prepare(rows, columns=columns, genres=genres, keep=[key])

    def train(candidate: Candidate) -> tuple[str, CollectedAnswers]:
        _, model = prepared.fit(candidate)
        predictions = model.transform(prepared.judged)
        gives_probability = candidate.gives_probability
        return candidate.name, collect_answers(
            predictions, gives_probability=gives_probability, n_genres=len(genres), keep=key
        )

    # MLlib asks for the session of the thread that it is called in.
    in_session = inheritable_thread_target(rows.sparkSession)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return HeldOutAnswers(prepared.scales, dict(pool.map(in_session(train), candidates)))


def out_of_fold_answers(
    rows: "DataFrame",
    *,
    columns: Sequence[str],
    genres: Sequence[str],
    candidate: Candidate,
    key: str,
    folds: Mapping[str, int],
) -> CollectedAnswers:
    """Return what a candidate answers about each row when it is fitted to the other folds' rows, in the key's order.

    Parameters
    ----------
    rows
        Checkpointed DataFrame: `columns`, `key`, ``genre`` and ``label``.
    columns, genres, key
        As for `held_out_answers`.
    folds
        Fold of each row, by its key.
    """
    import pandas as pd
    from pyspark.sql import functions as sf
    from pyspark.util import inheritable_thread_target

    spark = rows.sparkSession
    numbers = spark.createDataFrame(pd.DataFrame({key: list(folds), "fold": list(folds.values())}))
    joined = rows.join(numbers, key).localCheckpoint()

    def ask(fold: int) -> CollectedAnswers:
        part = sf.when(sf.col("fold") == fold, "judged").otherwise("train")
        found = held_out_answers(
            joined.withColumn("part", part), columns=columns, genres=genres, candidates=[candidate], key=key
        )
        return found.by_candidate[candidate.name]

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = list(pool.map(inheritable_thread_target(spark)(ask), sorted(set(folds.values()))))
    keys = np.concatenate([one.keys for one in found])
    true = np.concatenate([one.answers.true for one in found])
    probabilities = np.concatenate([one.answers.probabilities for one in found])
    scores = np.concatenate([one.scores for one in found])
    order = np.argsort(keys, kind="stable")
    return CollectedAnswers(keys[order], Answers(true[order], probabilities[order]), scores[order])

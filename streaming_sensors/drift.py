"""Drift: how far the stream's clips and answers are from what its model was trained on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from genres.audio.feature_sets import feature_set_of
from genres.plurals import counted
from genres.store import predictions, stream_features
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import ranges
from genres_dagster.checks import check
from streaming_sensors.stream import Stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

MOST_DRIFTED = 0.25
"""Share of the features that may have drifted."""
_DRIFT = 0.25
"""A population stability index above which a distribution counts as another one; the usual limit."""
_CHANCE = 0.95
_BINS = 10
_RECENT_RANGES = 50
_LOOKED_AT = 500
"""Ranges among which those that the newest model scored are looked for."""


def drift_checks(
    table: "pd.DataFrame", stream: Stream, database: Database, lake: Lake, *, dataset: str
) -> Iterator[dg.AssetCheckResult]:
    """Compare the newest model's clips and answers with those that it was trained on.

    Ranges that another model scored, or a model of another dataset, say nothing about this one and are left out.

    Parameters
    ----------
    table
        The stream's newest rows of ``stream_predictions``, oldest first.
    dataset
        The id of the dataset whose champion scores the stream.
    """
    own = table[table["dataset"] == dataset]
    if own.empty:
        for name in ("feature_drift", "prediction_drift"):
            yield check(
                name,
                False,
                dataset=dataset,
                expected=f"predictions by a model of dataset {dataset}",
                actual=f"none of the newest {len(table)} is",
                warn=True,
            )
        return
    newest = own.iloc[-1]
    version = int(newest["model_version"])
    scored = own[(own["model_name"] == newest["model_name"]) & (own["model_version"] == version)]
    batch = predictions.batch_predictions(database, dataset, model_version=version)
    yield _feature_drift(batch, stream, database, lake, newest)
    answers, reference = list(scored["predicted_genre"]), [row["predicted_genre"] for row in batch]
    yield _prediction_drift(answers, reference, dataset=dataset)


def feature_shifts(stream: "pd.DataFrame", training: "pd.DataFrame", columns: Sequence[str]) -> "pd.Series":
    """How far each column's mean has moved, in standard deviations of the training set."""
    import numpy as np

    wanted = list(columns)
    spread = training[wanted].std().replace(0, np.nan)
    return ((stream[wanted].mean() - training[wanted].mean()) / spread).abs().fillna(0)


def stability_index(expected: "npt.NDArray[np.number]", actual: "npt.NDArray[np.number]") -> float:
    """Population stability index of two counts of the same bins.

    Half a clip is added to each bin, since one that is empty on one side has no logarithm.

    Parameters
    ----------
    expected, actual
        Counts, shape (n_bins,).
    """
    import numpy as np

    shares = [(counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, actual)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def stability_limit(bins: int, expected: int, actual: int) -> float:
    """Return the index above which a distribution has drifted: the usual .25, and what chance alone may add to it.

    Of two samples of one distribution the index, divided by the sum of the samples' reciprocals, has about a
    chi-squared distribution with a degree of freedom less than there are bins; its 95th percentile is allowed for.

    Parameters
    ----------
    bins
        How many there are.
    expected, actual
        Clips in the two samples.
    """
    from scipy.stats import chi2

    return _DRIFT + float(chi2.ppf(_CHANCE, max(bins - 1, 1))) * (1 / expected + 1 / actual)


def feature_stability(
    stream: "pd.DataFrame", training: "pd.DataFrame", columns: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Index and limit of each column, over the tenths of its values in training.

    A column that never varied in training has no tenths, and index 0.
    """
    import numpy as np

    found = {}
    for column in columns:
        reference, arrived = training[column].to_numpy(), stream[column].to_numpy()
        edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
        bins = len(edges) + 1
        counts = [np.bincount(np.searchsorted(edges, values), minlength=bins) for values in (reference, arrived)]
        constant = reference.min() == reference.max()
        index = 0.0 if constant else stability_index(*counts)
        found[column] = index, stability_limit(bins, len(reference), len(arrived))
    return found


def _feature_drift(
    batch: list[dict[str, object]], stream: Stream, database: Database, lake: Lake, newest: "pd.Series"
) -> dg.AssetCheckResult:
    import pandas as pd

    feature_set = feature_set_of(newest["feature_version"])
    version = feature_set.feature_version
    committed = [
        found
        for found in ranges.history(database, stream.topic, states={"committed"}, newest=_LOOKED_AT)
        if (found.model_name, found.model_version) == (newest["model_name"], newest["model_version"])
    ][-_RECENT_RANGES:]
    stored = [found for found in committed if found.feature_path and found.feature_version == version]
    training = BatchTables(lake, database, newest["dataset"]).features(version)
    trained_on = {row["sha256"] for row in batch if row["part"] == "train"}
    if trained_on:  # else the model's own tracks are not known, and all of the dataset's stand for them
        training = training[training["sha256"].isin(trained_on)]
    arrived = (
        stream_features.read(lake, stored, lists=False).to_pandas() if stored else pd.DataFrame(columns=["reason"])
    )
    arrived = arrived[arrived["reason"].isna()]
    if arrived.empty or training.empty:
        return check(
            "feature_drift",
            False,
            dataset=newest["dataset"],
            expected=f"features {version} of arrived clips and of the training set",
            actual=f"{counted(len(arrived), 'clip')} with some in the newest {_RECENT_RANGES} ranges, "
            f"{counted(len(training), 'track')} with some",
            warn=True,
        )
    found = feature_stability(arrived, training, feature_set.columns)
    shifts = feature_shifts(arrived, training, feature_set.columns)
    drifted = {name: index for name, (index, limit) in found.items() if index > limit}
    worst = sorted(drifted, key=lambda name: -drifted[name])
    return check(
        "feature_drift",
        len(drifted) <= MOST_DRIFTED * len(found),
        dataset=newest["dataset"],
        expected=f"at most {MOST_DRIFTED:.0%} of the features with a population stability index above {_DRIFT:g} and "
        "what chance may add",
        actual=f"{len(drifted)} of {len(found)}, {counted(len(arrived), 'clip')} beside "
        f"{counted(len(training), 'training track')}",
        warn=True,
        drifted_share=len(drifted) / len(found),
        drifted=dg.MetadataValue.json(
            {
                name: {
                    "index": round(found[name][0], 3),
                    "limit": round(found[name][1], 3),
                    "mean_moved_by_deviations": round(float(shifts[name]), 2),
                }
                for name in worst
            }
        ),
    )


def _prediction_drift(answers: list[str], reference: list[str], *, dataset: str) -> dg.AssetCheckResult:
    """Compare the genres that are predicted for the stream with those that the same model predicts for its dataset."""
    import numpy as np

    name = "prediction_drift"
    if not reference:
        return check(
            name,
            False,
            dataset=dataset,
            expected="batch predictions of the same model version",
            actual="none: materialize batch_predictions",
            warn=True,
        )
    genres = sorted({*answers, *reference})
    expected, actual = (np.array([rows.count(genre) for genre in genres]) for rows in (reference, answers))
    index, limit = stability_index(expected, actual), stability_limit(len(genres), len(reference), len(answers))
    return check(
        name,
        index <= limit,
        dataset=dataset,
        expected=f"a population stability index of at most {limit:.2f}",
        actual=f"{index:.2f}, {counted(len(answers), 'answer')} beside {len(reference):,} about the dataset",
        warn=True,
        shares=dg.MetadataValue.json(
            {
                genre: {"dataset": round(float(dataset), 3), "stream": round(float(streamed), 3)}
                for genre, dataset, streamed in zip(
                    genres, expected / expected.sum(), actual / actual.sum(), strict=True
                )
            }
        ),
    )

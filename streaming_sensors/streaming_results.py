"""``streaming_results``: what the stream predicted, as figures and checks; made anew as predictions arrive."""

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.audio.feature_sets import DEFAULT_FEATURE_SET
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger, stream_ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres_dagster.checks import check, check_spec
from genres_dagster.figures import figure_metadata, new_figure
from genres_dagster.partitions import OWNERS, provenance
from genres_dagster.resources import LakeResource
from streaming_sensors.sensors import lag
from streaming_sensors.stream_run import stream_dataset
from streaming_sensors.topic import topic_state

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ASSET = "streaming_results"
_SHOWN_CLIPS = 2000
_MOST_QUARANTINED = 0.2
_STALE = timedelta(minutes=10)
_SHIFT = 1.0
"""A feature has drifted when its mean moved by more than this many standard deviations of the training set."""
_MOST_DRIFTED = 0.25
_RECENT_RANGES = 50
_EVERY_S = 30
_EVERY_S_WHILE_DRAINING = 120
"""Figures are drawn more seldom while a run works on clips, whose cores they would take."""


@dg.asset(
    name=_ASSET,
    deps=["stream_predictions"],
    group_name="streaming",
    kinds={"python", "matplotlib", "sql"},
    owners=OWNERS,
    description="Genres over time, confidence, latency and running accuracy of the newest predictions, with checks of "
    "lag, freshness, quarantine, labels and drift.",
    check_specs=[
        check_spec(_ASSET, "consumer_lag", "The topic holds no more unread clips than two batches."),
        check_spec(_ASSET, "freshness", "If clips wait, the newest prediction is younger than ten minutes."),
        check_spec(_ASSET, "quarantine_rate", "At most a fifth of the clips are refused."),
        check_spec(_ASSET, "label_set", "Only the model's genres are predicted."),
        check_spec(_ASSET, "feature_drift", "At most a quarter of the features have drifted from the training set."),
        check_spec(_ASSET, "batch_checks", "No check of a committed range failed."),
    ],
)
def streaming_results(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: LakeResource,
    database: dg.ResourceParam[Database],
) -> dg.MaterializeResult:
    """Draw and check the newest predictions."""
    import pandas as pd

    database.check_migrated()
    rows = stream_ledger.stream_predictions(database, limit=_SHOWN_CLIPS)
    if not rows:
        raise GenresError("the stream has predicted nothing yet: drop clips in the folder that `genres watch` watches")
    table = pd.DataFrame(rows)
    dataset = ledger.registered_dataset(database, stream_dataset(settings))
    data = provenance(dataset)
    latencies = table["latency_s"]
    return dg.MaterializeResult(
        metadata={
            "data": data,
            "dagster/row_count": len(table),
            "latency_p50_s": float(latencies.quantile(0.5)),
            "latency_p95_s": float(latencies.quantile(0.95)),
            "figure": figure_metadata(results_figure(table, data=data)),
        },
        check_results=list(_checks(table, settings, database, lake.open())),
    )


results_job = dg.define_asset_job("streaming_results_job", selection=dg.AssetSelection.assets(streaming_results))


@dg.sensor(
    job=results_job,
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes streaming_results anew when there are new predictions.",
)
def streaming_results_sensor(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
) -> dg.SensorResult | dg.SkipReason:
    """Request a run when the newest prediction is another than at the last request."""
    try:
        database.check_migrated()
    except GenresError as error:
        return dg.SkipReason(str(error))
    newest = stream_ledger.stream_predictions(database, limit=1)
    if not newest:
        return dg.SkipReason("the stream has predicted nothing yet")
    mark = str(newest[0]["predicted_at"])
    if mark == context.cursor:
        return dg.SkipReason("no prediction since the last figures")
    drawn = context.instance.get_latest_materialization_event(dg.AssetKey(_ASSET))
    age_s = time.time() - drawn.timestamp if drawn else math.inf
    if age_s < _EVERY_S_WHILE_DRAINING and stream_ledger.lease_is_held(database, settings.topic):
        return dg.SkipReason(f"a run is draining {settings.topic}: the figures wait until it is done or they are old")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=mark)], cursor=mark)


def results_figure(table: "pd.DataFrame", *, data: str) -> "Figure":
    """Draw genres over time, confidence, latency and running accuracy.

    Parameters
    ----------
    table
        Rows of ``stream_predictions``, oldest first.
    """
    import pandas as pd

    figure, axes = new_figure(12, 8, title=f"The newest {len(table)} predictions", data=data, nrows=2, ncols=2)
    counts = pd.crosstab(table["predicted_at"], table["predicted_genre"]).cumsum()
    axes[0, 0].stackplot(counts.index, counts.T.to_numpy(), labels=list(counts.columns), step="post")
    axes[0, 0].set_title("predicted genres, added up over time")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    axes[0, 1].hist(table["probability"], bins=20, range=(0, 1))
    calibrated = "" if table["is_calibrated"].all() else " (uncalibrated)"
    axes[0, 1].set_title(f"probability of the predicted genre{calibrated}")
    axes[1, 0].plot(table["predicted_at"], table["latency_s"], ".", markersize=4)
    p50, p95 = table["latency_s"].quantile([0.5, 0.95])
    axes[1, 0].set_title(f"seconds from file to row: p50 {p50:.1f}, p95 {p95:.1f}")
    axes[1, 0].set_ylim(bottom=0)
    known = table[table["genre"].notna()]
    right = (known["genre"] == known["predicted_genre"]).expanding().mean()
    axes[1, 1].plot(range(1, len(right) + 1), right)
    axes[1, 1].set_ylim(0, 1)
    axes[1, 1].set_title(f"running accuracy of the {len(known)} clips whose genre is known")
    for axis in (axes[0, 0], axes[1, 0]):
        axis.tick_params(axis="x", rotation=30, labelsize=7)
    return figure


def feature_shifts(stream: "pd.DataFrame", training: "pd.DataFrame") -> "pd.Series":
    """How far each feature's mean has moved, in standard deviations of the training set."""
    import numpy as np

    columns = list(DEFAULT_FEATURE_SET.columns)
    spread = training[columns].std().replace(0, np.nan)
    return ((stream[columns].mean() - training[columns].mean()) / spread).abs().fillna(0)


def _checks(table: "pd.DataFrame", settings: Settings, database: Database, lake: Lake) -> Iterator[dg.AssetCheckResult]:
    waiting = lag(settings, database, topic_state(settings, settings.topic))
    allowed = 2 * settings.max_clips_per_batch
    yield check(
        "consumer_lag", waiting <= allowed, expected=f"at most {allowed} clips", actual=f"{waiting} clips", warn=True
    )
    age = datetime.now(UTC) - table["predicted_at"].max()
    yield check(
        "freshness",
        not waiting or age < _STALE,
        expected=f"younger than {_STALE} while clips wait",
        actual=f"{age} old, {waiting} clips wait",
        warn=True,
    )
    refused = len(stream_ledger.stream_quarantine(database))
    rate = refused / (refused + table["sha256"].nunique())
    yield check(
        "quarantine_rate",
        rate <= _MOST_QUARANTINED,
        expected=f"at most {_MOST_QUARANTINED:.0%}",
        actual=f"{rate:.1%} ({refused} clips)",
        warn=True,
    )
    answers = zip(table["predicted_genre"], table["probabilities"], strict=True)
    strange = sorted({genre for genre, probabilities in answers if genre not in probabilities})
    yield check("label_set", not strange, expected="the model's genres", actual=f"others: {strange or 'none'}")
    yield _drift(settings, database, lake)
    failed = stream_ledger.stream_checks(database, failed_only=True)
    yield check(
        "batch_checks",
        not failed,
        expected="every range passed its checks",
        actual=f"{len(failed)} failed",
        failed=dg.MetadataValue.json(
            [f"{row['partition_key']} {row['check_name']}: {row['actual']}" for row in failed][:50]
        ),
    )


def _drift(settings: Settings, database: Database, lake: Lake) -> dg.AssetCheckResult:
    import pandas as pd

    committed = stream_ledger.history(database, settings.topic, states={"committed"})[-_RECENT_RANGES:]
    version = DEFAULT_FEATURE_SET.feature_version
    paths = [found.feature_path for found in committed if found.feature_path and found.feature_version == version]
    training = BatchTables(lake, database, stream_dataset(settings)).features(version)
    stream: Any = lake.read_table(paths).to_pandas() if paths else pd.DataFrame(columns=["reason"])
    stream = stream[stream["reason"].isna()]
    if stream.empty or training.empty:
        return check("feature_drift", True, expected="features to compare", actual="none yet", warn=True)
    shifts = feature_shifts(stream, training)
    drifted = shifts[shifts > _SHIFT].sort_values(ascending=False)
    return check(
        "feature_drift",
        len(drifted) <= _MOST_DRIFTED * len(shifts),
        expected=f"at most {_MOST_DRIFTED:.0%} of the means moved by more than {_SHIFT:g} standard deviations",
        actual=f"{len(drifted)} of {len(shifts)} did, over {len(stream)} clips",
        warn=True,
        drifted=dg.MetadataValue.json({str(name): round(float(shift), 2) for name, shift in drifted.items()}),
    )

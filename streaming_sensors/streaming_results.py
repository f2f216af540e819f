"""``streaming_results``: what a stream predicted, as figures and checks; drawn again as predictions arrive."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.errors import GenresError
from genres.plurals import counted
from genres.settings import Settings
from genres.store import ledger
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.stream_ledger import leases, ranges, results
from genres_dagster.checks import check, check_label_set, check_spec
from genres_dagster.figures import figure_metadata, new_figure, over_time_figure
from genres_dagster.partitions import OWNERS, provenance
from genres_dagster.resources import LakeResource
from streaming_sensors.drift import drift_checks
from streaming_sensors.stream import Stream

if TYPE_CHECKING:
    import pandas as pd
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
    from matplotlib.figure import Figure

_SHOWN_CLIPS = 2000
_SHOWN_REFUSALS = 50
_EVERY_S = 30
_EVERY_S_WHILE_DRAINING = 120
"""Figures are drawn more rarely while a run works on clips, whose cores they would take."""
JOB = "streaming_results_job"


def build_streaming_results(stream: Stream) -> dg.AssetsDefinition:
    """Build the asset that draws and checks the stream's newest predictions."""
    asset = stream.results

    @dg.asset(
        key=asset,
        deps=[stream.predictions],
        group_name=stream.group,
        kinds={"python", "matplotlib", "sql"},
        owners=OWNERS,
        description="Genres over time, confidence, latency and running accuracy of the newest predictions, the "
        "newest clips from window to window, with checks of labels, drift and the ranges' own checks.",
        check_specs=[
            check_spec(asset, "label_set", "The models' genres are those of the datasets; no other is predicted."),
            check_spec(asset, "feature_drift", "At most a quarter of the features have drifted from the training set."),
            check_spec(asset, "prediction_drift", "The genres are predicted about as often as for the dataset itself."),
            check_spec(asset, "batch_checks", "Each range had, when it was committed, a row for every confirmed clip."),
        ],
    )
    def streaming_results(
        settings: dg.ResourceParam[Settings], lake: LakeResource, database: dg.ResourceParam[Database]
    ) -> dg.MaterializeResult:
        """Draw and check the newest predictions."""
        import pandas as pd

        database.check_migrated()
        # Of the dataset that scores the stream now: another one's genres and accuracy are another thing.
        meant = stream.dataset(settings, database)
        rows = results.predictions(database, topic=stream.topic, dataset=meant, limit=_SHOWN_CLIPS)
        if not rows:
            raise GenresError(
                f"{_nothing_yet(stream, database, meant)}: drop clips that are new in "
                f"{stream.settings.watch_folder}, which `genres watch` watches"
            )
        table = pd.DataFrame(rows)
        dataset = ledger.registered_dataset(database, meant)
        data = provenance(dataset)
        latencies = table["latency_s"]
        curves = over_time_figure(rows[::-1], name="file_name", title="the newest clips", data=data)
        return dg.MaterializeResult(
            metadata={
                "data": data,
                "dagster/row_count": len(table),
                "latency_p50_s": float(latencies.quantile(0.5)),
                "latency_p95_s": float(latencies.quantile(0.95)),
                "uncertain": _marked(table, "is_uncertain"),
                "unlike_anything_learnt": _marked(table, "is_unlike"),
                "refused": dg.MetadataValue.json(_refused(results.quarantine(database, topic=stream.topic))),
                "figure": figure_metadata(results_figure(table, data=data)),
                **({"over_time": figure_metadata(curves)} if curves else {}),
            },
            check_results=list(_checks(table, stream, settings, database, lake.open())),
        )

    return streaming_results


def build_results_job(stream: Stream) -> "UnresolvedAssetJobDefinition":
    """Build the job of the stream's figures."""
    return dg.define_asset_job(stream.named(JOB), selection=dg.AssetSelection.assets(stream.results))


def build_streaming_results_sensor(stream: Stream) -> dg.SensorDefinition:
    """Build the sensor that asks for figures when the newest prediction is another than at the last request.

    An automation condition cannot do the same: how often figures are drawn depends on the topic's lease.
    """

    @dg.sensor(
        name=stream.named("streaming_results_sensor"),
        job_name=stream.named(JOB),
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Draws streaming_results again when there are new predictions.",
    )
    def streaming_results_sensor(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            database.check_migrated()
        except GenresError as error:
            return dg.SkipReason(str(error))
        meant = stream.dataset(settings, database)
        newest = results.predictions(database, topic=stream.topic, dataset=meant, limit=1)
        if not newest:
            return dg.SkipReason(_nothing_yet(stream, database, meant))
        mark = str(newest[0]["predicted_at"])
        if mark == context.cursor:
            return dg.SkipReason("no prediction since the last figures")
        drawn = context.instance.get_latest_materialization_event(stream.results)
        age_s = time.time() - drawn.timestamp if drawn else math.inf
        if age_s < _EVERY_S_WHILE_DRAINING and _is_busy(database, stream, settings):
            return dg.SkipReason(f"a run is draining {stream.topic}: the figures wait until it is done or they are old")
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=mark)], cursor=mark)

    return streaming_results_sensor


def _nothing_yet(stream: Stream, database: Database, dataset: str) -> str:
    """Say that there is nothing to draw, and where the rows of its clips are, if it was not the first to have them."""
    said = f"stream {stream.topic} has predicted nothing by dataset '{dataset}' yet"
    clips = results.scored_elsewhere(database, topic=stream.topic, dataset=dataset)
    if not clips:
        return said
    return f"{said} ({counted(clips, 'clip')} sent to it had a row by that dataset's models from another stream before)"


def _is_busy(database: Database, stream: Stream, settings: Settings) -> bool:
    """Whether clips are worked on; a resident process holds its lease while there are none, too."""
    held_by = leases.holders(database, stream.topic, settings.lease_s).values()
    is_held_by_run = any(leases.Resident.parse(holder) is None for holder in held_by)
    return is_held_by_run or (bool(held_by) and stream.topic in ranges.topics_with_planned(database))


def results_figure(table: "pd.DataFrame", *, data: str) -> "Figure":
    """Draw genres over time, confidence, latency and running accuracy.

    Parameters
    ----------
    table
        Rows of ``stream_predictions``, oldest first.
    """
    import pandas as pd
    from matplotlib.ticker import LogLocator, NullFormatter

    n = len(table)
    figure, axes = new_figure(12, 8, title=f"The newest {n} predictions", data=data, nrows=2, ncols=2)
    counts = pd.crosstab(table["predicted_at"], table["predicted_genre"]).cumsum()
    axes[0, 0].stackplot(counts.index, counts.T.to_numpy(), labels=list(counts.columns), step="post")
    axes[0, 0].set_title("predicted genres, added up over time")
    axes[0, 0].set_ylabel(f"clips, added up (n = {n})")
    axes[0, 0].legend(fontsize=7, loc="upper left")
    axes[0, 1].hist(table["probability"], bins=20, range=(0, 1))
    calibrated = "" if table["is_calibrated"].all() else " (uncalibrated)"
    uncertain, unlike = _marked(table, "is_uncertain"), _marked(table, "is_unlike")
    axes[0, 1].set_title(
        f"probability of the predicted genre{calibrated}: {uncertain} uncertain, {unlike} unlike anything learnt",
        fontsize=10,
    )
    axes[0, 1].set_xlabel("probability")
    axes[0, 1].set_ylabel(f"clips (n = {n})")
    # Outages and backlogs make some latencies a thousand times the usual one, which would lie on the axis else.
    axes[1, 0].set_yscale("log", nonpositive="mask")
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter("{x:g}")
    axes[1, 0].yaxis.set_minor_formatter(NullFormatter())
    axes[1, 0].plot(table["predicted_at"], table["latency_s"], ".", markersize=4)
    # A producer whose clock is ahead sends clips that were made after their rows.
    hidden = int(table["latency_s"].le(0).sum())
    axes[1, 0].set_ylabel(f"latency, s (n = {n}{f'; {hidden} not above 0 are left out' if hidden else ''})")
    p50, p95 = table["latency_s"].quantile([0.5, 0.95])
    axes[1, 0].set_title(f"seconds from file to row: p50 {p50:.1f}, p95 {p95:.1f}")
    known = table[table["genre"].notna()]
    right = (known["genre"] == known["predicted_genre"]).expanding().mean()
    axes[1, 1].plot(range(1, len(right) + 1), right)
    axes[1, 1].set_ylim(0, 1)
    axes[1, 1].set_xlabel("clips whose genre is known, in their order")
    axes[1, 1].set_ylabel(f"share of right answers (n = {len(known)})")
    axes[1, 1].set_title(f"running accuracy of the {counted(len(known), 'clip')} whose genre is known")
    for axis in (axes[0, 0], axes[1, 0]):
        axis.set_xlabel("when it was predicted (UTC)")
        axis.tick_params(axis="x", rotation=30, labelsize=7)
    return figure


def _marked(table: "pd.DataFrame", column: str) -> int:
    """Count the rows that a column marks; it is empty in those of models that do not know."""
    return int(table[column].eq(True).sum())


def _refused(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the newest refused clips that nobody has accepted or judged again since, with their reasons."""
    return {f"{row['file_name']} ({row['sha256'][:12]})": row["reason"] for row in rows[: -_SHOWN_REFUSALS - 1 : -1]}


def _checks(
    table: "pd.DataFrame", stream: Stream, settings: Settings, database: Database, lake: Lake
) -> Iterator[dg.AssetCheckResult]:
    dataset = stream.dataset(settings, database)
    yield _labels(table, database, lake)
    yield from drift_checks(table, stream, database, lake, dataset=dataset)
    failed = results.checks(database, topic=stream.topic, failed_only=True)
    yield check(
        "batch_checks",
        not failed,
        dataset=dataset,
        expected="every range passed its checks",
        actual=f"{len(failed)} failed",
        failed=dg.MetadataValue.json(
            [f"{row['partition_key']} {row['check_name']}: {row['actual']}" for row in failed][:50]
        ),
    )


def _labels(table: "pd.DataFrame", database: Database, lake: Lake) -> dg.AssetCheckResult:
    """Compare what the newest predictions' models answer, and could, with the genres of that dataset's manifest."""
    dataset = table["dataset"].iloc[-1]
    rows = table[table["dataset"] == dataset]
    return check_label_set(
        dataset=dataset,
        predicted=set(rows["predicted_genre"]),
        known_to_model=set(rows["probabilities"].iloc[-1]),
        in_dataset=set(BatchTables(lake, database, dataset).accepted()["genre"]),
    )

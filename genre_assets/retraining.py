"""When a dataset is trained on again without anybody asking: its audio changed, a week has passed, or drift stays.

Such a training ends as any other does: the new version takes the champion's place only if it is fairly better.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import dagster as dg

from genres.errors import GenresError
from genres.settings import Settings, StreamSettings
from genres.store import ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import TRAINING, ModelRegistry
from genres_dagster.checks import outcome_of
from genres_dagster.partitions import DATASETS

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

CHANGED_SHARE = 0.1
"""A dataset is trained on again when more than this share of its clips came, went or were replaced."""
_RED_TIMES = 3
_RED_FOR = timedelta(hours=1)
_LOOKED_AT = 100
_WEEKLY = "0 3 * * 1"
_CHAIN = (
    *("audio_features", "track_split", "genre_classifiers", "calibrated_classifier", "champion_model"),
    "batch_predictions",
)


class RawAudioChanged(dg.AutomationCondition):
    """True for a dataset of whose clips more than a tenth are others than its newest training knew.

    Parameters
    ----------
    changed_share
        Returns the share for a dataset's id; None for a dataset that was never trained on.
    """

    def __init__(self, changed_share: Callable[[str], float | None]) -> None:
        self._changed_share = changed_share

    @property
    def name(self) -> str:
        """What Dagster calls the condition."""
        return f"more than {CHANGED_SHARE:.0%} of the clips changed since the newest training"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Look at the candidates only: those whose manifest is new."""
        candidates = context.candidate_subset
        changed = {
            key
            for key in candidates.expensively_compute_partition_keys()
            if (share := self._changed_share(key)) is not None and share > CHANGED_SHARE
        }
        return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(changed))


def with_retraining(assets: Sequence[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets, those that come after ``raw_audio`` with the condition under which they are made again.

    The figures keep their own condition: they follow what they show.
    """
    is_changed = RawAudioChanged(lambda dataset: changed_since_training(settings, dataset))
    is_new = _of_asset("raw_audio", dg.AutomationCondition.newly_updated())
    follows = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    # A run of the chain makes its assets one after the other, and has but those in progress that are not yet made.
    is_idle = reduce(and_, (~_of_asset(name, dg.AutomationCondition.in_progress()) for name in _CHAIN))
    # What is new is so for one tick alone: a manifest that comes while a training is under way waits for its end.
    waits = is_new.since(is_idle)
    waited = (~waits).newly_true() & ~dg.AutomationCondition.initial_evaluation()
    # The manifests are read last, and only those of datasets that have a new one.
    first: dg.AutomationCondition = (is_new | waited) & is_idle & is_changed
    conditions = {name: first if name == _CHAIN[0] else follows for name in _CHAIN}

    def conditioned(spec: dg.AssetSpec) -> dg.AssetSpec:
        condition = conditions.get(spec.key.to_user_string())
        return spec if condition is None else spec.replace_attributes(automation_condition=condition)

    return [asset.map_asset_specs(conditioned) for asset in assets]


def _of_asset(name: str, condition: dg.AutomationCondition) -> dg.AutomationCondition:
    return dg.AutomationCondition.asset_matches(dg.AssetKey(name), condition)


def build_retraining_sensor() -> dg.AutomationConditionSensorDefinition:
    """Build the sensor that evaluates these conditions; Dagster's daemon alone does not know this project's."""
    with warnings.catch_warnings():
        # Dagster says so in every process that loads the location; what is used of it has a test.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            "retrain_on_changed_audio",
            target=dg.AssetSelection.assets(*_CHAIN),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=60,
            use_user_code_server=True,
            description=f"Trains again when more than {CHANGED_SHARE:.0%} of a dataset's clips are others than the "
            "newest training knew. A dataset that was never trained on is left alone.",
        )


def build_weekly_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Build the schedule that trains every dataset again each Monday night; it is off until somebody turns it on."""

    @dg.schedule(
        name="retrain_weekly",
        job=job,
        cron_schedule=_WEEKLY,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="The whole batch half for each dataset that was trained on before, Mondays at three. Off unless "
        "turned on.",
    )
    def retrain_weekly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        trained = _trained_datasets(context.instance)
        if not trained:
            return dg.SkipReason("no dataset was trained on yet")
        return [
            dg.RunRequest(run_key=f"{context.scheduled_execution_time:%G-W%V} {dataset}", partition_key=dataset)
            for dataset in trained
        ]

    return retrain_weekly


def build_drift_sensor(job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """Build the sensor that trains again when a stream's drift stays, once for each time that it came."""

    @dg.sensor(
        name="retrain_on_drift",
        job=job,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Trains again when the check feature_drift of a stream stays red: at least "
        f"{_RED_TIMES} times, for {_RED_FOR.total_seconds() / 3600:g} h. Once until it is green again.",
    )
    def retrain_on_drift(
        context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], database: dg.ResourceParam[Database]
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            database.check_migrated()
        except GenresError as error:
            return dg.SkipReason(str(error))
        asked: dict[str, str] = json.loads(context.cursor or "{}")
        trained = _trained_datasets(context.instance)
        requests, now = [], datetime.now(UTC)
        for stream in settings.streams:
            outcomes = _drift_outcomes(context.instance, stream)
            dataset = ledger.dataset_meant(database, **settings.scored_by(stream))
            if not outcomes or outcomes[0][1]:
                asked.pop(stream.name, None)
            elif stays_red(outcomes, now) and stream.name not in asked and dataset in trained:
                asked[stream.name] = now.isoformat()
                requests.append(
                    dg.RunRequest(
                        run_key=f"drift of {stream.topic} {asked[stream.name]}",
                        partition_key=dataset,
                        tags={"genres/retrained_for": f"drift of {stream.topic}"},
                    )
                )
        cursor = json.dumps(asked)
        if not requests:
            return dg.SensorResult(skip_reason=_standing(asked), cursor=cursor)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return retrain_on_drift


def drift_check(stream: StreamSettings) -> dg.AssetCheckKey:
    """Return the key of the check that the stream's location evaluates, which this one does not import."""
    return dg.AssetCheckKey(dg.AssetKey([*filter(None, [stream.name]), "streaming_results"]), "feature_drift")


def stays_red(outcomes: Sequence[tuple[datetime, bool]], now: datetime) -> bool:
    """Return whether a check failed every time for so long and so often that it is no passing thing.

    Parameters
    ----------
    outcomes
        When it was evaluated and whether it passed, the newest first.
    """
    red: list[datetime] = []
    for moment, passed in outcomes:
        if passed:
            break
        red.append(moment)
    return len(red) >= _RED_TIMES and now - red[-1] >= _RED_FOR


def changed_share(before: set[tuple[str, str]], now: set[tuple[str, str]]) -> float:
    """Return the share of clips that came, went or changed, of those that there were.

    Parameters
    ----------
    before, now
        Hash of the audio and genre of each clip; what only changed its name is the same clip.
    """
    return len(before ^ now) / max(len(before), 1)


def changed_since_training(settings: Settings, dataset: str) -> float | None:
    """Compare a dataset's manifest with the one of its newest finished training; None if it never had one.

    A clip that was replaced by another counts twice: as one that went and one that came.
    """
    database, lake = Database(settings.database), Lake.of(settings)
    run = ModelRegistry(settings.tracking_uri).find_latest_run(dataset, stage=TRAINING)
    if run is None:
        return None
    began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    before, now = (
        ledger.latest_until(database, dataset, "raw_audio", began),
        ledger.latest(database, dataset, "raw_audio"),
    )
    if before is None or before.path == now.path:
        return 0.0
    return changed_share(_accepted(lake, before.path), _accepted(lake, now.path))


def _accepted(lake: Lake, path: str) -> set[tuple[str, str]]:
    manifest = lake.read_table([path], columns=["sha256", "genre", "status"]).to_pandas()
    accepted = manifest[manifest["status"] == "accepted"]
    return set(zip(accepted["sha256"], accepted["genre"], strict=True))


def _trained_datasets(instance: dg.DagsterInstance) -> list[str]:
    """Return the datasets that have a training behind them and were not deleted since."""
    trained = instance.get_materialized_partitions(dg.AssetKey("genre_classifiers"))
    return sorted(trained & set(instance.get_dynamic_partitions(str(DATASETS.name))))


def _drift_outcomes(instance: dg.DagsterInstance, stream: StreamSettings) -> list[tuple[datetime, bool]]:
    """Read when the drift check compared something, and whether it passed, the newest first."""
    history = instance.event_log_storage.get_asset_check_execution_history(drift_check(stream), limit=_LOOKED_AT)
    found = [(record, outcome_of(record)) for record in history]
    return [
        (datetime.fromtimestamp(record.create_timestamp, UTC), evaluation.passed)
        for record, evaluation in found
        if evaluation is not None and "drifted_share" in evaluation.metadata
    ]


def _standing(asked: dict[str, str]) -> str:
    if not asked:
        return "no stream's drift stays red"
    since = ", ".join(f"{stream or 'the default stream'} ({moment})" for stream, moment in asked.items())
    return f"asked already, and red since: {since}"

"""Alerts: failed runs, and checks that fail or pass again, are told to people by mail, Slack, a webhook."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from genres.errors import GenresError
from genres.settings import Settings
from genres_dagster.checks import dataset_of, failed_check, failure_reason, outcome_of

_EVERY_S = 30
_MOST_RUNS = 20
"""How many failed runs one message names; more are counted."""
_EVALUATIONS = 25
"""How many of a check's evaluations are looked at: of each dataset that is among them, the newest counts."""


@dataclass
class _Told:
    """What people know: the sensor's cursor."""

    runs_until: float = 0.0
    """When the newest failed run that they were told of had ended, as a timestamp."""
    failing: list[str] = field(default_factory=list)
    """Checks, and the datasets that they judged, that failed when they were last told of them."""


def build_alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """Build the sensor that tells of its code location's runs and checks; none if nobody is to be told."""
    return [_alerts] if settings.alert_urls.get_secret_value() else []


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the addresses of GENRES_ALERT_URLS of failed runs, and of checks that fail or pass again.",
)
def _alerts(context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    # Of runs that failed before somebody asked to be told, nothing is.
    told = _Told(**json.loads(context.cursor)) if context.cursor else _Told(datetime.now(UTC).timestamp())
    runs, until = _failed_runs(context, settings, told.runs_until)
    checks, failing = _checks(context, told.failing)
    news = [*runs, *checks]
    if news:
        try:
            send(settings.alert_urls.get_secret_value(), news)
        except GenresError as error:
            # The cursor stays: the next tick tries again.
            return dg.SensorResult(skip_reason=f"{error}; {len(news)} wait", cursor=json.dumps(asdict(told)))
    said = f"told: {'; '.join(news)}" if news else "no run failed, and no check changed"
    return dg.SensorResult(skip_reason=said, cursor=json.dumps(asdict(_Told(until, failing))))


def send(addresses: str, news: list[str]) -> None:
    """Send a message of some lines to every address.

    Parameters
    ----------
    addresses
        Apprise's, separated by commas.

    Raises
    ------
    GenresError
        If an address is none, or did not take it. No address is named, since they hold passwords and tokens.
    """
    import apprise

    people = apprise.Apprise()
    if not people.add(addresses):
        raise GenresError("GENRES_ALERT_URLS: an address is of no kind that is known (mailto://, slack://, json:// …)")
    title = f"genres: {news[0]}" if len(news) == 1 else f"genres: {len(news)} things to look at"
    if not people.notify(title=title[:200], body="\n".join(news)):
        raise GenresError("GENRES_ALERT_URLS: an address did not take the message; Dagster's log says which kind")


def _failed_runs(context: dg.SensorEvaluationContext, settings: Settings, since: float) -> tuple[list[str], float]:
    """Return a line for each run of this code location that failed since, and until when that holds."""
    records = context.instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.fromtimestamp(since, UTC))
    )
    ours = [record.dagster_run for record in records if _is_ours(context, record.dagster_run)]
    lines = [_line(context.instance, settings, run) for run in ours[:_MOST_RUNS]]
    if len(ours) > _MOST_RUNS:
        lines.append(f"and {len(ours) - _MOST_RUNS} runs more failed")
    return lines, max([since, *(record.update_timestamp.timestamp() for record in records)])


def _is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    origin, here = run.remote_job_origin, context.code_location_origin
    if origin is None or here is None:  # a run of the command line's, which has told its person already
        return False
    return origin.repository_origin.code_location_origin.location_name == here.location_name


def _line(instance: dg.DagsterInstance, settings: Settings, run: dg.DagsterRun) -> str:
    failures = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1).records
    data: Any = failures[0].event_log_entry.get_dagster_event().event_specific_data if failures else None
    why = failure_reason(data.error) if data and data.error else "its process ended"
    partition = run.tags.get("dagster/partition")
    of_what = f" of {partition}" if partition else ""
    return f"{run.job_name}{of_what} failed: {why} ({settings.dagster_url}/runs/{run.run_id})"


def _checks(context: dg.SensorEvaluationContext, before: list[str]) -> tuple[list[str], list[str]]:
    """Return a line for each check of this code location that changed, and the names of those that fail now.

    A check of two datasets counts as two: that it passes for one says nothing about the other.
    """
    repository = context.repository_def
    assert repository is not None  # noqa: S101 - a sensor that Dagster evaluates has one
    lines, failing = [], []
    for key in sorted(repository.asset_graph.asset_check_keys, key=str):
        asset = key.asset_key.to_user_string()
        name = f"{key.name} of {asset}"
        newest = _newest_outcomes(context.instance, key)
        known = {_of_dataset(name, dataset) for dataset in newest}
        # What was not evaluated of late is as it was.
        failing += [
            told
            for told in before
            if told not in known and (told.startswith(_of_dataset(name, "")) or (not newest and told == name))
        ]
        for dataset, evaluation in newest.items():
            own = _of_dataset(name, dataset)
            if not evaluation.passed:
                failing.append(own)
                if own not in before:
                    lines.append(f"{failed_check(evaluation)} ({asset})")
            elif own in before:
                of_what = f" of dataset {dataset}" if dataset else ""
                lines.append(f"check {key.name}{of_what} passes again ({asset})")
    return lines, failing


def _newest_outcomes(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dict[str | None, dg.AssetCheckEvaluation]:
    """Return a check's newest outcome by the dataset that it judged; None stands for a check that judges none."""
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=_EVALUATIONS)  # the newest first
    newest: dict[str | None, dg.AssetCheckEvaluation] = {}
    for evaluation in map(outcome_of, history):
        if evaluation is not None:
            newest.setdefault(dataset_of(evaluation), evaluation)
    return newest


def _of_dataset(name: str, dataset: str | None) -> str:
    return name if dataset is None else f"{name}, dataset {dataset}"

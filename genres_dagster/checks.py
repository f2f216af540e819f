"""Asset checks: a small factory, so that each says what it expected and what it found; and checks of both halves.

Every check compares what was made with another source than its maker's, so that it can fail; ``docs/checks.md`` says
with which.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import dagster as dg

from genres.errors import last_words

if TYPE_CHECKING:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

CHECK_FAILED = "DagsterAssetCheckFailedError"
DATASET = "dataset"
"""The metadata of a check in which the dataset stands that it judged."""


def check_spec(asset: dg.AssetKey | str, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """Declare a check that the asset's own step carries out.

    Parameters
    ----------
    blocking
        Whether assets downstream wait until it passes.
    """
    return dg.AssetCheckSpec(name, asset=asset, description=description, blocking=blocking)


def check(
    name: str, passed: bool, *, dataset: str, expected: str, actual: str, warn: bool = False, **metadata: Any
) -> dg.AssetCheckResult:
    """Build the result of a check.

    Parameters
    ----------
    dataset
        The id of the dataset that was judged: Dagster shows a check's newest outcome, whichever dataset it is of.
    expected, actual
        What should be and what is, in words or figures.
    warn
        Whether failing is worth a warning only.
    """
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=judged(dataset, actual),
        metadata={DATASET: dataset, "expected": expected, "actual": actual, **metadata},
    )


def judged(dataset: str, said: str) -> str:
    """Return a check's description: of which dataset it is, and what it says."""
    return f"dataset {dataset}: {said}"


def dataset_of(evaluation: dg.AssetCheckEvaluation) -> str | None:
    """Return the id of the dataset that a check judged; None for one that judges no dataset."""
    found = evaluation.metadata.get(DATASET)
    return str(found.value) if found else None


def outcome_of(record: "AssetCheckExecutionRecord | None") -> dg.AssetCheckEvaluation | None:
    """Return what a check found; None if it never ran, or if the run that is to evaluate it is still at work."""
    # Of one that is only planned, Dagster returns the plan.
    evaluation: object = record.evaluation if record else None
    return evaluation if isinstance(evaluation, dg.AssetCheckEvaluation) else None


def check_label_set(
    *, dataset: str, predicted: Collection[str], known_to_model: Collection[str], in_dataset: Collection[str]
) -> dg.AssetCheckResult:
    """Compare stored answers and the model's genres with the genres of the dataset's clips.

    Parameters
    ----------
    dataset
        The dataset's id.
    predicted
        Genres that stored predictions name.
    known_to_model
        Genres that the model tells apart.
    in_dataset
        Genres of the clips that the dataset's manifest accepts.
    """
    strange = sorted(set(predicted) - set(in_dataset) | set(predicted) - set(known_to_model))
    never = sorted(set(in_dataset) - set(known_to_model))
    return check(
        "label_set",
        not strange and not never,
        dataset=dataset,
        expected=f"the genres of the dataset's clips: {', '.join(sorted(in_dataset))}",
        actual=f"predicted besides: {', '.join(strange) or 'none'}; unknown to the model: {', '.join(never) or 'none'}",
        warn=not strange,
    )


def failed_check(evaluation: Any) -> str:
    """Return a line that says which check failed and why."""
    said = {
        name: str(evaluation.metadata[name].value) for name in ("expected", "actual") if name in evaluation.metadata
    }
    why = ", ".join(f"{name} {text}" for name, text in said.items()) or evaluation.description or "it says no more"
    dataset = dataset_of(evaluation)
    return f"check {evaluation.check_name}{f' of dataset {dataset}' if dataset else ''} failed: {why}"


def failure_reason(error: Any) -> str:
    """Return a line that says why a step failed."""
    # The checks' names stand in the lines after the first.
    return " ".join(error.message.split()) if error.cls_name == CHECK_FAILED else last_words(error)

"""Asset checks: a small factory, so that each says what it expected and what it found."""

from typing import Any

import dagster as dg


def check_spec(asset: dg.AssetKey | str, name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    """Declare a check that the asset's own step carries out.

    Parameters
    ----------
    blocking
        Whether assets downstream wait until it passes.
    """
    return dg.AssetCheckSpec(name, asset=asset, description=description, blocking=blocking)


def check(
    name: str, passed: bool, *, expected: str, actual: str, warn: bool = False, **metadata: Any
) -> dg.AssetCheckResult:
    """Build the result of a check.

    Parameters
    ----------
    expected, actual
        What should be and what is, in words or figures.
    warn
        Whether failing is worth a warning only.
    """
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        metadata={"expected": expected, "actual": actual, **metadata},
    )

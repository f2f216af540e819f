"""What both halves need of asset checks."""

import dagster as dg

from genres_dagster.checks import outcome_of


@dg.asset_check(asset="rows")
def fresh() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset
def rows() -> None: ...


def test_a_check_that_is_only_planned_has_no_outcome_yet() -> None:
    key = dg.AssetCheckKey(rows.key, "fresh")
    with dg.DagsterInstance.ephemeral() as instance:
        assert outcome_of(instance.get_latest_asset_check_evaluation_record(key)) is None
        job = dg.Definitions([rows], asset_checks=[fresh]).resolve_implicit_global_asset_job_def()
        instance.create_run_for_job(job)  # which plans it
        planned = instance.get_latest_asset_check_evaluation_record(key)
        assert planned is not None
        assert outcome_of(planned) is None
        job.execute_in_process(instance=instance)
        found = outcome_of(instance.get_latest_asset_check_evaluation_record(key))
        assert found is not None
        assert found.passed

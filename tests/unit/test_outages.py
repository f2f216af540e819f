"""A step is tried again after an outage, and at once given up where only a person can help."""

import dagster as dg
import pytest

from genres.errors import GenresError
from genres_dagster.outages import TRY_AGAIN, final_if_a_persons


@pytest.mark.parametrize(
    ("error", "attempts"), [(ConnectionError("the engine is away"), 3), (GenresError("there is no dataset"), 1)]
)
def test_how_often_a_step_is_tried(error: Exception, attempts: int) -> None:
    tried = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=TRY_AGAIN.max_retries))
    @final_if_a_persons
    def step(context: dg.AssetExecutionContext) -> None:
        tried.append(context.run_id)
        raise error

    with dg.DagsterInstance.ephemeral() as instance:
        assert not dg.materialize([step], instance=instance, raise_on_error=False).success
    assert len(tried) == attempts

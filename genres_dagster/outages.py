"""What an asset does about an outage: it is tried again, unless the error is one that only a person can fix."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import dagster as dg

from genres.errors import GenresError

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")

TRY_AGAIN = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""For steps that compute only what is missing: a killed engine is up again within seconds, and is asked again then."""


def final_if_a_persons(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Let a `GenresError` of an asset's function end its step at once, whatever the retry policy says.

    What asks HDFS, MLflow or Spark has waited for them already when it raises one.
    """

    @functools.wraps(function)
    def asked(*given: _Given.args, **named: _Given.kwargs) -> _Made:
        try:
            return function(*given, **named)
        except GenresError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    return asked

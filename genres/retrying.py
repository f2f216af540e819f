"""Repeating what fails in a way that passes: one rule for everything that waits for a server.

Only the rule is here. Which errors pass, and the line that a user reads when patience ends, are the caller's.
"""

from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def retried(
    attempt: Callable[[], _Result], *, on: type[Exception] | tuple[type[Exception], ...], patience_s: float
) -> _Result:
    """Return the result of `attempt`, which is repeated while it raises one of the errors `on`.

    Pauses double from 0.2 s up to 3 s.

    Parameters
    ----------
    attempt
        What to try.
    on
        The errors that may pass; any other ends it at once.
    patience_s
        For how long after the first attempt began a failed one is followed by another, in seconds.

    Raises
    ------
    Exception
        What the last attempt raised.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

    return Retrying(
        retry=retry_if_exception_type(on),
        stop=stop_after_delay(patience_s),
        wait=wait_exponential(multiplier=0.2, max=3),
        reraise=True,
    )(attempt)

"""Programs that some tests need and that not every machine has: a test without its own is skipped, and says why.

Where whoever runs the tests has installed them all, ``REQUIRE_PROGRAMS=1`` makes it fail instead.
"""

import shutil
from typing import NoReturn

import pytest

MISSING = "a program that this test needs is missing: "
"""What the reason to skip such a test begins with, by which ``tests/conftest.py`` knows it."""

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason=f"{MISSING}there is no ffmpeg (apt install ffmpeg)"
)


def skip_without(what: str) -> NoReturn:
    """Skip the test that asks; `what` is missing and how it is installed."""
    pytest.skip(f"{MISSING}{what}")

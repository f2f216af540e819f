"""A test whose program is missing is skipped, and fails where programs are required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR

NEEDS_FFMPEG = "tests/unit/test_audio_ffmpeg.py::test_what_is_refused"


@pytest.mark.parametrize(("required", "code", "counted"), [("", 0, "1 skipped"), ("1", 1, "1 error")])
def test_a_missing_program_fails_where_it_is_required(tmp_path: Path, required: str, code: int, counted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEEDS_FFMPEG],
        cwd=PROJECT_DIR,
        env={**os.environ, "PATH": str(tmp_path), "REQUIRE_PROGRAMS": required},  # a folder without any program
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert counted in done.stdout
    assert "there is no ffmpeg (apt install ffmpeg)" in done.stdout

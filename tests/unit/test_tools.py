"""A test whose program is missing is skipped on a developer's machine and fails in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR

NEEDS_FFMPEG = "tests/unit/test_audio_ffmpeg.py::test_what_is_refused"


@pytest.mark.parametrize(("ci", "code", "counted"), [("", 0, "1 skipped"), ("true", 1, "1 error")])
def test_a_missing_program_fails_in_ci_alone(tmp_path: Path, ci: str, code: int, counted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", NEEDS_FFMPEG],
        cwd=PROJECT_DIR,
        env={**os.environ, "PATH": str(tmp_path), "CI": ci},  # a folder without any program
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert counted in done.stdout
    assert "there is no ffmpeg (apt install ffmpeg)" in done.stdout

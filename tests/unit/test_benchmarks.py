"""Benchmarks that need no daemons, in their smallest form: each still runs on today's code and prints its table."""

import os
import subprocess
import sys

import pytest

from genres.settings import PROJECT_DIR

SMALLEST = {
    "scale.py": ["--drains", "2", "--cores", "16", "--seconds", "2"],
    "scale_structured.py": ["--cores", "2", "--seconds", "3"],
    "ledger.py": ["--ranges", "100"],
    "partitions.py": ["--partitions", "20"],
    "startup.py": ["1"],
}
# Starts a Spark of its own.
LONG = {"scale_structured.py"}


@pytest.mark.parametrize(
    "script", [pytest.param(script, marks=[pytest.mark.long] if script in LONG else []) for script in SMALLEST]
)
def test_a_benchmark_prints_its_table(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *SMALLEST[script]],
        cwd=PROJECT_DIR,
        env={**os.environ, "PYTHONPATH": str(PROJECT_DIR)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|") and "--" not in line]
    assert len(rows) > 1, done.stdout
    assert any(character in "123456789" for character in rows[-1].split("|", 2)[-1]), done.stdout

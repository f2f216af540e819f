"""The real stack that the integration tests run against: started once, in a folder and on ports of its own."""

import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genres.settings import PORT_BLOCK, Settings
from local_stack.ports import is_free_block
from local_stack.stack import down, up

# An address in the developer's own environment or .env would send the tests to somebody's cluster.
_ELSEWHERE = (
    *("HDFS_URL", "WEBHDFS_URL", "KAFKA_BOOTSTRAP_SERVERS", "SPARK_REMOTE", "MLFLOW_TRACKING_URI"),
    *("DATABASE_URL", "AUDIO", "DATASET"),
)


@pytest.fixture(scope="session")
def session_monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="session")
def free_port_base() -> Callable[[], int]:
    """Find a block of ports that no other stack, running or not, is likely to have."""

    def find() -> int:
        bases = list(range(20_000, 32_000, PORT_BLOCK))
        random.shuffle(bases)
        return next(base for base in bases if is_free_block(base))

    return find


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Yield an empty folder with a short path for a stack of the test's own, which ends with the test."""
    folder = Path(tempfile.mkdtemp(prefix="genres-"))
    yield folder
    down(Settings(state_dir=folder))
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def stack(session_monkeypatch: pytest.MonkeyPatch, free_port_base: Callable[[], int]) -> Iterator[Settings]:
    """Yield the settings of a running stack, which child processes find in their environment too."""
    folder = Path(tempfile.mkdtemp(prefix="genres-"))
    for name in _ELSEWHERE:
        session_monkeypatch.setenv(f"GENRES_{name}", "")
    session_monkeypatch.setenv("GENRES_STATE_DIR", str(folder))
    session_monkeypatch.setenv("GENRES_PORT_BASE", str(free_port_base()))
    # A machine that builds something else at the same time is slow, not broken.
    session_monkeypatch.setenv("GENRES_START_TIMEOUT_S", "300")
    settings = Settings()
    settings.dagster_home.mkdir()
    session_monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    try:
        up(settings, on_progress=lambda line: sys.stderr.write(f"{line}\n"))
        yield settings
    finally:
        down(settings)
        shutil.rmtree(folder)

"""What unit tests store things in: databases, an HDFS of the tests' own, a small disk, Dagster's records."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from genres.store.database import Database
from tests.fake_webhdfs import FakeWebHdfs, serving

if TYPE_CHECKING:
    import dagster as dg


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Yield a database without tables, once of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'genres.db'}"
    else:
        url = request.getfixturevalue("new_postgres_database")()
    database = Database(url)
    yield database
    database.engine.dispose()


class SmallDisk:
    """A disk of four megabytes; what fills it is a file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert shutil.disk_usage(self.folder).free == 0

    def make_room(self) -> None:
        """Have room again."""
        self._ballast.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Yield a disk that can be filled; mounting one takes root on Linux."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "genres-tests", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if shutil.which("mount")
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip() if mounted else 'there is no mount'}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: what the test leaves open, such as a database's connections, must not keep it.
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A SQLite file with every table, for tests that are not about databases; the others have one of each kind."""
    made = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    made.migrate()
    return made


@pytest.fixture
def server() -> Iterator[FakeWebHdfs]:
    """An HDFS in memory, behind WebHDFS."""
    with serving() as server:
        yield server


@pytest.fixture
def instance(tmp_path: Path) -> "Iterator[dg.DagsterInstance]":
    """Dagster's records, in a folder of the test's own."""
    import dagster as dg  # not for every test: it takes two seconds

    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as made:
        yield made

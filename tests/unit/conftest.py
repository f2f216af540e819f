"""An empty database of each kind that is supported: a SQLite file, and a Postgres server of the tests' own."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from genres.store.database import Database


@pytest.fixture(scope="session")
def new_postgres_database() -> Iterator[Callable[[], str]]:
    """Start a server that listens on nothing but a socket in a folder of its own; yield what makes a database on it."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'genres[postgres]'")
    # Debian keeps the server's programs out of the PATH.
    folders = [*os.get_exec_path(), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    programs = os.pathsep.join(folders)
    initdb, pg_ctl = shutil.which("initdb", path=programs), shutil.which("pg_ctl", path=programs)
    if initdb is None or pg_ctl is None:
        pytest.skip("no Postgres server is installed (initdb and pg_ctl)")
    as_user = {}
    folder = Path(tempfile.mkdtemp(prefix="genres-postgres-"))
    if os.geteuid() == 0:  # which Postgres refuses to run as
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("Postgres does not run as root, and there is no user 'postgres' to run it as")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"

    def run(*command: str) -> None:
        # Output goes to a file: the server inherits it, and a pipe would stay open as long as it runs.
        with (folder / "output.log").open("ab") as output:
            done = subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False, **as_user)
        assert done.returncode == 0, (folder / "output.log").read_text()

    run(initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    run(pg_ctl, "-D", str(data), "-w", "-o", f"-k {folder} -c listen_addresses='' -F", "start")
    server = sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(folder)})
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def create() -> str:
        name = f"test_{next(numbers)}"
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return server.set(database=name).render_as_string(hide_password=False)

    try:
        yield create
    finally:
        engine.dispose()
        run(pg_ctl, "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(folder)


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

"""What every kind of test may ask for: short synthetic clips, a real stack and a Postgres server of the tests' own."""

import importlib.util
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import soundfile
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings

from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.settings import PORT_BLOCK, PROJECT_DIR, Settings
from local_stack.ports import is_free_block
from local_stack.stack import down, up
from tests.tools import MISSING, skip_without

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A shell that runs a script's command in the background lets it ignore Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is not a failure: no test is timed.
hypothesis_settings.register_profile("genres", deadline=None)
hypothesis_settings.load_profile("genres")

WriteClips = Callable[[Path, Iterable[str], int], None]
RunGenres = Callable[..., subprocess.CompletedProcess[str]]
StartMaterializing = Callable[..., subprocess.Popen[bytes]]

# An address in the developer's own environment or .env would send the tests to somebody's cluster.
_ELSEWHERE = (
    *("HDFS_URL", "WEBHDFS_URL", "KAFKA_BOOTSTRAP_SERVERS", "SPARK_REMOTE", "MLFLOW_TRACKING_URI"),
    *("DATABASE_URL", "DAGSTER_DATABASE_URL", "MLFLOW_DATABASE_URL", "AUDIO", "DATASET"),
)
_LOG_CHARACTERS = 4000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the stack's logs with a failed test, before they are gone. If asked to, fail for a skip."""
    report = yield
    # Nobody reads in a workflow's log how many were skipped. Data that not everybody has may be missing all the same.
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("REQUIRE_PROGRAMS"):
        why = report.longrepr[2].removeprefix("Skipped: ")
        if why.startswith(MISSING):
            report.outcome, report.longrepr = "failed", f"{why}; it is not skipped where REQUIRE_PROGRAMS is set"
    if report.failed and isinstance(stack := getattr(item, "funcargs", {}).get("stack"), Settings):
        for log in sorted((stack.state_dir / "logs").rglob("*.log")):
            report.sections.append((f"end of {log.name}", log.read_text(errors="replace")[-_LOG_CHARACTERS:]))
    return report


@pytest.fixture(scope="session")
def write_clips() -> WriteClips:
    """Write ``<genre>/<genre>_<n>.wav`` of three seconds each; no two are the same, and none is named like GTZAN's."""

    def write(folder: Path, genres: Iterable[str], clips_per_genre: int) -> None:
        for genre in genres:
            (folder / genre).mkdir(parents=True)
            for index in range(clips_per_genre):
                samples = synthesise(genre, index, clip_s=3.0, seed=7)
                soundfile.write(folder / genre / f"{genre}_{index}.wav", samples, SAMPLE_RATE, subtype="PCM_16")

    return write


@pytest.fixture(scope="session")
def session_monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


@pytest.fixture(scope="session")
def new_postgres_database() -> Iterator[Callable[[], str]]:
    """Start a server that listens on nothing but a socket in a folder of its own; yield what makes a database on it."""
    if importlib.util.find_spec("psycopg") is None:
        skip_without("psycopg is not installed (pip install 'genres[postgres]')")
    # Debian keeps the server's programs out of the PATH.
    folders = [*os.get_exec_path(), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    programs = os.pathsep.join(folders)
    initdb, pg_ctl = shutil.which("initdb", path=programs), shutil.which("pg_ctl", path=programs)
    if initdb is None or pg_ctl is None:
        skip_without("no Postgres server is installed, initdb and pg_ctl (apt install postgresql)")
    as_user = {}
    folder = Path(tempfile.mkdtemp(prefix="genres-postgres-"))
    if os.geteuid() == 0:  # which Postgres refuses to run as
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            skip_without("Postgres does not run as root, and there is no user 'postgres' to run it as")
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


@pytest.fixture(scope="session")
def free_port_base() -> Iterator[Callable[[], int]]:
    """Find a block of ports that no other stack, running or not, is likely to have; never the same one twice."""
    # `genres up` looks for one from 18000 on.
    bases = [*range(10_000, 18_000, PORT_BLOCK), *range(20_000, 32_000, PORT_BLOCK)]
    random.shuffle(bases)
    with ExitStack() as reserved:

        def find() -> int:
            while True:
                base = bases.pop()
                # No service has the block's last port. Tests that run beside these ones see that the block is in use,
                # although its services have not bound a port yet.
                sign = reserved.enter_context(socket.socket())
                with suppress(OSError):
                    sign.bind(("127.0.0.1", base + PORT_BLOCK - 1))
                    if is_free_block(base):
                        return base

        yield find


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
    session_monkeypatch.setenv("GENRES_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    # All are trained once, in test_batch_pipeline; the other tests are not about which.
    session_monkeypatch.setenv("GENRES_CLASSIFIERS", "LogisticRegression,DecisionTree")
    # One set, as lakes have it that were made before there were several; tests of others name them.
    session_monkeypatch.setenv("GENRES_FEATURE_SETS", "gtzan57")
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
        # A code server whose daemon a test has killed writes until it sees that, which is no test's failure.
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def run_genres(stack: Settings) -> RunGenres:
    """Run the ``genres`` command against the tests' stack."""

    def run(*arguments: str, audio: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables, "GENRES_AUDIO": str(audio or ""), "COLUMNS": "200"}
        command = [sys.executable, "-m", "genres_cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)

    return run


@pytest.fixture(scope="session")
def start_materializing(stack: Settings) -> StartMaterializing:
    """Start a process that materializes one asset of a dataset's partition on the tests' stack."""

    def start(asset: str, dataset: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "genre_assets.definitions"]
        log = stack.state_dir / "logs" / "materialize.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [*command, "--select", asset, "--partition", dataset, *options],
                cwd=PROJECT_DIR,
                stdout=output,
                stderr=output,
            )

    return start


@pytest.fixture
def browser() -> "Iterator[Browser]":
    """Open the machine's own Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        skip_without("there is no Chromium (apt install chromium)")
    with sync_playwright() as playwright:
        # As root it has no sandbox; it opens the tests' own pages only, and its microphone hears a beep.
        options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = playwright.chromium.launch(executable_path=program, args=options, timeout=180_000)
        yield opened
        opened.close()

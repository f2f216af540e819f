"""What the benchmarks that need daemons share: a stack of their own, so that they touch nobody's tables and topics."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import inspect

from genres.errors import GenresError
from genres.settings import PROJECT_DIR, Settings
from genres.store.database import Database
from genres_cli.signals import ended_in_order, ending_with_the_terminal
from local_stack.ports import reserve_ports
from local_stack.stack import down, up

_ELSEWHERE = (
    *("HDFS_URL", "WEBHDFS_URL", "KAFKA_BOOTSTRAP_SERVERS", "SPARK_REMOTE", "MLFLOW_TRACKING_URI", "DATABASE_URL"),
    *(
        "DAGSTER_DATABASE_URL",
        "MLFLOW_DATABASE_URL",
        "AUDIO",
        "DATASET",
        "STREAM_DATASET",
        "WATCH_FOLDER",
        "ALERT_URLS",
    ),
)
"""Settings that would lead to somebody's cluster or data."""


@contextmanager
def own_stack(*, champion: bool = False) -> Iterator[Settings]:
    """Run a stack meanwhile, in a temporary folder and on free ports; child processes find it in the environment.

    Parameters
    ----------
    champion
        Whether a model is trained first, on a little synthetic sound.
    """
    folder = Path(tempfile.mkdtemp(prefix="genres-bench-"))  # Kafka's and the supervisor's sockets want a short path
    os.environ |= {f"GENRES_{name}": "" for name in _ELSEWHERE}
    os.environ |= {"GENRES_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "GENRES_MORE_STREAMS": "[]"}
    os.environ["GENRES_STATE_DIR"] = str(folder)
    os.environ.pop("GENRES_PORT_BASE", None)
    settings = Settings()
    with ending_with_the_terminal(), ended_in_order(), ExitStack() as ended:
        ended.callback(shutil.rmtree, folder)
        ended.callback(down, settings)
        print("starting a stack of the benchmark's own, which takes a minute", file=sys.stderr)
        try:
            os.environ["GENRES_PORT_BASE"] = str(reserve_ports(settings).port_base)
            settings = Settings()
            settings.dagster_home.mkdir()
            os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
            up(settings, on_progress=lambda line: None)
            Database(settings.database).migrate()
        except GenresError as error:
            sys.exit(f"the benchmark's own stack does not start: {error}")
        if champion:
            _train()
        yield settings


def require_empty(database: Database) -> None:
    """End here if a database has tables: they are somebody's."""
    if found := inspect(database.engine).get_table_names():
        name = database.url.render_as_string(hide_password=True)
        sys.exit(f"{name} has tables ({', '.join(sorted(found)[:3])} …): let --url name an empty database")


def _train() -> None:
    """Have a champion, by the batch half of the demo."""
    print("training a champion on synthetic sound, which takes some minutes", file=sys.stderr)
    few = {
        "GENRES_SYNTHETIC_CLIPS_PER_GENRE": "7",
        "GENRES_SYNTHETIC_CLIP_S": "5",
        "GENRES_CLASSIFIERS": "LogisticRegression",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "genres_cli", "demo", "--batch-only"],
        env=os.environ | few,
        cwd=PROJECT_DIR,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            _, words = demo.communicate()
        except BaseException:
            demo.terminate()  # it ends what it started; killed, it would leave that running
            raise
    if demo.returncode:
        sys.exit(f"no champion was trained: {words.strip()[-500:]}")

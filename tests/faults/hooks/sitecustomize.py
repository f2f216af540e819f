"""What a fault test does inside the pipeline's processes: end them at a seam, shift their clock, fill their database.

Python imports a module of this name when it starts. The fault tests put this folder on the ``PYTHONPATH`` of the
producer, Dagster's daemon, its code servers and runs, and nowhere else; without the variable below it does nothing.
What is to be done lies as files in the folder that the variable names, so that a test changes it while they run:

- ``seam.json``: which process is to be ended where. The first one that comes by takes the file away and does it.
- ``clock``: by how many seconds the clock that the project's code reads is off (Dagster's and libraries' is not).
- ``full``: while it is there, SQLite gets no more pages for the project's database, as on a full disk.
"""

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

FOLDER = os.environ.get("GENRES_TESTS_HOOKS", "")

SEAMS = {
    "streaming_sensors.range_work": {"RangeWork._extract": "read"},
    "genres.store.hdfs": {"Hdfs.pipe_file": "write", "Hdfs._call_once": "create", "Hdfs.rename": "rename"},
    "genres.store.stream_ledger.commits": {"commit_range": "transaction", "_write_checks": "rows"},
    "genres.store.stream_ledger.ranges": {"record_plan": "plan", "begin_attempt": "attempt"},
    "genres.store.stream_ledger.leases": {"acquire": "lease", "release": "release"},
    "genres.store.stream_ledger.sent_files": {"remember": "memory"},
    "streaming_sensors.warm_launcher": {"WarmRunLauncher.launch_run": "launch"},
    "streaming_sensors.folder_producer.outlet": {"Outlet.send": "send"},
}
"""Where a process can be ended: module, function, and the seam's name."""


class ShiftedDatetime(datetime):
    """The project's ``datetime``, whose present is off; its values are plain ones."""

    def __new__(cls, *given, **named):
        return datetime(*given, **named)

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=clock_shift())


class ShiftedTime:
    """The module ``time``, with a clock that is off."""

    def __getattr__(self, name):
        return getattr(time, name)

    def time(self):
        return time.time() + clock_shift()


def clock_shift():
    """Return by how many seconds the clock is off."""
    try:
        return float(Path(FOLDER, "clock").read_text())
    except (FileNotFoundError, ValueError):
        return 0.0


def come_by(seam, when):
    """End whom a test wants ended here, once."""
    order_file = Path(FOLDER, "seam.json")
    try:
        order = json.loads(order_file.read_text())
    except (FileNotFoundError, ValueError):
        return
    if (seam, when) != (order["seam"], order["when"]) or ("watch" in sys.argv) != order["in_producer"]:
        return
    try:
        order_file.rename(Path(FOLDER, f"taken.{os.getpid()}.json"))
    except FileNotFoundError:  # another process was first
        return
    victim = order["pid"] or os.getpid()
    Path(FOLDER, "struck.part").write_text(json.dumps({"pid": victim, "at": time.time()}))
    Path(FOLDER, "struck.part").rename(Path(FOLDER, "struck.json"))
    if order["delay_s"]:
        threading.Timer(order["delay_s"], os.kill, (victim, signal.SIGKILL)).start()
    else:
        os.kill(victim, signal.SIGKILL)


def with_seam(function, seam):
    """Return the function with a seam before it and one behind it."""

    @functools.wraps(function)
    def seamed(*given, **named):
        if seam == "create" and "CREATE" not in given:
            return function(*given, **named)
        come_by(seam, "before")
        result = function(*given, **named)
        come_by(seam, "after")
        return result

    return seamed


def with_full_disk(begin):
    """Return what begins a transaction, with the number of pages that SQLite may have."""

    @functools.wraps(begin)
    def begun(connection):
        begin(connection)
        pages = 2**30
        if Path(FOLDER, "full").exists():
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    return begun


def prepare(module):
    """Change what the tests need changed of a module of the project's that was just imported."""
    if module.__dict__.get("datetime") is datetime:
        module.datetime = ShiftedDatetime
    if module.__dict__.get("time") is time:
        module.time = ShiftedTime()
    if module.__name__ == "genres.store.database":
        module._begin_immediate = with_full_disk(module._begin_immediate)
    for path, seam in SEAMS.get(module.__name__, {}).items():
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, name, with_seam(getattr(owner, name), seam))


class PreparingLoader(importlib.abc.Loader):
    """Loads a module as ever, and prepares it."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        prepare(module)


class PreparingFinder(importlib.abc.MetaPathFinder):
    """Finds the project's modules as the other finders do."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {"genres", "streaming_sensors"}:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = PreparingLoader(spec.loader)
                return spec
        return None


if FOLDER:
    sys.meta_path.insert(0, PreparingFinder())

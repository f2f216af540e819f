"""What starting the stack takes of this machine, looked at before anything is fetched, written or started.

Each thing that lacks is one line that says what to do.
"""

import os
import re
import shutil
from pathlib import Path

from genres.errors import GenresError
from genres.settings import Settings
from local_stack.class_path import jar_folder
from local_stack.java import installed_java
from local_stack.ports import require_free_ports
from local_stack.services import services
from local_stack.supervision import Supervisor


def require_able_machine(settings: Settings) -> None:
    """Refuse to start where it cannot end well: by path, rights, free disk, or ports that are taken.

    Raises
    ------
    GenresError
        Names the first thing that lacks.
    """
    if not settings.embedded:
        return
    _require_plain_path(settings.state_dir)
    is_up = Supervisor(settings.state_dir).is_running()
    large = {"GENRES_STATE_DIR": settings.state_dir}
    if settings.embedded & {"hdfs", "kafka"}:
        large["GENRES_JAR_DIR"] = jar_folder(settings.jar_dir)
    # By default it is in the user's own cache, and who fails to download it says so.
    if settings.jdk_dir and settings.embedded & {"hdfs", "kafka", "spark"} and installed_java() is None:
        large["GENRES_JDK_DIR"] = settings.jdk_dir
    small = {}
    # By default, Spark's workers keep what they compiled elsewhere if they may not write there.
    if "spark" in settings.embedded and "cache_dir" in settings.model_fields_set:
        small["GENRES_CACHE_DIR"] = settings.cache_dir
    for name, folder in (large | small).items():
        there = _existing(folder)
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise GenresError(
                f"{there} cannot be written to, and {folder} is to be kept there: give this user that right, or set "
                f"{name} to another folder"
            )
    for name, folder in large.items():
        free = shutil.disk_usage(_existing(folder)).free / 2**20
        if free < settings.min_free_mib and not is_up:
            raise GenresError(
                f"the disk of {folder} has {free:,.0f} MiB free, less than {settings.min_free_mib:,} MiB "
                f"(GENRES_MIN_FREE_MIB): make room, or set {name} to a folder on another disk"
            )
    # Later on, the ports may be those of this stack's own daemons.
    if "port_base" in settings.model_fields_set and not (settings.state_dir / "supervisor").exists():
        for service in services(settings):
            require_free_ports(service)


def _require_plain_path(state_dir: Path) -> None:
    # A DataNode fails on the %20 of a blank (HDFS formats a string with it), Kafka splits at commas.
    if odd := re.search(r"[^A-Za-z0-9/._+@=~-]", str(state_dir)):
        raise GenresError(
            f"the daemons cannot keep data in {state_dir}: {odd[0]!r} is not a letter, a digit or one of ._+@=~-; "
            "set GENRES_STATE_DIR to a plainer path"
        )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())

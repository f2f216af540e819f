"""Find the Java that runs the daemons and Spark: ``JAVA_HOME``, then ``PATH``, otherwise one is downloaded."""

import re
import subprocess
from functools import cache
from pathlib import Path

from cjdk import CjdkError
from jgo.util.java import JavaLocator, JavaSource

from genres.errors import GenresError

MIN_VERSION = 17
"""Oldest Java that Spark 4 and Hadoop 3.5 run on."""


@cache
def installed_java() -> Path | None:
    """Return the program ``java`` of ``JAVA_HOME`` or the ``PATH`` that is new enough; None if there is none."""
    try:
        return Path(JavaLocator(JavaSource.SYSTEM).locate(min_version=MIN_VERSION))
    except (RuntimeError, OSError):
        return None


@cache
def java_home() -> Path:
    """Return the home folder of a Java that is new enough, downloading one if there is none.

    Returns
    -------
    Path
        The folder whose ``bin/java`` to run, as that Java names it itself (``java`` on the ``PATH`` may be a
        link or a launcher from elsewhere).

    Raises
    ------
    GenresError
        If there is no such Java and none can be downloaded.
    """
    try:
        java = installed_java() or JavaLocator(JavaSource.DOWNLOAD).locate(min_version=MIN_VERSION)
        settings = subprocess.run(
            [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True
        ).stderr
    except (RuntimeError, OSError, CjdkError, subprocess.CalledProcessError) as error:
        raise GenresError(
            f"no Java {MIN_VERSION} or newer in JAVA_HOME or on the PATH, and none could be downloaded "
            f"({' '.join(str(error).split())}); install one (apt install openjdk-17-jre-headless, or "
            "https://adoptium.net) and set JAVA_HOME"
        ) from error
    found = re.search(r"^\s*java\.home = (.+)$", settings, re.MULTILINE)
    if found is None:
        raise GenresError(f"{java} does not say where its home is; set JAVA_HOME to a Java {MIN_VERSION} or newer")
    return Path(found[1])

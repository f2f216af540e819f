"""Whether somebody else's engine can do this project's work: one job of one row, in which a worker says what it has.

Run as a program it reads `require_able_engine`'s parameters as JSON from the standard input. A Connect session leaves
its mark on the environment of its process, which a command's children inherit.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from genres.addresses import without_secrets
from genres.errors import GenresError, last_words
from spark.server_conf import DAEMON_MODULE, SERVER_CONF, differences

ANSWER_S = 60.0
"""How long a job of one row may wait for a worker, in seconds."""

_MODULES = ("spark.extraction", "streaming_sensors.kafka_clips")
"""What the workers unpickle, and with it all that they run of the project."""
_REQUIREMENTS = (
    *("crc32c", "fsspec", "kafka-python", "numba", "numpy", "pandas", "psutil", "pyarrow", "pydantic-settings"),
    *("requests", "scipy", "soundfile", "soxr", "tenacity"),
)
"""What that code imports in a worker."""
_COMPUTING = ("numba", "numpy", "onnxruntime", "scipy", "soundfile", "soxr")
"""Those of them whose releases may differ in what they decode, resample or compute: features of one set would not be
the same on all machines. The others only carry what was computed; any release in their range does."""


class WorkerReport(NamedTuple):
    """What a worker has."""

    host: str
    interpreter: str
    code: str
    """Version of gate and feature sets; why it cannot be imported, if it cannot."""
    is_importable: bool
    """Whether the code is there, installed or sent, and can be loaded."""
    versions: Mapping[str, str | None]
    """Of each requirement; None if it is not installed."""
    kafka: str = ""
    """Why it cannot log in to Kafka: a secret or a file that is not there; empty if it can, as far as it knows."""


def require_able_engine(remote: str, kafka: Mapping[str, Any]) -> list[str]:
    """Ask a worker of an engine what it has, and the engine how it was started.

    Parameters
    ----------
    remote
        ``sc://host:port`` of the Connect server.
    kafka
        The fields of a `genres.kafka_client.KafkaAccess` without its secrets, which each worker has to have.

    Returns
    -------
    list[str]
        What would be better in another way, a line each.

    Raises
    ------
    GenresError
        Names what its workers lack, or why they do not answer.
    """
    from genres.settings import Settings
    from spark.isolation import OutOfTimeError, interrupted_when_stuck
    from spark.session import open_session, session_config, stop_session

    config = session_config(Settings(spark_remote=remote), app_name="genres probe")
    place = f"the workers of Spark at {without_secrets(remote)}"
    spark = open_session(config)
    conf: dict[str, str | None] = {}
    try:
        conf |= _server_conf(spark)
        with interrupted_when_stuck(spark, limit_s=ANSWER_S):
            report = _asked(spark, kafka)
    except OutOfTimeError as error:
        raise GenresError(
            f"{place} do not begin a job of one row within {ANSWER_S:g} s: there are none, or others hold all cores; "
            "look at Spark's web UI"
        ) from error
    except Exception as error:  # what a worker of another kind makes of it is anybody's guess
        module = SERVER_CONF[DAEMON_MODULE].value
        if conf.get(DAEMON_MODULE) == module and f"'{module.partition('.')[0]}" in str(error):
            raise GenresError(
                f"{place} do not find {module}, which the server's {DAEMON_MODULE} names: install this project there, "
                "or unset it; the code is sent with each session then"
            ) from error
        raise GenresError(f"{place} cannot do a job of one row: {last_words(error)}") from error
    finally:
        stop_session(spark, remote=remote)
    if lacks := lacking(report, _needed()):
        raise GenresError(
            f"{place} lack what this project needs ({report.interpreter} on {report.host}): {'; '.join(lacks)}"
        )
    warnings = []
    if others := other_releases(report):
        warnings.append(f"{place} compute features with other releases than here: {', '.join(others)}")
    if unlike := differences(conf):
        warnings.append(f"the server of Spark at {without_secrets(remote)} was started otherwise: {'; '.join(unlike)}")
    return warnings


def lacking(report: WorkerReport, needed: Sequence[str]) -> list[str]:
    """Return what a worker lacks, in a few words each.

    Parameters
    ----------
    needed
        Requirements with their ranges, such as ``numpy>=2``.
    """
    from packaging.requirements import Requirement

    lacks, here = [], code_version()
    absent = [text for text in needed if report.versions.get(Requirement(text).name) is None]
    if absent:
        lacks.append(f"not installed: {', '.join(absent)}")
    for text in needed:
        requirement, found = Requirement(text), report.versions.get(Requirement(text).name)
        if found is not None and not requirement.specifier.contains(found, prereleases=True):
            lacks.append(f"{requirement.name} is {found}, {requirement.specifier} is needed")
    if report.is_importable:
        if report.code != here:
            lacks.append(
                "the project's code that is installed there is of another version "
                f"({report.code}; here it is {here}): install this one, or none, as it is sent with each session"
            )
    elif not absent:
        lacks.append(f"the project's code, which was sent, cannot be loaded ({report.code})")
    if report.kafka:
        lacks.append(report.kafka)
    return lacks


def other_releases(report: WorkerReport) -> list[str]:
    """Return which libraries that compute features a worker has in another release (major.minor) than there is here."""
    from importlib import metadata

    from packaging.version import Version

    others = []
    for name in _COMPUTING:
        there = report.versions.get(name)
        if there is not None and Version(there).release[:2] != Version(here := metadata.version(name)).release[:2]:
            others.append(f"{name} {there} ({here})")
    return others


def code_version() -> str:
    """Name the version of what is computed: the gate's and that of all feature sets."""
    from genres.audio import gate
    from genres.audio.feature_sets import every_version

    return f"{gate.VERSION} {every_version()}"


def _needed() -> list[str]:
    """Return the project's requirements that a worker has to meet, as its metadata says."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    from genres.audio.feature_sets import installed_sets

    names = {*_REQUIREMENTS, "pyspark"} | ({"onnxruntime"} if "musicnn" in installed_sets() else set())
    found = [Requirement(text) for text in requires("genres") or () if "extra ==" not in text]
    return sorted(f"{requirement.name}{requirement.specifier}" for requirement in found if requirement.name in names)


def _server_conf(spark: Any) -> dict[str, str | None]:
    """Return what the server says of each setting that it should have; a vendor's may keep some to itself."""
    from pyspark.errors import PySparkException

    conf = {}
    for name in SERVER_CONF:
        with suppress(PySparkException):
            conf[name] = spark.conf.get(name, None)
    return conf


def _asked(spark: Any, kafka: Mapping[str, Any]) -> WorkerReport:
    from packaging.requirements import Requirement
    from pyspark.sql import functions as sf

    names = [Requirement(text).name for text in _needed()]
    # Without Arrow: what it needs may be what is missing.
    ask = sf.udf(_questions(names, _MODULES, kafka), "string", useArrow=False)
    (row,) = spark.range(1).select(ask("id").alias("answer")).collect()
    return WorkerReport(**json.loads(row["answer"]))


def _questions(names: Sequence[str], modules: Sequence[str], kafka: Mapping[str, Any]) -> Callable[[int], str]:
    """Return the function that the worker runs.

    It is nested, so that it is pickled whole: one that a worker would have to import from here needs the project there.
    """

    def answer(_: int) -> str:
        import importlib
        import json
        import socket
        import sys
        from importlib import metadata

        versions: dict[str, str | None] = {}
        for name in names:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        try:
            for module in modules:
                importlib.import_module(module)
            code, is_importable = importlib.import_module("spark.engine_probe").code_version(), True
        except Exception as error:
            code, is_importable = f"{type(error).__name__}: {error}", False
        said = ""
        if is_importable:
            try:
                importlib.import_module("genres.kafka_client").KafkaAccess(**kafka).options()
            except Exception as error:
                said = str(error)
        return json.dumps(
            {
                "host": socket.gethostname(),
                "interpreter": sys.executable,
                "code": code,
                "is_importable": is_importable,
                "versions": versions,
                "kafka": said,
            }
        )

    return answer


if __name__ == "__main__":
    try:
        for line in require_able_engine(**json.load(sys.stdin)):
            print(line)  # noqa: T201 - to the process that started this one
    except GenresError as error:
        print(error)  # noqa: T201 - to the process that started this one
        sys.exit(1)

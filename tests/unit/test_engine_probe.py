"""What a worker of somebody else's engine lacks is named; the question itself needs nothing of the project there."""

import json
import pickletools
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyspark
import pytest
from pyspark import cloudpickle

from genres.kafka_client import KafkaAccess
from genres.settings import Settings
from local_stack.spark_server import connect_conf
from spark.engine_probe import WorkerReport, _asked, _needed, _questions, code_version, lacking, other_releases
from spark.server_conf import DAEMON_MODULE, SERVER_CONF, differences

NEEDED = ("numpy>=2", "pyarrow>=20", "pyspark==4.2.0")
ABLE = WorkerReport(
    "worker1", "/usr/bin/python3", code_version(), True, {"numpy": "2.3.1", "pyarrow": "21.0", "pyspark": "4.2.0"}
)


def test_an_able_worker_lacks_nothing() -> None:
    assert lacking(ABLE, NEEDED) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"versions": {"numpy": "2.3.1"}}, "not installed: pyarrow>=20, pyspark==4.2.0"),
        ({"versions": {**ABLE.versions, "numpy": "1.26.4"}}, "numpy is 1.26.4, >=2 is needed"),
        (
            {"code": "ModuleNotFoundError: No module named 'dateutil'", "is_importable": False},
            "the project's code, which was sent, cannot be loaded (ModuleNotFoundError: No module named 'dateutil')",
        ),
        ({"code": "gate0 old"}, f"of another version (gate0 old; here it is {code_version()}): install this one"),
    ],
    ids=["missing", "too old", "no code", "other code"],
)
def test_what_is_lacking_is_named(changes: dict[str, object], line: str) -> None:
    (said,) = lacking(ABLE._replace(**changes), NEEDED)
    assert line in said


def test_code_that_lacks_its_requirements_is_not_blamed() -> None:
    """It is sent; that it cannot be loaded says no more than what is missing."""
    report = ABLE._replace(code="ModuleNotFoundError: No module named 'numpy'", is_importable=False, versions={})
    (line,) = lacking(report, NEEDED)
    assert line == f"not installed: {', '.join(NEEDED)}"


def test_other_releases_of_what_computes_are_named() -> None:
    here = {name: version(name) for name in ("numpy", "soxr", "pyarrow")}
    assert other_releases(ABLE._replace(versions=here)) == []
    patched = f"{here['soxr']}.post9"
    there = {"numpy": "1999.1.2", "soxr": patched, "pyarrow": "1999.1", "scipy": None}
    assert other_releases(ABLE._replace(versions=there)) == [f"numpy 1999.1.2 ({here['numpy']})"]


def test_how_a_server_was_started_otherwise_is_named() -> None:
    same = {name: setting.value for name, setting in SERVER_CONF.items()}
    assert differences(same) == []
    assert differences({}) == [], "what a server does not tell is not held against it"
    daemon, mode = differences({**same, DAEMON_MODULE: None, "spark.scheduler.mode": "FIFO"})
    assert daemon.startswith(f"{DAEMON_MODULE} is not set, spark.worker_daemon is better (")
    assert mode.startswith("spark.scheduler.mode is FIFO, FAIR is better (")


def test_the_embedded_server_is_started_so(tmp_path: Path) -> None:
    conf = connect_conf(Settings(state_dir=tmp_path))
    assert differences({name: conf.get(name) for name in SERVER_CONF}) == []


def test_the_requirements_are_those_of_the_metadata() -> None:
    needed = _needed()
    assert "pyspark==4.2.0" in needed
    assert any(text.startswith("numpy>=") for text in needed)
    assert not any(text.startswith("dagster") for text in needed), "a worker has no business with it"


def test_a_bare_interpreter_can_answer(tmp_path: Path) -> None:
    """Without site-packages and without this project, as on a cluster that was never prepared."""
    ask = cloudpickle.dumps(_questions(["numpy"], ["spark.extraction"], {}))
    assert not any(op.name == "GLOBAL" and "engine_probe" in str(arg) for op, arg, _ in pickletools.genops(ask))
    (tmp_path / "question").write_bytes(ask)
    # What Spark itself puts on a worker's path.
    zips = [str(path) for path in Path(pyspark.__file__).parent.glob("python/lib/*.zip")]
    program = f"import sys; sys.path += {zips}; import pickle; print(pickle.load(open('question', 'rb'))(0))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = WorkerReport(**json.loads(done.stdout))
    assert (report.is_importable, report.versions) == (False, {"numpy": None})
    assert report.code.startswith("ModuleNotFoundError: No module named 'spark")


def test_a_worker_without_kafkas_password_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret stays here; what is sent is the rest, and the worker looks for the secret where it is."""
    monkeypatch.setattr("genres.settings.PROJECT_DIR", tmp_path)
    monkeypatch.delenv("GENRES_KAFKA_PASSWORD", raising=False)
    secured = Settings(
        state_dir=tmp_path,
        kafka_bootstrap_servers="kafka:9093",
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="PLAIN",
        kafka_username="me",
        kafka_password="hunter2",  # type: ignore[arg-type]
    )
    sent: list[bytes] = []

    class Spark:
        """Stands for a session with a worker: it pickles the question, and asks it."""

        def range(self, _: int) -> "Spark":
            return self

        def select(self, _: object) -> "Spark":
            return self

        def collect(self) -> list[dict[str, str]]:
            return [{"answer": cloudpickle.loads(sent[-1])(0)}]

    def udf(function: object, *_: object, **__: object) -> Any:
        sent.append(cloudpickle.dumps(function))
        return lambda _: SimpleNamespace(alias=lambda _: None)

    monkeypatch.setattr("pyspark.sql.functions.udf", udf)
    kafka = KafkaAccess.of(secured).__getstate__()
    report = _asked(Spark(), kafka)
    (line,) = lacking(report._replace(versions=dict(ABLE.versions)), NEEDED)
    assert line.startswith("there is no GENRES_KAFKA_PASSWORD for user 'me'")
    assert b"hunter2" not in sent[-1]
    monkeypatch.setenv("GENRES_KAFKA_PASSWORD", "hunter2")
    assert not _asked(Spark(), kafka).kafka

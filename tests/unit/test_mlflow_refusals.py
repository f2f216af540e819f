"""What MLflow refuses or does not answer is one line that says what to do, whoever asks."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from matplotlib.figure import Figure

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres.store.model_registry import ModelRegistry, _wait_for_server
from genres_cli.main import main
from tests.http_server import served

if TYPE_CHECKING:
    from mlflow.entities import Run

PATIENCE = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
HEALTHY = (200, b"OK")
UNKNOWN = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}'


@contextmanager
def answering(status: int, body: bytes, *, health: Iterator[tuple[int, bytes]] | None = None) -> Iterator[str]:
    """An MLflow that is healthy, and gives the same answer to whatever else it is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_health = self.path == "/health"
            code, said = (next(health) if health else HEALTHY) if is_health else (status, body)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def do_POST(self) -> None:
            self.do_GET()

    with served(Answer) as url:
        yield url


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", *PATIENCE):
        monkeypatch.setenv(name, "")  # put back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


OVER = cast("Run", SimpleNamespace(info=SimpleNamespace(run_id="a" * 32)))
"""A run that has ended, of which other assets keep something more."""
ASKED: dict[str, Callable[[ModelRegistry], Any]] = {
    "champion": lambda registry: registry.find_champion("mine"),
    "versions": lambda registry: registry.versions("mine"),
    "aliases": lambda registry: registry.aliases("mine"),
    "runs": lambda registry: registry.runs_on("mine", stage="genre_classifiers", fingerprint="f"),
    "run": lambda registry: registry.run("mine", run_name="r", stage="s", tags={}).__enter__(),
    "alias": lambda registry: registry.set_alias("mine", "champion", 1),
    "text": lambda registry: registry.log_text(OVER, "a card", "model_card.md"),
    "figure": lambda registry: registry.log_figure(OVER, Figure(), "models.png"),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_whatever_is_asked_a_refusal_is_a_line(ask: Callable[[ModelRegistry], Any]) -> None:
    with answering(401, b"You are not\nauthenticated.") as uri:
        registry = ModelRegistry(uri)
        with pytest.raises(GenresError, match=f"{uri} refuses its user") as error:
            ask(registry)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"You are not authenticated.", "refuses its user .*MLFLOW_TRACKING_PASSWORD"),
        (403, b"Permission denied", "refuses its user .*its administrator"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}', "refuses its user .*not yours"),
        (404, b"<html>\nno such page</html>", "is no MLflow server .*fix GENRES_MLFLOW_TRACKING_URI"),
        (404, b'{"detail": "Not Found"}', "is no MLflow server .*fix GENRES_MLFLOW_TRACKING_URI"),
        (200, b"<html>\nsomebody's page</html>", "is no MLflow server .*fix GENRES_MLFLOW_TRACKING_URI"),
        (
            400,
            b'{"error_code": "INVALID_STATE_TRANSITION", "message": "odd\\nway"}',
            "does not answer, or with .*odd",
        ),
        (400, b'{"error_code": "BAD_REQUEST", "message": "too long"}', r"refuses what it is asked for .*too long"),
        (500, b"no database", "does not answer, or with an error of its own .*try again when it is up"),
        (503, b"{}", "does not answer, or with an error of its own .*try again when it is up"),
    ],
    ids=["401", "403", "403 of its own", "404", "404 of another", "a page", "unknown", "400", "500", "503"],
)
def test_what_a_person_has_to_do_is_told_in_a_line(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as uri:
        registry = ModelRegistry(uri)
        with pytest.raises(GenresError, match=f"{uri} {said}") as error:
            registry.find_champion("mine")
    assert "\n" not in str(error.value)


def test_what_mlflow_does_not_know_is_no_refusal() -> None:
    with answering(404, UNKNOWN) as uri:
        registry = ModelRegistry(uri)
        assert registry.find_champion("mine") is None
        assert registry.aliases("mine") == {}
        with pytest.raises(GenresError, match="there is no version 3 of genres-mine"):
            registry.version("mine", 3)


def test_each_method_that_asks_mlflow_tells_it_plainly() -> None:
    methods = inspect.getmembers(ModelRegistry, inspect.isfunction)
    asking = {name for name, _ in methods if not name.startswith("_")} - {"name_for"}
    assert asking
    assert {name for name, method in methods if hasattr(method, "__wrapped__")} >= asking


def test_an_mlflow_that_hangs_is_waited_for_within_a_sensor_s_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib3.util import Retry

    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    retries, timeout_s = (int(Settings().client_variables[name]) for name in PATIENCE)
    again, pauses_s = Retry(retries, backoff_factor=2), 0.0
    for _ in range(retries):
        again = again.increment("GET", "/", error=OSError())  # type: ignore[arg-type]
        pauses_s += again.get_backoff_time() + 1  # and MLflow's jitter
    assert (retries + 1) * timeout_s + pauses_s < 60
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
    assert Settings().client_variables["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300", "somebody says so"


def test_a_training_is_at_least_as_patient_as_mlflow_is_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import environment_variables

    def run(*_: Any, **__: Any) -> Any:
        seen.append(tuple(os.environ[name] for name in PATIENCE))
        raise GenresError("seen")

    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(ModelRegistry, "_run", run)
    by_itself = tuple(str(getattr(environment_variables, name).default) for name in PATIENCE)
    with answering(404, UNKNOWN) as uri:
        registry = ModelRegistry(uri)
    for given in (("2", "15"), ("9", "300")):
        for name, value in zip(PATIENCE, given, strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(GenresError, match="seen"), registry.run("mine", run_name="r", stage="s", tags={}):
            pass
        assert tuple(os.environ[name] for name in PATIENCE) == given
    assert seen == [by_itself, ("9", "300")]


def test_what_is_logged_in_a_run_is_told_plainly_and_the_work_s_own_errors_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import requests
    from mlflow.exceptions import MlflowException

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace()

    monkeypatch.setattr(ModelRegistry, "_run", opened)

    def ending_with(error: Exception) -> None:
        with registry.run("mine", run_name="r", stage="s", tags={}):
            raise error

    with answering(404, UNKNOWN) as uri:
        registry = ModelRegistry(uri)
    artifacts, hdfs = (requests.Request("PUT", f"{server}/a").prepare() for server in (uri, "http://namenode:9870"))
    with pytest.raises(GenresError, match=r"MLflow at .* does not answer"):
        ending_with(MlflowException("API request failed"))
    with pytest.raises(GenresError, match=r"MLflow at .* does not answer"):
        ending_with(requests.ConnectionError("broken off", request=artifacts))
    for own in (requests.ConnectionError("broken off", request=hdfs), ValueError("a bug")):
        with pytest.raises(type(own)) as kept:
            ending_with(own)
        assert kept.value is own


@pytest.mark.parametrize("command", [("models",), ("models", "promote", "1"), ("predict", "a.wav")])
def test_a_wrong_password_is_a_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    settings = Settings(state_dir=tmp_path)
    database = Database(settings.database)
    database.migrate()
    register_dataset(database, Dataset("mine", tmp_path, False, ("gtzan57",)))
    with answering(401, b"You are not authenticated.") as uri:
        for name, value in {"STATE_DIR": str(tmp_path), "MLFLOW_TRACKING_URI": uri}.items():
            monkeypatch.setenv(f"GENRES_{name}", value)
        monkeypatch.setattr(sys, "argv", ["genres", *command])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"genres: MLflow at {uri} refuses its user (")


def test_a_proxy_before_an_mlflow_that_starts_is_asked_again() -> None:
    health = iter([(502, b""), (503, b""), HEALTHY])
    with answering(404, UNKNOWN, health=health) as uri:
        _wait_for_server(uri)
    assert next(health, None) is None

"""Alerts on a receiver of the tests' own: what is told, once each, and what happens if nobody takes it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from pydantic import SecretStr

from genres.errors import GenresError
from genres.settings import Settings
from genres_dagster.alerts import build_alert_sensors, send

HERE, ELSEWHERE = RegisteredCodeLocationOrigin("streaming"), RegisteredCodeLocationOrigin("batch")


class Receiver(ThreadingHTTPServer):
    """Takes what is posted to it, or answers with another status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[dict[str, str]] = []
        self.status = 200

    @property
    def address(self) -> str:
        """What Apprise calls it."""
        return f"json://127.0.0.1:{self.server_port}/?:token=hush"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.status == 200:
            self.server.messages.append(body)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dg.asset(check_specs=[dg.AssetCheckSpec("complete", asset="rows"), dg.AssetCheckSpec("fresh", asset="rows")])
def rows():  # type: ignore[no-untyped-def]  # what it would return besides its checks' results is nobody's business
    raise GenresError("the table 'rows' is locked: end who holds it")


class Location:
    """A code location with one asset, whose sensor is evaluated by hand."""

    def __init__(self, settings: Settings, home: str) -> None:
        self.instance = dg.DagsterInstance.local_temp(home)
        (sensor,) = build_alert_sensors(settings)
        self.sensor = sensor
        self.defs = dg.Definitions([rows], sensors=[sensor], resources={"settings": settings})
        self.resources = {"settings": settings}
        self.cursor: str | None = None
        self.tick()  # from now on people are told

    def tick(self) -> str:
        """Evaluate the sensor; return what it says."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, definitions=self.defs, resources=self.resources
        )
        context._code_location_origin = HERE
        result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        assert isinstance(result.skip_reason, dg.SkipReason)
        self.cursor = result.cursor
        return str(result.skip_reason.skip_message)

    def evaluate(self, name: str, *, passed: bool, dataset: str = "") -> None:
        """Report what a check found."""
        found = {"expected": "8 rows", "actual": "7", **({"dataset": dataset} if dataset else {})}
        evaluation = dg.AssetCheckEvaluation(asset_key=rows.key, check_name=name, passed=passed, metadata=found)
        self.instance.report_runless_asset_event(evaluation)

    def run(self, location: RegisteredCodeLocationOrigin | None) -> str:
        """Let a run of that code location fail; return its id."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=self.instance, raise_on_error=False).dagster_run
        if location is not None:
            origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job.name)
            self.instance.run_storage.delete_run(run.run_id)
            launched = run._replace(remote_job_origin=origin, status=dg.DagsterRunStatus.STARTED)
            self.instance.report_run_failed(self.instance.add_run(launched))
        return run.run_id


@pytest.fixture
def location(receiver: Receiver, tmp_path: Path) -> Location:
    return Location(Settings(alert_urls=SecretStr(receiver.address), state_dir=tmp_path / "state"), str(tmp_path))


def test_nobody_is_told_unless_somebody_asks(tmp_path: Path) -> None:
    assert build_alert_sensors(Settings(state_dir=tmp_path)) == []


def test_a_failed_run_is_told_once_with_its_reason_and_its_page(location: Location, receiver: Receiver) -> None:
    run_id = location.run(HERE)
    location.run(ELSEWHERE)
    location.run(None)  # a command's, which has told its person itself
    assert location.tick().startswith("told: ")
    assert location.tick() == "no run failed, and no check changed"
    (message,) = receiver.messages
    assert "the table 'rows' is locked: end who holds it" in message["message"]
    assert message["message"].endswith(f"/runs/{run_id})")


def test_a_check_is_told_when_it_fails_and_when_it_passes_again(location: Location, receiver: Receiver) -> None:
    location.evaluate("complete", passed=True)
    location.tick()
    assert receiver.messages == []
    location.evaluate("complete", passed=False)
    location.evaluate("fresh", passed=False)
    location.tick()
    location.evaluate("complete", passed=False)  # again: known
    location.tick()
    location.evaluate("complete", passed=True)
    location.tick()
    assert [message["title"] for message in receiver.messages] == [
        "genres: 2 things to look at",
        "genres: check complete passes again (rows)",
    ]
    assert "check fresh failed: expected 8 rows, actual 7 (rows)" in receiver.messages[0]["message"]


def test_a_check_is_told_of_each_dataset_by_itself(location: Location, receiver: Receiver) -> None:
    location.evaluate("complete", passed=False, dataset="mine")
    location.tick()
    location.evaluate("complete", passed=True, dataset="yours")  # which says nothing about mine
    location.tick()
    location.evaluate("complete", passed=False, dataset="mine")  # known
    location.evaluate("complete", passed=False, dataset="yours")
    location.tick()
    location.evaluate("complete", passed=True, dataset="mine")
    location.evaluate("complete", passed=False, dataset="yours")
    location.tick()
    assert [message["message"] for message in receiver.messages] == [
        "check complete of dataset mine failed: expected 8 rows, actual 7 (rows)",
        "check complete of dataset yours failed: expected 8 rows, actual 7 (rows)",
        "check complete of dataset mine passes again (rows)",
    ]


def test_a_failure_that_is_no_longer_among_the_newest_outcomes_is_still_known(
    location: Location, receiver: Receiver
) -> None:
    location.evaluate("complete", passed=False, dataset="mine")
    location.tick()
    for _ in range(30):
        location.evaluate("complete", passed=True, dataset="yours")
    location.tick()
    location.evaluate("complete", passed=True, dataset="mine")
    location.tick()
    assert [message["title"] for message in receiver.messages] == [
        "genres: check complete of dataset mine failed: expected 8 rows, actual 7 (rows)",
        "genres: check complete of dataset mine passes again (rows)",
    ]


def test_what_nobody_took_is_told_later(location: Location, receiver: Receiver) -> None:
    location.evaluate("fresh", passed=False)
    receiver.status = 503
    said = location.tick()
    assert "GENRES_ALERT_URLS: an address did not take the message" in said
    assert "hush" not in said
    receiver.status = 200
    location.tick()
    location.tick()
    assert len(receiver.messages) == 1


def test_an_address_of_no_known_kind_is_said_without_showing_it() -> None:
    with pytest.raises(GenresError, match="GENRES_ALERT_URLS: an address is of no kind") as caught:
        send("pigeon://roof?token=hush", ["something"])
    assert "hush" not in str(caught.value)

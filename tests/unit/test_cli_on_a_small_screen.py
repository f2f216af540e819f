"""The ``genres`` command on a terminal of 80 columns and 24 lines: nothing is cut, and what is copied is whole."""

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from rich.cells import cell_len

from genres.settings import Settings
from genres.store import quarantine
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres.store.quarantine import RefusedClip
from genres.store.tables import BATCH_PREDICTIONS, STREAM_PREDICTIONS, STREAM_QUARANTINE
from genres_cli.main import app
from genres_cli.report import PredictionsTable, models_lines, quarantine_lines, status_lines
from local_stack.stack import ServiceStatus
from tests.http_server import served
from tests.stream_rig import wait_until

_COLUMNS, _LINES = 80, 24
_NOW = datetime(2026, 11, 25, 17, 4, 31, tzinfo=UTC)
_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_PORT_BASE = 64_000


class Screen:
    """A command that runs on a terminal of this size."""

    def __init__(self, arguments: Sequence[str], variables: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GENRES_")}
        environment = {**kept, "TERM": "xterm-256color", **variables}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "genres_cli", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._terminal, self._shown = ours, b""

    def wait_for(self, text: str) -> None:
        """Read until a text is shown."""
        while text.encode() not in self._shown:
            self._shown += os.read(self._terminal, 4096)

    def wait_until_idle(self) -> None:
        """Wait until the command does nothing; one that a busy machine keeps waiting for its turn is not idle."""
        command = psutil.Process(self._process.pid)
        time.sleep(0.3)
        wait_until(lambda: command.status() == psutil.STATUS_SLEEPING, patience_s=60)

    def press(self, key: bytes) -> None:
        """Send a key."""
        os.write(self._terminal, key)

    def ended(self) -> tuple[int, list[str]]:
        """Read until the command ends; return its exit code and what it wrote, without colours."""
        with suppress(OSError):  # how Linux says that the other side is closed
            while read := os.read(self._terminal, 4096):
                self._shown += read
        os.close(self._terminal)
        code = self._process.wait()
        # Where a line is erased, another begins.
        text = re.sub(r"\x1b\[[0-9]*[AK]", "\n", self._shown.decode())
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return code, [line.rstrip() for line in text.replace("\r", "").splitlines()]


def _take_terminal() -> None:
    # Ctrl-C reaches who has the terminal as its own, and is not deaf to it as background jobs' children are.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "a folder with a long name, as home folders of institutes have them" / "state"


@pytest.fixture
def run(state: Path) -> Callable[..., list[str]]:
    def on_screen(*arguments: str, code: int = 0) -> list[str]:
        found, lines = Screen(arguments, variables(state)).ended()
        assert found == code, lines
        return lines

    return on_screen


def variables(state: Path) -> dict[str, str]:
    return {"GENRES_STATE_DIR": str(state), "GENRES_PORT_BASE": str(_PORT_BASE)}


def answer(number: int, **changed: Any) -> dict[str, Any]:
    genre = _GENRES[number % len(_GENRES)]
    probability = 0.123456789 + number % 7 / 10
    return {
        "model_name": "genres-gtzan",
        "model_version": 12,
        "dataset": "gtzan",
        "genre": genre,
        "predicted_genre": genre if number % 3 else "classical",
        "probability": probability,
        "probabilities": {genre: probability, "polka": 0.05, "ska": 0.01},
        "over_time": None,
        "is_calibrated": True,
        "is_uncertain": number % 4 == 0,
        "distance": 0.5,
        "is_unlike": False,
        "is_synthetic": False,
        "feature_version": "gtzan57-1-librosa0.11.0",
        "run_id": "r",
        "predicted_at": _NOW + timedelta(seconds=number),
        **changed,
    }


def stream_row(number: int, **changed: Any) -> dict[str, Any]:
    return {
        **answer(number),
        "sha256": f"{number:064x}",
        "file_name": f"Motörhead {number:02} – Ace of Spädes.wav",
        "topic": "audio_clips",
        "kafka_partition": 0,
        "kafka_offset": number,
        "partition_key": f"audio_clips:id:0:{number}-{number + 1}",
        "event_time": _NOW,
        "latency_s": 1.23456,
        **changed,
    }


@pytest.fixture
def database(state: Path) -> Database:
    opened = Database(Settings(state_dir=state, database_url="").database)
    opened.migrate()
    register_dataset(opened, Dataset("gtzan", Path("/data/gtzan"), is_synthetic=False, feature_sets=("gtzan57",)))
    batch = [
        {**answer(number), "track_id": f"{_GENRES[number % 10]}.{number:05}", "sha256": "0" * 64, "part": "test"}
        for number in range(50)
    ]
    refused = {
        "sha256": "ab" * 32,
        "suffix": ".wav",
        "judged_by": "gate 3, gtzan57-1-librosa0.11.0+librosa96-2+musicnn-1",
        "file_name": "notes – not samples.wav",
        "stage": "stream",
        "reason": "no RIFF header: the file begins with 'these are not samples at all, but a long text about music'",
        "reason_code": "not_audio",
        "topic": "audio_clips",
        "kept_path": "/genres/stream/quarantine/abab",
        "quarantined_at": _NOW,
    }
    with opened.writing() as connection:
        connection.execute(sa.insert(BATCH_PREDICTIONS), batch)
        connection.execute(sa.insert(STREAM_PREDICTIONS), [stream_row(number) for number in range(50)])
        connection.execute(sa.insert(STREAM_QUARANTINE), [refused])
    return opened


def whole(lines: Sequence[str]) -> None:
    """See that every line fits."""
    assert [line for line in lines if len(line) > _COLUMNS] == []


def test_the_list_of_commands_and_each_command_s_help(run: Callable[..., list[str]]) -> None:
    whole(run("--help"))
    named = [[name] for name in app.commands]
    named += [[name, below] for name, group in app.commands.items() for below in getattr(group, "commands", ())]
    assert ["stream", "pause"] in named and ["datasets", "delete"] in named
    for names in named:
        lines = run(*names, "--help")
        whole(lines)
        assert not [line for line in lines if line.endswith("...") and "Usage:" not in line], "a sentence is cut short"


def test_status_has_every_address_whole(run: Callable[..., list[str]], state: Path, database: Database) -> None:
    lines = run("status")
    settings = Settings(state_dir=state, port_base=_PORT_BASE)
    ports = settings.ports
    for address in (
        f"hdfs://127.0.0.1:{ports.namenode}",
        f"http://127.0.0.1:{ports.datanode_http}",
        f"127.0.0.1:{ports.kafka}",
        f"sc://127.0.0.1:{ports.spark_connect}",
        f"http://127.0.0.1:{ports.mlflow}",
        f"http://127.0.0.1:{ports.spark_ui}",
        settings.dagster_url,
        str(state),
    ):
        assert any(address in line for line in lines), address
    whole([line for line in lines if str(state) not in line])


@pytest.fixture
def answering() -> Iterator[Callable[[int, bytes], None]]:
    """Start what answers everything that is asked at a port with the same bytes."""
    with ExitStack() as servers:

        def start(port: int, body: bytes) -> None:
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(body)

            servers.enter_context(served(Answer, port=port))

        yield start


def test_status_says_of_each_page_by_itself_whether_it_is_open_and_where_the_runs_are(
    run: Callable[..., list[str]],
    state: Path,
    database: Database,
    answering: Callable[[int, bytes], None],
    free_port_base: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = free_port_base()
    monkeypatch.setattr(f"{__name__}._PORT_BASE", base)
    ports = Settings(state_dir=state, port_base=base).ports
    answering(ports.page, b"the page, by `genres page`")
    answering(ports.mlflow, json.dumps({"experiment": {"experiment_id": "17"}}).encode())
    lines = run("status")
    assert f"to listen     http://127.0.0.1:{ports.page}" in lines
    assert f"Dagster       http://127.0.0.1:{ports.dagster}  (closed; `genres ui` opens it)" in lines
    runs = f"http://127.0.0.1:{ports.mlflow}/#/experiments/17/runs?workflowType=machine_learning"
    assert f"MLflow        {runs}" in lines
    rows = {row["service"]: row for row in json.loads("\n".join(run("status", "--json")))}
    assert (rows["page"]["state"], rows["dagster"]["state"]) == ("running", "stopped")
    assert rows["page"].keys() == rows["mlflow"].keys()
    assert rows["mlflow"]["ui"] == f"http://127.0.0.1:{ports.mlflow}/#/experiments?workflowType=machine_learning"


def test_a_service_that_is_ill_and_far_away_has_its_address_whole() -> None:
    address = ",".join(f"broker{number}.streaming.example.org:9092" for number in range(3))
    reason = f"nothing answers at {address}"
    service = ServiceStatus("kafka", "unhealthy", None, address, None, None, None, None, reason)
    _, first, second, _ = (line.plain for line in status_lines([service]))
    assert first == f"kafka          unhealthy ({reason})"
    assert second.split() == [address]


def test_predictions_are_a_line_a_row_the_newest_last(run: Callable[..., list[str]], database: Database) -> None:
    lines = run("predictions")
    whole(lines)
    assert "20 batch predictions, the newest last; there are more: --last N" in lines
    batch = [line.split() for line in lines if re.match(r"[a-z]+\.\d{5} ", line)]
    assert [row[0] for row in batch] == [f"{_GENRES[number % 10]}.{number:05}" for number in range(30, 50)]
    assert batch[-1][1:5] == ["rock", "0.123", "rock", "gtzan"]
    stream = [line for line in lines if line.startswith("Motör")]
    assert len(stream) == 20 and all("Spädes.wav" in line for line in stream)
    assert any("no room for: " in line and "--json has all" in line for line in lines)
    last = [line.split() for line in run("predictions", "--last", "3") if line.startswith("Motör")]
    assert last == [line.split() for line in stream[-3:]]
    assert [line for line in run("predictions", "--last", "1") if "1 stream prediction, the newest last" in line]


def test_predictions_that_are_wrong_or_uncertain(run: Callable[..., list[str]], database: Database) -> None:
    def numbers(*options: str) -> set[int]:
        rows = json.loads("\n".join(run("predictions", "--json", *options)))
        return {row["kafka_offset"] for row in rows if row["table"] == "stream_predictions"}

    wrong, uncertain = set(range(0, 50, 3)) - {21}, set(range(0, 50, 4))  # the one of 21 is classical
    assert numbers() == set(range(50))
    assert numbers("--wrong") == wrong
    assert numbers("--uncertain") == uncertain
    assert numbers("--wrong", "--uncertain") == wrong & uncertain
    assert numbers("--wrong", "--last", "2") == set(sorted(wrong)[-2:])
    assert numbers("--dataset", "gtzan", "--last", "1") == {49}


def test_json_has_names_as_they_are(run: Callable[..., list[str]], database: Database) -> None:
    assert any('"Motörhead 49 – Ace of Spädes.wav"' in line for line in run("predictions", "--json"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["predictions"], ["quarantine"], ["load", "--help"]])
def test_what_an_encoding_lacks_is_spelt_with_escapes(
    state: Path, database: Database, encoding: str, arguments: list[str]
) -> None:
    command = [sys.executable, "-m", "genres_cli", *arguments]
    environment = {**os.environ, **variables(state), "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    if arguments == ["predictions"]:
        name = "Motörhead 49 – Ace of Spädes.wav".encode(encoding, "backslashreplace")
        assert name in done.stdout and rb"\u2013" in name


def test_followed_rows_fit_and_ctrl_c_ends_it(state: Path, database: Database) -> None:
    screen = Screen(["predictions", "--follow", "--wrong"], variables(state))
    screen.wait_for("Ctrl-C ends this")
    screen.wait_until_idle()  # Rich writes a screen twice that is interrupted while it is written
    screen.press(b"\x03")
    code, lines = screen.ended()
    assert code == 0
    whole(lines)
    assert any("Motörhead 48 – Ace of Spädes.wav" in line for line in lines)
    assert not any("Motörhead 49" in line for line in lines)


def test_followed_json_is_a_line_a_row_each_once(state: Path, database: Database) -> None:
    screen = Screen(["predictions", "--follow", "--json", "--last", "2"], variables(state))
    screen.wait_for("Motörhead 49")
    with database.writing() as connection:
        # One that was dated before the newest, and committed after it.
        late = [stream_row(number, predicted_at=_NOW + timedelta(seconds=40)) for number in (50, 51)]
        connection.execute(sa.insert(STREAM_PREDICTIONS), late)
    screen.wait_for("Motörhead 51")
    time.sleep(1.5)  # in which a row that is shown twice would come again
    screen.press(b"\x03")
    code, lines = screen.ended()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["kafka_offset"] for row in rows] == [48, 49, 50, 51]
    assert code == 0


def test_refused_clips_have_their_reasons_whole(run: Callable[..., list[str]], database: Database) -> None:
    notes = RefusedClip("jazz.notes", "Motörhead – notes.wav", "cd" * 32, "raw_audio", "700 s, at most 600")
    quarantine.replace(database, "gtzan", "raw_audio", [notes], run_id="r")
    lines = run("quarantine")
    whole(lines)
    assert lines[0] == "2 refused clips: streams 1, dataset gtzan 1"
    heads = {(line.split()[0], line.split()[4]) for line in lines[1:] if not line.startswith(" ")}
    assert heads == {("abababababab", "stream"), ("cdcdcdcdcdcd", "dataset")}
    assert "    dataset gtzan, track jazz.notes, refused by raw_audio" in lines
    said = " ".join(" ".join(lines).split())
    assert "no RIFF header: the file begins with 'these are not samples at all, but a long text about music'" in said
    assert "bytes in HDFS" in said
    assert run("quarantine", "list") == lines
    shown = {row["table"]: row["sha256"] for row in json.loads("\n".join(run("quarantine", "--json")))}
    assert shown == {"stream_quarantine": "ab" * 32, "quarantine": "cd" * 32}


def test_datasets_and_the_stream_are_whole(run: Callable[..., list[str]], database: Database, state: Path) -> None:
    lines = run("datasets")
    whole(lines)
    assert lines[0].split() == ["*", "gtzan", "no", "clip", "is", "loaded", "yet,", "no", "champion", "yet"]
    assert lines[1].split() == ["/data/gtzan"]
    whole(run("datasets", "show"))
    about = run("stream", "status")
    whole([line for line in about if str(state) not in line])
    assert "scored by    nothing: dataset 'gtzan' has no champion yet" in about
    assert "state        waits: Dagster is closed, `genres ui` opens it" in about
    assert "clips        50 predicted, 1 refused" in about
    paused = run("stream", "pause", code=1)
    assert "the sensors of stream audio_clips have never run: open Dagster" in " ".join(paused)


def test_models_are_some_lines_each() -> None:
    why = (
        "macro-F1 0.761 of 197 tracks is above the present champion's 0.752, in 93 % of 2,000 paired resamples; see "
        "hdfs://namenode.cluster.example.org:8020/genres/gtzan/models/v12-split-0123456789abcdef0123456789abcdef.parquet"
    )
    row = {
        "model_name": "genres-gtzan",
        "version": 12,
        "alias": "champion",
        "classifier": "FourierLogisticRegression on musicnn+librosa96",
        **dict.fromkeys(("valid_macro_f1", "valid_ece", "test_macro_f1", "test_accuracy"), 0.76123456),
        "valid_tracks": 197,
        "test_tracks": 290,
        "registered_at": _NOW,
        "champion_since": _NOW,
        "changed_by": "somebody@a-machine.example.org",
        "why": why,
    }
    lines = models_lines([row, {**row, "version": 1, "alias": "", "champion_since": None}], _COLUMNS)
    assert lines[0] == "genres-gtzan: 2 versions, the newest first"
    assert "    valid  macro-F1 0.761 (n=197), ECE 0.761 (n=197)" in lines
    address = why.split()[-1]
    whole([line for line in lines if address not in line])
    assert f"    {address}" in lines
    prose = [line for line in lines if line.startswith("    macro-F1 0.761 of")]
    assert len(prose) == 2 and all(len(line) > 60 for line in prose), "no word a line"


def test_what_an_asset_says_while_it_is_at_work_leaves_room_for_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rich.console import Console

    from genres_cli import demo
    from genres_dagster import launch

    said = "[uploaded] 123 of 1,000 clips to hdfs://namenode.cluster.example.org:8020/genres/gtzan/raw_audio/blues/"

    def run_job(*_: object, on_event: Callable[[str, str, str], None]) -> launch.BatchRun:
        for asset in ("raw_audio", "calibrated_classifier"):
            on_event(asset, "start", "")
            on_event(asset, "log", said)
        deadline = time.monotonic() + 60
        while "clips to" not in shown.getvalue() and time.monotonic() < deadline:  # it is drawn ten times a second
            time.sleep(0.05)
        return launch.BatchRun(log=tmp_path / "log", success=True)

    monkeypatch.setattr(launch, "run_job", run_job)
    shown = io.StringIO()
    console = Console(width=_COLUMNS, file=shown, force_terminal=True, color_system=None, legacy_windows=False)
    demo._run(console, Settings(state_dir=tmp_path), None, "batch_pipeline", "gtzan")  # type: ignore[arg-type]
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", shown.getvalue()).replace("\r", "\n").splitlines()
    whole(lines)
    for asset, beginning in (("raw_audio           ", said[:45]), ("calibrated_classifier", said[:44])):
        line = re.compile(rf"\S {asset} {re.escape(beginning)}.* 0:00:0\d")
        assert any(map(line.fullmatch, lines)), lines


@pytest.mark.parametrize("top", [1, 3])
def test_a_name_that_is_too_long_is_shortened_in_its_middle(top: int) -> None:

    name = f"{'a very long name ' * 9}of a clip.wav"
    fresh = {"genre": None, "predicted_at": None, "latency_s": None}
    rows = [stream_row(1, file_name=name, is_uncertain=True, **fresh), stream_row(2, **fresh)]
    lines = displayed(rows, top=top)
    whole(lines)
    (row,) = [line for line in lines if "a very" in line]
    assert re.search(r"a very.*…of a clip\.wav|a very\S*…\S*\.wav|a ver.*….*wav", row)
    if top == 3:
        assert "classical 0.223, polka 0.050, ska 0.010" in row


_WIDE = "ゆらゆら帝国 – ミーのカー (ライブ・アット・渋谷クアトロ)"
_LONG = "Avant-garde Chamber Folk, Field Recordings and Spoken Word of the Late Nineteen-Eighties"


@pytest.mark.parametrize(
    "changed",
    [
        {"file_name": f"{_WIDE}.wav", "is_uncertain": True},
        {"predicted_genre": _LONG, "genre": _LONG},
        {"file_name": f"{_WIDE}.wav", "predicted_genre": _LONG, "genre": _WIDE, "is_unlike": True},
        {"file_name": f"{_WIDE}.wav", "predicted_genre": _LONG, "genre": _WIDE, "dataset": "d" * 40},
    ],
)
def test_wide_names_and_long_genres_leave_a_line_a_row(changed: dict[str, Any]) -> None:
    shown = displayed([stream_row(number, **changed) for number in range(3)])
    assert len(shown) == 6, shown  # a title, heads, three rows, what there was no room for
    assert [line for line in shown if cell_len(line) > _COLUMNS] == []
    names = [name for name in changed.values() if isinstance(name, str)]
    assert all(re.search(rf"{name[:3]}.*….*{re.escape(name[-2:])}", line) for name in names for line in shown[2:5])
    # As much is shown as there is room for.
    assert max(map(cell_len, shown[2:5])) > _COLUMNS - 2 * len(changed) - 2, shown


def test_the_likeliest_long_genres_keep_their_probabilities() -> None:
    probabilities = {_LONG: 0.5, _WIDE: 0.25, "jazz": 0.125}
    shown = displayed([stream_row(2, file_name="a.wav", probabilities=probabilities, is_uncertain=False)], top=3)
    (row,) = [line for line in shown if line.startswith("a.wav")]
    assert re.search(r"Avant\S*….* 0\.500, ゆら.*… ?.*\) 0\.250, jazz 0\.125", row), shown


def displayed(rows: Sequence[dict[str, Any]], *, top: int = 1) -> list[str]:
    """Return the lines of a table on a screen of this width."""
    from rich.console import Console

    console = Console(width=_COLUMNS, record=True, file=io.StringIO())
    console.print(PredictionsTable(rows, name="file_name", top=top))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_quarantine_reasons_are_wrapped_by_words() -> None:
    row = {
        "table": "stream_quarantine",
        "sha256": "ab" * 32,
        "file_name": "a.wav",
        "reason": "word " * 40,
        "reason_code": "",
        "topic": "t",
        "judged_by": "",
        "stage": "producer",
        "kept_path": None,
        "quarantined_at": _NOW,
        "closed_at": _NOW,
    }
    lines = quarantine_lines([row, row], {"streams": 2}, _COLUMNS)
    whole(lines)
    assert lines[0] == "2 refused clips: streams 2" and any(line.endswith("(closed)") for line in lines)

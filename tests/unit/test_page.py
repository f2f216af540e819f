"""The page's server: the plain HTTP answer, the guard before it, and what the views are filled with."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import requests
import soundfile
from gradio.route_utils import delete_files_created_by_app
from starlette.testclient import TestClient

from genres.audio.rejections import Reason, RejectedAudio
from genres.errors import GenresError
from genres.retrying import retried
from genres.settings import PROJECT_DIR, Settings
from genres.store import predictions
from genres.store.database import Database
from genres.store.sql import tables
from genres_page import clips, server, views
from genres_page.answers import Answerer
from genres_page.page import Page, in_words
from genres_page.server import build_app
from tests.stream_rig import wait_until
from tests.unit import test_predictions_table

ANSWER: dict[str, Any] = {
    "file_name": "a.wav",
    "predicted_genre": "blues",
    "probability": 0.8,
    "probabilities": {"blues": 0.8, "metal": 0.2},
    "over_time": {
        "window_s": 3.0,
        "hop_s": 3.0,
        "start_s": 0.0,
        "genres": ["blues", "metal"],
        "probabilities": [[0.7, 0.3], [0.9, 0.1]],
    },
    "is_uncertain": False,
    "is_unlike": False,
    "is_synthetic": True,
    "model_name": "genres-mine",
    "model_version": 3,
    "dataset": "mine",
    "tags": {},
}


class Answers:
    """Stands for an `Answerer`."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, str]] = []
        self.error: Exception | None = None

    def answer(self, data: bytes, *, file_name: str, dataset: str = "") -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.asked.append((len(data), file_name, dataset))
        return {**ANSWER, "file_name": file_name}


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def settings(tmp_path: Path, database: Database) -> Settings:
    return Settings(state_dir=tmp_path)


@pytest.fixture
def client(settings: Settings, answers: Answers) -> Iterator[TestClient]:
    with TestClient(build_app(settings, cast("Answerer", answers)), base_url="http://127.0.0.1") as client:
        yield client


def wav() -> bytes:
    written = io.BytesIO()
    soundfile.write(written, np.zeros(22_050, np.float32), 22_050, format="WAV")
    return written.getvalue()


def test_a_posted_clip_is_answered_in_json(client: TestClient, answers: Answers) -> None:
    response = client.post("/answer?dataset=mine", files={"file": ("a.wav", b"1234")})
    assert response.status_code == 200
    assert response.json()["probabilities"] == {"blues": 0.8, "metal": 0.2}
    assert answers.asked == [(4, "a.wav", "mine")]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RejectedAudio(Reason.EMPTY_FILE), 422), (GenresError("no champion yet: run `genres demo`"), 503)],
)
def test_what_is_refused_is_one_line(client: TestClient, answers: Answers, error: Exception, status: int) -> None:
    answers.error = error
    response = client.post("/answer", files={"file": ("a.wav", b"")})
    assert (response.status_code, response.json()) == (status, {"error": str(error)})


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody answer more than a megabyte."""
    monkeypatch.setattr(server, "max_clip_bytes", lambda _: 10**6)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("says_how_much", [True, False])
def test_no_more_is_read_than_a_clip_may_have(client: TestClient, answers: Answers, says_how_much: bool) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'

    def posted(chunks: int) -> tuple[int, dict[str, Any], int]:
        """Return the answer's status and body, and how many of the messages with the form were read."""
        form = [head, *[bytes(10**5)] * chunks, b"\r\n--x--\r\n"]
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")]
        if says_how_much:
            headers.append((b"content-length", str(sum(map(len, form))).encode()))
        scope = {"type": "http", "method": "POST", "path": "/answer", "query_string": b"", "headers": headers}
        unread, sent = form[:], list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": unread.pop(0), "more_body": bool(unread)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(cast("Any", client.app)(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(body), len(form) - len(unread)

    assert posted(10)[0] == 200
    assert answers.asked == [(10**6, "a.wav", "")]
    line = "the clip is too large: at most 1,000,000 bytes are read, whatever its format"
    assert posted(200) == (413, {"error": line}, 0 if says_how_much else 12)
    assert len(answers.asked) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 422),
        ({"content": b"RIFF", "headers": {"Content-Type": "audio/wav"}}, 422),
        ({"json": {"file": "a.wav"}}, 422),
        ({"data": {"file": "a.wav"}}, 422),
        ({"files": {"clip": ("a.wav", b"1")}}, 422),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"nothing", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400),
        ({"files": {"file": ("a" * 5000 + ".wav", b"1")}}, 400),
    ],
)
def test_what_holds_no_clip_is_one_line(client: TestClient, answers: Answers, sent: Any, status: int) -> None:
    response = client.post("/answer", **sent)
    assert (response.status_code, [*response.json()]) == (status, ["error"])
    assert "`curl -F file=@clip.wav`" in response.json()["error"]
    assert answers.asked == []


def test_only_an_uploaded_file_is_answered(
    settings: Settings, answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may open the port names any path; the page reads as its user."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    elsewhere = tmp_path / "elsewhere.wav"
    elsewhere.write_bytes(wav())

    def answered(client: TestClient, path: str) -> str:
        named = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = client.post("/gradio_api/call/answer", json={"data": [named]}).json()["event_id"]
        return client.get(f"/gradio_api/call/answer/{event}").text

    with TestClient(build_app(settings, cast("Answerer", answers)), base_url="http://127.0.0.1") as client:
        assert "event: error" in answered(client, str(elsewhere))
        assert answers.asked == []
        assert not [*(tmp_path / "cache").rglob("elsewhere*")]
        (uploaded,) = client.post("/gradio_api/upload", files={"files": ("a.wav", wav())}).json()
        assert "event: complete" in answered(client, uploaded)
        assert len(answers.asked) == 1


def test_another_sites_page_is_refused(client: TestClient, answers: Answers) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert client.post("/answer", files={"file": ("a.wav", b"1")}, headers=headers).status_code == 403
        assert client.get("/", headers=headers).status_code == 403
    assert answers.asked == []
    page = client.get("/")
    assert page.status_code == 200
    assert "fonts.googleapis" not in page.text  # nothing is fetched from elsewhere


def test_a_dropped_clip_fills_the_view(settings: Settings, answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    page = Page(settings, cast("Answerer", answers))
    likely, said, curve, picture, tags = page.answer(str(tmp_path / "a.wav"))
    assert likely == ANSWER["probabilities"]
    assert said == "blues (0.80); genres-mine version 3; trained on synthetic sound, which says nothing about music"
    assert [axes.get_xlabel() for axes in picture.axes[:1]] == ["s"]
    assert (curve["seconds"], curve["over_time"]) == (1.0, ANSWER["over_time"])
    assert len(curve["colours"]) == 2
    assert tags == {}
    assert page.answer(None)[0] == {}


def test_no_music_is_said_before_anything_else_is() -> None:
    assert "may be no music" in in_words({**ANSWER, "is_unlike": True, "is_uncertain": True})
    assert "uncertain" in in_words({**ANSWER, "is_uncertain": True})


def test_a_fresh_page_says_that_nothing_is_loaded(settings: Settings, answers: Answers) -> None:
    page = Page(settings, cast("Answerer", answers))
    assert page.datasets() == []
    assert list(page.streamed("all", uncertain=False, wrong=False).columns)[:2] == ["time", "file"]
    views.build(page)


@pytest.mark.parametrize(
    ("file_name", "suffix"), [("../../etc/a.AU", ".au"), ("a.wav", ".wav"), ("a.html", ""), ("wav", "")]
)
def test_what_a_clip_is_played_from_is_gradios_to_delete(
    settings: Settings,
    answers: Answers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file_name: str,
    suffix: str,
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(clips, "of_track", lambda *_: (wav(), file_name))
    page = Page(settings, cast("Answerer", answers))
    blocks = views.build(page)
    file = Path(page.track_file("mine", "a"))
    assert (file.parent, file.suffix) == (tmp_path / "cache", suffix)
    assert file.read_bytes() == wav()
    delete_files_created_by_app(blocks, age=3600)
    assert file.exists()
    delete_files_created_by_app(blocks, age=-1)
    assert not file.exists()


def test_a_track_is_played_with_the_curve_of_the_answer_that_is_shown(
    settings: Settings, answers: Answers, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(clips, "of_track", lambda *_: (wav(), "a.wav"))
    curves = {version: {**ANSWER["over_time"], "start_s": float(version)} for version in (1, 2)}
    rows = [test_predictions_table.row("a", model_version=version, over_time=curves[version]) for version in curves]
    predictions.add_batch_predictions(database, rows)
    page = Page(settings, cast("Answerer", answers))
    assert page.play_track("mine", "a")[1]["over_time"] == curves[2]
    change = {"dataset": "mine", "model_name": "genres-mine", "model_version": 1, "action": "rollback"}
    who = {"changed_by": "me", "why": "", "changed_at": datetime(2026, 1, 2, tzinfo=UTC)}
    with database.writing() as connection:
        connection.execute(tables.CHAMPION_CHANGES.insert(), [{**change, **who}])
    assert page.play_track("mine", "a")[1]["over_time"] == curves[1]
    assert page.play_track("mine", "nobody's")[1]["over_time"] is None


def test_a_page_that_is_terminated_leaves_no_folder(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "genres_cli", "page", "--port", str(port)],
        env={**os.environ, "TMPDIR": str(temporary), "GENRES_STATE_DIR": str(tmp_path / "state")},
        stderr=subprocess.DEVNULL,
    )
    try:
        retried(
            lambda: requests.get(f"http://127.0.0.1:{port}", timeout=5), on=requests.RequestException, patience_s=120
        )
        assert len(list(temporary.glob("genres-page-*"))) == 1
        process.terminate()
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert list(temporary.glob("genres-page-*")) == []


STUCK = """
import sys, time
from pathlib import Path
from genres.settings import Settings
from genres_page import server

async def nothing(scope, receive, send):
    while True:
        told = await receive()
        await send({"type": f"{told['type']}.complete"})
        if told["type"] == "lifespan.shutdown":
            break

def stuck(answerer):
    answerer._thread.submit(time.sleep, 600)

server._CLOSE_S = 0.5
server.build_app = lambda *_: nothing
server.Answerer.warm_up = stuck
print("ready", flush=True)
server.serve(Settings(state_dir=Path(sys.argv[1])), 0)
"""


def test_a_page_whose_answer_does_not_come_ends_all_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        wait_until(lambda: any(one.status == "LISTEN" for one in psutil.Process(process.pid).net_connections()))
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 1
        finally:
            process.kill()

"""The page in a real browser: what is drawn, heard, filtered and reached by keyboard; there are rows, and no stack."""

import io
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pytest
import soundfile
import uvicorn
from gradio_client import Client, handle_file

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import predictions, quarantine
from genres.store.database import Database
from genres.store.ledger import Dataset, register_dataset
from genres.store.quarantine import RefusedClip
from genres.store.stream_ledger import commits, ranges
from genres.store.stream_ledger.commits import RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_page import clips, page
from genres_page.answers import Answerer
from genres_page.server import build_app, keeping_nothing
from streaming_sensors.topic import TopicState
from tests.accessibility import grave_violations
from tests.unit import test_page, test_predictions_table, test_stream_ledger

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CLIP_S = 6.0
_PATIENCE_MS = 120_000
"""How long the browser waits for what is to come; a busy machine may need many times what an idle one does."""
LOOKS: dict[str, tuple[int, Literal["light", "dark"]]] = {
    "phone": (390, "light"),
    "desk": (1280, "light"),
    "dark": (1280, "dark"),
}
PICTURE = "<img src=x onerror=\"document.title='owned'\">"
FORMULA = "=1+1 **bold** $\\frac$ $x^2$ [link](http://elsewhere.example) {{value}} ${value}"
OVER_TIME = {
    "window_s": 3.0,
    "hop_s": 3.0,
    "start_s": 0.0,
    "genres": ["blues", PICTURE],
    "probabilities": [[0.9, 0.1], [0.2, 0.8]],
}
CARD = f"# genres-mine version 2\n\n| genre | n |\n|---|---|\n| {PICTURE} | 3 |\n\n- `{PICTURE}` {FORMULA} ![x](http://elsewhere.example/x.png)"


def sound(container: str = "WAV") -> bytes:
    written = io.BytesIO()
    samples = 0.5 * np.sin(np.linspace(0, 3_000, int(CLIP_S * 22_050)))
    soundfile.write(written, samples, 22_050, format=container)
    return written.getvalue()


class Answers(test_page.Answers):
    """Answers with a curve."""

    def answer(self, data: bytes, *, file_name: str, dataset: str = "") -> dict[str, Any]:
        return {**super().answer(data, file_name=file_name, dataset=dataset), "over_time": OVER_TIME}


class Registry:
    """Stands for MLflow: two versions of a model, the first of which is the champion."""

    champion: ClassVar = {"champion": 1}

    def __init__(self, _: str) -> None:
        pass

    def name_for(self, dataset: str) -> str:
        return f"genres-{dataset}"

    def aliases(self, _: str) -> dict[str, int]:
        return dict(self.champion)

    def set_alias(self, _: str, alias: str, version: int) -> None:
        self.champion[alias] = version

    def version(self, dataset: str, version: int) -> Any:
        return SimpleNamespace(name=self.name_for(dataset), version=version, feature_version=GTZAN57.feature_version)

    def versions(self, dataset: str) -> list[Any]:
        return [
            SimpleNamespace(
                name=self.name_for(dataset),
                version=str(version),
                creation_timestamp=1_767_323_045_000,
                run_id="run",
                description=CARD.replace("genres-mine version 2", f"{self.name_for(dataset)} version {version}"),
                tags={
                    **dict.fromkeys(("spark_model_path", "spark_model_digest", "feature_version", "fingerprint"), "x"),
                    "classifier": "LogisticRegression",
                    "is_calibrated": "true",
                    "valid_macro_f1": "0.5",
                    "valid_tracks": "20",
                    "test_accuracy": "0.8",
                    "test_tracks": "10",
                    "why": FORMULA,
                },
            )
            for version in (2, 1)
        ]


@pytest.fixture
def settings(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A library of three tracks, one of which is called like a picture, and a topic without clips."""
    register_dataset(database, Dataset("mine", tmp_path, False, ("gtzan57",)))
    row = test_predictions_table.row
    predictions.add_batch_predictions(
        database,
        [
            row("blues.good", predicted_genre="blues", over_time=OVER_TIME),
            row(PICTURE, over_time=OVER_TIME),
            row(FORMULA, genre=PICTURE, predicted_genre=FORMULA, is_uncertain=True),
        ],
    )
    refused = [RefusedClip("a", PICTURE, "a" * 64, "raw_audio", f"not sound: {FORMULA}", "not_audio")]
    quarantine.replace(database, "mine", "raw_audio", refused, run_id="run")
    state = TopicState("audio_clips", "A", {0: 0}, {0: 100})
    monkeypatch.setattr("streaming_sensors.topic.topic_state", lambda *_: state)
    monkeypatch.setattr(clips, "of_track", lambda *_: (sound(), "a.wav"))
    monkeypatch.setattr(clips, "of_stream", lambda *_: (sound(), "a.wav"))
    monkeypatch.setattr(page, "ModelRegistry", Registry)
    monkeypatch.setattr(Registry, "champion", {"champion": 1})
    return Settings(state_dir=tmp_path)


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are, the page's among them."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_RUN_HISTORY"):
        monkeypatch.setenv(name, "")  # is as it was when the test has ended
    return folder


@pytest.fixture
def address(settings: Settings, temporary_folder: Path) -> Iterator[str]:
    with keeping_nothing():
        config = uvicorn.Config(build_app(settings, cast("Answerer", Answers())), port=0, log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive()
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.force_exit = server.should_exit = True
            thread.join()
    assert list(temporary_folder.iterdir()) == []


@pytest.fixture
def seen(request: pytest.FixtureRequest, address: str, browser: "Browser") -> "Iterator[Page]":
    """The page in one of the `LOOKS`; nothing may be asked of elsewhere, and no error be said."""
    width, scheme = LOOKS[request.param]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if leads_out(asked.url, address) else None)
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(address)
    page.get_by_role("tab", name="Try it").wait_for()
    yield page
    assert page.title() == "genres"  # no name became a script
    assert complaints == []


@pytest.fixture
def desk(address: str, browser: "Browser") -> "Page":
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(_PATIENCE_MS)
    page.goto(address)
    return page


def leads_out(url: str, address: str) -> bool:
    return not url.startswith(("data:", "blob:", address))


def commit_clip(database: Database, offset: int, **changed: Any) -> None:
    """Store a clip of the stream as a run does: its range is planned, and committed with its row."""
    key = PartitionKey("audio_clips", "A", 0, offset, offset + 1)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    sha256 = f"{offset:064d}"
    stored = test_stream_ledger.prediction(
        sha256, offset, event_time=datetime.now(UTC) - timedelta(seconds=1), over_time=OVER_TIME, **changed
    )
    commits.commit_range(database, RangeResult(key, "run", predictions=[stored]))


def look_at(page: "Page", view: str) -> "Locator":
    """Open a view, and return what is in it."""
    page.get_by_role("tab", name=view).click()
    return page.get_by_role("tabpanel").filter(visible=True)


def cell(view: "Locator", text: str) -> "Locator":
    """Return the first cell with this text; a table has another row besides, unseen, to be measured."""
    return view.get_by_role("gridcell", name=text).first


@pytest.mark.parametrize("seen", ["phone", "desk"], indirect=True)
def test_genres_over_time_follow_the_player_and_move_it(seen: "Page", tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound())
    seen.locator("input[type=file]").first.set_input_files(tmp_path / "a.wav")
    position = seen.get_by_role("slider", name="Position in the clip")
    position.wait_for()
    assert position.get_attribute("aria-valuetext") == f"0.0 s: blues 0.90, {PICTURE} 0.10"
    audio = seen.locator("#clip audio")
    seen.wait_for_function("it => it.readyState > 0", arg=audio.element_handle())
    assert audio.evaluate("it => it.duration") == pytest.approx(CLIP_S, abs=0.1)
    # A click moves the player.
    box = position.bounding_box()
    assert box is not None
    seen.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 10)
    assert audio.evaluate("it => it.currentTime") == pytest.approx(4.5, abs=0.1)
    assert str(position.get_attribute("aria-valuetext")).startswith(f"4.5 s: {PICTURE} 0.80")
    # So do keys, and a key starts it.
    position.focus()
    position.press("Home")
    position.press("ArrowRight")
    assert audio.evaluate("it => it.currentTime") == pytest.approx(1, abs=0.1)
    position.press("Space")
    # The playhead follows.
    seen.wait_for_function("it => Number(it.getAttribute('aria-valuenow')) > 1.3", arg=position.element_handle())
    position.press("Space")
    assert audio.evaluate("it => it.paused")
    left = position.locator(".head").evaluate("it => parseFloat(it.style.left)")
    assert left == pytest.approx(100 * audio.evaluate("it => it.currentTime") / CLIP_S, abs=2)


def test_a_clip_is_answered_once_however_it_came(desk: "Page", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bytes]] = []
    real = Answers.answer

    def counted(self: Answers, data: bytes, *, file_name: str, dataset: str = "") -> dict[str, Any]:
        asked.append((file_name, data))
        return real(self, data, file_name=file_name, dataset=dataset)

    monkeypatch.setattr(Answers, "answer", counted)
    desk.context.grant_permissions(["microphone"])
    clip, said = desk.locator("#clip"), desk.get_by_label("Answer").element_handle()

    def the_one_asked() -> tuple[str, bytes]:
        desk.wait_for_function("it => it.value.startsWith('blues (0.80)')", arg=said)
        desk.wait_for_timeout(1_500)  # for whoever would ask again
        (one,) = asked
        asked.clear()
        # It is played as it is: what would cut it is not there, and would ask again.
        assert clip.locator("audio").is_visible()
        assert clip.get_by_role("button", name="Trim").count() == 0
        clip.get_by_role("button", name="Clear").click()
        desk.wait_for_function("it => it.value === ''", arg=said)
        return one

    (tmp_path / "dropped.flac").write_bytes(sound("FLAC"))
    clip.locator("input[type=file]").set_input_files(tmp_path / "dropped.flac")
    assert the_one_asked() == ("dropped.flac", sound("FLAC"))
    track = desk.get_by_label("Or a track of the library")
    sent = list[str]()
    desk.on("request", lambda request: sent.append(request.post_data or ""))
    for _ in range(2):
        track.click()
        desk.get_by_role("option", name="mine: blues.good").click()
        name, data = the_one_asked()
        assert (Path(name).suffix, data) == (".wav", sound())
        assert len([body for body in sent if '"mine: blues.good"' in body]) == 1
        sent.clear()
    clip.get_by_role("button", name="Record audio").click()
    clip.get_by_role("button", name="Record", exact=True).click()
    clip.get_by_role("button", name="Stop").wait_for()
    desk.wait_for_timeout(1_500)
    clip.get_by_role("button", name="Stop").click()
    name, data = the_one_asked()
    recorded = soundfile.info(io.BytesIO(data))
    assert (Path(name).suffix, recorded.format) == (".wav", "WAV")
    assert recorded.duration > 0.5
    assert asked == []  # nobody asks about nothing
    # The browser keeps none of it.
    kept = "async () => [Object.keys(localStorage), (await indexedDB.databases()).map(it => it.name)]"
    assert desk.evaluate(kept) == [[], []]


def test_a_program_asks_as_the_page_does(address: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound())
    client = Client(address, verbose=False)
    likely, said, *_ = client.predict(handle_file(tmp_path / "a.wav"), api_name="/answer")
    assert said.startswith("blues (0.80)")
    assert likely["label"] == "blues"


def test_what_is_played_is_served_from_where_it_was_written(
    desk: "Page", database: Database, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "of_stream", lambda *_: (sound(), "../../outside.wav"))
    commit_clip(database, 0, file_name="first.wav")
    view = look_at(desk, "Stream")
    cell(view, "first.wav").click()
    audio = view.locator("audio")
    desk.wait_for_function("it => it.readyState > 0", arg=audio.element_handle())
    assert audio.evaluate("it => it.duration") == pytest.approx(CLIP_S, abs=0.1)
    part = desk.request.get(str(audio.get_attribute("src")), headers={"Range": "bytes=4-7"})
    assert (part.status, part.body()) == (206, sound()[4:8])
    # No copy of it lies anywhere else, and what it is called is no part of any path.
    (file,) = [path for path in temporary_folder.rglob("*") if path.is_file()]
    assert file.read_bytes() == sound()
    assert file.parent.parent == temporary_folder
    assert "outside" not in file.name


def test_the_stream_shows_new_clips_while_it_is_looked_at(
    desk: "Page", settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = page.Page.streamed
    monkeypatch.setattr(
        page.Page, "streamed", lambda self, *args, **chosen: asked.append(args) or real(self, *args, **chosen)
    )
    commit_clip(database, 0, file_name="first.wav")
    desk.get_by_role("tab", name="Try it").wait_for()
    desk.wait_for_timeout(3_000)
    assert asked == []  # nobody looks at the stream
    view = look_at(desk, "Stream")
    cell(view, "first.wav").wait_for()
    commit_clip(database, 1, file_name=PICTURE)
    cell(view, PICTURE).wait_for()
    assert "98 clips wait" in view.get_by_label("Now").input_value()
    look_at(desk, "Try it")
    for _ in range(20):  # what was asked before the page heard of it may still come
        before = len(asked)
        desk.wait_for_timeout(4_500)
        if len(asked) == before:
            break
    else:
        pytest.fail("it goes on asking")


def test_the_stream_is_filtered(desk: "Page", database: Database) -> None:
    commit_clip(database, 0, file_name="right.wav", genre="jazz", predicted_genre="jazz")
    commit_clip(database, 1, file_name="wrong.wav", genre="blues", predicted_genre="jazz")
    commit_clip(database, 2, file_name="unsure.wav", predicted_genre="ska", is_uncertain=True)
    view = look_at(desk, "Stream")
    names = {"right.wav", "wrong.wav", "unsure.wav"}

    def shown(wanted: set[str]) -> None:
        for name in names & wanted:
            cell(view, name).wait_for()
        for name in names - wanted:
            cell(view, name).wait_for(state="detached")

    shown(names)
    view.get_by_label("other than the folder's name says").check()
    shown({"wrong.wav"})
    view.get_by_label("other than the folder's name says").uncheck()
    view.get_by_label("uncertain").check()
    shown({"unsure.wav"})
    view.get_by_label("uncertain").uncheck()
    shown(names)
    # What the stream's rows say is offered, whatever the library has.
    view.get_by_label("Predicted genre").click()
    desk.get_by_role("option", name="jazz").wait_for()
    assert desk.get_by_role("option").all_inner_texts() == ["✓\nall", "jazz", "ska"]
    desk.get_by_role("option", name="ska").click()
    shown({"unsure.wav"})


def test_clips_are_chosen_by_keyboard_too(desk: "Page", database: Database) -> None:
    commit_clip(database, 0, file_name=PICTURE, predicted_genre="jazz")
    for name, option in (("Stream", f"{PICTURE}: jazz"), ("Library", PICTURE)):
        view = look_at(desk, name)
        cell(view, PICTURE).wait_for()
        chosen = view.get_by_label("Play", exact=True)
        chosen.focus()
        chosen.press("ArrowDown")
        desk.get_by_role("option", name=option).wait_for()
        chosen.press_sequentially("<img")
        chosen.press("Enter")
        position = view.get_by_role("slider", name="Position in the clip")
        position.wait_for()
        position.focus()
        position.press("End")
        assert position.get_attribute("aria-valuenow") != "0", name


def test_a_refused_clip_has_the_code_of_its_reason_beside_it(desk: "Page") -> None:
    view = look_at(desk, "Library")
    cell(view, f"not sound: {FORMULA}").wait_for()
    cell(view, "not_audio").wait_for()


def test_another_dataset_is_looked_at_whole(desk: "Page", settings: Settings, database: Database) -> None:
    register_dataset(database, Dataset("other", settings.state_dir, False, ("gtzan57",)))
    row = test_predictions_table.row("theirs", dataset="other", genre="jazz", predicted_genre="jazz")
    predictions.add_batch_predictions(database, [row])
    desk.reload()
    view = look_at(desk, "Library")
    dataset, genre = view.get_by_label("Dataset"), view.get_by_label("Genre", exact=True)

    def choose(box: "Locator", name: str) -> None:
        box.click()
        desk.get_by_role("option", name=name, exact=True).click()

    choose(dataset, "mine")
    choose(genre, PICTURE)
    cell(view, FORMULA).wait_for()
    cell(view, "blues.good").wait_for(state="detached")
    choose(dataset, "other")
    cell(view, "theirs").wait_for()
    assert genre.input_value() == "all"
    # Its own genres are offered.
    choose(genre, "jazz")
    cell(view, "theirs").wait_for()


def test_what_was_loaded_since_is_offered_when_a_tab_is_chosen(
    desk: "Page", settings: Settings, database: Database
) -> None:
    for name in ("Library", "Models"):
        look_at(desk, name).get_by_role("gridcell").first.wait_for()
    look_at(desk, "Try it")
    register_dataset(database, Dataset("other", settings.state_dir, False, ("gtzan57",)))
    row = test_predictions_table.row("theirs", dataset="other", genre="jazz", predicted_genre="jazz")
    predictions.add_batch_predictions(database, [row])
    for name in ("Models", "Library"):
        view = look_at(desk, name)
        dataset = view.get_by_label("Dataset")
        assert dataset.input_value() == "mine", "what was chosen stays"
        desk.wait_for_timeout(1_500)
        dataset.click()
        desk.get_by_role("option", name="other", exact=True).click()
    cell(view, "theirs").wait_for()
    view.get_by_label("Genre", exact=True).click()
    desk.get_by_role("option", name="jazz", exact=True).click()
    view = look_at(desk, "Try it")
    desk.wait_for_timeout(1_500)
    view.get_by_label("Or a track of the library").click()
    desk.get_by_role("option", name="other: theirs").wait_for()


def test_a_card_is_read_by_keyboard_too(desk: "Page", settings: Settings, database: Database) -> None:
    register_dataset(database, Dataset("other", settings.state_dir, False, ("gtzan57",)))
    desk.reload()
    view = look_at(desk, "Models")
    view.get_by_role("gridcell").first.wait_for()
    version = view.get_by_label("Version", exact=True)
    version.focus()
    version.press("2")
    view.get_by_role("heading", name="genres-other version 2").wait_for()
    version.press("Backspace")
    version.press("1")
    view.get_by_role("heading", name="genres-other version 1").wait_for()
    version.press("7")
    view.get_by_text("There is no version 17.").wait_for()
    # A row says the number, and that shows the card; another dataset's version is none of these.
    view.get_by_role("gridcell").first.click()
    view.get_by_role("heading", name="genres-other version 2").wait_for()
    assert version.input_value() == "2"
    view.get_by_label("Dataset").click()
    desk.get_by_role("option", name="mine", exact=True).click()
    view.get_by_role("heading", name="genres-other version 2").wait_for(state="detached")
    assert version.input_value() == ""


@pytest.mark.parametrize("seen", LOOKS, indirect=True)
def test_each_view_fits_and_can_be_used_by_anybody(seen: "Page", database: Database) -> None:
    commit_clip(database, 0, file_name=PICTURE, genre=PICTURE, predicted_genre=FORMULA)
    width = seen.evaluate("window.innerWidth")
    for view in ("Try it", "Stream", "Library", "Models"):
        shown = look_at(seen, view)
        if view != "Try it":
            shown.get_by_role("gridcell").first.wait_for()
        if view in ("Stream", "Library"):
            shown.get_by_role("gridcell", name=PICTURE).first.click()
            shown.get_by_role("slider", name="Position in the clip").wait_for()
        if view == "Models":
            shown.get_by_role("gridcell").first.click()
            shown.get_by_text("genres-mine version 2").wait_for()
        assert seen.evaluate("document.documentElement.scrollWidth") <= width, view
        assert grave_violations(seen) == [], view


@pytest.mark.parametrize("seen", ["phone", "desk"], indirect=True)
def test_names_are_text_wherever_they_stand(seen: "Page", database: Database) -> None:
    commit_clip(database, 0, file_name=PICTURE, genre=PICTURE, predicted_genre=FORMULA)
    commit_clip(database, 1, file_name=FORMULA)
    view = look_at(seen, "Stream")
    cell(view, PICTURE).wait_for()
    cell(view, FORMULA).wait_for()
    view = look_at(seen, "Library")
    cell(view, PICTURE).wait_for()
    cell(view, f"not sound: {FORMULA}").wait_for()
    view = look_at(seen, "Models")
    cell(view, FORMULA).wait_for()
    view.get_by_role("gridcell").first.click()
    card = view.get_by_role("heading", name="genres-mine version 2").locator("xpath=..")
    assert PICTURE in card.inner_text()
    assert "![x](http://elsewhere.example/x.png)" in card.inner_text()
    assert card.locator("img, a").count() == 0


def test_a_champion_is_changed_with_a_reason_and_a_tick_and_dagster_is_told(
    desk: "Page", settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("genres_dagster.champion_changes.tell_dagster", lambda _, change: told.append(change))
    monkeypatch.setattr("genres.store.champions.require_intact", lambda *_: None)
    view = look_at(desk, "Models")
    view.get_by_role("gridcell").first.click()
    view.get_by_text("genres-mine version 2").wait_for()
    assert "0.80, 95 %: 0.49 to 0.94 (n = 10)" in view.inner_text()
    view.get_by_label("Why").fill("it is heard to be better")
    view.get_by_label("I mean it").check()
    view.get_by_role("button", name="Make this version the champion").click()
    desk.wait_for_function(
        "box => box.value.includes('version 2 is the champion now')", arg=view.get_by_label("Done").element_handle()
    )
    assert [(change.model_version, change.previous_version, change.why) for change in told] == [
        (2, 1, "it is heard to be better")
    ]
    # The tick is gone: the next change takes another.
    assert not view.get_by_label("I mean it").is_checked()
    view.get_by_label("I mean it").check()
    view.get_by_role("button", name="Back to the champion before").click()
    desk.wait_for_function(
        "box => box.value.includes('version 1 is the champion now')", arg=view.get_by_label("Done").element_handle()
    )
    # Neither tick nor another change so far.
    view.get_by_role("button", name="Make this version the champion").click()
    desk.get_by_text("say why, and tick that you mean it").wait_for()
    assert len(told) == 2

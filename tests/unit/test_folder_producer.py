"""The folder producer without Kafka: which files are clips, when they are due, and what is refused at the door."""

import io
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from genres.errors import GenresError
from genres.file_names import display_path, unicode_name
from genres.kafka_client import KafkaUnreachableError
from genres.settings import Settings
from genres.store.database import Database
from streaming_sensors.folder_producer import producer
from streaming_sensors.folder_producer.folder import (
    came_at,
    find_stamp,
    is_clip,
    ledger_key,
    list_folder,
    move_aside,
)
from streaming_sensors.folder_producer.outlet import producer_config
from streaming_sensors.folder_producer.producer import WatchReport, watch
from streaming_sensors.topic import max_message_bytes, topic_state


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with migrated tables, and a Kafka address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    settings = Settings(
        state_dir=tmp_path / "state",
        database_url=f"sqlite:///{tmp_path / 'genres.db'}",  # type: ignore[arg-type]
        kafka_bootstrap_servers=f"127.0.0.1:{port}",
    )
    Database(settings.database).migrate()
    return settings


def run(settings: Settings, folder: Path) -> WatchReport:
    console = Console(file=io.StringIO())
    return watch(settings, folder, settings.topic, once=True, console=console, stop=threading.Event())


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_folder(folder).clips]


def test_clips_lie_in_the_folder_or_in_a_genre(tmp_path: Path) -> None:
    for name in (
        *("a.wav", "B.FLAC", "notes.txt", ".hidden.wav", "rock/c.mp3", "rock/.d.wav", "rock/live/e.wav"),
        *(".trash/f.wav", "error/g.wav", "rock/error/h.wav", "no suffix"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert found(tmp_path) == ["B.FLAC", "a.wav", "rock/c.mp3"]


def test_links_out_of_the_folder_and_pipes_are_no_clips(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "watched"
    (folder / "rock").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"x")
    (folder / "rock" / "own.wav").write_bytes(b"x")
    (folder / "out.wav").symlink_to(outside / "secret.wav")
    (folder / "jazz").symlink_to(outside)
    (folder / "nowhere.wav").symlink_to(folder / "missing.wav")
    (folder / "twin.wav").symlink_to(folder / "rock" / "own.wav")
    os.mkfifo(folder / "pipe.wav")
    assert found(folder) == ["rock/own.wav", "twin.wav"]
    assert not is_clip(folder / "jazz" / "secret.wav", folder)


def test_refused_file_replaces_none_that_was_refused_before(tmp_path: Path) -> None:
    names = []
    for content in (b"1", b"2", b"3"):
        (tmp_path / "a.wav").write_bytes(content)
        names.append(move_aside(tmp_path / "a.wav", tmp_path / "error").name)
    assert names == ["a.wav", "a.1.wav", "a.2.wav"]
    assert (tmp_path / "error" / "a.1.wav").read_bytes() == b"2"


def test_refused_file_keeps_a_name_that_the_file_system_takes(tmp_path: Path) -> None:
    name = "ü" * 125 + ".wav"
    names = []
    for content in (b"1", b"2"):
        (tmp_path / name).write_bytes(content)
        names.append(move_aside(tmp_path / name, tmp_path / "error").name)
    assert names == [name, "ü" * 124 + ".1.wav"]


def test_streams_of_frames_are_waited_for_longer() -> None:
    """What is there of them so far reads like a whole file."""
    assert {".flac", ".mp3", ".mp2", ".mpga", ".aac", ".ogg", ".oga", ".opus"} == producer._COMPRESSED


def test_age_counts_from_the_arrival_not_from_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    stamp = find_stamp(path)
    assert stamp is not None
    assert stamp[0].mtime_ns == 0
    assert stamp[1] < 3600


@pytest.mark.parametrize(("year", "held"), [(-470, -(2**63)), (430, 2**63 - 1), (8000, 2**63 - 1)])
def test_a_time_that_no_database_holds_becomes_the_nearest_that_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int, held: int
) -> None:
    """Which times a file can have depends on the file system; a network's are anybody's."""
    path, seconds = tmp_path / "a.wav", year * 31_557_600
    path.write_bytes(b"x")
    info = path.stat()
    times = dict.fromkeys(("st_mtime", "st_ctime"), seconds)
    odd = SimpleNamespace(
        **{name: getattr(info, name) for name in ("st_mode", "st_size", "st_ino")},
        **{**times, **{f"{name}_ns": value * 10**9 for name, value in times.items()}},
    )
    monkeypatch.setattr(Path, "stat", lambda *_, **__: odd)
    stamp = find_stamp(path)
    assert stamp is not None and stamp[0] == (1, held, held, info.st_ino)
    now = datetime.now(UTC)
    assert now <= came_at(path) <= datetime.now(UTC)


def test_a_file_came_when_its_inode_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    assert came_at(path).timestamp() == pytest.approx(path.stat().st_ctime, abs=1e-5)


def test_any_file_name_is_text_on_one_line(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"/drop/a\xff\nb.wav"))
    assert unicode_name(path.name) == "a\\xff\nb.wav"
    assert ledger_key(path) == "/drop/a\\xff\nb.wav"
    assert "\n" not in display_path(path)


@pytest.mark.parametrize(
    ("name", "line"), [("missing", "does not exist: make it"), ("file", "is a file: name the folder")]
)
def test_folder_that_cannot_be_watched_is_named(settings: Settings, tmp_path: Path, name: str, line: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(GenresError, match=line) as caught:
        run(settings, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_tables_are_named_before_anything_is_sent(settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(
        update={"database_url": type(settings.database_url)(f"sqlite:///{tmp_path / 'new.db'}")}
    )
    with pytest.raises(GenresError, match="run `genres up`"):
        run(empty, tmp_path)


def test_unreachable_broker_is_named_and_leaves_no_thread(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "_TRY_AGAIN_S", 0.5)
    threads = set(threading.enumerate())
    with pytest.raises(KafkaUnreachableError, match=f"Kafka at {settings.bootstrap_servers} does not answer"):
        run(settings, tmp_path)
    with pytest.raises(KafkaUnreachableError, match=settings.bootstrap_servers):
        topic_state(settings, settings.topic, timeout_s=0.5)
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    assert set(threading.enumerate()) <= threads


def test_producer_takes_the_largest_inline_clip_and_refuses_weaker_delivery(settings: Settings) -> None:
    config = producer_config(settings)
    assert config["enable_idempotence"] is True and config["acks"] == "all"
    assert config["max_request_size"] == max_message_bytes(settings) > settings.inline_limit_bytes

"""The folder producer's loop over a stand-in for Kafka, with a real folder and a real database: it outlives outages."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pytest
import requests
import sqlalchemy as sa
from kafka.errors import (
    InvalidTimestampError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumberError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnknownProducerIdError,
)
from pydantic import SecretStr
from rich.console import Console

from genres.errors import GenresError
from genres.kafka_client import KafkaUnreachableError
from genres.settings import Settings
from genres.store import database as database_module
from genres.store.database import Database
from genres.store.hdfs_access import ANSWER_S
from genres.store.stream_ledger import commits, producers, ranges, results, sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres.store.tables import SENT_FILES, STREAM_PREDICTIONS
from streaming_sensors.envelope import ClipMessage
from streaming_sensors.folder_producer import changes, folder, producer
from streaming_sensors.folder_producer.claim_check import ClaimChecks
from streaming_sensors.folder_producer.outlet import CONNECT_S, ClipInFlight, Delivery
from streaming_sensors.folder_producer.producer import WatchReport, watch
from streaming_sensors.topic import TopicState
from tests.fake_webhdfs import FakeWebHdfs
from tests.stream_rig import wait_until, wav
from tests.unit.conftest import SmallDisk

HOST = socket.gethostname()


class Topic:
    """What stands for the topic: takes every clip at once, or fails as it is told."""

    def __init__(self) -> None:
        self.state = TopicState("audio_clips", "A" * 22, {0: 0}, {0: 0})
        self.messages: list[ClipMessage] = []
        self.away: GenresError | None = None
        self.refusal: Exception | None = None
        self.connections = 0

    def outlet(self, _settings: Settings, _topic: str, *, on_delivery: Callable[[Delivery], None]) -> "Outlet":
        return Outlet(self, on_delivery)

    def ask(self, *_: object, **__: object) -> TopicState:
        if self.away:
            raise self.away
        return self.state

    @property
    def names(self) -> Counter[str]:
        return Counter(message.file_name for message in self.messages)


class Outlet:
    """The outlet's interface over such a topic."""

    def __init__(self, topic: Topic, on_delivery: Callable[[Delivery], None]) -> None:
        self.topic, self.on_delivery = topic, on_delivery
        self.connected, self.carried = False, set[Path]()

    def connect(self, _timeout_s: float) -> TopicState:
        state = self.topic.ask()
        self.topic.connections += 1
        self.connected = True
        return state

    def send(self, clip: ClipInFlight, message: ClipMessage) -> None:
        self.carried.add(clip.path)
        refusal = self.topic.refusal
        if refusal is None:
            self.topic.messages.append(message)
        self.on_delivery(Delivery(clip, 0, len(self.topic.messages) - 1, refusal))

    def landed(self, clip: ClipInFlight) -> None:
        self.carried.discard(clip.path)

    def carries(self, path: Path) -> bool:
        return path in self.carried

    def has_room(self, _size: int) -> bool:
        return True

    def silent_s(self) -> float:
        return 0.0

    def flush(self, _timeout_s: float) -> None:
        pass

    def disconnect(self) -> None:
        self.connected = False

    @property
    def in_flight(self) -> int:
        return len(self.carried)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    topic = Topic()
    monkeypatch.setattr(producer, "Outlet", topic.outlet)
    monkeypatch.setattr(producer, "topic_state", topic.ask)
    for name in ("_RESCAN_S", "_TRY_AGAIN_S", "_REST_S", "_ASK_TOPIC_S", "BEAT_S"):
        monkeypatch.setattr(producer, name, 0.2)
    monkeypatch.setattr(changes, "_PAUSES_S", (0.2, 0.2))
    return topic


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for a database that is locked; where nobody locks it for good, a slow disk would do so."""
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 100)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(
        state_dir=tmp_path / "state",
        database_url=f"sqlite:///{tmp_path / 'genres.db'}",  # type: ignore[arg-type]
        settle_s=0.05,
    )
    Database(settings.database).migrate()
    return settings


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


class Lines:
    """What a producer has printed so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __contains__(self, text: str) -> bool:
        return text in self.path.read_text()

    def count(self, text: str) -> int:
        return self.path.read_text().count(text)


@contextmanager
def watching(settings: Settings, drop: Path, console: TextIO | None = None) -> Iterator[Lines]:
    """Watch the folder in a thread, which must end well; yield what it prints."""
    stop = threading.Event()
    ended: list[Any] = []
    lines = Lines(drop.parent / f"lines {time.monotonic_ns()}")

    def run() -> None:
        with lines.path.open("w", buffering=1) as file:
            try:
                to = Console(file=console or file, width=1000)
                ended.append(watch(settings, drop, settings.topic, once=False, console=to, stop=stop))
            except BaseException as error:
                ended.append(error)

    lines.path.touch()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lines
        assert not ended, ended
    finally:
        stop.set()
        thread.join()
    assert isinstance(ended[0], WatchReport), ended


def once(settings: Settings, drop: Path) -> WatchReport:
    lines = (drop.parent / "once").open("w", buffering=1)
    with lines:
        console = Console(file=lines, width=1000)
        return watch(settings, drop, settings.topic, once=True, console=console, stop=threading.Event())


def clip(number: int) -> bytes:
    return wav([number / 1000] * 2000)


def sent(settings: Settings, path: Path) -> sent_files.SentFile | None:
    return next(iter(sent_files.sent_from(Database(settings.database), folder.ledger_key(path), host=HOST)), None)


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the write lock of the database from another connection."""
    connection = sqlite3.connect(Database(settings.database).url.database or "", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


# ------------------------------------------------------------------------------------------------------ the database


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_is_waited_out(settings: Settings, drop: Path, topic: Topic) -> None:
    with watching(settings, drop) as lines:
        with locked(settings):
            for number in range(3):
                (drop / f"{number}.wav").write_bytes(clip(number))
            (drop / "bad.wav").write_bytes(b"no audio")
            wait_until(lambda: "writing to the database" not in lines and "database is locked" in lines)
            wait_until(lambda: topic.messages)
            time.sleep(1.5)  # several attempts
            assert lines.count("database is locked") <= 2, "once for the files, once for the sign of life"
            assert not results.quarantine(Database(settings.database))
        wait_until(lambda: all(sent(settings, drop / f"{number}.wav") for number in range(3)))
        wait_until(lambda: (drop / "error" / "bad.wav").exists())
        assert "writing to the database works again" in lines
    assert topic.names == {"0.wav": 1, "1.wav": 1, "2.wav": 1}
    assert len(results.quarantine(Database(settings.database))) == 1


def test_a_full_database_is_waited_out(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_full = threading.Event()
    is_full.set()
    database = Database(settings.database)

    @sa.event.listens_for(database.engine, "checkout")
    def limit(connection: Any, *_: object) -> None:
        # SQLite's own word for a full disk; it takes no limit below what the file has already.
        connection.execute(f"PRAGMA max_page_count={1 if is_full.is_set() else 2**30}")

    monkeypatch.setattr(Database, "opened", lambda _url: database)
    with watching(settings, drop) as lines:
        for number in range(100):  # more than fits in the last pages
            (drop / f"{number:03}.wav").write_bytes(clip(number))
        wait_until(lambda: "database or disk is full" in lines)
        is_full.clear()
        wait_until(lambda: all(sent(settings, drop / f"{number:03}.wav") for number in range(100)))
    assert set(topic.names.values()) == {1}


def test_a_full_disk_under_the_database_is_waited_out(
    settings: Settings, drop: Path, topic: Topic, small_disk: SmallDisk
) -> None:
    url = f"sqlite:///{small_disk.folder / 'genres.db'}"
    settings = settings.model_copy(update={"database_url": SecretStr(url)})
    Database(url).migrate()
    with watching(settings, drop) as lines:
        (drop / "before.wav").write_bytes(clip(0))
        wait_until(lambda: sent(settings, drop / "before.wav"))
        small_disk.fill()
        for number in range(1, 200):  # more than fits in the last pages
            (drop / f"{number:03}.wav").write_bytes(clip(number))
        wait_until(lambda: "the disk of the database" in lines and "is full" in lines)
        small_disk.make_room()
        wait_until(lambda: all(sent(settings, drop / f"{number:03}.wav") for number in range(1, 200)))
    assert set(topic.names.values()) == {1}
    with Database(url).reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_ends_once_with_a_line(settings: Settings, drop: Path, topic: Topic) -> None:
    (drop / "a.wav").write_bytes(clip(1))
    with locked(settings), pytest.raises(GenresError, match="database is locked"):
        once(settings, drop)
    assert once(settings, drop).sent == 1
    assert topic.names == {"a.wav": 2}, "what was not remembered is sent again"


# ---------------------------------------------------------------------------------------------- the folder, its names


def test_odd_names_links_and_unreadable_entries_end_nothing(settings: Settings, drop: Path, topic: Topic) -> None:
    with watching(settings, drop) as lines:
        (drop / os.fsdecode(b"odd\xff.wav")).write_bytes(clip(1))
        (drop / "itself.wav").symlink_to("itself.wav")
        (drop / "a.wav").symlink_to("b.wav")
        (drop / "b.wav").symlink_to("a.wav")
        (drop / "jazz").symlink_to("jazz")
        wait_until(lambda: topic.names["odd\\xff.wav"] == 1)
        (drop / "next.wav").write_bytes(clip(2))
        wait_until(lambda: topic.names["next.wav"] == 1)
        wait_until(lambda: "passed over: broken links, pipes and the like 4" in lines)
        assert lines.count("the system cannot tell what changes") <= 1
    assert topic.names == {"odd\\xff.wav": 1, "next.wav": 1}


def test_want_of_memory_for_one_file_keeps_no_other_waiting(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_short, read_bytes = threading.Event(), Path.read_bytes
    is_short.set()

    def read(path: Path) -> bytes:
        if path.name == "large.wav" and is_short.is_set():
            raise MemoryError
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    for number, name in enumerate(("large.wav", "small.wav")):
        (drop / name).write_bytes(clip(number))
    with watching(settings, drop) as lines:
        wait_until(lambda: topic.names["small.wav"] == 1)
        wait_until(lambda: "not enough memory for" in lines)
        assert not topic.names["large.wav"]
        is_short.clear()
        wait_until(lambda: topic.names["large.wav"] == 1)
        assert lines.count("not enough memory for") == 1
    is_short.set()
    (drop / "large.wav").write_bytes(clip(3))
    with pytest.raises(GenresError, match=r"large\.wav for one: see above why"):
        once(settings, drop)


def test_a_folder_that_is_gone_for_a_while_is_waited_for(settings: Settings, drop: Path, topic: Topic) -> None:
    (drop / "a.wav").write_bytes(clip(1))
    with watching(settings, drop) as lines:
        wait_until(lambda: sent(settings, drop / "a.wav"))
        drop.rename(drop.parent / "away")
        wait_until(lambda: "cannot be listed any more" in lines)
        time.sleep(1)
        assert lines.count("cannot be listed any more") == 1
        drop.mkdir()
        (drop / "b.wav").write_bytes(clip(2))
        wait_until(lambda: sent(settings, drop / "b.wav"))
    assert topic.names == {"a.wav": 1, "b.wav": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_entered_is_one_line(settings: Settings, drop: Path, topic: Topic) -> None:
    (drop / "rock").mkdir()
    for number in range(3):
        (drop / "rock" / f"{number}.wav").write_bytes(clip(number))
    (drop / "rock").chmod(0o600)
    try:
        with watching(settings, drop) as lines:
            wait_until(lambda: "unreadable 3" in lines)
            (drop / "a.wav").write_bytes(clip(5))
            wait_until(lambda: topic.messages)
            assert lines.count("cannot be listed") == 1
    finally:
        (drop / "rock").chmod(0o700)


def test_an_entry_that_cannot_be_looked_at_ends_nothing(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.stat

    def stat(path: Path, **how: Any) -> os.stat_result:
        if path.name == "denied.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    (drop / "denied.wav").write_bytes(clip(1))
    with watching(settings, drop) as lines:
        (drop / "a.wav").write_bytes(clip(5))
        (drop / "denied.wav").write_bytes(clip(2))
        wait_until(lambda: topic.messages)
        wait_until(lambda: "unreadable 1" in lines)
    assert topic.names == {"a.wav": 1}


def test_what_is_passed_over_is_counted_by_its_reason(settings: Settings, drop: Path, topic: Topic) -> None:
    outside = drop.parent / "outside.wav"
    outside.write_bytes(b"x")
    for name in ("a.txt", "b.pdf", "rock/c.txt", ".hidden.wav", "rock/.DS_Store", "rock/live/d.wav", "error/e.wav"):
        (drop / name).parent.mkdir(parents=True, exist_ok=True)
        (drop / name).write_bytes(b"x")
    (drop / "rock" / "out.wav").symlink_to(outside)
    os.mkfifo(drop / "pipe.wav")
    once(settings, drop)
    line = (drop.parent / "once").read_text().rstrip().splitlines()[-1]
    assert (
        "; passed over: broken links, pipes and the like 1, hidden names 2, links that lead out 1, nested folders 1, "
        "other suffixes 3 in " in line
    )


def test_a_log_that_takes_nothing_more_ends_nothing(settings: Settings, drop: Path, topic: Topic) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w", buffering=1) as full:
        with watching(settings, drop, console=full):
            (drop / "bad.wav").write_bytes(b"no audio")  # said in a line
            (drop / "a.wav").write_bytes(clip(1))
            wait_until(lambda: (drop / "error" / "bad.wav").exists())
            wait_until(lambda: sent(settings, drop / "a.wav"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # or closing it would fail


# ---------------------------------------------------------------------------------------------------- Kafka and HDFS


def test_a_broker_that_is_away_is_said_once_and_waited_for(settings: Settings, drop: Path, topic: Topic) -> None:
    topic.away = KafkaUnreachableError("Kafka at nowhere does not answer")
    (drop / "a.wav").write_bytes(clip(1))
    with watching(settings, drop) as lines:
        wait_until(lambda: "Kafka at nowhere does not answer" in lines)
        wait_until(lambda: "does not answer" in (alive(settings).last_error or ""))
        time.sleep(1)
        assert lines.count("does not answer") == 1
        topic.away = None
        wait_until(lambda: sent(settings, drop / "a.wav"))
        assert "Kafka works again" in lines
        # While it is connected, too, and the topic may be away for a while, as it is when somebody makes it again.
        topic.away = GenresError("Kafka has no topic")
        wait_until(lambda: "Kafka has no topic" in lines)
        topic.away = None
        wait_until(lambda: lines.count("Kafka works again") == 2)
        wait_until(lambda: alive(settings).last_error is None)


def test_a_missing_topic_at_the_start_is_a_mistake(settings: Settings, drop: Path, topic: Topic) -> None:
    topic.away = GenresError("Kafka has no topic: make it")
    with pytest.raises(GenresError, match="has no topic"):
        watch(settings, drop, settings.topic, once=False, console=Console(quiet=True), stop=threading.Event())
    ended = alive(settings)
    assert ended.ended_at is not None
    assert ended.last_error == "Kafka has no topic: make it"


@pytest.mark.parametrize(
    "refusal",
    [
        MessageSizeTooLargeError("large"),
        TopicAuthorizationFailedError("no"),
        InvalidTimestampError("ahead"),
        PolicyViolationError("not here"),
    ],
)
def test_a_clip_that_the_broker_refuses_waits_and_ends_nothing(
    settings: Settings, drop: Path, topic: Topic, refusal: Exception
) -> None:
    topic.refusal = refusal
    with watching(settings, drop) as lines:
        (drop / "refused.wav").write_bytes(clip(1))
        wait_until(lambda: type(refusal).__name__ in lines)
        time.sleep(1)
        assert lines.count(type(refusal).__name__) == 1
        topic.refusal = None
        (drop / "next.wav").write_bytes(clip(2))
        wait_until(lambda: topic.names == {"refused.wav": 1, "next.wav": 1})


@pytest.mark.parametrize("passing", [OutOfOrderSequenceNumberError("2"), UnknownProducerIdError("whose")])
def test_what_a_new_client_puts_right_is_no_refusal(
    settings: Settings, drop: Path, topic: Topic, passing: Exception
) -> None:
    topic.refusal = passing
    with watching(settings, drop) as lines:
        (drop / "a.wav").write_bytes(clip(1))
        wait_until(lambda: topic.connections > 2)
        topic.refusal = None
        wait_until(lambda: topic.names == {"a.wav": 1})
        assert "refuses" not in lines


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (InvalidTimestampError("ahead"), "set the clocks of this host and of the broker"),
        (PolicyViolationError("not here"), "the broker's log says why"),
    ],
)
def test_a_refusal_ends_once_with_a_line(
    settings: Settings, drop: Path, topic: Topic, refusal: Exception, advice: str
) -> None:
    """It sent the same clips again without end, and said nothing."""
    topic.refusal = refusal
    (drop / "a.wav").write_bytes(clip(1))
    with pytest.raises(GenresError, match=rf"refuses .*a\.wav \({type(refusal).__name__}\): {advice}"):
        once(settings, drop)


def test_large_clips_wait_for_hdfs_and_small_ones_do_not(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[ClipMessage] = []
    is_away = threading.Event()
    is_away.set()

    def check_in(_self: object, message: ClipMessage) -> ClipMessage:
        attempts.append(message)
        if is_away.is_set():
            raise ConnectionError("HDFS does not answer")
        return message

    monkeypatch.setattr(producer.ClaimChecks, "check_in", check_in)
    monkeypatch.setattr(producer, "_TRY_AGAIN_S", 1.0)
    small = settings.model_copy(update={"inline_limit_bytes": 10_000})
    with watching(small, drop) as lines:
        for number in range(20):
            (drop / f"large {number}.wav").write_bytes(wav([number / 1000] * 9000))
        wait_until(lambda: "HDFS does not answer" in lines)
        (drop / "small.wav").write_bytes(clip(1))
        wait_until(lambda: topic.names == {"small.wav": 1})
        assert len(attempts) < 20, "the large ones do not each wait for HDFS"
        assert lines.count("HDFS does not answer") == 1
        is_away.clear()
        wait_until(lambda: len(topic.names) == 21)
        assert "HDFS works again" in lines
    assert set(topic.names.values()) == {1}


def test_hdfs_that_is_away_ends_once_with_a_line(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_in(_self: object, _message: ClipMessage) -> ClipMessage:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(producer.ClaimChecks, "check_in", check_in)
    (drop / "large.wav").write_bytes(wav([0.1] * 9000))
    with pytest.raises(GenresError, match=r"HDFS does not work \(nobody there\): see to it, and run again"):
        once(settings.model_copy(update={"inline_limit_bytes": 10_000}), drop)


def alive(settings: Settings) -> producers.Producer:
    """Wait for the producer's first sign of life, and return the last one."""
    wait_until(lambda: producers.newest(Database(settings.database), settings.topic))
    found = producers.newest(Database(settings.database), settings.topic)
    assert found is not None
    return found


# ----------------------------------------------------------------------------------------- what was sent, and what not


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_sent(
    settings: Settings, drop: Path, topic: Topic, tmp_path: Path
) -> None:
    path, other = drop / "a.wav", tmp_path / "other.wav"
    path.write_bytes(clip(1))
    other.write_bytes(clip(2))
    for file in (path, other):
        os.utime(file, ns=(10**18, 10**18))
    assert once(settings, drop).sent == 1
    shutil.copy2(other, path)  # as cp -p does: into the same inode
    assert once(settings, drop).sent == 1
    assert len({message.sha256 for message in topic.messages}) == 2
    other.write_bytes(clip(3))
    os.utime(other, ns=(10**18, 10**18))
    with watching(settings, drop):
        wait_until(lambda: alive(settings).ended_at is None)
        other.replace(path)  # another inode
        wait_until(lambda: len({message.sha256 for message in topic.messages}) == 3)
    assert once(settings, drop).sent == 0
    assert len(topic.messages) == 3


def test_files_from_beyond_what_a_database_holds_are_sent_once_and_keep_none_from_being_remembered(
    settings: Settings, drop: Path, topic: Topic
) -> None:
    for number, year in enumerate((2400, 1901, 2026)):
        (drop / f"{year}.wav").write_bytes(clip(number))
        os.utime(drop / f"{year}.wav", ((year - 1970) * 31_557_600,) * 2)
    if (drop / "2400.wav").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system has no such time")
    assert (once(settings, drop).sent, once(settings, drop).sent) == (3, 0)
    assert topic.names == {"2400.wav": 1, "1901.wav": 1, "2026.wav": 1}
    with (drop / "2400.wav").open("r+b") as file:
        file.write(clip(9))
    os.utime(drop / "2400.wav", (430 * 31_557_600,) * 2)
    assert once(settings, drop).sent == 1, "times alone do not tell"


def test_a_file_whose_inode_alone_changed_is_not_sent_again(settings: Settings, drop: Path, topic: Topic) -> None:
    path = drop / "a.wav"
    path.write_bytes(clip(1))
    once(settings, drop)
    before = sent(settings, path)
    path.chmod(0o600)
    assert once(settings, drop).sent == 0
    shutil.copy2(path, drop / "a.copy")
    (drop / "a.copy").replace(path)
    assert once(settings, drop).sent == 0
    after = sent(settings, path)
    assert before and after and after.inode == path.stat().st_ino
    assert after._replace(inode=before.inode, ctime_ns=before.ctime_ns) == before
    assert len(topic.messages) == 1


def test_rows_of_an_older_version_count_as_before(settings: Settings, drop: Path, topic: Topic) -> None:
    path = drop / "a.wav"
    path.write_bytes(clip(1))
    once(settings, drop)
    with Database(settings.database).writing() as connection:
        connection.execute(sa.update(SENT_FILES).values(host="", ctime_ns=None, inode=None, topic_id=None))
    assert once(settings, drop) == WatchReport(0, 0, 0, 0)


def test_a_host_of_another_name_knows_the_files_by_their_identity(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop / "a.wav"
    path.write_bytes(clip(1))
    once(settings, drop)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert once(settings, drop).sent == 0
    # A file of the same name on another machine's disk has another identity.
    with Database(settings.database).writing() as connection:
        connection.execute(sa.update(SENT_FILES).values(inode=SENT_FILES.c.inode + 1))
    assert once(settings, drop).sent == 1
    rows = sent_files.sent_from(Database(settings.database), str(path), host="another")
    assert [row.host for row in rows] == ["another", HOST]


def test_what_the_topic_lost_unread_is_sent_again_once(settings: Settings, drop: Path, topic: Topic) -> None:
    for number in range(6):
        (drop / f"{number}.wav").write_bytes(clip(number))
    once(settings, drop)
    names = [message.file_name for message in topic.messages]
    # Of offsets 0 to 3 retention took 0 was predicted and 1 refused; 4 and 5 are there still.
    has_row(settings, topic.messages[0].sha256, topic.messages[1].sha256)
    topic.state = topic.state._replace(beginnings={0: 4})
    assert once(settings, drop).sent == 2
    assert [message.file_name for message in topic.messages[6:]] == names[2:4]
    line = "2 clips are sent again: topic 'audio_clips' has lost them unread (retention was faster than the stream)"
    assert line in (drop.parent / "once").read_text()
    assert once(settings, drop).sent == 0
    # A file that is gone is not counted, and a topic that is made again has none of the clips.
    (drop / names[5]).unlink()
    topic.state = TopicState("audio_clips", "B" * 22, {0: 0}, {0: 0})
    assert once(settings, drop).sent == 3
    assert "3 clips are sent again" in (drop.parent / "once").read_text()
    assert "(it was recreated)" in (drop.parent / "once").read_text()
    assert f"1 clip is lost: topic 'audio_clips' has lost them unread, and their files are gone; {drop}/" in (
        (drop.parent / "once").read_text()
    )
    assert once(settings, drop).sent == 0


def test_a_running_producer_hears_of_what_the_topic_lost(settings: Settings, drop: Path, topic: Topic) -> None:
    for number in range(4):
        (drop / f"{number}.wav").write_bytes(clip(number))
    with watching(settings, drop) as lines:
        wait_until(lambda: all(sent(settings, drop / f"{number}.wav") for number in range(4)))
        has_row(settings, topic.messages[0].sha256, topic.messages[1].sha256)
        topic.state = TopicState("audio_clips", "B" * 22, {0: 0}, {0: 0})
        wait_until(lambda: len(topic.messages) == 6)
        topic.state = topic.state._replace(beginnings={0: 6})
        wait_until(lambda: len(topic.messages) == 8)
        time.sleep(1)
        assert lines.count("2 clips are sent again") == 2
    lost = {message.file_name for message in topic.messages[2:4]}
    assert {message.file_name for message in topic.messages[4:6]} == lost
    assert len(topic.messages) == 8


def test_what_the_topic_lost_before_the_ledger_knew_it_is_sent_again(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database takes nothing while the topic is made again."""

    def locked(*_: object) -> None:
        raise GenresError("the database is locked")

    with monkeypatch.context() as lock, watching(settings, drop) as lines:
        lock.setattr(sent_files, "remember", locked)
        (drop / "a.wav").write_bytes(clip(1))
        wait_until(lambda: "the database is locked" in lines)
        connections = topic.connections
        topic.state = TopicState("audio_clips", "B" * 22, {0: 0}, {0: 0})
        # It looks for what was lost as soon as it has connected.
        wait_until(lambda: topic.connections > connections)
        lock.undo()
        wait_until(lambda: topic.names["a.wav"] == 2)
        wait_until(lambda: (row := sent(settings, drop / "a.wav")) and row.topic_id == "B" * 22)
    assert once(settings, drop).sent == 0


def has_row(settings: Settings, predicted: str, refused: str) -> None:
    """Commit a range with these two clips."""
    database = Database(settings.database)
    key = PartitionKey("audio_clips", "A" * 22, 0, 0, 2)
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    row = {column.name: "x" for column in STREAM_PREDICTIONS.columns if not column.nullable} | {
        **{"sha256": predicted, "model_version": 1, "probability": 1.0, "probabilities": {}, "is_calibrated": True},
        **{"is_synthetic": True, "kafka_offset": 0, "event_time": datetime.now(UTC)},
    }
    refusal = QuarantinedClip(refused, "x", "stream", "x", ".wav", "gate1", kafka_offset=1)
    commits.commit_range(database, RangeResult(key, "run", [row], [refusal]))


# ----------------------------------------------------------------------------------------------- writers that pause

_WRITER = """
import sys, time
from pathlib import Path
source, target, signal = map(Path, sys.argv[1:])
data = source.read_bytes()
with target.open("wb") as file:
    file.write(data[: len(data) // 2])
    file.flush()
    while not signal.exists():
        time.sleep(0.05)
    file.write(data[len(data) // 2 :])
"""


@contextmanager
def pausing_writer(drop: Path, name: str, *, data: bytes | None = None) -> Iterator[Path]:
    """Have another process write half a clip; yield the file that lets it go on."""
    source, signal = drop.parent / "source", drop.parent / "go on"
    source.write_bytes(clip(7) if data is None else data)
    signal.unlink(missing_ok=True)
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(source), str(drop / name), str(signal)])
    try:
        yield signal
        assert writer.wait(30) == 0
    finally:
        writer.kill()
        writer.wait()


def test_a_file_without_a_true_length_is_given_longer(settings: Settings, drop: Path, topic: Topic) -> None:
    """Whoever records into a file fills in its lengths at the end; compressed containers never say them."""
    settings = settings.model_copy(update={"settle_s": 0.4})
    recording = clip(1)[:4] + b"\0" * 4 + clip(1)[8:40] + b"\0" * 4 + clip(1)[44:]
    written_at = time.monotonic()
    (drop / "whole.wav").write_bytes(clip(2))
    (drop / "recording.wav").write_bytes(recording)
    with watching(settings, drop):
        wait_until(lambda: topic.names["whole.wav"] == 1)
        wait_until(lambda: topic.names["recording.wav"] == 1)
        assert time.monotonic() - written_at >= 5 * settings.settle_s
    assert topic.names == {"whole.wav": 1, "recording.wav": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a file is open for")
def test_a_file_that_a_process_still_writes_is_not_refused(settings: Settings, drop: Path, topic: Topic) -> None:
    with watching(settings, drop) as lines:
        with pausing_writer(drop, "slow.wav") as go_on:
            wait_until(lambda: "still has it open" in lines)
            time.sleep(40 * settings.settle_s)  # twice as long as a file that nobody writes may stay unchanged
            assert (drop / "slow.wav").exists()
            assert lines.count("still has it open") == 1
            go_on.touch()
        wait_until(lambda: sent(settings, drop / "slow.wav"))
    assert [message.data for message in topic.messages] == [clip(7)]
    assert not (drop / "error").exists()
    assert not results.quarantine(Database(settings.database))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a file is open for")
def test_half_of_a_recording_is_not_sent_while_somebody_records(settings: Settings, drop: Path, topic: Topic) -> None:
    """A WAV whose lengths come last, and compressed sound, read like shorter clips until their writer is done."""
    with watching(settings, drop) as lines:
        with pausing_writer(
            drop, "recording.wav", data=clip(7)[:4] + b"\0" * 4 + clip(7)[8:40] + b"\0" * 4 + clip(7)[44:]
        ):
            wait_until(lambda: "recording.wav may not be whole" in lines)
            time.sleep(40 * settings.settle_s)
            (drop / "other.wav").write_bytes(clip(3))
            wait_until(lambda: topic.names["other.wav"] == 1)
            assert topic.names["recording.wav"] == 0
            (drop.parent / "go on").touch()
        wait_until(lambda: topic.names["recording.wav"] == 1)
    assert topic.messages[-1].size == len(clip(7))


def test_a_refused_file_that_grows_again_is_a_new_file(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where the writer is on another machine.
    monkeypatch.setattr(producer, "writer_of", lambda _path: None)
    with watching(settings, drop) as lines:
        with pausing_writer(drop, "slow.wav") as go_on:
            wait_until(lambda: (drop / "error" / "slow.wav").exists())
            go_on.touch()
        wait_until(lambda: sent(settings, drop / "slow.wav"))
        assert "has changed since it was refused" in lines
    assert [message.data for message in topic.messages] == [clip(7)]
    assert (drop / "slow.wav").read_bytes() == clip(7)
    assert not list((drop / "error").iterdir())


def test_where_writers_cannot_be_seen_the_producer_waits_longer(
    settings: Settings, drop: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "shows_writers", lambda path: path.name == "seen.wav")
    for name in ("seen.wav", "unseen.wav"):
        (drop / name).write_bytes(b"no audio")
    with watching(settings, drop):
        wait_until(lambda: (drop / "error" / "seen.wav").exists())
        assert (drop / "unseen.wav").exists()
        wait_until(lambda: (drop / "error" / "unseen.wav").exists())


def test_a_writer_is_told_from_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    with path.open("rb"):
        assert folder.writer_of(path) is None
    if sys.platform == "linux":
        (tmp_path / "link.wav").symlink_to(path)
        for mode in ("ab", "r+b"):
            with path.open(mode):
                assert folder.writer_of(path) == folder.writer_of(tmp_path / "link.wav") == os.getpid()


def test_a_frozen_hdfs_keeps_small_clips_waiting_no_longer_than_one_that_is_away(
    server: FakeWebHdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts connections and is silent; one thread sends all clips. Only what takes bytes may take its time."""
    limits: dict[str, set[float]] = {"bytes": set(), "other": set()}
    send = requests.adapters.HTTPAdapter.send

    def noting(
        adapter: requests.adapters.HTTPAdapter, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        limits["bytes" if request.body else "other"].add(options["timeout"][1])
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", noting)
    settings = Settings(hdfs_url="hdfs://namenode:8020", webhdfs_url=server.url)
    message = ClipMessage("a" * 64, "a.wav", ".wav", 5, datetime.now(UTC), data=b"bytes")
    checked = ClaimChecks(settings).check_in(message)
    assert server.files == {checked.claim_path: b"bytes"}
    assert limits == {"bytes": {ANSWER_S}, "other": {CONNECT_S}}

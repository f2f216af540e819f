"""``genres losses``: what a stream lost and nobody made good is shown, until somebody says that it is known."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import losses, ranges, sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, quarantine_clip
from genres.store.stream_ledger.sent_files import SentFile
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan
from genres_cli.main import main
from streaming_sensors import topic
from streaming_sensors.topic import TopicState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = "audio_clips"


def key(start: int, end: int) -> PartitionKey:
    return PartitionKey(TOPIC, "A", 0, start, end)


def file(name: str, offset: int, sha256: str, topic_id: str = "A") -> SentFile:
    return SentFile("here", f"/drop/{name}", 1, 1, 1, 1, sha256, TOPIC, topic_id, 0, offset, NOW)


def lost(database: Database, *keys: PartitionKey) -> None:
    ranges.record_plan(database, Plan(lost=tuple(Lost(lost, "retention took it") for lost in keys)))


def test_what_is_lost_is_shown_until_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GENRES_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(topic, "topic_state", lambda *_: TopicState(TOPIC, "A", {0: 3}, {0: 9}))
    database = Database(Settings().database)
    database.migrate()
    sent_files.remember(database, [file("a.wav", 1, "a"), file("later.wav", 5, "b")])
    lost(database, key(0, 3))

    def shown(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["genres", "losses", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr().out.splitlines()

    before = [
        "audio_clips:A:0:0-3: retention took it; nobody knows what 2 held",
        "/drop/a.wav: drop it again",
    ]
    assert shown() == [*before, "1 lost range, 1 known file without a row"]
    assert shown("--acknowledge") == [*before, "1 lost range, 1 known file without a row; acknowledged"]
    assert shown() == ["0 lost ranges, 0 known files without a row"]
    assert sent_files.sent_from(database, "/drop/later.wav", host="here"), "which nobody has lost"
    lost(database, key(3, 5))
    assert shown()[0].startswith("audio_clips:A:0:3-5: "), "what is lost later has to be acknowledged for itself"


def test_a_range_is_made_good_only_when_all_that_it_held_has_its_row(database: Database) -> None:
    def made_good() -> list[tuple[object, ...]]:
        found = losses.of_topic(database, TOPIC, "A", {0: 3}).ranges
        return [(loss.made_good, *loss.lacking) for loss in found]

    sent_files.remember(database, [file("a.wav", 0, "a"), file("b.wav", 1, "b"), file("c.wav", 2, "c")])
    lost(database, key(0, 3))
    assert made_good() == [(0, "/drop/a.wav", "/drop/b.wav", "/drop/c.wav")]
    # Sent again under another offset, or overwritten in one batch with what came after: the earlier message is known.
    sent_files.remember(database, [file("a.wav", 5, "a"), file("a.wav", 6, "x"), file("b.wav", 7, "y")])
    assert made_good() == [(0, "/drop/a.wav", "/drop/b.wav", "/drop/c.wav")]
    for name, suffix in (("a", ".wav"), ("b", ".mp3")):
        refusal = QuarantinedClip(name, f"{name}{suffix}", "stream", "no audio", suffix, "gate", topic=TOPIC)
        assert quarantine_clip(database, refusal)
    assert made_good() == [(1, "/drop/b.wav", "/drop/c.wav")], "a refusal under another suffix says nothing"
    for name in "bc":
        assert quarantine_clip(
            database, QuarantinedClip(name, f"{name}.wav", "stream", "no audio", ".wav", "gate", topic=TOPIC)
        )
    assert made_good() == []


def test_a_message_is_kept_only_while_it_can_be_lost(database: Database) -> None:
    """A file that is written over and over leaves one row for each message that nobody has read."""
    from genres.store.sql import sa, tables
    from genres.store.stream_ledger.commits import RangeResult, commit_range

    ranges.record_plan(database, Plan(new=(Attempt(key(0, 1)),)))
    commit_range(database, RangeResult(key(0, 1), "run"))
    for offset in range(3):
        sent_files.remember(database, [file("a.wav", offset, str(offset))])
    sent_files.remember(database, [file("a.wav", 2, "2")._replace(ctime_ns=9)])
    with database.reading() as connection:
        kept = connection.scalars(sa.select(tables.CONFIRMED_MESSAGES.c.kafka_offset)).all()
    assert kept == [1]

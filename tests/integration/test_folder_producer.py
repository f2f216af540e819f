"""The folder producer and its topic on the real broker and HDFS: nothing lost, whatever is killed."""

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from rich.console import Console

from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.errors import GenresError
from genres.kafka_client import KafkaUnreachableError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.hdfs_access import HdfsAccess
from genres.store.stream_ledger import producers, results, sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, quarantine_clip
from genres.store.stream_ledger.sent_files import SentFile
from genres_cli.stream_demo import producers_running
from local_stack.stack import start_service, stop_service
from streaming_sensors.envelope import ClipMessage, decode, encode
from streaming_sensors.folder_producer import producer as producer_loop
from streaming_sensors.folder_producer.producer import WatchReport, watch
from streaming_sensors.kafka_clips import KafkaClips
from streaming_sensors.topic import create_topic, max_message_bytes, offsets_at, topic_state, wait_for_data
from tests.odd_headers import OddName
from tests.stream_rig import wait_until

INLINE_LIMIT = 200_000


@pytest.fixture
def settings(stack: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a topic of the test's own, for child processes too; a clip of three seconds just fits inline."""
    monkeypatch.setenv("GENRES_TOPIC", request.node.name)
    monkeypatch.setenv("GENRES_INLINE_LIMIT_BYTES", str(INLINE_LIMIT))
    monkeypatch.setenv("GENRES_SETTLE_S", "0.3")
    settings = Settings()
    Database(settings.database).migrate()
    create_topic(settings, settings.topic)
    return settings


def test_every_file_is_sent_or_refused(settings: Settings, tmp_path: Path) -> None:
    write_clip(tmp_path / "rock" / "one.wav", 1)
    write_clip(tmp_path / "two.WAV", 2)
    (tmp_path / "jazz").mkdir()
    (tmp_path / "jazz" / "twin of one.wav").write_bytes((tmp_path / "rock" / "one.wav").read_bytes())
    write_clip(tmp_path / "long.wav", 3, clip_s=6.0)
    write_clip(tmp_path / os.fsdecode(b"odd\xff\nname.wav"), 4)
    text = tmp_path / "text.wav"
    text.write_bytes(b"this is no audio")
    write_clip(tmp_path / "cut.wav", 5)
    os.truncate(tmp_path / "cut.wav", 50_000)
    (tmp_path / "notes.txt").write_text("ignored")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    bad = {hashlib.sha256(before[tmp_path / name]).hexdigest(): name for name in ("text.wav", "cut.wav")}

    assert run_once(settings, tmp_path)[:3] == (
        5,
        sum(len(before[p]) for p in before) - size_of(before, *bad.values()),
        2,
    )

    messages = {message.file_name: message for message in all_messages(settings)}
    assert set(messages) == {"one.wav", "two.WAV", "twin of one.wav", "long.wav", "odd\\xff\nname.wav"}
    for path, content in before.items():
        if path.name in ("one.wav", "two.WAV", "twin of one.wav"):
            assert messages[path.name].data == content
            assert messages[path.name].genre == (path.parent.name if path.parent != tmp_path else None)
    assert messages["two.WAV"].suffix == ".wav"
    claim_path = messages["long.wav"].claim_path
    assert claim_path is not None
    day = claim_path.split("/")[-2]
    assert claim_path == f"/genres/stream/claims/{day}/{messages['long.wav'].sha256}.wav"
    assert datetime.now(UTC).date() - date.fromisoformat(day) <= timedelta(days=1)
    hdfs = HdfsAccess.of(settings).open()
    assert hdfs.cat_file(claim_path) == before[tmp_path / "long.wav"]

    rows = {row["sha256"]: row for row in results.quarantine(Database(settings.database)) if row["sha256"] in bad}
    assert {sha256: row["file_name"] for sha256, row in rows.items()} == bad
    assert {row["stage"] for row in rows.values()} == {"producer"}
    assert all(row["reason"] and row["reason_code"] for row in rows.values())
    assert sorted(path.name for path in (tmp_path / "error").iterdir()) == ["cut.wav", "text.wav"]
    assert not text.exists()

    assert run_once(settings, tmp_path) == WatchReport(0, 0, 0, 0)
    assert len(all_messages(settings)) == 5

    # A changed file is another clip under an old name.
    write_clip(tmp_path / "two.WAV", 6)
    assert run_once(settings, tmp_path).sent == 1
    remembered = last_sent(settings, tmp_path / "two.WAV")
    assert remembered is not None
    assert remembered.sha256 == hashlib.sha256((tmp_path / "two.WAV").read_bytes()).hexdigest()


def test_broker_knows_the_producer_as_idempotent(settings: Settings, tmp_path: Path) -> None:
    for number in range(8):
        write_clip(tmp_path / f"{number}.wav", number)
    run_once(settings, tmp_path)
    parts = [
        TopicPartition(settings.topic, part)
        for part, end in topic_state(settings, settings.topic, timeout_s=30).ends.items()
        if end
    ]
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        # The broker keeps a producer id and a sequence only for those who send with idempotence.
        assert {part for part, state in admin.describe_producers(parts).items() if state.active_producers} == set(parts)
    finally:
        admin.close()


def test_growing_file_is_sent_once_and_whole(settings: Settings, tmp_path: Path) -> None:
    write_clip(tmp_path / "source", 1)
    content = (tmp_path / "source").read_bytes()
    folder = tmp_path / "drop"
    folder.mkdir()
    with watching(settings.model_copy(update={"settle_s": 1.0}), folder):
        with (folder / "slow.wav").open("wb") as file:
            for start in range(0, len(content), len(content) // 3 + 1):
                file.write(content[start : start + len(content) // 3 + 1])
                file.flush()
                # Longer than a file has to be settled for: only its header tells that it is not whole.
                time.sleep(1.3)
        wait_until(lambda: sum(topic_state(settings, settings.topic, timeout_s=30).ends.values()) == 1)
        # What comes later is sent later: the slow file has had its turn again by then.
        write_clip(folder / "later.wav", 2)
        wait_until(lambda: sum(topic_state(settings, settings.topic, timeout_s=30).ends.values()) >= 2)
    assert Counter(message.file_name for message in all_messages(settings)) == {"slow.wav": 1, "later.wav": 1}
    assert next(message.data for message in all_messages(settings) if message.file_name == "slow.wav") == content
    assert not (folder / "error").exists()


def test_refused_while_watching_only_after_its_time(settings: Settings, tmp_path: Path) -> None:
    with watching(settings.model_copy(update={"settle_s": 0.1}), tmp_path):
        (tmp_path / "bad.wav").write_bytes(os.urandom(64))
        wait_until(lambda: (tmp_path / "error" / "bad.wav").exists())
        # The same bytes once more: moved again, under another name, and still one row.
        (tmp_path / "bad.wav").write_bytes((tmp_path / "error" / "bad.wav").read_bytes())
        wait_until(lambda: (tmp_path / "error" / "bad.1.wav").exists())
    rows = [row for row in results.quarantine(Database(settings.database)) if row["file_name"] == "bad.wav"]
    assert Counter(row["sha256"] for row in rows)[sha256_of(tmp_path / "error" / "bad.wav")] == 1
    assert sum(topic_state(settings, settings.topic, timeout_s=30).ends.values()) == 0


def test_nothing_is_lost_when_the_producer_is_killed(settings: Settings, tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "drop"
    folder.mkdir()
    for number in range(60):
        write_clip(source / f"{number:02}.wav", number, clip_s=1.0)
    clips = sorted(source.iterdir())
    expected = {sha256_of(clip) for clip in clips}
    assert len(expected) == 60

    def drop() -> None:
        for clip in clips:
            (folder / clip.name).write_bytes(clip.read_bytes())
            time.sleep(0.05)

    dropper = threading.Thread(target=drop)
    producer = child(folder)
    wait_until(lambda: producer.poll() is None and has_sent(producer))
    dropper.start()
    for at_least in (5, 25):
        wait_until(lambda: sum(topic_state(settings, settings.topic, timeout_s=30).ends.values()) >= at_least)  # noqa: B023  (called at once)
        producer.kill()
        assert producer.wait(30) == -signal.SIGKILL
        producer = child(folder)
    dropper.join()
    wait_until(lambda: {message.sha256 for message in all_messages(settings)} == expected)
    # The killed ones may have sent everything; the last one has to be at work before it is asked to end.
    wait_until(lambda: has_sent(producer))
    wait_until(lambda: {row.sha256 for row in rows_of(settings, folder)} == expected)
    producer.send_signal(signal.SIGTERM)
    assert producer.wait(120) == 0
    remembered = {last_sent(settings, folder / clip.name) for clip in clips}
    assert {row.sha256 for row in remembered if row} == expected
    assert run_once(settings, folder).sent == 0


def test_nothing_is_lost_while_the_broker_is_down(settings: Settings, tmp_path: Path) -> None:
    expected = set()
    with watching(settings, tmp_path):
        for number in range(30):
            write_clip(tmp_path / f"{number:02}.wav", number, clip_s=1.0)
            expected.add(sha256_of(tmp_path / f"{number:02}.wav"))
            if number == 10:
                stop_service(settings, "kafka")
            if number == 20:
                start_service(settings, "kafka")
        wait_until(lambda: {message.sha256 for message in all_messages(settings)} == expected)


def test_watching_starts_without_a_broker_and_ctrl_c_ends_it_with_0(settings: Settings, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1)
    stop_service(settings, "kafka")
    producer = child(tmp_path)
    try:
        assert producer.stdout is not None
        assert f"Kafka at {settings.bootstrap_servers} does not answer" in producer.stdout.readline()
    finally:
        start_service(settings, "kafka")
    wait_until(lambda: sum(topic_state(settings, settings.topic, timeout_s=30).ends.values()) == 1)
    producer.send_signal(signal.SIGINT)
    said, _ = producer.communicate(timeout=120)
    assert producer.returncode == 0, said


def test_missing_topic_is_named(settings: Settings, tmp_path: Path) -> None:
    for once in (True, False):
        with pytest.raises(GenresError, match="no topic 'nobody_made_it': make it with `genres up`"):
            watch(settings, tmp_path, "nobody_made_it", once=once, console=quiet(), stop=threading.Event())


def test_topic_too_small_for_the_clip_is_named(settings: Settings, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1, clip_s=8.0)
    with pytest.raises(GenresError, match=r"refuses .*a\.wav .*MessageSizeTooLarge.*run `genres up`"):
        run_once(settings.model_copy(update={"inline_limit_bytes": 2**20}), tmp_path)


def test_topic_follows_the_settings(settings: Settings) -> None:
    first = topic_state(settings, settings.topic, timeout_s=30)
    assert set(first.ends) == set(first.beginnings) == {0, 1, 2}
    larger = settings.model_copy(update={"topic_partitions": 5, "inline_limit_bytes": 2**20, "topic_retention_h": 3})
    create_topic(larger, larger.topic)
    create_topic(larger, larger.topic)
    assert set(topic_state(settings, settings.topic, timeout_s=30).ends) == set(range(5))
    assert topic_state(settings, settings.topic, timeout_s=30).topic_id == first.topic_id
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        config = admin.describe_configs([ConfigResource("topic", settings.topic)])["topic"][settings.topic]
        assert int(config["max.message.bytes"]["value"]) == max_message_bytes(larger)
        assert int(config["retention.ms"]["value"]) == 3 * 3_600_000
        admin.delete_topics([settings.topic])
    finally:
        admin.close()
    wait_until(lambda: is_gone(settings))
    create_topic(settings, settings.topic)
    again = topic_state(settings, settings.topic, timeout_s=30)
    assert again.topic_id != first.topic_id
    assert set(again.ends) == {0, 1, 2}


def test_waiting_ends_with_the_first_message(settings: Settings, tmp_path: Path) -> None:
    known = topic_state(settings, settings.topic, timeout_s=30).ends
    assert not wait_for_data(settings, settings.topic, known, 0.5)
    heard: list[bool] = []
    waiter = threading.Thread(target=lambda: heard.append(wait_for_data(settings, settings.topic, known, 120)))
    waiter.start()
    write_clip(tmp_path / "a.wav", 1)
    run_once(settings, tmp_path)
    waiter.join()
    assert heard == [True]
    # A recreated topic begins again, below what was known.
    assert wait_for_data(
        settings, settings.topic, {**topic_state(settings, settings.topic, timeout_s=30).ends, 0: 100}, 60
    )
    assert not wait_for_data(settings, settings.topic, {0: 100}, 0.5, concerns=lambda partition: partition > 2)


def test_a_recreated_topic_gets_the_clips_that_have_no_row_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_loop, "_ASK_TOPIC_S", 2.0)
    folder = tmp_path / "drop"
    for number in range(6):
        write_clip(folder / f"{number}.wav", 200 + number, clip_s=1.0)
    first = topic_state(settings, settings.topic, timeout_s=30).topic_id
    with watching(settings, folder):
        wait_until(lambda: all(last_sent(settings, path) for path in folder.iterdir()))
        refused = sha256_of(folder / "0.wav")
        quarantine_clip(
            Database(settings.database), QuarantinedClip(refused, "0.wav", "stream", "has its row", ".wav", "tests")
        )
        with admin(settings) as client:
            client.delete_topics([settings.topic])
        wait_until(lambda: is_gone(settings))
        write_clip(folder / "6.wav", 206, clip_s=1.0)  # arrives while there is no topic
        create_topic(settings, settings.topic)
        expected = {sha256_of(path) for path in folder.iterdir()} - {refused}
        wait_until(lambda: {message.sha256 for message in all_messages(settings)} == expected)
        wait_until(lambda: all(row.topic_id != first for row in rows_of(settings, folder) if row.sha256 != refused))
    assert Counter(message.file_name for message in all_messages(settings))["6.wav"] <= 2  # in doubt it is sent twice
    assert run_once(settings, folder).sent == 0
    assert refused not in {message.sha256 for message in all_messages(settings)}


def test_clips_that_kafka_deleted_unread_are_sent_again_once(settings: Settings, tmp_path: Path) -> None:
    for number in range(9):
        write_clip(tmp_path / f"{number}.wav", 100 + number, clip_s=1.0)  # no other test's, which may have their rows
    assert run_once(settings, tmp_path).sent == 9
    offsets = {TopicPartition(settings.topic, row.kafka_partition): 2 for row in rows_of(settings, tmp_path)}
    offsets = {
        part: min(2, topic_state(settings, settings.topic, timeout_s=30).ends[part.partition]) for part in offsets
    }
    with admin(settings) as client:
        client.delete_records(offsets)
    left = {message.sha256 for message in all_messages(settings)}
    lost = 9 - len(left)
    assert lost == sum(offsets.values()) > 0
    assert run_once(settings, tmp_path).sent == lost
    messages = [message.sha256 for message in all_messages(settings)]
    assert set(messages) == {sha256_of(path) for path in tmp_path.iterdir()}
    assert len(messages) == 9
    assert run_once(settings, tmp_path).sent == 0


def test_offsets_that_kafka_deleted_are_an_error_to_their_reader(settings: Settings, tmp_path: Path) -> None:
    for number in range(6):
        write_clip(tmp_path / f"{number}.wav", 300 + number, clip_s=1.0)
    run_once(settings, tmp_path)
    partition, end = max(topic_state(settings, settings.topic, timeout_s=30).ends.items(), key=lambda found: found[1])
    assert end >= 2
    with admin(settings) as client:
        client.delete_records({TopicPartition(settings.topic, partition): 1})
    source = KafkaClips.of(settings)
    assert [found.offset for found in source._records(settings.topic, partition, 1, end)] == list(range(1, end))
    with pytest.raises(GenresError, match=f"no longer has .* partition {partition}, offsets 0 to {end}: retention"):
        list(source._records(settings.topic, partition, 0, end))


def test_a_real_topic_with_odd_headers_and_an_open_transaction_is_read_as_far_as_it_can_be(settings: Settings) -> None:
    create_topic(settings, settings.topic)
    data = b"a clip"
    sha256 = hashlib.sha256(data).hexdigest()
    message = ClipMessage(sha256, "a.wav", ".wav", len(data), datetime.now(UTC), data=data)
    key, value, headers = encode(message)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, linger_ms=500)
    for name in ("more", OddName("n\xe9e"), "more"):  # one batch
        producer.send(settings.topic, key=key, value=value, headers=[*headers, (name, b"")], partition=0)
    producer.flush()
    producer.close()
    open_one = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.topic)
    open_one.init_transactions()
    open_one.begin_transaction()
    open_one.send(settings.topic, key=key, value=value, headers=headers, partition=0).get(timeout=30)
    state = topic_state(settings, settings.topic, timeout_s=30)
    assert state.ends[0] == 3
    row = {"topic": settings.topic, "kafka_partition": 0, "start_offset": 0, "end_offset": 3}
    bad = "bad message: its headers cannot be read: a name among them is not UTF-8"
    clips = KafkaClips.of(settings).clips([row])
    assert [clip.rejection and clip.rejection.reason for clip in clips] == [None, bad, None]
    after_it = datetime.now(UTC) + timedelta(hours=1)
    assert offsets_at(settings, settings.topic, after_it, timeout_s=30)[0] == 4, "it was sent all the same"
    open_one.commit_transaction()
    open_one.close()
    wait_until(lambda: topic_state(settings, settings.topic, timeout_s=30).ends[0] == 5)


def test_a_killed_producer_is_started_again_and_says_that_it_lives(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.state_dir / "supervised"
    monkeypatch.setenv("GENRES_WATCH_FOLDER", str(folder))
    settings = Settings()
    database = Database(settings.database)

    def running() -> int | None:
        found = producers.newest(database, settings.topic)
        return found.pid if found and found.is_alive() else None

    with producers_running(settings):
        wait_until(lambda: running() is not None)
        first = running()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running() not in (None, first))
        write_clip(folder / "a.wav", 1)
        wait_until(lambda: last_sent(settings, folder / "a.wav"))
    found = producers.newest(database, settings.topic)
    assert found is not None
    assert found.ended_at is not None, "it was asked to end, and said so"
    assert found.sent == 1
    shown = subprocess.run(
        [sys.executable, "-m", "genres_cli", "status"], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert f"producer of {settings.topic} ({folder}): not running since" in shown


def rows_of(settings: Settings, folder: Path) -> list[SentFile]:
    return [row for path in folder.iterdir() if (row := last_sent(settings, path))]


def last_sent(settings: Settings, path: Path) -> SentFile | None:
    found = sent_files.sent_from(Database(settings.database), str(path), host=socket.gethostname())
    return found[0] if found else None


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    try:
        yield client
    finally:
        client.close()


def write_clip(path: Path, number: int, *, clip_s: float = 3.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = synthesise("blues", number, clip_s=clip_s, seed=11)
    sound = io.BytesIO()
    soundfile.write(sound, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    path.write_bytes(sound.getvalue())


def size_of(contents: dict[Path, bytes], *names: str) -> int:
    """Sum of the sizes of the named files and of those that are no audio by their suffix."""
    return sum(len(content) for path, content in contents.items() if path.name in (*names, "notes.txt"))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def quiet() -> Console:
    return Console(file=io.StringIO())


def run_once(settings: Settings, folder: Path) -> WatchReport:
    return watch(settings, folder, settings.topic, once=True, console=quiet(), stop=threading.Event())


@contextmanager
def watching(settings: Settings, folder: Path) -> Iterator[None]:
    """Watch the folder in a thread, which must end well."""
    stop = threading.Event()
    reports: list[WatchReport] = []
    thread = threading.Thread(
        target=lambda: reports.append(watch(settings, folder, settings.topic, once=False, console=quiet(), stop=stop))
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert len(reports) == 1


def child(folder: Path) -> subprocess.Popen[str]:
    """Start ``genres watch`` as a process of its own, in this test's environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "genres_cli", "watch", str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1
    )


def has_sent(producer: subprocess.Popen[str]) -> bool:
    """Wait for the producer's first line, which it prints as soon as it watches."""
    assert producer.stdout is not None
    return "sent" in producer.stdout.readline()


def all_messages(settings: Settings) -> list[ClipMessage]:
    """Read the whole topic."""
    state = topic_state(settings, settings.topic, timeout_s=30)
    parts = [TopicPartition(settings.topic, part) for part in state.ends]
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, group_id=None, enable_auto_commit=False)
    messages = []
    try:
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        while any(consumer.position(part) < state.ends[part.partition] for part in parts):
            for records in consumer.poll(1000).values():
                messages += [decode(record.key, record.value, record.headers) for record in records]
    finally:
        consumer.close()
    return messages


def is_gone(settings: Settings) -> bool:
    try:
        topic_state(settings, settings.topic, timeout_s=30)
    except KafkaUnreachableError:
        raise  # who waits asks again
    except GenresError:
        return True
    return False

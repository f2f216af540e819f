"""The Kafka clip source as Spark uses it: pickled to the workers, and described by its columns."""

import hashlib
import pickle
import socket
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import kafka
import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import OffsetOutOfRangeError, UnsupportedCodecError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from genres.audio.clip_features import Clip
from genres.audio.rejections import Reason
from genres.errors import GenresError
from genres.settings import Settings
from genres.store.hdfs_access import HdfsAccess
from spark.clip_source import ClipSource
from streaming_sensors import kafka_clips
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.kafka_clips import KafkaClips
from tests.fake_webhdfs import FakeWebHdfs
from tests.odd_headers import OddName

SETTINGS = Settings(
    kafka_bootstrap_servers="broker:9092",
    inline_limit_bytes=1000,
    hdfs_url="hdfs://namenode:8020",
    webhdfs_url="http://namenode:9870",
)
DATA = b"the bytes of a clip"


def test_workers_get_the_same_source_and_no_settings() -> None:
    source: ClipSource = KafkaClips.of(SETTINGS)
    pickled = pickle.dumps(source)
    assert pickle.loads(pickled) == source  # noqa: S301
    assert b"Settings" not in pickled, "the database's password stays here"


def test_source_follows_the_settings() -> None:
    source = KafkaClips.of(SETTINGS)
    assert (source.kafka.bootstrap_servers, source.hdfs.webhdfs_url) == ("broker:9092", "http://namenode:9870")


def test_columns_are_those_of_every_clip() -> None:
    source = KafkaClips.of(SETTINGS)
    columns = [column.name for column in source.columns]
    assert list(clip_of(record()).about) == columns
    assert list(clip_of(record(headers=[])).about) == columns


def test_a_message_becomes_its_clip() -> None:
    clip = clip_of(record())
    assert (clip.data, clip.suffix, clip.rejection) == (DATA, ".wav", None)
    assert clip.about == {
        "kafka_partition": 2,
        "kafka_offset": 17,
        "file_name": "one.wav",
        "genre": "jazz",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "suffix": ".wav",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"headers": []}, "bad message: no envelope"),
        ({"key": None}, "bad message: the key is no sha256"),
        ({"value": None}, "bad message: the value is empty"),
        ({"value": b"the bytes of a clap"}, "bad message: the key is not the sha256 of the value"),
    ],
)
def test_no_envelope_is_one_refused_clip(changes: dict[str, Any], reason: str) -> None:
    clip = clip_of(record(**changes))
    assert clip.rejection and clip.rejection.columns == {"reason": reason, "reason_code": "bad_message"}
    assert clip.data == (record(**changes).value or b"")
    assert clip.about["file_name"] == "offset 17"


class CutPartition:
    """A consumer of a partition from whose beginning retention has taken five messages, as Kafka's behaves."""

    opened: ClassVar[list["CutPartition"]] = []

    def __init__(self, **config: Any) -> None:
        self.config = config
        self.at, self.is_closed = 0, False
        self.opened.append(self)

    def assign(self, partitions: list[Any]) -> None:
        pass

    def seek(self, partition: Any, offset: int) -> None:
        self.at = offset

    def position(self, partition: Any) -> int:
        return self.at

    def poll(self, timeout_ms: int) -> dict[Any, list[SimpleNamespace]]:
        if self.at < 5:
            if self.config["auto_offset_reset"] == "none":
                raise OffsetOutOfRangeError({TopicPartition("clips", 0): self.at})
            self.at = 5
        self.at += 1
        return {TopicPartition("clips", 0): [record(partition=0, offset=self.at - 1)]}

    def unsubscribe(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[CutPartition]:
    """The consumers that this process has opened, which has kept none of before."""
    monkeypatch.setattr(kafka, "KafkaConsumer", CutPartition)
    monkeypatch.setattr(kafka_clips, "_kept", {})
    monkeypatch.setattr(CutPartition, "opened", [])
    return CutPartition.opened


def test_a_process_keeps_its_consumer_from_task_to_task_and_closes_it_when_something_goes_wrong(
    opened: list[CutPartition],
) -> None:
    """Each task's source is a copy that was pickled for it; a login for each would be most of a small task's time."""

    def offsets(start: int, end: int) -> list[int]:
        source: KafkaClips = pickle.loads(pickle.dumps(KafkaClips.of(SETTINGS)))  # noqa: S301 - our own
        return [found.offset for found in source._records("clips", 0, start, end)]

    assert (offsets(5, 8), offsets(9, 12)) == ([5, 6, 7], [9, 10, 11])
    assert [consumer.is_closed for consumer in opened] == [False]
    with pytest.raises(GenresError):
        offsets(0, 2)
    assert [consumer.is_closed for consumer in opened] == [True]
    assert offsets(5, 6) == [5]
    given_up = KafkaClips.of(SETTINGS)._records("clips", 0, 5, 8)
    next(given_up)
    given_up.close()
    assert [consumer.is_closed for consumer in opened] == [True, True]
    elsewhere = KafkaClips.of(SETTINGS.model_copy(update={"kafka_bootstrap_servers": "elsewhere:1"}))
    assert [found.offset for found in elsewhere._records("clips", 0, 5, 6)] == [5]
    assert opened[-1].config["bootstrap_servers"] != opened[0].config["bootstrap_servers"]


def test_of_consumers_that_are_in_use_at_a_time_one_is_kept_and_the_others_are_closed(
    opened: list[CutPartition],
) -> None:
    one, other = (KafkaClips.of(SETTINGS)._records("clips", 0, 5, 8) for _ in range(2))
    next(one)
    assert [found.offset for found in other] == [5, 6, 7]
    assert [found.offset for found in one] == [6, 7]
    assert sorted(consumer.is_closed for consumer in opened) == [False, True]
    assert [found.offset for found in KafkaClips.of(SETTINGS)._records("clips", 0, 9, 10)] == [9]
    assert len(opened) == 2


@pytest.mark.parametrize("start", [0, 4])
def test_offsets_that_retention_took_are_an_error_and_never_passed_over(start: int, opened: list[CutPartition]) -> None:
    source = KafkaClips.of(SETTINGS)
    assert [found.offset for found in source._records("clips", 0, 5, 8)] == [5, 6, 7]
    with pytest.raises(GenresError, match=f"no longer has clips partition 0, offsets {start} to 8: retention"):
        list(source._records("clips", 0, start, 8))


@pytest.mark.parametrize(("codec", "number"), [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)])
def test_whatever_a_broker_compresses_with_is_read(codec: str, number: int) -> None:
    """Its own setting decides, whatever the producer did."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=number, batch_size=2**20)
    builder.append(timestamp=0, key=b"key", value=DATA * 1000, headers=[])
    builder.close()
    (found,) = MemoryRecords(builder.buffer()).next_batch()
    assert found.value == DATA * 1000


def test_a_worker_that_lacks_a_codec_is_named(opened: list[CutPartition], monkeypatch: pytest.MonkeyPatch) -> None:
    def poll(_: CutPartition, timeout_ms: int) -> dict[Any, list[SimpleNamespace]]:
        raise UnsupportedCodecError("Libraries for lz4 compression codec not found")

    monkeypatch.setattr(CutPartition, "poll", poll)
    line = f"clips partition 0, offsets 5 to 8 cannot .* on {socket.gethostname()}.*lz4.*: install .* requirements.txt"
    with pytest.raises(GenresError, match=line):
        list(KafkaClips.of(SETTINGS)._records("clips", 0, 5, 8))


class Batched(CutPartition):
    """A consumer of one fetched batch, which is taken apart by the library's own code; each poll gives a record."""

    batch: ClassVar[bytes]

    def seek(self, partition: Any, offset: int) -> None:
        super().seek(partition, offset)
        self.records = Fetcher.PartitionRecords(offset, partition, MemoryRecords(self.batch))

    def poll(self, timeout_ms: int) -> dict[Any, list[Any]]:
        found = self.records.take(1)
        self.at = self.records.next_fetch_offset
        return {self.records.topic_partition: found}


@pytest.fixture
def batched(opened: list[CutPartition], monkeypatch: pytest.MonkeyPatch) -> type[Batched]:
    monkeypatch.setattr(kafka, "KafkaConsumer", Batched)
    monkeypatch.setattr(memory_records, "DefaultRecordBatch", DefaultRecordBatch)
    return Batched


def batch(*names: str, codec: int = 0) -> bytearray:
    """A batch of good clips from offset 0 on, each with one header more, of that name."""
    good, builder = record(), MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=2**20)
    for name in names:
        builder.append(timestamp=7, key=good.key, value=good.value, headers=[*good.headers, (name, b"x")])
    builder.close()
    return bytearray(builder.buffer())


@pytest.mark.parametrize("codec", [0, 1])
def test_a_message_whose_headers_cannot_be_read_is_one_bad_message(batched: type[Batched], codec: int) -> None:
    """Not an outage of Kafka's, for which the good clips around it would wait for ever."""
    Batched.batch = bytes(batch("more", OddName("\xff\xfe"), "more", OddName("n\xe9e"), codec=codec))
    source, hdfs = KafkaClips.of(SETTINGS), HdfsAccess.of(SETTINGS).open()
    for start in range(4):
        records = list(source._records("clips", 0, start, 4))
        assert [found.offset for found in records] == list(range(start, 4))
        clips = {found.offset: source._clip(found, hdfs) for found in records}
        bad = "bad message: its headers cannot be read: a name among them is not UTF-8"
        assert [found.rejection and found.rejection.reason for found in clips.values()] == [None, bad, None, bad][
            start:
        ]
        assert {clip.data for clip in clips.values()} == {DATA}
        assert {found.timestamp for found in records} == {7}
        assert clips[3].about["file_name"] == "offset 3"


def test_a_batch_that_was_damaged_on_its_way_is_an_outage(batched: type[Batched]) -> None:
    Batched.batch = damaged = batch("more", OddName("\xff"))
    damaged[-3] ^= 1
    with pytest.raises(GenresError, match=r"does not give clips partition 0, offsets 0 to 2 \(CorruptRecordError\)"):
        list(KafkaClips.of(SETTINGS)._records("clips", 0, 0, 2))


def test_only_webhdfs_itself_says_that_a_claimed_clip_is_gone(server: FakeWebHdfs) -> None:
    """A proxy's 404, or a wrong port's, would refuse every large clip of a range."""
    source, hdfs, inline = KafkaClips.of(SETTINGS), HdfsAccess(server.url, "me").open(patience_s=0), record()
    path = f"/genres/stream/claims/{inline.key.decode()}.wav"
    headers = [(name, b"claim" if name == "payload" else value) for name, value in inline.headers]
    claim = record(value=path.encode(), headers=headers)
    missing = source._clip(claim, hdfs).rejection
    assert missing and missing.code is Reason.CLAIM_MISSING
    assert missing.reason == f"its claim check names {path}, which HDFS does not have"
    server.files[path] = DATA[::-1]
    differs = source._clip(claim, hdfs).rejection
    assert differs and differs.code is Reason.CLAIM_DIFFERS
    server.files[path] = DATA
    server.namenode_faults = [(404, None)]
    with pytest.raises(GenresError, match=f"does not give {path}: .*fix GENRES_WEBHDFS_URL"):
        source._clip(claim, hdfs)
    assert source._clip(claim, hdfs) == clip_of(inline)


@pytest.mark.parametrize(
    ("lies_there", "states", "reason"),
    [
        (DATA[:-1], len(DATA), "the file behind its claim check has 18 bytes, not the 19 that were sent"),
        (DATA, 7, "the file behind its claim check has 19 bytes, not the 7 that were sent"),
        (bytes(2_000_000), 2_000_000, "bytes"),
    ],
)
def test_a_claimed_file_of_another_size_is_refused_and_not_read(
    server: FakeWebHdfs, lies_there: bytes, states: int, reason: str
) -> None:
    source = KafkaClips.of(SETTINGS.model_copy(update={"max_clip_s": 0.001}))
    hdfs, inline = HdfsAccess(server.url, "me").open(patience_s=0), record()
    path = f"/genres/stream/claims/2026-05-18/{inline.key.decode()}.wav"
    server.files[path] = lies_there
    changed = {"payload": b"claim", "size": b"%d" % states}
    headers = [(name, changed.get(name, value)) for name, value in inline.headers]
    clip = source._clip(record(value=path.encode(), headers=headers), hdfs)
    assert clip.rejection and reason in clip.rejection.reason
    assert (clip.data, clip.sha256, clip.about["file_name"]) == (b"", inline.key.decode(), "one.wav")
    assert "OPEN" not in server.operations


def test_a_claim_check_elsewhere_is_read_in_another_lake_alone(server: FakeWebHdfs) -> None:
    """Elsewhere it could be refused for ever, as an outage, and a range with it; so it could in a lake of others'."""
    hdfs, inline = HdfsAccess(server.url, "me").open(patience_s=0), record()
    headers = [(name, b"claim" if name == "payload" else value) for name, value in inline.headers]
    for folder in ("/user/other", "/a:b", "/genres/stream/claims/a:b"):
        path = f"{folder}/{inline.key.decode()}.wav"
        clip = KafkaClips.of(SETTINGS)._clip(record(value=path.encode(), headers=headers), hdfs)
        assert clip.rejection and clip.rejection.reason.startswith(f"bad message: claim check names '{folder}/")
    assert not server.operations
    path = f"/user/other/stream/claims/{inline.key.decode()}.wav"
    message = record(value=path.encode(), headers=headers)
    server.files[path] = DATA
    assert KafkaClips.of(SETTINGS)._clip(message, hdfs) == clip_of(inline)
    server.namenode_faults = [(403, ("AccessControlException", "Permission denied: user=me"))]
    refused = KafkaClips.of(SETTINGS)._clip(message, hdfs)
    assert refused.rejection and refused.rejection.code is Reason.CLAIM_DENIED
    server.namenode_faults = [(403, ("AccessControlException", "Permission denied: user=me"))]
    with pytest.raises(GenresError, match=f"does not give {path}: "):
        KafkaClips.of(SETTINGS.model_copy(update={"lake_path": "/user/other/"}))._clip(message, hdfs)


def test_workers_load_little() -> None:
    heavy = ("dagster", "kafka", "sqlalchemy", "pyspark", "pandas", "pydantic")
    program = f"import sys, streaming_sensors.kafka_clips; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def record(**changes: Any) -> SimpleNamespace:
    """What a consumer gives for a good message, or for one that was changed."""
    message = ClipMessage(
        hashlib.sha256(DATA).hexdigest(),
        "one.wav",
        ".wav",
        len(DATA),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        genre="jazz",
        data=DATA,
    )
    key, value, headers = encode(message)
    return SimpleNamespace(**{"partition": 2, "offset": 17, "key": key, "value": value, "headers": headers, **changes})


def clip_of(message: SimpleNamespace) -> Clip:
    return KafkaClips.of(SETTINGS)._clip(message, HdfsAccess.of(SETTINGS).open())

"""Clips from Kafka by offset range: the source that the Python workers of Spark fetch from, and nothing else."""

import hashlib
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genres.audio.clip_features import Clip
from genres.audio.gate import check_size
from genres.audio.rejections import Reason, RejectedAudio
from genres.errors import GenresError
from genres.kafka_client import KafkaAccess, open_client
from genres.store.hdfs_access import HdfsAccess
from genres.store.schemas import STREAM_CLIP, Column
from spark.clip_source import fetch_from_hdfs, size_on_hdfs
from streaming_sensors.envelope import BadEnvelopeError, ClipMessage, decode

if TYPE_CHECKING:
    from genres.settings import Settings
    from genres.store.hdfs import Hdfs

_FETCH_BYTES = 4 * 2**20
_kept: dict[KafkaAccess, Any] = {}
"""A consumer for each way to the brokers, between the tasks of this process."""
_STALLED_S = 60.0
"""How long a broker may return nothing of a range that it should have, or HDFS not a claimed clip, in seconds."""


@dataclass(frozen=True)
class KafkaClips:
    """Clips by offsets: rows of ``topic, kafka_partition, start_offset, end_offset``, end exclusive.

    Every message of a range is one clip; one that is no envelope, whose headers cannot be read, or whose claim check
    holds something else, is one with a reason. Offsets without a message (transactions' markers, compaction) are none.
    Build it with `of`.
    """

    kafka: KafkaAccess
    """Where the brokers are; it leaves its secrets here when it is pickled."""
    hdfs: HdfsAccess
    """For claim checks."""
    claims_root: str
    """The folder on HDFS below which this lake's lie."""
    max_clip_s: float
    """Longest clip that is let in, in seconds: a claimed file that is larger than any such is not read."""
    columns: tuple[Column, ...] = field(default=STREAM_CLIP, init=False)

    @classmethod
    def of(cls, settings: "Settings") -> "KafkaClips":
        """Build the source for the settings' broker and HDFS."""
        from genres.store.retention import claims_root

        root = claims_root(settings.lake_path)
        return cls(KafkaAccess.of(settings), HdfsAccess.of(settings), root, settings.max_clip_s)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Fetch the messages of each row's range, in order.

        Raises
        ------
        GenresError
            If the broker does not have a range, or returns nothing of it for a minute.
        """
        with closing(self.hdfs.open(patience_s=_STALLED_S)) as hdfs:
            for row in rows:
                for record in self._records(
                    row["topic"], row["kafka_partition"], row["start_offset"], row["end_offset"]
                ):
                    yield self._clip(record, hdfs)

    def _records(self, topic: str, kafka_partition: int, start_offset: int, end_offset: int) -> Iterator[Any]:
        from kafka import TopicPartition
        from kafka.errors import KafkaError, OffsetOutOfRangeError, UnsupportedCodecError

        partition = TopicPartition(topic, int(kafka_partition))
        where = f"{topic} partition {kafka_partition}, offsets {start_offset} to {end_offset}"
        try:
            with self._consumer() as consumer:
                consumer.assign([partition])
                consumer.seek(partition, int(start_offset))
                position, last_sign = int(start_offset), time.monotonic()
                # Transactions' markers and compaction leave gaps: what counts is how far the consumer has come.
                while position < end_offset:
                    for record in consumer.poll(timeout_ms=1000).get(partition, []):
                        if record.offset >= end_offset:
                            return
                        yield record
                    reached = consumer.position(partition)
                    if reached != position:
                        position, last_sign = reached, time.monotonic()
                    if time.monotonic() - last_sign > _STALLED_S:
                        raise GenresError(
                            f"Kafka at {self.kafka.bootstrap_servers} gives nothing of {where} from {position} on"
                        )
        except OffsetOutOfRangeError as error:
            raise GenresError(
                f"Kafka no longer has {where}: retention took them, or the topic was recreated"
            ) from error
        except UnsupportedCodecError as error:
            raise GenresError(
                f"{where} cannot be decompressed on {socket.gethostname()} ({error}): install the packages of "
                "requirements.txt there, of which lz4, python-snappy and zstandard are some"
            ) from error
        except KafkaError as error:
            raise GenresError(
                f"Kafka at {self.kafka.bootstrap_servers} does not give {where} ({type(error).__name__}); is it up?"
            ) from error

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        """Yield the consumer that this process has kept, or a new one; it is kept again unless something goes wrong.

        A task is a few clips. A login over TLS for each of them, or a token that is asked for, would be most of a small
        one's time, and a load on whoever checks it.
        """
        from kafka import KafkaConsumer

        from streaming_sensors.record_headers import read_messages_with_odd_headers

        read_messages_with_odd_headers()
        consumer = _kept.pop(self.kafka, None) or open_client(
            KafkaConsumer,
            self.kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",  # 'earliest' would jump over lost clips in silence
            isolation_level="read_committed",  # what a transaction took back was never sent
            # At the default every fetch would return a single clip; much more would be fetched and thrown away,
            # since a fetch knows no end offset. A larger message comes all the same, alone.
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            max_poll_records=64,
            bootstrap_timeout_ms=15_000,
            # A tenth of a second, to wait after the start, is most of a small task's time.
            retry_backoff_ms=10,
        )
        try:
            yield consumer
            consumer.unsubscribe()  # what it has fetched beyond the range is not held until the next task
        except BaseException:
            consumer.close()
            raise
        # The page fetches in several threads: of two consumers that were in use at a time, one is kept.
        if _kept.setdefault(self.kafka, consumer) is not consumer:
            consumer.close()

    def _clip(self, record: Any, hdfs: "Hdfs") -> Clip:
        about = {
            "kafka_partition": record.partition,
            "kafka_offset": record.offset,
            "file_name": f"offset {record.offset}",
            "genre": None,
            "created_at": None,
            "suffix": "",
        }
        try:
            message = decode(record.key, record.value, record.headers)
        except BadEnvelopeError as error:
            return Clip(about, "", record.value or b"", RejectedAudio(Reason.BAD_MESSAGE, error=error.reason))
        about |= {
            "file_name": message.file_name,
            "genre": message.genre,
            "created_at": message.created_at,
            "suffix": message.suffix,
        }
        if message.claim_path is None:
            return Clip(about, message.suffix, message.data or b"")
        try:
            return Clip(about, message.suffix, self._claimed(message, message.claim_path, hdfs))
        except RejectedAudio as rejected:
            # The verdict is about the clip that was promised, not about the bytes that lie in its place.
            return Clip(about, message.suffix, b"", rejected, sha256=message.sha256)

    def _claimed(self, message: ClipMessage, path: str, hdfs: "Hdfs") -> bytes:
        """Fetch the bytes behind a claim check, or refuse it; what is too large is not fetched."""
        from genres.store.hdfs import HdfsDeniedError

        try:
            size = size_on_hdfs(hdfs, path)
            check_size(size, max_clip_s=self.max_clip_s)
            if size != message.size:
                raise RejectedAudio(Reason.CLAIM_OF_OTHER_SIZE, size=size, sent=message.size)
            data = fetch_from_hdfs(hdfs, path)
        except FileNotFoundError:
            raise RejectedAudio(Reason.CLAIM_MISSING, path=path) from None
        except GenresError as error:
            # Anybody may name a place in a message; that another lake may not be read is no outage of this one.
            if isinstance(error.__cause__, HdfsDeniedError) and not path.startswith(f"{self.claims_root}/"):
                raise RejectedAudio(Reason.CLAIM_DENIED, path=path) from None
            raise
        if hashlib.sha256(data).hexdigest() != message.sha256:
            raise RejectedAudio(Reason.CLAIM_DIFFERS)
        return data

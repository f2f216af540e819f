"""Messages whose headers cannot be read: each comes as a record that says so, and the rest of its batch as well.

Kafka takes any bytes for a header's name; what is no UTF-8 there, Java's clients show as U+FFFD. kafka-python (3.0.12)
raises `CorruptRecordError`, as for a batch that was damaged on its way, and can read nothing of the batch that comes
after it, wherever the consumer seeks to. A damaged batch is told by its checksum, which is compared before. Belongs
here: what it takes to tell the two apart. What becomes of such a message is the envelope's to say.
"""

from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from streaming_sensors.envelope import UNREADABLE


def read_messages_with_odd_headers() -> None:
    """Let every consumer of this process read them; calling it again changes nothing."""
    # The library has no option for it and makes its batches in this one place.
    memory_records.DefaultRecordBatch = _Batch


class _Batch(DefaultRecordBatch):
    """A batch whose records come all, one with the header `UNREADABLE` where a record's own cannot be read."""

    _pos: int

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except (ValueError, IndexError, CorruptRecordError):
            # Of a transaction's marker nobody would look at the headers.
            if self.is_control_batch:
                raise
            return self._without_headers()

    def _without_headers(self) -> DefaultRecord:
        """Read a record up to its headers, and pass over them: it says itself how long it is."""
        length, begin = decode_varint(self._buffer, self._pos)
        end = begin + length
        _, at = decode_varint(self._buffer, begin)  # attributes, of which there are none
        delta_ms, at = decode_varint(self._buffer, at)
        offset_delta, at = decode_varint(self._buffer, at)
        key, at = self._bytes(at)
        value, at = self._bytes(at)
        if not self._pos < at <= end <= len(self._buffer):
            raise CorruptRecordError(f"record {offset_delta} of the batch at offset {self.base_offset} has no length")
        self._pos = end
        by_broker = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if by_broker else self.first_timestamp + delta_ms
        about = (length, self.base_offset + offset_delta, timestamp, self.timestamp_type)
        return DefaultRecord(*about, key, value, [(UNREADABLE, None)])

    def _bytes(self, at: int) -> tuple[bytes | None, int]:
        size, at = decode_varint(self._buffer, at)
        return (bytes(self._buffer[at : at + size]), at + size) if size >= 0 else (None, at)

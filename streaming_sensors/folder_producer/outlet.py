"""The connection to the topic: one idempotent producer at a time, and the clips that it still owes an answer for."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from genres.kafka_client import KafkaAccess, open_client
from genres.settings import Settings
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.folder_producer.folder import Stamp
from streaming_sensors.topic import TopicState, max_message_bytes, topic_state

IN_FLIGHT_BYTES = 32 * 2**20
"""How many bytes of clips may wait for the broker's confirmation."""

CONNECT_S = 5.0
"""How long a server is waited for while others have to wait, in seconds."""


class ClipInFlight(NamedTuple):
    """A file that is on its way."""

    path: Path
    stamp: Stamp
    sha256: str
    topic_id: str
    """Which topic of that name it was sent to, as far as was known."""


class Delivery(NamedTuple):
    """The broker's answer for a clip."""

    clip: ClipInFlight
    partition: int
    offset: int
    error: Exception | None


class Outlet:
    """The connection to the topic: one idempotent producer at a time, and what is on its way.

    Parameters
    ----------
    settings
        Addresses and limits.
    topic
        The Kafka topic, which has to be there.
    on_delivery
        Called with the broker's answer for each clip that was sent, from the client's own thread: it must not wait.
    """

    def __init__(self, settings: Settings, topic: str, *, on_delivery: Callable[[Delivery], None]) -> None:
        self._settings, self._topic, self._on_delivery = settings, topic, on_delivery
        self._producer: Any = None
        self._carried: dict[Path, ClipInFlight] = {}
        self._carried_bytes = 0
        self._heard_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a producer; the broker may be silent all the same."""
        return self._producer is not None

    @property
    def in_flight(self) -> int:
        """How many clips wait for their confirmation."""
        return len(self._carried)

    def carries(self, path: Path) -> bool:
        """Whether the file was sent and its confirmation has not come."""
        return path in self._carried

    def has_room(self, size: int) -> bool:
        """Whether a clip of `size` bytes may be sent now; always one, however large."""
        return not self._carried or self._carried_bytes + size <= IN_FLIGHT_BYTES

    def silent_s(self) -> float:
        """For how long the broker has owed an answer, in seconds."""
        return time.monotonic() - self._heard_at if self._carried else 0.0

    def connect(self, timeout_s: float) -> TopicState:
        """Make a producer and return how the topic is, which has to be there."""
        from kafka import KafkaProducer

        state = topic_state(self._settings, self._topic, timeout_s=timeout_s)
        self._producer = open_client(KafkaProducer, KafkaAccess.of(self._settings), **producer_config(self._settings))
        return state

    def send(self, clip: ClipInFlight, message: ClipMessage) -> None:
        """Hand a clip to the producer; what becomes of it comes to `on_delivery`."""
        from kafka.errors import KafkaError

        if not self._carried:
            self._heard_at = time.monotonic()
        self._carried[clip.path] = clip
        self._carried_bytes += clip.stamp.size
        key, value, headers = encode(message)
        try:
            # No timestamp: Kafka counts retention from it, and a clip may have been created long ago.
            future = self._producer.send(self._topic, key=key, value=value, headers=headers)
        except KafkaError as error:
            self._on_delivery(Delivery(clip, -1, -1, error))
            return
        future.add_callback(lambda told: self._on_delivery(Delivery(clip, told.partition, told.offset, None)))
        future.add_errback(lambda error: self._on_delivery(Delivery(clip, -1, -1, error)))

    def landed(self, clip: ClipInFlight) -> None:
        """Take note that the broker's answer for a clip has come."""
        self._heard_at = time.monotonic()
        if self._carried.pop(clip.path, None):
            self._carried_bytes -= clip.stamp.size

    def flush(self, timeout_s: float) -> None:
        """Wait for what is on its way, at most so long."""
        from kafka.errors import KafkaTimeoutError

        if self._producer is not None:
            with contextlib.suppress(KafkaTimeoutError):
                self._producer.flush(timeout_s)

    def disconnect(self) -> None:
        """Drop the producer; clips that it still carries come to `on_delivery` as failed."""
        from kafka.errors import KafkaTimeoutError

        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                producer.close(timeout=0)
            except KafkaTimeoutError:
                # Its flush gives up before the thread is told to end (kafka-python 3.0.12).
                producer._sender.force_close()


def is_refusal(error: Exception) -> bool:
    """Whether the broker will not take a clip, as things are, however often it is sent.

    What a new client puts right is none: the broker does not know this one's sequence numbers, or bytes were damaged.
    """
    from kafka import errors

    put_right = (
        errors.CorruptRecordError,
        errors.DuplicateSequenceNumberError,
        errors.InvalidProducerEpochError,
        errors.InvalidProducerIdMappingError,
        errors.OutOfOrderSequenceNumberError,
        errors.UnknownProducerIdError,
    )
    return isinstance(error, errors.BrokerResponseError) and not isinstance(error, (errors.RetriableError, *put_right))


def producer_config(settings: Settings) -> dict[str, Any]:
    """Return the producer's options but its way to the brokers: nothing that delivery rests on is left to defaults."""
    return {
        "client_id": "genres-folder-producer",
        "acks": "all",
        "enable_idempotence": True,
        "max_in_flight_requests_per_connection": 5,
        "allow_auto_create_topics": False,
        "max_request_size": max_message_bytes(settings),
        "request_timeout_ms": 10_000,
        # How long the client itself tries; afterwards the file is read and sent again.
        "delivery_timeout_ms": 120_000,
        "max_block_ms": 10_000,
        "bootstrap_timeout_ms": int(CONNECT_S * 1000),
        "reconnect_backoff_max_ms": 2_000,
        "metrics_enabled": False,
    }

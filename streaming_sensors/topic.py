"""The topic: made to fit the settings, and asked how far it reaches.

Belongs here: what the project needs of Kafka's admin protocol. Reading and writing clips do not. A client lives for
one call; what is asked for often (the sensor's wait) is one call.
"""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from genres.errors import GenresError
from genres.kafka_client import KafkaAccess, explained, open_client
from genres.settings import Settings

if TYPE_CHECKING:
    from kafka import KafkaAdminClient
    from kafka.protocol.consumer import IsolationLevel

ENVELOPE_BYTES = 64 * 1024
"""Room for key, headers and framing around a clip's bytes in a message."""

_START_S = 10.0
"""How long brokers may take to answer where the stack is started: more than where a sensor asks, in seconds."""
_ASK_AGAIN_S = 0.25
_BROKERS_DEFAULT = -1
"""What Kafka's protocol has for a number of replicas that the broker decides on."""


class TopicState(NamedTuple):
    """How far a topic reaches."""

    topic: str
    topic_id: str
    """Kafka's id in URL-safe base64 (22 characters); another one as soon as the topic is recreated."""
    beginnings: dict[int, int]
    """For each partition the offset of the oldest message that retention has left."""
    ends: dict[int, int]
    """For each partition the offset up to which its messages can be read.

    The one that the next message will get, unless a transaction is open: what was sent after that began waits for it.
    """


def max_message_bytes(settings: Settings) -> int:
    """Size of the largest message, in bytes: what the topic, the producer and every fetch have to fit."""
    return settings.inline_limit_bytes + ENVELOPE_BYTES


def create_topic(settings: Settings, topic: str) -> None:
    """Make the topic, or fit the existing one to the settings; calling it again changes nothing.

    What is as it should be is not asked for: a user who may only describe, read and write a topic that was made before
    needs no other right. Where he may not see its configuration either, that is taken to be right. A topic keeps the
    partitions it has beyond ``topic_partitions``, since Kafka cannot take any away, and its replicas, which its
    administrator moves.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within ten seconds.
    GenresError
        If the broker refuses.
    """
    from kafka.errors import KafkaError, TopicAlreadyExistsError

    partitions = settings.topic_partitions
    config = {
        # A clip that was seen twice keeps both its messages: a range of offsets has to stay what it was.
        "cleanup.policy": "delete",
        "retention.ms": str(settings.topic_retention_h * 3_600_000),
        "max.message.bytes": str(max_message_bytes(settings)),
    }
    with _admin(settings, _START_S) as admin:
        try:
            if not _exists(admin, topic):
                # Of two that make it at once, the other one may be first.
                with suppress(TopicAlreadyExistsError):
                    # Left to the broker's own setting, it may recompress every clip.
                    made_with = {**config, "compression.type": "producer"}
                    made = {"num_partitions": partitions, "configs": made_with}
                    made["replication_factor"] = settings.topic_replication or _BROKERS_DEFAULT
                    admin.create_topics({topic: made})
                admin.wait_for_topics([topic])
            if other := _unlike(admin, topic, config):
                _set(admin, topic, other, settings)
                _wait_until(lambda: not _unlike(admin, topic, config), _START_S)

            def has_too_few_partitions() -> bool:
                return len(_description(admin, topic, settings)["partitions"]) < partitions

            if has_too_few_partitions():
                admin.create_partitions({topic: partitions})
                _wait_until(lambda: not has_too_few_partitions(), _START_S)
            admin.wait_for_topics([topic])
        except KafkaError as error:
            if error.retriable:
                raise
            raise GenresError(
                f"Kafka at {settings.bootstrap_servers} refuses topic {topic!r} with {partitions} partitions, "
                f"{settings.topic_replication or 'its own number of'} replicas and messages of "
                f"{max_message_bytes(settings):,} bytes ({type(error).__name__}): check GENRES_TOPIC, "
                "GENRES_TOPIC_PARTITIONS, GENRES_TOPIC_REPLICATION (no more than there are brokers) and "
                "GENRES_INLINE_LIMIT_BYTES, and that this user may create topics, or let its administrator make it "
                "(docs/cluster.md)"
            ) from error


def lacks_replicas(settings: Settings, topic: str) -> bool:
    """Whether a partition of the topic lies on one broker alone, although there are several.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within about ten seconds.
    GenresError
        If there is no such topic.
    """
    with _admin(settings, _START_S) as admin:
        partitions = _description(admin, topic, settings)["partitions"]
        return len(admin.describe_cluster()["brokers"]) > 1 and any(
            len(one["replica_nodes"]) == 1 for one in partitions
        )


def topic_state(settings: Settings, topic: str, *, timeout_s: float = 5.0) -> TopicState:
    """Ask for the topic's id and for the first offset of each of its partitions and the one up to which it can be read.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within about `timeout_s` seconds.
    GenresError
        If there is no such topic.
    """
    from kafka.admin import OffsetSpec

    with _admin(settings, timeout_s) as admin:
        description = _description(admin, topic, settings)
        return TopicState(
            topic,
            _url_safe(description["topic_id"]),
            _offsets(admin, description, OffsetSpec.EARLIEST),
            _readable_ends(admin, description),
        )


def offsets_at(settings: Settings, topic: str, moment: datetime, *, timeout_s: float = 5.0) -> dict[int, int]:
    """Ask for the offset of each partition's first message that was not sent before a moment.

    Those of open transactions count: they were sent, and are read once it ends.

    Returns
    -------
    dict[int, int]
        By partition; where there is no such message, the offset that the next one will get.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within about `timeout_s` seconds.
    GenresError
        If there is no such topic.
    """
    from kafka.admin import OffsetSpec

    with _admin(settings, timeout_s) as admin:
        description = _description(admin, topic, settings)
        # In this order: a message that comes in between has an offset beyond the end that was asked for first.
        ends = _offsets(admin, description, OffsetSpec.LATEST)
        found = _offsets(admin, description, int(moment.timestamp() * 1000))
        return {partition: found[partition] if found[partition] >= 0 else end for partition, end in ends.items()}


def wait_for_data(
    settings: Settings,
    topic: str,
    after: dict[int, int],
    timeout_s: float,
    *,
    concerns: Callable[[int], bool] = lambda _: True,
    given_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Wait until the topic has more than the caller knows of.

    Offsets are asked for four times a second over one connection. No payload is fetched: a consumer that polls
    would be woken sooner, by one whole clip for each partition.

    Parameters
    ----------
    settings
        Where the topic is.
    topic
        Its name.
    after
        The end offsets that are known, by partition; a partition that is left out counts as empty.
    timeout_s
        How long to wait, in seconds.
    concerns
        Whether the caller waits for a partition; by default for any.
    given_up
        Asked as often as the broker is: whether the caller waits no longer.

    Returns
    -------
    bool
        True as soon as a partition's end offset is another than the known one (a smaller one, if the topic was
        recreated), False after `timeout_s` or once the caller has given up.

    Raises
    ------
    KafkaUnreachableError
        If no broker answers within about five seconds.
    GenresError
        If there is no such topic.
    """
    deadline = time.monotonic() + timeout_s
    with _admin(settings, 5.0) as admin:
        while True:
            ends = _readable_ends(admin, _description(admin, topic, settings))
            if any(end != after.get(partition, 0) for partition, end in ends.items() if concerns(partition)):
                return True
            left = deadline - time.monotonic()
            if left <= 0 or given_up():
                return False
            time.sleep(min(left, _ASK_AGAIN_S))


@contextmanager
def _admin(settings: Settings, timeout_s: float) -> "Iterator[KafkaAdminClient]":
    """Open an admin client; raise one clear line for whatever the network does to it."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    access = KafkaAccess.of(settings)
    timeout_ms = int(timeout_s * 1000)
    admin = open_client(
        KafkaAdminClient,
        access,
        client_id="genres-admin",
        bootstrap_timeout_ms=timeout_ms,
        request_timeout_ms=timeout_ms,
    )
    try:
        yield admin
    except (KafkaError, OSError) as error:
        raise explained(access, error) from error
    finally:
        admin.close()


def _description(admin: "KafkaAdminClient", topic: str, settings: Settings) -> dict[str, Any]:
    from kafka.errors import UnknownTopicOrPartitionError, for_code

    (description,) = admin.describe_topics([topic])
    error = for_code(description["error_code"])
    if error is UnknownTopicOrPartitionError:
        raise GenresError(
            f"Kafka at {settings.bootstrap_servers} has no topic {topic!r}: make it with `genres up`, or "
            "fix GENRES_TOPIC"
        )
    if description["error_code"]:
        raise error(topic)
    return description


def _readable_ends(admin: "KafkaAdminClient", description: dict[str, Any]) -> dict[int, int]:
    """Return what a reader with ``read_committed`` comes up to; it would wait for ever for what was planned beyond."""
    from kafka.admin import OffsetSpec
    from kafka.protocol.consumer import IsolationLevel

    return _offsets(admin, description, OffsetSpec.LATEST, isolation_level=IsolationLevel.READ_COMMITTED)


def _offsets(
    admin: "KafkaAdminClient", description: dict[str, Any], spec: Any, **options: "IsolationLevel"
) -> dict[int, int]:
    from kafka import TopicPartition

    asked = {TopicPartition(description["name"], part["partition_index"]): spec for part in description["partitions"]}
    answers = admin.list_partition_offsets(asked, **options)
    return {part.partition: answers[part].offset for part in sorted(asked)}


def _exists(admin: "KafkaAdminClient", topic: str) -> bool:
    """Whether there is the topic, as far as the user may see it."""
    from kafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError, for_code

    (description,) = admin.describe_topics([topic])
    error = for_code(description["error_code"])
    # Who may not describe it is told so, whether there is one or not.
    if error in (UnknownTopicOrPartitionError, TopicAuthorizationFailedError):
        return False
    if description["error_code"]:
        raise error(topic)
    return True


def _unlike(admin: "KafkaAdminClient", topic: str, config: dict[str, str]) -> dict[str, str]:
    """Return what of `config` the topic has otherwise; nothing where the user may not see it."""
    from kafka.admin import ConfigResource

    answer = admin.describe_configs([ConfigResource("topic", topic, list(config))], config_filter="all")
    now = answer["topic"][topic]  # without a name in it, where he may not
    return {name: value for name, value in config.items() if name in now and now[name]["value"] != value}


def _set(admin: "KafkaAdminClient", topic: str, config: dict[str, str], settings: Settings) -> None:
    from kafka.admin import ConfigResource

    answer = admin.alter_configs([ConfigResource("topic", topic, config)])["topic"][topic]
    if answer != "OK":  # which the client does not raise
        wanted = ", ".join(f"{name}={value}" for name, value in config.items())
        raise GenresError(
            f"Kafka at {settings.bootstrap_servers} does not let topic {topic!r} be set to {wanted} ({answer}): let "
            "its administrator set that, or this user alter its configuration"
        )


def _wait_until(is_seen: Callable[[], bool], timeout_s: float) -> None:
    """Wait for what the controller has confirmed, which the brokers read from its log a moment later; not for ever."""
    deadline = time.monotonic() + timeout_s
    while not is_seen() and time.monotonic() < deadline:
        time.sleep(0.1)


def _url_safe(topic_id: str) -> str:
    return base64.urlsafe_b64encode(UUID(topic_id).bytes).decode().rstrip("=")

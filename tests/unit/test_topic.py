"""The topic is made as it has to be, over a stand-in for Kafka's admin client."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import InvalidReplicationFactorError, UnknownTopicOrPartitionError
from kafka.protocol.consumer import IsolationLevel

from genres.errors import GenresError
from genres.settings import Settings
from streaming_sensors import topic as module
from streaming_sensors.topic import create_topic, lacks_replicas, offsets_at, topic_state, wait_for_data

RECOMPRESSES = {"compression.type": "lz4"}
"""What the broker says of topics that say nothing themselves."""


class Admin:
    """A broker's administration, with the topics that it has and their configuration."""

    def __init__(self) -> None:
        self.topics: dict[str, dict[str, str]] = {}
        self.altered: list[dict[str, str]] = []
        self.partitions = Settings().topic_partitions
        self.brokers = 1
        self.replicas = 0
        self.behind: list[Callable[[], None]] = []
        """What the controller has confirmed and the broker has not read yet; it reads one for each question."""

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        if self.behind:
            self.behind.pop(0)()
        there = topics[0] in self.topics
        parts = [{"replica_nodes": list(range(self.replicas))} for _ in range(self.partitions)]
        error_code = 0 if there else UnknownTopicOrPartitionError.errno
        return [{"name": topics[0], "error_code": error_code, "partitions": parts}]

    def create_topics(self, topics: dict[str, dict[str, Any]]) -> None:
        for name, made in topics.items():
            self.topics[name] = {**RECOMPRESSES, **made["configs"]}
            self.replicas = made["replication_factor"] if made["replication_factor"] > 0 else 1
            if self.replicas > self.brokers:
                raise InvalidReplicationFactorError

    def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{"node_id": number} for number in range(self.brokers)]}

    def wait_for_topics(self, topics: list[str]) -> None:
        assert set(topics) <= set(self.topics)

    def describe_configs(self, resources: list[Any], **_: object) -> dict[str, Any]:
        name = resources[0].name
        if self.behind:
            self.behind.pop(0)()
        return {"topic": {name: {key: {"value": value} for key, value in self.topics[name].items()}}}

    def alter_configs(self, resources: list[Any]) -> dict[str, Any]:
        self.altered.append(resources[0].configs)
        self.behind += [lambda: None, lambda: self.topics[resources[0].name].update(resources[0].configs)]
        return {"topic": {resources[0].name: "OK"}}

    def create_partitions(self, topics: dict[str, int]) -> None:
        (number,) = topics.values()
        self.behind += [lambda: None, lambda: setattr(self, "partitions", number)]


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    made = Admin()

    @contextmanager
    def opened(*_: object) -> Iterator[Admin]:
        yield made

    monkeypatch.setattr(module, "_admin", opened)
    return made


def test_a_new_topic_keeps_clips_as_they_were_sent_and_one_that_was_there_needs_no_other_right(admin: Admin) -> None:
    """Every codec is read; a topic of somebody's who may not alter it shall not be refused for one."""
    create_topic(Settings(), "clips")
    assert admin.topics["clips"]["compression.type"] == "producer"
    create_topic(Settings(), "clips")
    assert not admin.altered
    admin.topics["clips"] |= {**RECOMPRESSES, "retention.ms": "1"}
    create_topic(Settings(), "clips")
    assert [set(changes) for changes in admin.altered] == [{"retention.ms"}]


def test_what_is_changed_is_so_for_the_broker_too_when_it_is_done(admin: Admin) -> None:
    create_topic(Settings(), "clips")
    admin.topics["clips"]["retention.ms"] = "1"
    more = Settings(topic_partitions=admin.partitions + 2)
    create_topic(more, "clips")
    assert admin.topics["clips"]["retention.ms"] == str(more.topic_retention_h * 3_600_000)
    assert admin.partitions == more.topic_partitions
    assert len(admin.altered) == 1


class OpenTransaction(Admin):
    """A topic of nine messages, of which the sixth is of a transaction that nobody has ended."""

    def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
        partitions = [{"partition_index": 0}]
        return [{"name": topics[0], "topic_id": str(UUID(int=0)), "error_code": 0, "partitions": partitions}]

    def list_partition_offsets(
        self, asked: dict[TopicPartition, Any], isolation_level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> dict[TopicPartition, SimpleNamespace]:
        end = 5 if isolation_level == IsolationLevel.READ_COMMITTED else 9
        offsets = {OffsetSpec.EARLIEST: 0, OffsetSpec.LATEST: end}
        return {partition: SimpleNamespace(offset=offsets.get(spec, -1)) for partition, spec in asked.items()}


def test_an_open_transaction_ends_what_can_be_read_and_not_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range beyond it would wait for ever; and a claim check whose message lies there is not to be swept."""
    monkeypatch.setattr(module, "_admin", lambda *_: nullcontext(OpenTransaction()))
    assert topic_state(Settings(), "clips").ends == {0: 5}
    assert not wait_for_data(Settings(), "clips", {0: 5}, 0.0), "else whoever waits would ask without a pause"
    assert offsets_at(Settings(), "clips", datetime.now(UTC)) == {0: 9}


def test_a_topic_has_the_replicas_that_the_settings_or_the_broker_say(admin: Admin) -> None:
    create_topic(Settings(), "clips")
    assert admin.replicas == 1
    assert not lacks_replicas(Settings(), "clips"), "there is one broker"
    admin.brokers = 3
    assert lacks_replicas(Settings(), "clips")
    create_topic(Settings(topic_replication=3), "clips")
    assert admin.replicas == 1, "what is there is its administrator's to change"
    create_topic(Settings(topic_replication=3), "others")
    assert admin.replicas == 3
    assert not lacks_replicas(Settings(), "others")
    with pytest.raises(GenresError, match=r"4 replicas .*GENRES_TOPIC_REPLICATION \(no more than there are brokers\)"):
        create_topic(Settings(topic_replication=4), "more")

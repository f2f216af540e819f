"""A broker that asks who may do what: what a topic that was made before, or was not, needs of its user."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ResourcePattern,
    ResourceType,
)

from genres.errors import GenresError
from genres.settings import Settings
from local_stack import kafka_broker, stack
from local_stack.class_path import KAFKA_LOCK, class_path
from local_stack.java import java_home
from local_stack.stack import down
from streaming_sensors.topic import create_topic, max_message_bytes, topic_state
from tests.stream_rig import wait_until

USER, PASSWORD = "clips", "hunter2"


@pytest.fixture(scope="module")
def ruled(free_port_base: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Run a broker alone, which lets its plain listener do everything, and a user what lists of rights say."""
    own = Settings(
        state_dir=Path(tmp_path_factory.mktemp("ruled")), port_base=free_port_base(), kafka_bootstrap_servers=""
    )
    asking = f"127.0.0.1:{own.port_base + 94}"
    plain = kafka_broker.broker

    def broker(settings: Settings) -> dict[str, str]:
        properties = plain(settings)
        for name in ("listeners", "advertised.listeners"):
            properties[name] += f",SASL_PLAINTEXT://{asking}"
        return properties | {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
            f'PlainLoginModule required user_{USER}="{PASSWORD}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kafka_broker, "broker", broker)
        programs = kafka_broker.kafka_programs(own, java_home(), class_path(KAFKA_LOCK, on_progress=print))
    own.make_state_dir()
    try:
        stack._start_or_undo(own, programs, print)
        yield own.model_copy(
            update=dict(
                Settings(
                    kafka_bootstrap_servers=asking,
                    kafka_security_protocol="SASL_PLAINTEXT",
                    kafka_sasl_mechanism="PLAIN",
                    kafka_username=USER,
                    kafka_password=PASSWORD,  # type: ignore[arg-type]
                )
            )
            | {"state_dir": own.state_dir, "port_base": own.port_base}
        )
    finally:
        down(own)


@pytest.fixture
def admin(ruled: Settings) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{ruled.ports.kafka}")
    yield client
    client.close()


def allow(admin: KafkaAdminClient, topic: str, *operations: ACLOperation) -> None:
    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    acls = [ACL(f"User:{USER}", "*", one, ACLPermissionType.ALLOW, pattern) for one in operations]
    admin.create_acls(acls)
    # The controller has them then; the broker goes by what it has read of the controller's log.
    asked = ACLFilter(f"User:{USER}", "*", ACLOperation.ANY, ACLPermissionType.ANY, pattern)
    wait_until(lambda: {*operations} <= {acl.operation for acl in admin.describe_acls(asked)[0]})


def make(admin: KafkaAdminClient, topic: str, settings: Settings, **config: str) -> None:
    wanted = {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.topic_retention_h * 3_600_000),
        "max.message.bytes": str(max_message_bytes(settings)),
    }
    admin.create_topics({topic: {"num_partitions": settings.topic_partitions, "configs": {**wanted, **config}}})
    admin.wait_for_topics([topic])


def retention(admin: KafkaAdminClient, topic: str) -> str:
    answer = admin.describe_configs([ConfigResource("topic", topic, ["retention.ms"])], config_filter="all")
    value: str = answer["topic"][topic]["retention.ms"]["value"]
    return value


def test_a_topic_that_was_made_before_needs_no_right_to_make_it(ruled: Settings, admin: KafkaAdminClient) -> None:
    make(admin, "made", ruled, **{"retention.ms": "60000"})
    allow(admin, "made", ACLOperation.DESCRIBE, ACLOperation.READ, ACLOperation.WRITE)
    create_topic(ruled, "made")
    assert len(topic_state(ruled, "made").ends) == ruled.topic_partitions
    assert retention(admin, "made") == "60000", "what the user may not see is left as it is"


def test_what_differs_is_set_or_named(ruled: Settings, admin: KafkaAdminClient) -> None:
    make(admin, "other", ruled, **{"retention.ms": "60000", "segment.ms": "70000"})
    allow(admin, "other", ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS)
    wanted = ruled.topic_retention_h * 3_600_000
    with pytest.raises(GenresError, match=rf"topic 'other' be set to retention\.ms={wanted} \(.*let its administrator"):
        create_topic(ruled, "other")
    allow(admin, "other", ACLOperation.ALTER_CONFIGS)
    create_topic(ruled, "other")
    assert retention(admin, "other") == str(wanted)
    answer = admin.describe_configs([ConfigResource("topic", "other", ["segment.ms"])], config_filter="all")
    assert answer["topic"]["other"]["segment.ms"]["value"] == "70000"


def test_a_right_that_is_missing_is_named(ruled: Settings, admin: KafkaAdminClient) -> None:
    with pytest.raises(GenresError, match=r"refuses topic 'missing' .*\(TopicAuthorizationFailedError.*create topics"):
        create_topic(ruled, "missing")
    make(admin, "small", ruled)
    allow(admin, "small", ACLOperation.DESCRIBE)
    more = ruled.model_copy(update={"topic_partitions": ruled.topic_partitions + 1})
    with pytest.raises(GenresError, match=r"refuses topic 'small' with 4 partitions"):
        create_topic(more, "small")
    allow(admin, "small", ACLOperation.ALTER)
    create_topic(more, "small")
    assert len(topic_state(ruled, "small").ends) == 4

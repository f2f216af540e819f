"""A bad clip at each position of a batch: it is refused, and its neighbours are predicted."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
from kafka import KafkaProducer

from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.topic import create_topic, topic_state
from tests.faults.oracle import examine
from tests.faults.test_blame import base, square_wave  # noqa: F401 - a fixture, and what kills
from tests.in_process import run_range
from tests.stream_rig import prepared_stream, set_champion, sha256_of, short_clips, wav
from tests.tiny_features import KILLS

SIZE = 4
"""Clips of a batch; there are as many batches, and each has the bad clip one further on."""


@pytest.fixture
def settings(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stream without a daemon."""
    folder = tmp_path_factory.mktemp("poison positions") / "drop"
    limits = {"MAX_CLIPS_PER_BATCH": str(SIZE), "TOPIC_PARTITIONS": "1", "DRAIN_QUIET_S": "0.5"}
    with prepared_stream(stack, folder, "test_poison_positions", **limits) as stream:
        set_champion(stream.settings, 1)
        yield stream.settings


def unreadable(number: int) -> bytes:
    """Sound with a sample that is no number."""
    sound = np.full(22_050, 0.1)
    sound[number] = np.nan
    return wav(sound, subtype="FLOAT")


def killing(number: int) -> bytes:
    """Sound that kills whoever computes its features."""
    return square_wave(KILLS - number / 1000)


def test_a_clip_that_is_refused_at_each_position(settings: Settings) -> None:
    poison_at_each_position(settings, unreadable, seed=190)


@pytest.mark.nemesis
def test_a_clip_that_kills_its_worker_at_each_position(base: Settings) -> None:  # noqa: F811
    settings = base.model_copy(update={"topic": "test_killing_positions", "max_clips_per_batch": SIZE})
    poison_at_each_position(settings, killing, seed=191)


def poison_at_each_position(settings: Settings, poison: Callable[[int], bytes], *, seed: int) -> None:
    create_topic(settings, settings.topic)
    good = short_clips(SIZE * (SIZE - 1), seed=seed)
    bad = {f"bad {number}.wav": poison(number) for number in range(SIZE)}
    clips = list(good.items())
    for batch, clip in enumerate(bad.items()):
        clips.insert(batch * SIZE + batch, clip)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for name, data in clips:
        message = ClipMessage(sha256_of(data), name, ".wav", len(data), datetime.now(UTC), data=data)
        key, value, headers = encode(message)
        producer.send(settings.topic, key=key, value=value, headers=headers).get(60)
    producer.close()
    database = Database(settings.database)
    first = PartitionKey(settings.topic, topic_state(settings, settings.topic).topic_id, 0, 0, SIZE)
    ranges.record_plan(database, Plan(new=(Attempt(first),)))
    assert run_range(settings, first), "which drains the others"
    hashes = [set(map(sha256_of, some.values())) for some in (good, bad)]
    counts, problems = examine(settings, good=hashes[0], bad=hashes[1])
    assert problems == []
    assert (counts.predicted, counts.refused) == (len(good), len(bad))
    committed = ranges.history(database, settings.topic)
    assert [(len(found.key), found.quarantined_count, found.failures) for found in committed] == [(SIZE, 1, 0)] * SIZE

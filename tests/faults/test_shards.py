"""Three runs drain a topic at the same time, each a partition of its own, and one of them is killed."""

import threading
from collections.abc import Iterator

import pytest

from genres.settings import Settings
from genres.store.stream_ledger import leases, ranges
from genres.store.stream_ledger.values import PartitionKey
from streaming_sensors.run_tags import SHARD_TAG
from tests.faults.oracle import examine
from tests.faults.processes import alive, kill_worker_at_work
from tests.faults.system import System, running_system
from tests.stream_rig import wait_until

DRAINS = 3
CLIPS_AFTER = 40


@pytest.fixture
def system(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    shards = {"DRAINS": str(DRAINS), "TOPIC_PARTITIONS": str(DRAINS), "DRAIN_QUIET_S": "5"}
    with running_system(stack, tmp_path_factory.mktemp("shards"), "test_shards", seed=12, **shards) as system:
        yield system


def test_one_of_three_drains_is_killed(system: System) -> None:
    stream, topic = system.stream, system.settings.topic
    killed: list[tuple[PartitionKey, str]] = []
    over = threading.Event()

    def drop() -> None:
        while not over.wait(0.2):
            system.traffic.drop("kill")
        system.traffic.flow("kill", clips=CLIPS_AFTER, every_s=0.1)

    dropper = threading.Thread(target=drop)
    dropper.start()
    try:
        wait_until(lambda: {run.tags[SHARD_TAG] for run in alive(stream)} == {"0/3", "1/3", "2/3"})
        wait_until(lambda: len(leases.holders(stream.database, topic, system.settings.lease_s)) == DRAINS)
        wait_until(lambda: kill_worker_at_work(stream, killed))
    finally:
        over.set()
        dropper.join()
    ((key, run_id),) = killed
    good, bad = system.traffic.of("kill")
    wait_until(lambda: good | bad <= system.settled(), patience_s=300)
    system.wait_until_planned_out(300)
    counts, problems = examine(system.settings, good=good, bad=bad)
    assert problems == []
    assert (counts.predicted, counts.refused) == (len(good), len(bad))

    found = ranges.find(stream.database, key)
    assert (found.state, found.attempts > 1, found.run_id != run_id) == ("committed", True, True)
    by_partition: dict[int, set[str]] = {}
    for offset_range in ranges.history(stream.database, topic):
        assert offset_range.run_id is not None
        # Runs share a Spark session: that one ends, or is killed, takes no other one's model away.
        assert (offset_range.failures, offset_range.reason) == (0, None)
        by_partition.setdefault(offset_range.key.kafka_partition, set()).add(offset_range.run_id)
    shards = {
        (number, run.tags[SHARD_TAG])
        for number, runs in by_partition.items()
        for run in map(stream.instance.get_run_by_id, runs)
        if run is not None
    }
    assert shards == {(number, f"{number}/{DRAINS}") for number in range(DRAINS)}, "each run has kept to its partition"

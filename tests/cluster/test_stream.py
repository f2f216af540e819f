"""The stream on a cluster: while clips flow a broker, a DataNode and a worker die, each alone and all at once.

Clients log in to the brokers over TLS. Two shards are drained beside each other, one of them by `genres drain`.
"""

import sys
from collections.abc import Iterator

import pytest

from genres.store.stream_ledger import leases, ranges
from genres_cli.stream_demo import kept_running
from streaming_sensors.run_tags import HOLDER_TAG
from tests.cluster.parts import Cluster
from tests.faults.oracle import examine, stored_counts
from tests.faults.system import System, running_system
from tests.stream_rig import wait_until

pytestmark = pytest.mark.cluster

TOPIC = "test_cluster"
PATIENCE_S = 240.0
EVERY_S = 0.3


@pytest.fixture(scope="module")
def system(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("cluster")
    # A worker's first clip on a new machine is there when ten seconds of compiling are over.
    limits = {"CLIP_LIMIT_S": "60", "RANGE_LIMIT_S": "120", "INLINE_LIMIT_BYTES": "60000"}
    shards = {"DRAINS": "2", "TOPIC_PARTITIONS": "4"}
    with running_system(cluster.settings, folder, TOPIC, seed=1, **limits, **shards) as system:
        drain = [sys.executable, "-m", "genres_cli", "drain", "--shard", "1"]
        with kept_running(drain, system.settings.state_dir / "logs" / "drain.log"):
            system.stream.wait_for(system.traffic.flow("start", clips=3, every_s=0))
            wait_until(lambda: any(map(leases.Resident.parse, held_by(system).values())))
            yield system


def held_by(system: System) -> dict[int, str]:
    """Who drains which shard."""
    return leases.holders(system.stream.database, TOPIC, system.settings.lease_s)


@pytest.mark.parametrize(
    "killed",
    [
        ("kafka-3",),
        ("datanode-2",),
        ("spark-worker-2",),
        ("kafka-1", "datanode-2", "spark-worker-1"),
    ],
    ids=["a broker", "a DataNode", "a worker", "one of each"],
)
def test_clips_get_their_rows_while_daemons_are_gone(
    cluster: Cluster, system: System, killed: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    occasion = request.node.callspec.id
    hashes = system.traffic.flow(occasion, clips=6, every_s=EVERY_S)
    with cluster.without(*killed):
        hashes |= system.traffic.flow(occasion, clips=14, every_s=EVERY_S)
        wait_until(lambda: hashes <= system.settled(), patience_s=PATIENCE_S)
    counts = stored_counts(system.stream.database, TOPIC, *system.traffic.of(occasion), only=hashes)
    assert counts.problems == []


def test_nothing_is_lost_doubled_or_damaged_after_all_of_them(system: System) -> None:
    system.wait_until_planned_out(PATIENCE_S)
    _, problems = examine(system.settings, good=system.traffic.good, bad=system.traffic.bad)
    assert problems == []
    by_partition = {}
    for found in ranges.history(system.stream.database, TOPIC):
        run = system.stream.instance.get_run_by_id(found.run_id or "")
        by_partition.setdefault(found.key.kafka_partition % 2, set()).add(run is not None and HOLDER_TAG in run.tags)
    assert True not in by_partition[0] and True in by_partition[1], "each shard was drained by who holds it"

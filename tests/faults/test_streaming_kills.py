"""``kill -9`` of each part of the stream while clips flow: nothing is lost, and nothing is there twice."""

import os
import signal
import threading
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
import sqlalchemy as sa

from genres.settings import Settings
from genres.store.stream_ledger import ranges, results
from genres.store.stream_ledger.values import PartitionKey
from streaming_sensors.topic import topic_state
from streaming_sensors.warm_launcher import process_of
from tests.faults.processes import alive, kill_worker_at_work, pid_of, with_worker_at_work
from tests.stream_rig import Stream, kill_tree, running_stream, set_champion, short_clips, wait_until

TOPIC = "test_streaming_kills"
CLIPS = 50


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    with running_stream(stack, tmp_path_factory.mktemp("kills") / "drop", TOPIC) as stream:
        set_champion(stream.settings, 1)
        stream.wait_for(stream.drop(short_clips(3, seed=20)))
        yield stream


def test_clips_of_a_killed_producer_arrive_once(stream: Stream) -> None:
    before = messages(stream)

    def kill() -> None:
        wait_until(lambda: messages(stream) > before + 3)
        assert stream.producer is not None
        stream.producer.kill()
        assert stream.producer.wait(30) == -signal.SIGKILL
        stream.start_producer()

    all_arrive(stream, 21, kill)
    assert messages(stream) >= before + CLIPS


def test_what_a_killed_run_was_at_is_tried_again_and_the_run_has_failed(stream: Stream) -> None:
    killed: list[tuple[PartitionKey, str]] = []

    def kill() -> None:
        wait_until(lambda: kill_worker_at_work(stream, killed))

    all_arrive(stream, 22, kill)
    ((key, run_id),) = killed
    assert ranges.find(stream.database, key).attempts > 1, "what the killed run was at was tried again"
    # Run monitoring looks every twenty seconds.
    wait_until(lambda: stream.instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE)


def test_a_terminated_run_is_canceled_and_its_clips_arrive_once(stream: Stream) -> None:
    terminated: list[str] = []

    def terminate(_key: PartitionKey, run_id: str, _worker: object) -> bool:
        try:
            # As the UI does, from a process that did not launch it.
            assert stream.instance.run_launcher.terminate(run_id)
        except sa.exc.OperationalError:  # it stands still in the middle of writing to Dagster's storage
            return False
        terminated.append(run_id)
        return True

    def terminate_at_work() -> None:
        # Not one that is about to end: it would succeed before it hears of it.
        wait_until(lambda: with_worker_at_work(stream, terminate))

    all_arrive(stream, 25, terminate_at_work)
    wait_until(lambda: stream.instance.get_run_by_id(terminated[0]).status == dg.DagsterRunStatus.CANCELED)


@pytest.mark.long
def test_clips_arrive_once_when_the_daemon_is_killed_with_its_code_servers_and_runs(stream: Stream) -> None:
    before = messages(stream)

    def kill() -> None:
        wait_until(lambda: messages(stream) > before + 3)
        assert stream.daemon is not None
        kill_tree(stream.daemon.pid)
        stream.daemon.wait(30)
        for run in alive(stream):
            if process := process_of(run):
                process.kill()
        stream.start_daemon()

    all_arrive(stream, 23, kill)


@pytest.mark.long
def test_clips_arrive_once_when_the_broker_is_killed(stream: Stream) -> None:
    before = messages(stream)

    def kill() -> None:
        wait_until(lambda: messages(stream) > before + 3)
        pid = pid_of(stream.settings, "kafka")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid_of(stream.settings, "kafka") not in (pid, None))

    all_arrive(stream, 24, kill)
    assert messages(stream) >= before + CLIPS


def all_arrive(stream: Stream, seed: int, kill: Callable[[], None]) -> None:
    """Drop clips one after the other, kill meanwhile, and see that each has its one place in the end."""
    clips = short_clips(CLIPS, seed=seed)
    hashes: set[str] = set()
    dropper = threading.Thread(target=lambda: hashes.update(stream.drop(clips, every_s=0.1)))
    dropper.start()
    try:
        kill()
    finally:
        dropper.join()
    assert len(hashes) == CLIPS
    stream.wait_for(hashes, patience_s=480)
    assert stream.places(hashes) == (hashes, set())
    rows = [row["sha256"] for row in results.predictions(stream.database) if row["topic"] == TOPIC]
    assert len(rows) == len(set(rows))
    wait_until(lambda: not ranges.history(stream.database, TOPIC, states={"planned"}))
    stream.assert_no_overlaps_and_no_holes()


def messages(stream: Stream) -> int:
    return sum(topic_state(stream.settings, stream.settings.topic, timeout_s=30).ends.values())

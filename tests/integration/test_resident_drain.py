"""A resident drain beside the daemon's sensors, on real parts: it scores clips, is killed, and ends in order."""

from collections.abc import Iterator

import dagster as dg
import pytest

from genres.settings import Settings
from genres.store.stream_ledger import leases, ranges, results
from streaming_sensors.run_tags import HOLDER_TAG
from tests.stream_rig import Stream, running_stream, set_champion, short_clips, wait_until

TOPIC = "test_resident_drain"


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    folder = tmp_path_factory.mktemp("resident") / "drop"
    # Longer than a busy machine takes from a plan to its run: nobody else shall take the range over meanwhile.
    with running_stream(stack, folder, TOPIC, RANGE_GRACE_S="30", LEASE_S="20") as stream:
        set_champion(stream.settings, 1)
        yield stream


def residents_runs(stream: Stream) -> dict[str, bool]:
    """Whether each run that has worked on the topic was a resident drain's."""
    ids = {found.run_id for found in ranges.history(stream.database, TOPIC) if found.run_id}
    runs = [stream.instance.get_run_by_id(run_id) for run_id in ids]
    return {run.run_id: HOLDER_TAG in run.tags for run in runs if run is not None}


@pytest.mark.long
def test_a_resident_drain_scores_clips_and_the_sensor_goes_on_when_it_is_killed(stream: Stream) -> None:
    with stream.resident_drain() as drain:
        hashes = stream.drop(short_clips(10, seed=170))
        stream.wait_for(hashes)
        assert set(residents_runs(stream).values()) == {True}
        keys = {str(found.key) for found in ranges.history(stream.database, TOPIC)}
        wait_until(lambda: keys <= stream.instance.get_materialized_partitions(stream.names.predictions))
        wait_until(lambda: "`genres drain` (pid" in (last_skip_reason(stream) or ""))

        hashes |= stream.drop(short_clips(60, seed=171), every_s=0.02)
        wait_until(lambda: ranges.history(stream.database, TOPIC, states={"planned"}))
        drain.kill()
        drain.wait(60)
    stream.wait_for(hashes)
    wait_until(lambda: not ranges.history(stream.database, TOPIC, states={"planned"}))
    assert set(residents_runs(stream).values()) == {True, False}
    assert stream.places(hashes) == (hashes, set())
    rows = [row["sha256"] for row in results.predictions(stream.database, topic=TOPIC)]
    assert sorted(rows) == sorted(hashes), "nothing twice"
    stream.assert_no_overlaps_and_no_holes()
    # What the killed process left is over in Dagster, too.
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], run_ids=list(residents_runs(stream)))
    wait_until(lambda: not stream.instance.get_runs(started))


def test_sigterm_ends_it_in_order_and_frees_its_shard_at_once(stream: Stream) -> None:
    before = {found.key for found in ranges.history(stream.database, TOPIC)}
    with stream.resident_drain() as drain:
        hashes = stream.drop(short_clips(12, seed=172))
        wait_until(lambda: ranges.history(stream.database, TOPIC, states={"planned"}))
        drain.terminate()
        assert drain.wait(120) == 0
        held_by = leases.holders(stream.database, TOPIC, stream.settings.lease_s).values()
        assert not any(map(leases.Resident.parse, held_by))
    stream.wait_for(hashes)
    own = [found for found in ranges.history(stream.database, TOPIC) if found.key not in before]
    assert {found.state for found in own} == {"committed"}
    finished = [found.attempts for found in own if residents_runs(stream).get(found.run_id or "")]
    assert finished and set(finished) == {1}, "what was at work was finished"


def last_skip_reason(stream: Stream) -> str | None:
    for state in stream.instance.all_instigator_state():
        if state.name == "audio_clips_sensor":
            ticks = stream.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            return ticks[0].tick_data.skip_reason if ticks else None
    return None

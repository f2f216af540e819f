"""The maintenance asset on the real stack, days later: what waits keeps its claim checks, what is done with goes."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import dagster as dg
import pytest

from genres.settings import Settings
from genres.store import stream_features
from genres.store.stream_ledger import ranges, results
from streaming_sensors import maintenance as module
from streaming_sensors.definitions import build_defs
from streaming_sensors.topic import topic_state
from tests.stream_rig import Stream, kill_tree, running_stream, set_champion, short_clips, wait_until

TOPIC = "test_maintenance"
CLIPS = 40
FIRST, LATER = short_clips(CLIPS, seed=90), short_clips(3, seed=91)
HASHES = {hashlib.sha256(data).hexdigest() for data in (*FIRST.values(), *LATER.values())}


class DaysLater(datetime):
    """The clock as the asset reads it."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=10)


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """A stream with a database, a lake and a Dagster instance of its own.

    A day's claim checks go only when every topic's messages of that day are done with, and other tests leave ranges
    that nobody ever finishes; nor are their runs this test's to forget.
    """
    folder = tmp_path_factory.mktemp("maintenance")
    own = {"STATE_DIR": str(folder / "state"), "LAKE_PATH": "/genres_maintenance"}
    limits = {"INLINE_LIMIT_BYTES": "20000", "MAX_CLIPS_PER_BATCH": "4", "KEEP_RUNS_DAYS": "1"}
    with running_stream(stack, folder / "drop", TOPIC, **own, **limits) as stream:
        set_champion(stream.settings, 1)
        yield stream


@pytest.mark.long
def test_what_waits_is_kept_and_what_is_done_with_goes(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.wait_for(stream.drop(FIRST))
    committed = len(ranges.history(stream.database, TOPIC, states={"committed"}))
    wait_until(lambda: not stream.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))
    assert stream.daemon is not None
    kill_tree(stream.daemon.pid)
    for what, size in disk(stream).items():
        print(f"{what}: {size / committed:,.0f} bytes a range")  # noqa: T201
    assert len(claims(stream)) == CLIPS

    swept = maintain(stream, dry_run=False)
    assert claims(stream) and swept["claim_checks_entries"] == 0, "not a day old"
    assert swept["merged_small_files"] == 0, "the day is not over"

    monkeypatch.setattr(module, "datetime", DaysLater)
    waiting = stream.drop(LATER)
    wait_until(lambda: sum(topic_state(stream.settings, TOPIC, timeout_s=30).ends.values()) == CLIPS + 3)
    swept = maintain(stream, dry_run=False)
    assert "messages that are as old wait" in swept["swept"]
    assert len(claims(stream)) == CLIPS + 3, "nobody has read three of them"

    stream.start_daemon()
    stream.wait_for(waiting)
    assert len(stream.places(waiting)[0]) == 3 and not results.quarantine(stream.database, topic=TOPIC)
    would = maintain(stream, dry_run=True)
    assert claims(stream) and (would["claim_checks_entries"], would["dry_run"]) == (1, True)
    swept = maintain(stream, dry_run=False)
    assert swept["claim_checks_entries"] == 1 and swept["claim_checks_bytes"] == would["claim_checks_bytes"]
    assert swept["claim_checks_bytes"] > 20_000 * CLIPS
    assert not claims(stream)

    # Whatever went, each range is there to see, and its features can be read.
    done = ranges.history(stream.database, TOPIC, states={"committed"})
    made = stream.instance.get_materialized_partitions(stream.names.features)
    assert {str(found.key) for found in done} <= made
    features = stream_features.read(stream.lake, done)
    assert len(features) == CLIPS + 3 == len(set(features["sha256"].to_pylist()))
    # By now they lie in a few files, and the small ones that they were in are gone.
    stored = set(stream.lake.sizes(stream.lake.path("stream", "features")))
    assert stored == {found.feature_path for found in done}
    assert len(stored) < len(done) and any(map(stream_features.is_merged, stored))


def maintain(stream: Stream, *, dry_run: bool) -> dict[str, Any]:
    job = build_defs(settings=stream.settings).resolve_job_def("maintenance_job")
    config = {"ops": {"maintenance": {"config": {"dry_run": dry_run}}}}
    result = job.execute_in_process(run_config=config, instance=stream.instance)
    (made,) = result.asset_materializations_for_node("maintenance")
    print(made.metadata["swept"].value)  # noqa: T201
    return {name: value.value for name, value in made.metadata.items()}


def claims(stream: Stream) -> list[str]:
    """Paths of this test's claim checks; the lake holds those of other tests too."""
    return [path for path in stream.lake.sizes(stream.lake.path("stream", "claims")) if Path(path).stem in HASHES]


def disk(stream: Stream) -> dict[str, int]:
    """What Dagster's own records take on the disk, in bytes."""
    home = stream.settings.dagster_home
    return {
        "events of runs": total(home.glob("history/runs/*-*.db*")),
        "index of events": total(home.glob("history/runs/index.db*")),
        "events without a run": total(home.glob("history/runs/.db*")),
        "runs": total(home.glob("history/runs.db*")),
        "ticks": total(home.glob("schedules/*")),
        "output": total(home.glob("storage/**/*")),
    }


def total(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())

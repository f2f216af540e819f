"""The streaming half on the real broker, HDFS, Spark and daemon: each clip ends in exactly one place."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from kafka import KafkaProducer

from genres.audio.clip_features import clip_features
from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import schemas
from genres.store.database import Database
from genres.store.stream_ledger import ranges, results
from genres.store.stream_ledger.values import StreamRange
from genres.store.tables import STREAM_LEASES, STREAM_RANGES
from streaming_sensors.run_tags import DRAIN_TAG
from streaming_sensors.sensors import lag
from streaming_sensors.topic import topic_state
from tests.stream_rig import (
    DATASET,
    Stream,
    running_stream,
    runs_of,
    set_champion,
    sha256_of,
    short_clips,
    shuffled,
    wait_until,
    wav,
)

TOPIC = "test_streaming"
CLIPS = 120
FOREIGN = b"no envelope"


class Waiting(NamedTuple):
    """What there was before there was a champion."""

    hashes: set[str]
    ranges: list[StreamRange]
    predicted: set[str]


class Flow(NamedTuple):
    """What was dropped."""

    clips: dict[str, bytes]
    good: set[str]
    broken: dict[str, bytes]
    large: bytes
    in_topic: set[str]
    """Hashes of all that reached the topic."""


@pytest.fixture(scope="module")
def stream(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    folder = tmp_path_factory.mktemp("stream") / "drop"
    with running_stream(stack, folder, TOPIC, INLINE_LIMIT_BYTES="200000") as stream:
        yield stream


@pytest.fixture(scope="module")
def waiting(stream: Stream) -> Waiting:
    """Clips that come before there is a champion; then there is one."""
    hashes = stream.drop(short_clips(3, seed=2))

    def waits() -> list[StreamRange]:
        planned = ranges.history(stream.database, TOPIC, states={"planned"})
        return [found for found in planned if found.reason]

    wait_until(lambda: sum(topic_state(stream.settings, stream.settings.topic, timeout_s=30).ends.values()) == 3)
    wait_until(waits)
    before = Waiting(hashes, waits(), stream.places(hashes)[0])
    set_champion(stream.settings, 1)
    return before


@pytest.fixture(scope="module")
def flow(stream: Stream, waiting: Waiting) -> Flow:
    """Everything dropped in random order while all of it runs, and waited for."""
    good = short_clips(CLIPS, seed=3)
    copies = {f"copies/copy of {name.replace('/', ' ')}": good[name] for name in list(good)[::10]}
    first = next(iter(good.values()))
    broken = {
        "blues/notes.wav": b"these are not samples",
        "blues/cut.wav": first[: len(first) // 2],
        "disco/crowd.wav": wav(np.zeros((1000, 32))),
        "metal/instant.wav": wav(np.full(100, 0.1)),
        "metal/nothing.wav": wav(np.full(22_050, np.nan), subtype="FLOAT"),
    }
    large = wav(np.random.default_rng(0).normal(0, 0.1, 6 * 22_050))
    with_message = KafkaProducer(bootstrap_servers=stream.settings.bootstrap_servers)
    with_message.send(TOPIC, value=FOREIGN).get(60)
    with_message.close()
    everything = stream.drop(shuffled({**good, **copies, **broken, "large.wav": large}))
    everything |= {sha256_of(FOREIGN)} | waiting.hashes
    stream.wait_for(everything)
    wait_until(lambda: not ranges.history(stream.database, TOPIC, states={"planned"}))
    refused_by_producer = {row["sha256"] for row in results.quarantine(stream.database) if row["stage"] == "producer"}
    return Flow(
        good | copies | {"large.wav": large},
        set(map(sha256_of, good.values())) | {sha256_of(large)} | waiting.hashes,
        broken,
        large,
        everything - refused_by_producer,
    )


@pytest.fixture(scope="module")
def settled(stream: Stream, flow: Flow) -> Flow:
    """The flow, once no run of the stream is at work any more."""
    wait_until(stream.is_at_rest)
    return flow


def test_clips_wait_for_a_champion_and_are_scored_then(stream: Stream, waiting: Waiting) -> None:
    assert waiting.predicted == set()
    for found in waiting.ranges:
        assert found.reason == f"no champion model for dataset '{DATASET}' yet: the clips wait until there is one"
        assert found.failures == 0, "no clip becomes poison by waiting"
    stream.wait_for(waiting.hashes)
    assert stream.places(waiting.hashes) == (waiting.hashes, set())


def test_each_distinct_clip_ends_in_exactly_one_place(stream: Stream, flow: Flow) -> None:
    bad = set(map(sha256_of, flow.broken.values())) | {sha256_of(FOREIGN)}
    assert stream.places(flow.good | bad) == (flow.good, bad)
    predictions = [row for row in results.predictions(stream.database) if row["topic"] == TOPIC]
    assert sorted(row["sha256"] for row in predictions) == sorted(flow.good)
    quarantine = {row["sha256"]: row for row in results.quarantine(stream.database)}
    for row in (quarantine[sha256] for sha256 in bad):
        assert row["reason"] and row["reason_code"]
        if row["stage"] == "stream":
            kept = stream.lake.files.cat_file(row["kept_path"])
            assert sha256_of(kept) == row["sha256"]
    assert {quarantine[sha256_of(flow.broken[name])]["stage"] for name in ("blues/notes.wav", "blues/cut.wav")} == {
        "producer"
    }
    assert quarantine[sha256_of(flow.broken["metal/nothing.wav"])]["stage"] == "stream"


def test_rows_say_where_clips_come_from_and_what_was_found(stream: Stream, flow: Flow) -> None:
    by_hash: dict[str, set[str]] = {}
    for name, data in flow.clips.items():
        by_hash.setdefault(sha256_of(data), set()).add(name)
    for row in results.predictions(stream.database):
        if row["topic"] != TOPIC or row["sha256"] not in by_hash:
            continue
        names = by_hash[row["sha256"]]
        assert row["file_name"] in {name.split("/")[-1] for name in names}
        assert row["genre"] in {name.split("/")[0] if "/" in name else None for name in names}
        assert row["predicted_genre"] in row["probabilities"]
        assert row["probability"] == row["probabilities"][row["predicted_genre"]] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["latency_s"] == pytest.approx((row["predicted_at"] - row["event_time"]).total_seconds())
        assert row["latency_s"] > 0
        assert (row["model_version"], row["is_synthetic"], row["dataset"]) == (1, True, DATASET)


def test_ranges_neither_overlap_nor_leave_holes(stream: Stream, flow: Flow) -> None:
    stream.assert_no_overlaps_and_no_holes()
    committed = ranges.history(stream.database, TOPIC, states={"committed"})
    assert all(len(found.key) <= 16 for found in committed)
    for found in committed:
        assert found.clip_count == len(found.key)
        assert found.clip_count == found.predicted_count + found.quarantined_count + found.duplicate_count
    assert results.checks(stream.database, failed_only=True) == []


def test_dagster_has_both_materializations_of_every_range(stream: Stream, settled: Flow) -> None:
    keys = {str(found.key) for found in ranges.history(stream.database, TOPIC, states={"committed"})}
    assert keys <= set(stream.instance.get_dynamic_partitions("offset_range"))
    for asset in (stream.names.features, stream.names.predictions):
        materialized = stream.instance.get_materialized_partitions(asset)
        assert {key for key in materialized if key.startswith(f"{TOPIC}:")} == keys
    wait_until(lambda: stream.instance.get_latest_materialization_event(dg.AssetKey("streaming_results")))


def test_stored_features_are_those_of_the_clips(stream: Stream, flow: Flow) -> None:
    committed = ranges.history(stream.database, TOPIC, states={"committed"})
    parts = []
    for found in committed:
        stored = stream.lake.read_table([found.feature_path])
        assert stored.schema.names == list(schemas.stream_features(GTZAN57.columns, GTZAN57.windows_columns).names)
        part = stored.to_pandas()
        assert sorted(part["kafka_offset"]) == list(range(found.key.start_offset, found.key.end_offset))
        assert set(part["kafka_partition"]) == {found.key.kafka_partition}
        parts.append(part)
    table = pd.concat(parts)
    assert set(table["sha256"]) == flow.in_topic
    assert set(table.loc[table["reason"].isna(), "sha256"]) == flow.good
    columns = list(GTZAN57.columns)
    for data in (flow.large, next(iter(flow.clips.values()))):
        alone = clip_features(data, file_suffix=".wav", feature_set=GTZAN57, max_clip_s=60)
        stored = table[table["sha256"] == alone.sha256].iloc[0]
        np.testing.assert_allclose(stored[columns].to_numpy(float), list(alone.values.values()), rtol=1e-5, atol=1e-6)
        assert stored["length"] == alone.length


def test_replayed_offsets_change_no_table_and_drain_nothing(stream: Stream, settled: Flow) -> None:
    committed = ranges.history(stream.database, TOPIC, states={"committed"})
    found = max(committed, key=lambda found: min(found.quarantined_count, found.predicted_count))
    assert found.quarantined_count and found.predicted_count
    before = tables(stream.database)
    key = str(found.key)
    stream.materialize("stream_features,stream_predictions", key)
    run = runs_of(stream.instance, key)[0]
    assert DRAIN_TAG not in run.tags
    events = stream.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [event.dagster_event.step_materialization_data.materialization for event in events]
    assert {(entry.asset_key, entry.partition) for entry in made} == {
        (stream.names.features, key),
        (stream.names.predictions, key),
    }
    assert tables(stream.database) == before


def test_the_whole_topic_replayed_from_offset_0_leaves_the_tables_as_they_were(stream: Stream, settled: Flow) -> None:
    before = tables(stream.database)
    with stream.database.writing() as connection:
        connection.execute(sa.delete(STREAM_RANGES).where(STREAM_RANGES.c.topic == TOPIC))
    wait_until(
        lambda: lag(stream.database, topic_state(stream.settings, stream.settings.topic, timeout_s=30)) == 0,
        patience_s=300,
    )
    after = tables(stream.database)
    for table in ("stream_predictions", "stream_quarantine"):
        assert after[table] == before[table]
    stream.assert_no_overlaps_and_no_holes()


def test_a_new_champion_scores_stored_features_again(stream: Stream, settled: Flow) -> None:
    found = max(ranges.history(stream.database, TOPIC, states={"committed"}), key=lambda found: found.predicted_count)
    before = tables(stream.database)["stream_predictions"]
    wait_until(stream.is_at_rest)  # what is at work would be scored by the new champion, too
    set_champion(stream.settings, 2)
    stream.materialize("stream_predictions", str(found.key))
    after = tables(stream.database)["stream_predictions"]
    assert [row for row in after if row in before] == before
    added = [row._asdict() for row in after if row not in before]
    assert {row["model_version"] for row in added} == {2}
    stored = stream.lake.read_table([found.feature_path]).to_pandas()
    assert {row["sha256"] for row in added} == set(stored.loc[stored["reason"].isna(), "sha256"])
    again = ranges.find(stream.database, found.key)
    assert (again.feature_path, again.model_version) == (found.feature_path, 2)


def tables(database: Database) -> dict[str, list[Any]]:
    """Every row of the stream's tables; of the lease only its token, which each drain raises."""
    from genres.store import tables as schema

    stored = {}
    with database.reading() as connection:
        for table in (schema.STREAM_PREDICTIONS, schema.STREAM_QUARANTINE, schema.STREAM_RANGES, schema.SENT_FILES):
            stored[table.name] = list(connection.execute(sa.select(table).order_by(*table.primary_key.columns)))
        stored["leases"] = list(connection.execute(sa.select(STREAM_LEASES.c.topic, STREAM_LEASES.c.token)))
    return stored

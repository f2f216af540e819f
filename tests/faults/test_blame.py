"""Who is to blame: bad clips are refused on evidence, good ones in the same range are not, and outages blame nobody."""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer

from genres.audio import feature_sets
from genres.settings import Settings
from genres.store import quarantine
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import commits, ranges, results
from genres.store.stream_ledger.commits import QuarantinedClip
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from spark import isolation
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.quarantine_retry import judged_by_older, send_again
from streaming_sensors.topic import create_topic, topic_state
from tests.in_process import drain, run_batch, run_range, send
from tests.stream_rig import sha256_of, short_clips, wav
from tests.tiny_features import HANGS, KILLS, RAISES, TREACHEROUS

DATASET = "blame"
GENRES = ("blues", "metal", "disco")
CLIPS = 6
"""Of each genre."""


def square_wave(height: float) -> bytes:
    """A second of samples that are as high as can be told from any music."""
    return wav(height * np.sign(np.sin(np.arange(22_050) * 0.01) + 1e-9))


@pytest.fixture(scope="module")
def base(
    stack: Settings, tmp_path_factory: pytest.TempPathFactory, write_clips: Callable[..., None]
) -> Iterator[Settings]:
    """Settings of a dataset with a champion on the tests' own features."""
    folder = tmp_path_factory.mktemp("blame audio")
    write_clips(folder, GENRES, CLIPS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(feature_sets.FEATURE_SETS, TREACHEROUS.name, TREACHEROUS)
        # Known-good clips pass for as long as a clip hung, 3 s here, and not for five times as long.
        monkeypatch.setattr(isolation, "_LONGEST_S", 4.0)
        settings = Settings(
            audio=folder,
            dataset=DATASET,
            feature_sets=TREACHEROUS.name,
            stream_dataset=DATASET,
            settle_s=0.1,
            clip_limit_s=3.0,
            drain_quiet_s=0.5,
            topic_partitions=1,
        )
        run_batch(settings)
        yield settings


@pytest.fixture
def settings(base: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same with a topic of the test's own."""
    name = f"blame_{uuid.uuid4().hex[:8]}"
    return base.model_copy(update={"topic": name, "watch_folder": tmp_path_factory.mktemp(name)})


def places(settings: Settings) -> tuple[set[str], dict[str, str]]:
    """Hashes of the topic's predicted clips, and the reasons of the refused ones by hash."""
    database = Database(settings.database)
    predicted = {row["sha256"] for row in results.predictions(database, topic=settings.topic)}
    refused = {row["sha256"]: row["reason"] for row in results.quarantine(database, topic=settings.topic)}
    return predicted, refused


def test_a_clip_that_kills_hangs_or_breaks_its_worker_is_refused_and_its_neighbours_are_not(settings: Settings) -> None:
    good = short_clips(6, seed=70)
    bad = {height: square_wave(height) for height in (KILLS, HANGS, RAISES)}
    send(settings, {**good, **{f"square {height}.wav": data for height, data in bad.items()}})
    assert drain(settings)
    predicted, refused = places(settings)
    assert predicted == set(map(sha256_of, good.values()))
    assert set(refused) == set(map(sha256_of, bad.values()))
    for height in (KILLS, HANGS):
        assert "3 times, alone, while known-good clips passed" in refused[sha256_of(bad[height])]
    assert "the kernel has a mistake" in refused[sha256_of(bad[RAISES])]
    committed = ranges.history(Database(settings.database), settings.topic)
    assert {(found.state, found.failures) for found in committed} == {("committed", 0)}


@pytest.mark.long
def test_a_clip_that_kills_its_worker_fails_no_batch(
    base: Settings, tmp_path: Path, write_clips: Callable[..., None]
) -> None:
    write_clips(tmp_path / "audio", GENRES, CLIPS)
    (tmp_path / "audio" / "blues" / "killer.wav").write_bytes(square_wave(KILLS))
    settings = base.model_copy(update={"audio": tmp_path / "audio", "dataset": "blame_batch"})
    run_batch(settings)
    database = Database(settings.database)
    refused = quarantine.refused(database, settings.dataset)
    assert [(clip.file_name, clip.stage) for clip in refused] == [("killer.wav", "audio_features")]
    assert "while known-good clips passed" in refused[0].reason
    features = BatchTables(_lake(settings), database, settings.dataset).features(TREACHEROUS.feature_version)
    assert len(features) == CLIPS * len(GENRES)


@pytest.mark.parametrize(
    ("fact", "wrong", "told"),
    [
        ("spark_model_path", "/genres/nowhere", "/genres/nowhere, is gone"),
        ("spark_model_digest", "0" * 64, "is not what was registered: its digest is another one"),
    ],
)
def test_a_champion_that_cannot_be_used_blames_nobody(settings: Settings, fact: str, wrong: str, told: str) -> None:
    """The alias points at a version that somebody made by hand, or changed; later it is put right."""
    good = short_clips(3, seed=71 + len(fact))
    send(settings, good)
    registry = ModelRegistry(settings.tracking_uri)
    name, champion = registry.name_for(DATASET), registry.champion(DATASET)
    right = champion.to_tags()[fact]
    registry.client.set_model_version_tag(name, str(champion.version), fact, wrong)
    try:
        assert not drain(settings, raise_on_error=False)
        database = Database(settings.database)
        (found,) = ranges.history(database, settings.topic)
        assert (found.state, found.failures) == ("planned", 1)
        assert found.reason and told in found.reason
        assert places(settings) == (set(), {})
    finally:
        registry.client.set_model_version_tag(name, str(champion.version), fact, right)
    assert run_range(settings, found.key)
    assert places(settings) == (set(map(sha256_of, good.values())), {})


def test_materializing_features_alone_is_no_failed_attempt(settings: Settings) -> None:
    import dagster as dg

    from streaming_sensors.definitions import build_defs

    send(settings, short_clips(2, seed=72))
    database = Database(settings.database)
    state = topic_state(settings, settings.topic)
    key = PartitionKey(settings.topic, state.topic_id, 0, 0, state.ends[0])
    ranges.record_plan(database, Plan(new=(Attempt(key),)))
    instance = dg.DagsterInstance.get()
    instance.add_dynamic_partitions("offset_range", [str(key)])
    job = build_defs(settings=settings).resolve_job_def("stream_batch_job")
    for _ in range(3):
        result = job.execute_in_process(
            partition_key=str(key), instance=instance, asset_selection=[dg.AssetKey("stream_features")]
        )
        assert result.success
    found = ranges.find(database, key)
    assert (found.state, found.failures, found.reason) == ("planned", 0, None)
    assert found.feature_path


def test_one_bad_message_is_one_row(settings: Settings) -> None:
    """A claim check whose file is gone, one of other bytes, a foreign message and an empty one, between good clips."""
    good = short_clips(4, seed=73)
    send(settings, good)
    promised = wav(np.zeros(22_050))
    lake = BatchTables(_lake(settings), Database(settings.database), DATASET).lake
    other = lake.path("stream", "claims", f"{sha256_of(promised)}.wav")
    lake.files.pipe_file(other, b"other bytes")
    gone = hashlib.sha256(b"gone").hexdigest()
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    for sha256, path in ((gone, f"/genres/stream/claims/{gone}.wav"), (sha256_of(promised), other)):
        size = len(b"other bytes")
        message = ClipMessage(sha256, "claimed.wav", ".wav", size, datetime.now(UTC), claim_path=path)
        key, value, headers = encode(message)
        producer.send(settings.topic, key=key, value=value, headers=headers)
    producer.send(settings.topic, key=b"x", value=b"a foreign message")
    producer.send(settings.topic, key=b"x", value=b"")
    producer.flush()
    producer.close()
    assert drain(settings)
    predicted, refused = places(settings)
    assert predicted == set(map(sha256_of, good.values()))
    empty, foreign = sha256_of(b""), sha256_of(b"a foreign message")
    assert set(refused) == {gone, sha256_of(promised), empty, foreign}
    assert "which HDFS does not have" in refused[gone]
    assert "are not those that were sent" in refused[sha256_of(promised)]


def test_a_refusal_can_be_taken_back(settings: Settings) -> None:
    """A good clip that a broken version refused is predicted after `genres quarantine retry`, and its row is closed."""
    (good,) = short_clips(1, seed=75).values()
    send(settings, {"good.wav": good})
    database = Database(settings.database)
    lake = _lake(settings)
    kept = lake.path("stream", "quarantine", sha256_of(good))
    lake.put_clip(kept, good)
    row = QuarantinedClip(
        sha256_of(good),
        "good.wav",
        "stream",
        "refused by mistake",
        ".wav",
        "gate0",
        topic=settings.topic,
        kept_path=kept,
    )
    assert commits.quarantine_clip(database, row)
    before = sum(topic_state(settings, settings.topic).ends.values())
    assert send_again(settings, results.quarantine(database, topic=settings.topic)).sent == 1
    assert sum(topic_state(settings, settings.topic).ends.values()) == before + 1
    assert drain(settings)
    assert places(settings) == ({sha256_of(good)}, {})
    (closed,) = results.quarantine(database, topic=settings.topic, history=True)
    assert closed["closed_at"] and closed["reason"] == "refused by mistake"


def test_what_an_older_gate_set_aside_is_sent_again_if_asked(settings: Settings) -> None:
    """The producer of another gate moved a good clip to ``error/``; another refusal is of the present version."""
    good, other = short_clips(2, seed=77).values()
    send(settings, {"bad.wav": b"no audio"})
    aside = settings.watch_folder / "error"
    (aside / "good.wav").write_bytes(good)
    database = Database(settings.database)
    row = QuarantinedClip(
        sha256_of(good), "good.wav", "producer", "refused once", ".wav", "gate0", genre="metal", topic=settings.topic
    )
    assert commits.quarantine_clip(database, row)
    older = judged_by_older(settings, database, results.quarantine(database, topic=settings.topic))
    assert [row["file_name"] for row in older] == ["good.wav"]
    assert send_again(settings, older) == (1, [])
    send(settings, {"other.wav": other})
    assert drain(settings)
    assert places(settings)[0] == {sha256_of(good), sha256_of(other)}
    assert set(places(settings)[1]) == {sha256_of(b"no audio")}
    rows = {row["file_name"]: row["genre"] for row in results.predictions(database, topic=settings.topic)}
    assert rows == {"good.wav": "metal", "other.wav": None}


def test_a_refusal_is_about_bytes_under_a_suffix(settings: Settings) -> None:
    (good,) = short_clips(1, seed=78).values()
    send(settings, {"metal/song.mp3": good})
    assert places(settings) == (set(), {sha256_of(good): "a WAV file named .mp3"})
    send(settings, {"metal/song.wav": good})
    assert drain(settings)
    assert places(settings) == ({sha256_of(good)}, {})
    (row,) = results.predictions(Database(settings.database), topic=settings.topic)
    assert row["genre"] == "metal"


def test_other_bytes_than_a_claim_check_promised_are_not_tainted(settings: Settings) -> None:
    """Nor are the promised ones, once they come."""
    promised, other = short_clips(2, seed=79).values()
    create_topic(settings, settings.topic)
    lake = _lake(settings)
    place = lake.path("stream", "claims", f"{sha256_of(promised)}.wav")
    lake.files.pipe_file(place, other)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    message = ClipMessage(sha256_of(promised), "big.wav", ".wav", len(promised), datetime.now(UTC), claim_path=place)
    key, value, headers = encode(message)
    producer.send(settings.topic, key=key, value=value, headers=headers)
    producer.flush()
    producer.close()
    assert drain(settings)
    assert places(settings)[0] == set()
    assert set(places(settings)[1]) == {sha256_of(promised)}
    lines = send_again(settings, results.quarantine(Database(settings.database), topic=settings.topic)).left
    assert [line.partition(": ")[2] for line in lines] == ["its bytes are not on HDFS: drop the file again"]
    send(settings, {"other.wav": other, "big.wav": promised})
    assert drain(settings)
    assert places(settings) == ({sha256_of(promised), sha256_of(other)}, {})


def test_a_transactional_producer_leaves_holes_that_nothing_waits_for(settings: Settings) -> None:
    create_topic(settings, settings.topic)
    clips = short_clips(5, seed=74)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=settings.topic)
    producer.init_transactions()
    hashes = set()
    for number, data in enumerate(clips.values()):
        producer.begin_transaction()
        message = ClipMessage(
            sha256_of(data), f"{number}.wav", ".wav", len(data), datetime.now(UTC), genre="blues", data=data
        )
        key, value, headers = encode(message)
        producer.send(settings.topic, key=key, value=value, headers=headers)
        if number == 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            hashes.add(sha256_of(data))
    producer.close()
    assert topic_state(settings, settings.topic).ends[0] > len(clips), "markers follow the messages"
    assert drain(settings)
    assert places(settings) == (hashes, {})
    assert {found.state for found in ranges.history(Database(settings.database), settings.topic)} == {"committed"}


def _lake(settings: Settings) -> Lake:
    return Lake.of(settings)

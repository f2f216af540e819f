"""What is swept of the lake, and what never is: each kind has neighbours here that are needed, and young ones."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genres.settings import PROJECT_DIR
from genres.store import ledger, retention
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.hdfs import Hdfs
from genres.store.lake import Entry, Lake
from genres.store.ledger import Commit, Dataset
from genres.store.stream_ledger import commits, ranges, results
from genres.store.stream_ledger.commits import QuarantinedClip, RangeResult
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from streaming_sensors.envelope import ClipMessage, decode, encode
from streaming_sensors.folder_producer.claim_check import checked_in
from tests.fake_webhdfs import FakeWebHdfs

DAY_S = 24 * 3600.0
OLD_S, YOUNG_S = 3 * DAY_S, 0.5 * DAY_S
ROOT = "/genres"


@pytest.fixture
def lake(server: FakeWebHdfs) -> Lake:
    return Lake(Hdfs(server.url, user="me", patience_s=5), hdfs="hdfs://namenode:8020", root=ROOT)


@pytest.fixture
def put(server: FakeWebHdfs) -> Callable[..., str]:
    """Write a file that is so old, and so is each folder that it is in."""

    def put(path: str, *, age_s: float = OLD_S, data: bytes = b"four") -> str:
        whole = f"{ROOT}/{path}"
        server.files[whole] = data
        while whole != ROOT:
            server.ages_s.setdefault(whole, age_s)
            whole = whole.rpartition("/")[0]
        return f"{ROOT}/{path}"

    return put


@pytest.fixture
def before() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


def paths(entries: list[Entry]) -> set[str]:
    return {entry.path for entry in entries}


def key(start: int, end: int, topic: str = "clips") -> PartitionKey:
    return PartitionKey(topic, "A" * 22, 0, start, end)


def feature_path(of: PartitionKey, attempt: str) -> str:
    folder = f"stream/features/gtzan57-1/{of.topic}/{of.topic_id}/{of.kafka_partition}"
    return f"{folder}/{of.start_offset}-{of.end_offset}-{attempt}.parquet"


def test_attempts_are_swept_when_they_are_old(
    server: FakeWebHdfs, lake: Lake, before: datetime, put: Callable[..., str]
) -> None:
    put("_tmp/clips/a")
    put("_tmp/mine-candidates/b/stages/part-0", data=b"1234567")
    young = put("_tmp/mine-raw_audio_table/c", age_s=YOUNG_S)
    elsewhere = put("mine/raw_audio/blues/a.wav")
    found = retention.old_attempts(lake, before=before)
    assert paths(found) == {f"{ROOT}/_tmp/clips/a", f"{ROOT}/_tmp/mine-candidates/b"}

    would = retention.sweep(lake, found, dry_run=True)
    assert len(server.files) == 4, "a dry run deletes nothing"
    swept = retention.sweep(lake, found, dry_run=False)
    assert would == swept == (2, 4 + 7, "")
    assert set(server.files) == {young, elsewhere}


def test_an_empty_lake_has_nothing_to_sweep(lake: Lake, database: Database, before: datetime) -> None:
    mine = BatchTables(lake, database, "mine")
    assert not retention.old_attempts(lake, before=before)
    assert not retention.old_claims(lake, before=before)
    assert not retention.unneeded_quarantine(lake, database, before=before)
    assert not retention.unpublished_stream_features(lake, database, before=before)
    assert not retention.unpublished_tables(mine, before=before)
    assert not retention.unused_candidates(mine, newest_training=lambda _: "", before=before)


def test_bytes_are_kept_while_their_refusal_is_open(
    lake: Lake, database: Database, before: datetime, put: Callable[..., str]
) -> None:
    refused, accepted, judged_again = (hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b", "c"))
    kept = {sha256: put(f"stream/quarantine/{sha256}") for sha256 in (refused, accepted, judged_again)}
    orphan, young = put("stream/quarantine/nobody"), put("stream/quarantine/young", age_s=YOUNG_S)

    def refuse(sha256: str, judged_by: str, kept_path: str | None) -> None:
        row = QuarantinedClip(sha256, "x.wav", "stream", "silence", ".wav", judged_by, kept_path=kept_path)
        assert commits.quarantine_clip(database, row)

    for sha256, path in kept.items():
        refuse(sha256, "1", path)
    # A later version refused it as well, and could not keep the bytes: those of the first time still serve.
    refuse(judged_again, "2", None)
    ranges.record_plan(database, Plan(new=(Attempt(key(0, 5)),)))
    commits.commit_range(database, RangeResult(key(0, 5), "run", predictions=[prediction(accepted)]))

    found = paths(retention.unneeded_quarantine(lake, database, before=before))
    assert found == {kept[accepted], orphan}
    assert young not in found


def test_features_are_kept_while_a_range_names_them_or_is_planned(
    lake: Lake, database: Database, before: datetime, put: Callable[..., str]
) -> None:
    committed, planned, other = key(0, 5), key(5, 9), key(9, 12)
    published, of_a_killed_run = put(feature_path(committed, "aa")), put(feature_path(committed, "bb"))
    in_work = put(feature_path(planned, "cc"))
    of_an_older_version = put(feature_path(other, "dd"))
    young = put(feature_path(committed, "ee"), age_s=YOUNG_S)
    never_planned = put(feature_path(key(0, 5, "another"), "ff"))
    ranges.record_plan(database, Plan(new=tuple(map(Attempt, (committed, planned, other)))))
    commits.commit_range(database, RangeResult(committed, "run", feature_path=published, feature_version="gtzan57-1"))
    for version, path in (("gtzan57-1", of_an_older_version), ("gtzan57-2", put(feature_path(other, "gg")))):
        commits.commit_range(database, RangeResult(other, "run", feature_path=path, feature_version=version))

    found = paths(retention.unpublished_stream_features(lake, database, before=before))
    assert found == {of_a_killed_run, of_an_older_version, never_planned}
    assert not found & {published, in_work, young}

    # Scored later: the range is planned still, and names its features.
    ranges.publish_features(database, planned, in_work, "gtzan57-1")
    assert in_work not in paths(retention.unpublished_stream_features(lake, database, before=before))


def test_features_of_ranges_that_were_committed_long_ago_go_and_their_predictions_stay(
    lake: Lake, database: Database, before: datetime, put: Callable[..., str]
) -> None:
    old, new, planned = key(0, 5), key(5, 9), key(9, 12)
    stored = {one: put(feature_path(one, "aa")) for one in (old, new, planned)}
    ranges.record_plan(database, Plan(new=tuple(map(Attempt, stored))))
    version, now = "gtzan57-1", datetime.now(UTC)
    for one, age in ((old, timedelta(days=31)), (new, timedelta(days=29))):
        result = RangeResult(
            one, "run", [prediction(f"{one.start_offset:064}")], feature_path=stored[one], feature_version=version
        )
        commits.commit_range(database, result, now=now - age)
    ranges.publish_features(database, planned, stored[planned], version)

    moment = now - timedelta(days=30)
    assert ranges.forget_features(database, committed_before=moment, dry_run=True) == 1
    assert not paths(retention.unpublished_stream_features(lake, database, before=before)), "a dry run changes nothing"
    assert ranges.forget_features(database, committed_before=moment) == 1
    assert paths(retention.unpublished_stream_features(lake, database, before=before)) == {stored[old]}
    assert ranges.forget_features(database, committed_before=moment) == 0
    assert len(results.predictions(database)) == 2

    # Predicted again while Kafka has its clips, it names the features that were computed for that.
    again = put(feature_path(old, "bb"))
    commits.commit_range(database, RangeResult(old, "later", feature_path=again, feature_version=version))
    assert ranges.find(database, old).feature_path == again


def test_published_tables_are_kept_and_so_are_the_clips_and_the_models(
    lake: Lake, database: Database, before: datetime, put: Callable[..., str]
) -> None:
    entry = Dataset("mine", Path("/music"), is_synthetic=False, feature_sets=("gtzan57",))
    ledger.register_dataset(database, entry)
    orphans = {
        put("mine/raw_audio_table/lost.parquet"),
        put("mine/track_split_table/lost.parquet"),
        put("mine/audio_features/gtzan57-1/lost/genre=blues/part-0").rpartition("/genre=")[0],
    }
    published = {
        put("mine/raw_audio_table/old.parquet"),
        put("mine/raw_audio_table/new.parquet"),
        put("mine/audio_features/gtzan57-1/part/genre=blues/part-0").rpartition("/genre=")[0],
    }
    put("mine/raw_audio_table/young.parquet", age_s=YOUNG_S)
    for name in ("raw_audio/blues/a.wav", "models/v1/metadata/part-0", "models/v2/metadata/part-0"):
        put(f"mine/{name}")
    for number, path in enumerate(sorted(published)):
        ledger.publish(database, "mine", path.split("/")[3].removesuffix("_table"), Commit(path, 1, str(number), "run"))
    assert paths(retention.unpublished_tables(BatchTables(lake, database, "mine"), before=before)) == orphans


def test_candidates_of_the_newest_complete_training_are_kept(
    lake: Lake, database: Database, before: datetime, put: Callable[..., str]
) -> None:
    mine = BatchTables(lake, database, "mine")
    put("mine/candidates/complete/run/part-0", age_s=2 * DAY_S)
    put("mine/models/v1/part-0")
    asked: list[str] = []

    def newest(dataset: str) -> str:
        asked.append(dataset)
        return "complete"

    assert not retention.unused_candidates(mine, newest_training=newest, before=before)
    assert not asked, "of one training nobody need ask which"
    put("mine/candidates/earlier/run/part-0")
    # A training that failed, or one that is at work, is newer than the newest complete one.
    put("mine/candidates/failed/run/part-0", age_s=1.5 * DAY_S)
    put("mine/candidates/at_work/run/part-0", age_s=YOUNG_S)
    found = paths(retention.unused_candidates(mine, newest_training=newest, before=before))
    assert found == {f"{ROOT}/mine/candidates/earlier", f"{ROOT}/mine/candidates/failed"}
    assert asked == ["mine"]


def test_claim_checks_go_by_the_day_of_their_messages(lake: Lake, put: Callable[..., str]) -> None:
    noon = datetime(2026, 5, 20, 12, tzinfo=UTC)
    put("stream/claims/2026-05-18/a.wav")
    put("stream/claims/2026-05-19/b.wav")
    put("stream/claims/2026-05-20/c.wav")
    put("stream/claims/somebody's/d.wav")
    flat = put("stream/claims/e.wav", age_s=(datetime.now(UTC) - noon).total_seconds() + 60)
    put("stream/claims/f.wav", age_s=(datetime.now(UTC) - noon).total_seconds() - 60)
    assert paths(retention.old_claims(lake, before=noon)) == {f"{ROOT}/stream/claims/2026-05-18", flat} | {
        f"{ROOT}/stream/claims/2026-05-19"
    }
    midnight = noon.replace(hour=0)
    assert f"{ROOT}/stream/claims/2026-05-19" not in paths(retention.old_claims(lake, before=midnight))


def test_a_message_names_no_claim_check_of_an_earlier_day(server: FakeWebHdfs, lake: Lake) -> None:
    """Else its file could go together with that day's, before the message is done with."""
    data = b"a long clip"
    sha256 = hashlib.sha256(data).hexdigest()
    message = ClipMessage(sha256, "long.wav", ".wav", len(data), datetime.now(UTC), data=data)
    earlier = f"{ROOT}/stream/claims/2026-05-18/{sha256}.wav"
    server.files[earlier] = data
    sent = checked_in(message, lake)
    assert decode(*encode(sent)) == sent, "a reader takes it for such a place"
    first = sent.claim_path
    assert first and first != earlier and server.files[first] == data
    assert first.rpartition("/")[0] in {
        retention.claims_folder(lake, moment)
        for moment in (datetime.now(UTC), datetime.now(UTC) - timedelta(minutes=1))
    }
    # Sent twice on one day it is uploaded once, unless what lies there is no whole copy.
    created = server.operations.count("CREATE")
    assert checked_in(replace(message, file_name="again.wav"), lake).claim_path == first
    assert server.operations.count("CREATE") == created
    server.files[first] = data[:-1]
    checked_in(message, lake)
    assert server.files[first] == data


def test_one_module_alone_says_where_claim_checks_lie() -> None:
    """Whoever put one elsewhere might name a file of an earlier day, which may be swept."""
    sources = [
        path for room in ("genres", "streaming_sensors", "genre_assets") for path in (PROJECT_DIR / room).rglob("*.py")
    ]
    naming = {path.name for path in sources if re.search(r"[\"'/]claims[\"'/]", path.read_text())}
    assert naming == {"retention.py", "envelope.py"}, "the envelope knows the form of their paths, in any lake"


def prediction(sha256: str) -> dict[str, object]:
    return {
        "sha256": sha256,
        "model_name": "genres-mine",
        "model_version": 1,
        "dataset": "mine",
        "file_name": "x.wav",
        "genre": None,
        "predicted_genre": "blues",
        "probability": 1.0,
        "probabilities": {"blues": 1.0},
        "is_calibrated": True,
        "is_synthetic": True,
        "feature_version": "gtzan57-1",
        "kafka_offset": 0,
        "event_time": datetime.now(UTC),
    }

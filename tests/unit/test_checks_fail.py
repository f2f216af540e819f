"""Every asset check fails where it must, and passes beside it: a case for each, and a line in ``docs/checks.md``.

A case is a function under `case` with the check's asset and name. It yields what the check says in pairs of (outcome
that is expected, result). A check of the definitions without a case, or without its line in the docs, fails a test.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem

from genre_assets import audio_features, champion_model, raw_audio
from genre_assets.batch_predictions import by_audio, check_complete, check_stale
from genre_assets.definitions import build_defs as build_batch
from genre_assets.promotion import Comparison, judge
from genre_assets.track_split import check_no_leak
from genres.audio.gtzan57 import GTZAN57
from genres.datasets.gtzan import GTZAN
from genres.settings import PROJECT_DIR, Settings
from genres.store import ledger, predictions, schemas
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.quarantine import RefusedClip
from genres.store.sql import sa, tables
from genres.store.stream_ledger import commits, losses, producers, ranges, sent_files
from genres.store.stream_ledger.commits import QuarantinedClip, RangeCheck, RangeResult
from genres.store.stream_ledger.producers import SILENT_S, Producer
from genres.store.stream_ledger.sent_files import SentFile
from genres.store.stream_ledger.values import Attempt, Lost, PartitionKey, Plan
from genres_dagster.checks import check_label_set
from streaming_sensors import stream_checks, streaming_results
from streaming_sensors.definitions import build_defs as build_stream
from streaming_sensors.range_work import RangeWork
from streaming_sensors.stream import Stream
from streaming_sensors.stream_checks import Finding, Observed
from streaming_sensors.topic import TopicState

NOW = datetime.now(UTC)
COLUMNS = list(GTZAN57.columns)
Result = dg.AssetCheckResult | Finding
Case = Callable[["Rig"], Iterator[tuple[bool, Result]]]
CASES: dict[tuple[str, str], Case] = {}


def case(asset: str, check: str) -> Callable[[Case], Case]:
    """Register a check's case."""

    def register(function: Case) -> Case:
        assert CASES.setdefault((asset, check), function) is function, f"two cases of {asset} {check}"
        return function

    return register


class Folder(LocalFileSystem):
    """A local folder that stands for HDFS."""

    def rename(self, path: str, to: str) -> None:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(to)


@dataclass
class Rig:
    """A database, a lake in a folder, and a stream whose topic is what a case says."""

    settings: Settings
    database: Database
    lake: Lake

    @classmethod
    def at(cls, folder: Path) -> "Rig":
        settings = Settings(state_dir=folder, stream_dataset="mine", max_clips_per_batch=4)
        database = Database(settings.database)
        database.migrate()
        return cls(settings, database, Lake(Folder(auto_mkdir=True), hdfs="", root=str(folder / "lake")))

    @property
    def stream(self) -> Stream:
        return Stream(self.settings.streams[0])

    def observed(self, *, beginning: int = 0, end: int = 0, topic_id: str = "A") -> Observed:
        """Return the stream with one Kafka partition that reaches from one offset to another."""
        now = Observed(self.stream, self.settings, self.database)
        now.topic = TopicState(self.stream.topic, topic_id, {0: beginning}, {0: end})
        return now

    def plan(self, *keys: PartitionKey) -> None:
        ranges.record_plan(self.database, Plan(new=tuple(map(Attempt, keys))))

    def send(self, *names: str, offset: int = 0, topic_id: str = "A") -> None:
        """Note files as confirmed at offsets from `offset` on; a clip's sha256 is its name."""
        rows = [
            SentFile("here", f"/drop/{name}", 1, 1, 1, 1, name, self.stream.topic, topic_id, 0, offset + number, NOW)
            for number, name in enumerate(names)
        ]
        sent_files.remember(self.database, rows)

    def commit(
        self,
        range_key: PartitionKey,
        *names: str,
        refused: tuple[str, ...] = (),
        judged_by: str = "gate",
        checks: tuple[RangeCheck, ...] = (),
        **other: Any,
    ) -> None:
        """Plan a range and commit these clips as predicted and refused ones."""
        self.plan(range_key)
        rows = [prediction(name, range_key.start_offset + number, **other) for number, name in enumerate(names)]
        bad = [QuarantinedClip(name, name, "stream", "not audio", ".wav", judged_by) for name in refused]
        commits.commit_range(self.database, RangeResult(range_key, "run", rows, bad, checks))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig.at(tmp_path)


def key(start: int, end: int) -> PartitionKey:
    return PartitionKey("audio_clips", "A", 0, start, end)


def prediction(name: str, offset: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "sha256": name,
        "model_version": 1,
        "model_name": "genres-mine",
        "dataset": "mine",
        "file_name": name,
        "genre": None,
        "predicted_genre": "jazz",
        "probability": 0.75,
        "probabilities": {"jazz": 0.75, "rock": 0.25},
        "is_calibrated": True,
        "over_time": None,
        "is_uncertain": False,
        "distance": 0.5,
        "is_unlike": False,
        "is_synthetic": False,
        "feature_version": GTZAN57.feature_version,
        "kafka_offset": offset,
        "event_time": NOW,
        **other,
    }


def outcome(results: Iterator[dg.AssetCheckResult], name: str) -> dg.AssetCheckResult:
    (found,) = [result for result in results if result.check_name == name]
    return found


# -------------------------------------------------------------------------------------------------- champion_model


@case("champion_model", "promotion")
def better_than_the_champion(rig: Rig) -> Iterator[tuple[bool, Result]]:
    better = Comparison(100, 0.8, 0.7, 0.95, {"jazz": -0.1}, ece=0.05, champion_ece=0.05)
    for comparison, present_serves, passes in (
        (better, True, True),
        (replace(better, better_share=0.89), True, False),
        (replace(better, lost={"jazz": 0.2}), True, False),
        (replace(better, ece=0.2), True, False),
        (replace(better, new_genres=("pop",)), True, False),
        (None, True, True),
        (None, False, True),
    ):
        verdict = judge(valid_macro_f1=0.8, baseline=0.1, comparison=comparison, tracks=100)
        yield passes, champion_model._promotion(verdict, comparison, dataset="mine", present_serves=present_serves)
    # Neither is of use.
    verdict = judge(valid_macro_f1=0.1, baseline=0.1, comparison=None, tracks=100)
    yield False, champion_model._promotion(verdict, None, dataset="mine", present_serves=False)


# ------------------------------------------------------------------------------------------------------- raw_audio


def manifest(*clips: tuple[str, str], refused: tuple[str, ...] = (), **columns: Any) -> pd.DataFrame:
    """Make a manifest of (track id, genre); a clip's hashes are its name unless `columns` say otherwise."""
    ids = [track_id for track_id, _ in clips]
    table = pd.DataFrame({"track_id": ids, "genre": [genre for _, genre in clips], "file_name": ids, "path": ids})
    table = table.assign(sha256=ids, md5=ids, bytes=1, duration_s=1.0, sample_rate=22_050, channels=1, **columns)
    is_refused = table["track_id"].isin(refused)
    return table.assign(
        status=np.where(is_refused, "quarantined", "accepted"), reason=np.where(is_refused, "not audio", None)
    )


def of_raw_audio(name: str, table: pd.DataFrame) -> dg.AssetCheckResult:
    return outcome(raw_audio._checks(table, table[table["status"] == "accepted"], dataset="mine"), name)


@case("raw_audio", "gtzan_checksums")
def original_files(rig: Rig) -> Iterator[tuple[bool, Result]]:
    tracks = list(GTZAN.read_tracks().values())[:3]
    originals = manifest(*((track.track_id, track.genre) for track in tracks)).assign(md5=[t.md5 for t in tracks])
    yield True, of_raw_audio("gtzan_checksums", originals)
    yield False, of_raw_audio("gtzan_checksums", originals.assign(md5=[tracks[1].md5, tracks[1].md5, tracks[2].md5]))


@case("raw_audio", "class_balance")
def genres_of_like_size(rig: Rig) -> Iterator[tuple[bool, Result]]:
    clips = [("j1", "jazz"), ("j2", "jazz"), ("r1", "rock")]
    yield True, of_raw_audio("class_balance", manifest(*clips))
    yield False, of_raw_audio("class_balance", manifest(*clips, ("j3", "jazz")))
    whole_genre = of_raw_audio("class_balance", manifest(*clips, ("p1", "pop"), refused=("p1",)))
    assert "pop 0" in str(whole_genre.metadata["actual"].value)
    yield False, whole_genre


@case("raw_audio", "exact_duplicates")
def copies(rig: Rig) -> Iterator[tuple[bool, Result]]:
    clips = manifest(("j1", "jazz"), ("j2", "jazz"))
    yield True, of_raw_audio("exact_duplicates", clips)
    yield False, of_raw_audio("exact_duplicates", clips.assign(sha256="the same"))


@case("raw_audio", "quarantined")
def refused_clips(rig: Rig) -> Iterator[tuple[bool, Result]]:
    clips = ("j1", "jazz"), ("j2", "jazz")
    yield True, of_raw_audio("quarantined", manifest(*clips))
    yield False, of_raw_audio("quarantined", manifest(*clips, refused=("j2",)))


# -------------------------------------------------------------------------------------------------- audio_features


def features(*tracks: str) -> pd.DataFrame:
    """Make the features of tracks, each value of a track and column another one."""
    names = schemas.audio_features(GTZAN57.columns).names
    values = {name: [float(number) for number, _ in enumerate(tracks)] for name in names}
    return pd.DataFrame({**values, "track_id": tracks, "sha256": tracks, "genre": "jazz"})


def of_features(name: str, table: pd.DataFrame, *refused: RefusedClip) -> dg.AssetCheckResult:
    clips = manifest(("a", "jazz"), ("b", "jazz"))
    return outcome(audio_features._checks(table, clips, list(refused), GTZAN57, dataset="mine"), name)


@case("audio_features", "schema")
def columns_read_back(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, of_features("schema", features("a", "b"))
    yield False, of_features("schema", features("a", "b").drop(columns="tempo"))
    yield False, of_features("schema", features("a", "b").assign(more=1.0))


@case("audio_features", "finite")
def numbers_read_back(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, of_features("finite", features("a", "b"))
    for bad in (np.nan, np.inf):
        table = features("a", "b")
        table.loc[1, "tempo"] = bad
        yield False, of_features("finite", table)


@case("audio_features", "complete")
def rows_for_the_manifest(rig: Rig) -> Iterator[tuple[bool, Result]]:
    b_was_refused = RefusedClip("b", "b.wav", "b", "audio_features", "cut")
    yield True, of_features("complete", features("a", "b"))
    yield True, of_features("complete", features("a"), b_was_refused)
    yield False, of_features("complete", features("a"))
    yield False, of_features("complete", features("a", "b"), b_was_refused)
    yield False, of_features("complete", features("a", "b", "b"))
    yield False, of_features("complete", features("a", "c"))  # as many rows, of other clips
    other = RefusedClip("b", "b.wav", "other bytes of that name", "audio_features", "cut")
    yield False, of_features("complete", features("a"), other)


# ------------------------------------------------------------------------------------- track_split and predictions


@case("track_split", "no_leak")
def audio_on_one_side(rig: Rig) -> Iterator[tuple[bool, Result]]:
    split = pd.DataFrame({"track_id": ["a", "b"], "genre": "jazz", "sha256": ["a", "b"], "part": ["train", "test"]})
    clips = manifest(("a", "jazz"), ("b", "jazz"))

    def no_leak(published: pd.DataFrame, accepted: pd.DataFrame) -> dg.AssetCheckResult:
        return check_no_leak(published, accepted, dataset="mine")

    yield True, no_leak(split, clips)
    yield False, no_leak(pd.concat([split, split.assign(part="valid")]), clips)
    yield False, no_leak(split, clips.assign(sha256="the same"))
    yield True, no_leak(split.assign(part=["train", "excluded"]), clips.assign(sha256="the same"))
    yield False, no_leak(split, clips.iloc[:1])


@case("batch_predictions", "complete")
def rows_for_the_features(rig: Rig) -> Iterator[tuple[bool, Result]]:
    stored = [{"track_id": "a", "sha256": "1"}]
    yield True, check_complete(stored, {"a": "1"}, dataset="mine")
    yield False, check_complete(stored, {"a": "1", "b": "2"}, dataset="mine")
    current, *_ = by_audio(stored, {"a": "the audio that replaced it"})
    yield False, check_complete(current, {"a": "the audio that replaced it"}, dataset="mine")


def labels(*predicted: str, model: str = "jazz rock", dataset: str = "jazz rock") -> dg.AssetCheckResult:
    return check_label_set(
        dataset="mine", predicted=predicted, known_to_model=model.split(), in_dataset=dataset.split()
    )


@case("batch_predictions", "label_set")
def genres_of_model_and_dataset(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, labels("jazz")
    yield False, labels("pop")
    not_the_datasets, not_the_models = labels("rock", dataset="jazz"), labels("rock", model="jazz")
    assert not_the_datasets.severity == not_the_models.severity == dg.AssetCheckSeverity.ERROR
    yield False, not_the_datasets
    yield False, not_the_models
    never_answered = labels("jazz", dataset="jazz rock pop")
    assert never_answered.severity == dg.AssetCheckSeverity.WARN
    yield False, never_answered


@case("batch_predictions", "stale")
def rows_of_replaced_audio(rig: Rig) -> Iterator[tuple[bool, Result]]:
    stored = [{"track_id": "a", "sha256": "1"}]
    for now, passes in (({"a": "1"}, True), ({"a": "2"}, False), ({}, False)):
        yield passes, check_stale(by_audio(stored, now)[1], dataset="mine")


# ---------------------------------------------------------------------------------------------------------- stream


@case("audio_clips", "nothing_lost")
def clips_that_nobody_had_read(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, stream_checks.nothing_lost(rig.observed())
    rig.send("a", "b")
    rig.commit(key(0, 2), "a", "b")
    yield True, stream_checks.nothing_lost(rig.observed(beginning=2, end=2))
    # By Kafka's word, before anybody has noted it.
    yield False, stream_checks.nothing_lost(rig.observed(beginning=3, end=5))
    # By the producer's memory: sent to a topic that was made again before a sensor had seen the clip.
    rig.send("c", offset=2)
    yield True, stream_checks.nothing_lost(rig.observed(end=3))
    recreated = stream_checks.nothing_lost(rig.observed(end=3, topic_id="B"))
    assert "/drop/c" in recreated.said
    yield False, recreated
    # By the ledger.
    ranges.record_plan(rig.database, Plan(lost=(Lost(key(2, 4), "retention took it"),)))
    yield False, stream_checks.nothing_lost(rig.observed(end=4))
    # Sent again, its clip is in Kafka, but has no row yet; what else the range held nobody knows.
    rig.send("c", offset=4)
    yield False, stream_checks.nothing_lost(rig.observed(end=5))
    rig.commit(key(4, 5), "c")
    half = stream_checks.nothing_lost(rig.observed(end=5))
    assert "1 clip by offset" in half.said
    assert "retention took it; 1 of 2 made good; nobody knows what 1 held" in half.said
    yield False, half
    acknowledge(rig, end=5)
    yield True, stream_checks.nothing_lost(rig.observed(end=5))
    # A range of which everything is known: one clip's file was sent again, the other's holds another clip by now.
    rig.send("d", "e", offset=5)
    ranges.record_plan(rig.database, Plan(lost=(Lost(key(5, 7), "retention took it"),)))
    rig.send("d", offset=7)
    sent_files.remember(rig.database, [SentFile("here", "/drop/e", 1, 2, 2, 1, "f", rig.stream.topic, "A", 0, 8, NOW)])
    rig.commit(key(7, 9), "d", "f")
    yield False, stream_checks.nothing_lost(rig.observed(end=9))
    rig.send("copy of e", offset=9)
    with rig.database.writing() as connection:
        copy = tables.SENT_FILES.c.path == "/drop/copy of e"
        connection.execute(sa.update(tables.SENT_FILES).where(copy).values(sha256="e"))
    rig.commit(key(9, 10), "e")
    yield True, stream_checks.nothing_lost(rig.observed(end=10))
    # A clip that was overwritten before anybody had planned it, in a topic that was made again.
    rig.send("g", offset=10)
    sent_files.remember(rig.database, [SentFile("here", "/drop/g", 1, 2, 2, 1, "d", rig.stream.topic, "B", 0, 0, NOW)])
    overwritten = stream_checks.nothing_lost(rig.observed(end=1, topic_id="B"))
    assert "/drop/g" in overwritten.said
    yield False, overwritten
    acknowledge(rig, end=1, topic_id="B")
    yield True, stream_checks.nothing_lost(rig.observed(end=1, topic_id="B"))


def acknowledge(rig: Rig, **topic: Any) -> None:
    """Say that the losses of now are known."""
    state = rig.observed(**topic).topic
    losses.acknowledge(rig.database, losses.of_topic(rig.database, state.topic, state.topic_id, state.beginnings))


@case("audio_clips", "producer_alive")
def sign_of_life(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield False, stream_checks.producer_alive(rig.observed())
    alive = Producer(rig.stream.topic, "here", "/drop", 5, NOW, datetime.now(UTC), None, None, 0, 0, 0)
    for producer, passes in (
        (alive, True),
        (alive._replace(beat_at=NOW - timedelta(seconds=SILENT_S)), False),
        (alive._replace(ended_at=NOW), False),
    ):
        producers.beat(rig.database, producer)
        yield passes, stream_checks.producer_alive(rig.observed())


@case("audio_clips", "consumer_lag")
def unread_clips(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, stream_checks.consumer_lag(rig.observed(end=8))
    yield False, stream_checks.consumer_lag(rig.observed(end=9))
    rig.commit(key(0, 1))
    yield True, stream_checks.consumer_lag(rig.observed(end=9))


@case("stream_predictions", "complete")
def rows_for_what_the_broker_confirmed(rig: Rig) -> Iterator[tuple[bool, Result]]:
    rig.send("a", "b", "not yet read")
    rig.commit(key(0, 2), "a", refused=("b",))
    yield True, stream_checks.complete(rig.observed(end=3))
    rig.send("c", "d", offset=2)
    rig.commit(key(2, 4), "c")
    lacking = stream_checks.complete(rig.observed(end=4))
    assert "/drop/d" in lacking.said
    yield False, lacking


@case("stream_predictions", "quarantine_rate")
def refused_among_the_newest(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, stream_checks.quarantine_rate(rig.observed())
    rig.commit(key(0, 5), "a", "b", "c", "d", refused=("e",))
    yield True, stream_checks.quarantine_rate(rig.observed())
    rig.commit(key(5, 6), refused=("f",))
    yield False, stream_checks.quarantine_rate(rig.observed())
    # One window for both: what was refused long ago is not counted against the newest clips.
    rig.commit(key(6, 2006), *(f"g{number}" for number in range(2000)))
    yield True, stream_checks.quarantine_rate(rig.observed())
    # The champion reads other features now, and they are of no use: what the ones before made possible is past.
    rig.commit(key(2006, 2008), refused=("h", "i"), judged_by="gate5+other-1")
    yield False, stream_checks.quarantine_rate(rig.observed())
    names = (f"j{number}" for number in range(16))
    rig.commit(key(2008, 2025), *names, refused=("k",), judged_by="gate5+other-1", feature_version="other-1")
    yield True, stream_checks.quarantine_rate(rig.observed())
    # Another dataset scores the stream: none of these predictions is by its champion, and the next clip is refused.
    rig = replace(rig, settings=rig.settings.model_copy(update={"stream_dataset": "another"}))
    yield True, stream_checks.quarantine_rate(rig.observed())
    rig.commit(key(2025, 2026), refused=("l",), judged_by="gate5+other-1")
    yield False, stream_checks.quarantine_rate(rig.observed())


TRACKS = ("a", "b", "c")
MANY = tuple(f"track {number}" for number in range(60))


def of_results(rig: Rig, name: str, *rows: dict[str, Any], tracks: tuple[str, ...] = TRACKS) -> dg.AssetCheckResult:
    """Check the newest predictions of a stream whose dataset has a manifest and features."""
    tables = BatchTables(rig.lake, rig.database, "mine")
    clips = manifest(*((track, "rock" if number % 2 else "jazz") for number, track in enumerate(tracks)))
    tables.publish_manifest(clips, run_id="tests")
    version = GTZAN57.feature_version
    if not tables.feature_paths(version):
        table = pa.Table.from_pandas(features(*tracks).drop(columns="genre"))
        path = rig.lake.write_table(
            table.append_column("genre", pa.array(clips["genre"])), tables.feature_folder(version)
        )
        ledger.publish(rig.database, "mine", "audio_features", ledger.Commit(path, len(tracks), "f", "tests"))
    return outcome(
        streaming_results._checks(pd.DataFrame(rows), rig.stream, rig.settings, rig.database, rig.lake), name
    )


@case("streaming_results", "label_set")
def genres_of_the_manifest(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield True, of_results(rig, "label_set", prediction("x"))
    strange = prediction("x", predicted_genre="pop", probabilities={"pop": 1.0, "jazz": 0.0, "rock": 0.0})
    yield False, of_results(rig, "label_set", strange)
    yield False, of_results(rig, "label_set", prediction("x", probabilities={"jazz": 1.0}))


@case("streaming_results", "feature_drift")
def values_that_moved(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield False, of_results(rig, "feature_drift", prediction("x"), tracks=MANY)  # there is nothing to compare

    def arrive(start: int, shift: float, **model: Any) -> None:
        rows = features(*MANY)
        rows[COLUMNS] += shift
        table = pa.Table.from_pandas(rows).append_column("reason", pa.array([None] * len(rows), pa.string()))
        path = rig.lake.write_table(table, rig.lake.path("stream", "features"))
        rig.plan(key(start, start + 3))
        about = {"feature_path": path, "feature_version": GTZAN57.feature_version, "model_name": "genres-mine", **model}
        commits.commit_range(rig.database, RangeResult(key(start, start + 3), "run", **about))

    arrive(0, 0.0, model_version=1)
    yield True, of_results(rig, "feature_drift", prediction("x"), tracks=MANY)
    arrive(3, 1000.0, model_version=2)
    yield True, of_results(rig, "feature_drift", prediction("x"), tracks=MANY)  # that was another model's
    yield False, of_results(rig, "feature_drift", prediction("x", model_version=2), tracks=MANY)


@case("streaming_results", "prediction_drift")
def genres_that_are_predicted_more_often(rig: Rig) -> Iterator[tuple[bool, Result]]:
    yield False, of_results(rig, "prediction_drift", prediction("x"))  # there is nothing to compare
    columns = {column.name for column in schemas.BATCH_PREDICTIONS.columns}
    answers = [prediction(track, predicted_genre=("jazz", "rock")[n % 2]) for n, track in enumerate(MANY)]
    about = {"part": "test", "genre": "jazz", "run_id": "r", "predicted_at": NOW, "stale_since": None}
    rows = [{**row, "track_id": row["sha256"], **about} for row in answers]
    predictions.add_batch_predictions(rig.database, [{name: row[name] for name in columns} for row in rows])
    yield True, of_results(rig, "prediction_drift", *answers)
    yield False, of_results(rig, "prediction_drift", *(prediction(track) for track in MANY))


@case("streaming_results", "batch_checks")
def checks_of_ranges(rig: Rig) -> Iterator[tuple[bool, Result]]:
    rig.send("a", "b")
    work = RangeWork(rig.settings, rig.lake, rig.database)
    rig.commit(key(0, 2), "a", "b", checks=(work._complete(key(0, 2), ["a", "b"]),))
    yield True, of_results(rig, "batch_checks", prediction("a"))
    rig.send("c", "d", offset=2)
    lacking = work._complete(key(2, 4), ["c"])
    assert lacking.actual == "1 has none: /drop/d"
    rig.commit(key(2, 4), "c", checks=(lacking,))
    yield False, of_results(rig, "batch_checks", prediction("a"))


# ----------------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize(("asset", "check"), CASES)
def test_it_fails_where_it_must_and_passes_beside_it(rig: Rig, asset: str, check: str) -> None:
    expected, found = zip(
        *((passes, result.passed) for passes, result in CASES[asset, check](rig)),
        strict=True,
    )
    assert found == expected
    assert set(expected) == {True, False}, "a case shows both"


OF_A_TOPIC = {
    (found.asset.to_user_string(), found.name)
    for found in stream_checks.stream_checks(Stream(Settings(more_streams=()).streams[0]))
}
"""Checks of what Kafka and the ledger hold, whichever dataset's champion scored it."""


@pytest.mark.parametrize(("asset", "check"), [found for found in CASES if found not in OF_A_TOPIC])
def test_it_says_which_dataset_it_judged(rig: Rig, asset: str, check: str) -> None:
    for _, result in CASES[asset, check](rig):
        assert isinstance(result, dg.AssetCheckResult)
        assert result.metadata["dataset"].value == "mine"
        assert (result.description or "").startswith("dataset mine: ")


def defined(tmp_path: Path) -> dict[tuple[str, str], bool]:
    """Return the checks of both code locations, and whether each is blocking."""
    settings = Settings(state_dir=tmp_path)
    graphs = [build(settings=settings).resolve_asset_graph() for build in (build_batch, build_stream)]
    return {
        (found.asset_key.to_user_string(), found.name): graph.get(found).blocking
        for graph in graphs
        for found in graph.asset_check_keys
    }


def test_every_check_has_a_case(tmp_path: Path) -> None:
    assert CASES.keys() == defined(tmp_path).keys()


def test_every_check_has_its_line_in_the_docs(tmp_path: Path) -> None:
    text = (PROJECT_DIR / "docs" / "checks.md").read_text()
    lines = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    severities = {(asset, check): severity for asset, check, _, _, severity, _ in lines}
    there = defined(tmp_path)
    assert len(lines) == len(severities)
    assert severities.keys() == there.keys()
    assert {name for name, severity in severities.items() if "blocks" in severity} == {
        name for name, blocks in there.items() if blocks
    }


@pytest.mark.parametrize(("asset", "check"), CASES)
def test_the_docs_say_how_severe_a_failure_is(rig: Rig, asset: str, check: str) -> None:
    text = (PROJECT_DIR / "docs" / "checks.md").read_text()
    (row,) = re.findall(rf"^\| `{asset}` \| `{check}` \|.*$", text, re.MULTILINE)
    told = {result.severity for passes, result in CASES[asset, check](rig) if not passes}
    severity = row.split(" | ")[4]
    assert {name for name in ("error", "warning") if name in severity} == {
        {dg.AssetCheckSeverity.ERROR: "error", dg.AssetCheckSeverity.WARN: "warning"}[found] for found in told
    }

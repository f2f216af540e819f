"""The work on a range, without an engine: what a commit holds when the lake takes nothing."""

import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from genres.audio.clip_features import Clip
from genres.audio.gtzan57 import GTZAN57
from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import ranges, results
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from spark.isolation import OutOfTimeError
from streaming_sensors import range_work
from streaming_sensors.range_work import RangeWork, StoredFeatures, judged_by

KEY = PartitionKey("audio_clips", "A", 0, 0, 2)
LIMITED = dict.fromkeys(("addTag", "removeTag", "registerProgressHandler", "removeProgressHandler"), lambda _: None)
"""What a session is asked for where its jobs are interrupted when they are stuck."""


@pytest.mark.parametrize("failure", [OSError("403: the space quota is exceeded"), GenresError("HDFS is away")])
def test_a_refused_clips_row_does_not_wait_for_its_bytes(tmp_path: Path, failure: Exception) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    ranges.record_plan(database, Plan(new=(Attempt(KEY),)))

    def fail(path: str) -> bool:
        raise failure

    lake: Any = SimpleNamespace(path=lambda *parts: "/".join(parts), files=SimpleNamespace(exists=fail))
    about = {"suffix": ".wav", "reason": "cut"}
    clips = [
        {**about, "kafka_offset": 0, "sha256": "a", "file_name": "a.wav", "genre": "rock", "reason_code": "cut_short"},
        {**about, "kafka_offset": 1, "sha256": "b", "file_name": "b.wav", "genre": None, "reason_code": None},
    ]
    scorer: Any = SimpleNamespace(
        model=SimpleNamespace(name="genres-mine", version=1, feature_version="gtzan57-9"), genres=["jazz", "rock"]
    )
    spark: Any = None
    work = RangeWork(Settings(state_dir=tmp_path), lake, database)
    features = StoredFeatures("/features", pa.Table.from_pylist(clips), 0.0)
    done = work.predict_and_commit(KEY, features, scorer, spark=spark, run_id="r", token=None)
    assert (done.new_predictions, done.new_quarantine) == (0, 2)
    assert ranges.find(database, KEY).state == "committed"
    rows = results.quarantine(database, topic="audio_clips")
    assert [(row["sha256"], row["genre"], row["kept_path"]) for row in rows] == [("a", "rock", None), ("b", None, None)]
    assert {row["judged_by"] for row in rows} == {judged_by("gtzan57-9")}
    # Features that were stored before codes were have none.
    assert [(row["reason"], row["reason_code"]) for row in rows] == [("cut", "cut_short"), ("cut", "")]


def test_a_clip_that_kills_its_worker_has_a_row_with_the_reasons_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any, **__: Any) -> pa.Table:
        raise RuntimeError("Python worker exited unexpectedly (crashed)")

    about = {"kafka_partition": 0, "kafka_offset": 1, "file_name": "b.wav", "suffix": ".wav"}
    monkeypatch.setattr(RangeWork, "_extract", dies)
    monkeypatch.setattr(RangeWork, "_message", lambda *_: Clip(about, ".wav", b"bytes"))
    monkeypatch.setattr(range_work, "check_engine", lambda *_, **__: None)
    nothing: Any = None
    work = RangeWork(Settings(state_dir=tmp_path), nothing, nothing)
    (row,) = work._isolated(KEY.between(1, 2), GTZAN57, nothing, lambda: None).to_pylist()
    assert (row["kafka_offset"], row["length"]) == (1, None)
    assert row["reason"] == "killed its worker 3 times, alone, while known-good clips passed"
    assert row["reason_code"] == "killed_worker"


def test_many_features_are_scored_in_several_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[list[int]] = []
    monkeypatch.setattr(range_work, "named_jobs", lambda *_: nullcontext())

    class Frame:
        def __init__(self, rows: pa.Table) -> None:
            self.offsets = rows.filter(pc.field("window").is_null())["kafka_offset"].to_pylist()
            jobs.append(self.offsets)

        def coalesce(self, tasks: int) -> "Frame":
            assert tasks == 1
            return self

    about: dict[str, Any] = {"sha256": "a", "file_name": "a.wav", "genre": None, "created_at": datetime.now(UTC)}
    values = {**about, **dict.fromkeys(GTZAN57.columns, 0.5)}
    windows = {GTZAN57.windows_columns[0]: [[0.5] * len(GTZAN57.columns)] * 3}
    good = pa.Table.from_pylist([{**values, **windows, "kafka_offset": offset} for offset in range(10)])
    good = good.set_column(
        good.schema.get_field_index(GTZAN57.windows_columns[0]),
        GTZAN57.windows_columns[0],
        good[GTZAN57.windows_columns[0]].cast(pa.list_(pa.list_(pa.float32()))),
    )
    spark: Any = SimpleNamespace(createDataFrame=Frame, **LIMITED)
    scorer: Any = SimpleNamespace(
        feature_set=GTZAN57,
        rows=lambda frame, keep: [
            {"kafka_offset": offset, "predicted_genre": f"{offset}"} for offset in reversed(frame.offsets)
        ],
    )
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    lake: Any = None
    work = RangeWork(Settings(state_dir=tmp_path), lake, database)
    expected = [(offset, f"{offset}") for offset in range(10)]
    for limit, sizes in ((good.nbytes, [10]), (good.nbytes // 3, [3, 3, 3, 1]), (1, [1] * 10)):
        monkeypatch.setattr(range_work, "_SCORED_BYTES", limit)
        jobs.clear()
        rows = work._predictions(KEY, good, scorer, spark)
        assert [(row["kafka_offset"], row["predicted_genre"]) for row in rows] == expected
        assert [len(offsets) for offsets in jobs] == sizes


def test_scoring_that_is_stuck_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the run would wait for ever, and hold its lease."""
    monkeypatch.setattr(range_work, "named_jobs", lambda *_: nullcontext())
    monkeypatch.setattr("spark.over_time.window_rows", lambda *_, **__: [1])
    interrupted = threading.Event()

    def rows(*_: object, **__: object) -> list[Any]:
        assert interrupted.wait(30), "nobody interrupts it"
        raise RuntimeError("OPERATION_CANCELED")

    frame = SimpleNamespace(coalesce=lambda _: None)
    spark: Any = SimpleNamespace(createDataFrame=lambda _: frame, interruptTag=lambda _: interrupted.set(), **LIMITED)
    scorer: Any = SimpleNamespace(feature_set=None, rows=rows)
    settings = Settings(state_dir=tmp_path).model_copy(update={"range_limit_s": 0.05})
    lake: Any = None
    work = RangeWork(settings, lake, Database(f"sqlite:///{tmp_path / 'genres.db'}"))
    with pytest.raises(OutOfTimeError):
        work._predictions(KEY, pa.table({"kafka_offset": [0]}), scorer, spark)

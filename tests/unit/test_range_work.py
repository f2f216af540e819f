"""The work on a range, without an engine: what a commit holds when the lake takes nothing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import ranges, results
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from streaming_sensors.range_work import RangeWork, StoredFeatures, judged_by

KEY = PartitionKey("audio_clips", "A", 0, 0, 2)


@pytest.mark.parametrize("failure", [OSError("403: the space quota is exceeded"), GenresError("HDFS is away")])
def test_a_refused_clips_row_does_not_wait_for_its_bytes(tmp_path: Path, failure: Exception) -> None:
    database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
    database.migrate()
    ranges.record_plan(database, Plan(new=(Attempt(KEY),)))

    def fail(path: str) -> bool:
        raise failure

    lake: Any = SimpleNamespace(path=lambda *parts: "/".join(parts), files=SimpleNamespace(exists=fail))
    clips = [
        {"kafka_offset": 0, "sha256": "a", "file_name": "a.wav", "suffix": ".wav", "genre": "rock", "reason": "cut"},
        {"kafka_offset": 1, "sha256": "b", "file_name": "b.wav", "suffix": ".wav", "genre": None, "reason": "text"},
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

"""Every clip ends in one row, with features or with a reason; what cannot be fetched fails instead."""

import hashlib
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile

from genres.audio.clip_features import Clip, clip_features, features_of_files, published_table
from genres.audio.gate import RejectedAudio
from genres.audio.gtzan57 import GTZAN57 as FEATURES
from genres.errors import GenresError
from genres.settings import PROJECT_DIR
from genres.store.hdfs_access import HdfsAccess
from genres.store.schemas import GENRE, TRACK_ID, Column, audio_features
from spark.clip_source import WebHdfsClips
from spark.extraction import feature_batches
from tests.http_server import served
from tests.tiny_features import KILLS, TREACHEROUS

LIMITS = {"feature_set": FEATURES, "max_clip_s": 5.0}
COLUMNS = ["track_id", "genre", "length", *FEATURES.columns, "windows_gtzan57", "sha256", "feature_version"]
COLUMNS += ["reason", "reason_code"]


@dataclass(frozen=True)
class FolderClips:
    """A source as streaming will have it: a row names several clips."""

    columns: tuple[Column, ...] = (TRACK_ID, GENRE)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        for row in rows:
            folder = Path(row["folder"])
            for path in sorted(folder.iterdir()):
                yield Clip({"track_id": path.stem, "genre": folder.name}, path.suffix, path.read_bytes())


@pytest.fixture
def blues(tmp_path: Path) -> Path:
    """Two good clips, a text file, one that is too short and one that is too long."""
    folder = tmp_path / "blues"
    folder.mkdir()
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 6 * 22_050)
    soundfile.write(folder / "a.wav", noise[:22_050], 22_050)
    soundfile.write(folder / "b.flac", noise[:30_000], 44_100)
    (folder / "c.wav").write_text("not audio")
    soundfile.write(folder / "d.wav", noise[:1_000], 22_050)
    soundfile.write(folder / "e.wav", noise, 22_050)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_each_clip_is_a_row_with_features_or_a_reason(blues: Path) -> None:
    batches = [pa.RecordBatch.from_pydict({"folder": folders}) for folders in ([str(blues)], [])]
    found, empty = feature_batches(batches, source=FolderClips(), **LIMITS)
    assert found.schema.names == COLUMNS
    stored = audio_features(FEATURES.columns, FEATURES.windows_columns)
    assert set(found.schema.names) - {"reason", "reason_code"} == set(stored.names)
    assert found.schema == empty.schema
    assert empty.num_rows == 0

    full = found.to_pandas()
    assert full["track_id"].tolist() == ["a", "b", "c", "d", "e"]
    assert full["sha256"].tolist() == [sha256(path) for path in sorted(blues.iterdir())]
    assert set(full["feature_version"]) == {FEATURES.feature_version}
    good, bad = full[:2], full[2:]
    assert good["reason"].isna().all()
    assert good["length"].tolist() == [22_050, 15_000]
    assert np.isfinite(good[list(FEATURES.columns)]).all(axis=None)
    assert bad[["length", *FEATURES.columns, "windows_gtzan57"]].isna().all(axis=None)
    for reason, part in zip(bad["reason"], ["not a WAV file", "features need 0.093 s", "at most 5 s"], strict=True):
        assert part in reason


def test_a_task_can_be_pickled_to_the_workers() -> None:
    task = (feature_batches, WebHdfsClips(HdfsAccess("http://127.0.0.1:1", "genres")), FEATURES)
    assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301


def test_a_clip_has_the_columns_of_its_set_and_is_judged_by_its_suffix(blues: Path) -> None:
    clip = clip_features((blues / "a.wav").read_bytes(), file_suffix=".wav", **LIMITS)
    assert (clip.length, clip.sha256) == (22_050, sha256(blues / "a.wav"))
    assert sorted(clip.values) == sorted(FEATURES.columns)
    with pytest.raises(RejectedAudio, match=r"a WAV file named \.au"):
        clip_features((blues / "a.wav").read_bytes(), file_suffix=".au", **LIMITS)


def test_local_files_give_the_same_rows_over_one_process_and_two(blues: Path) -> None:
    paths = [*sorted(blues.iterdir()), blues / "gone.wav"]
    rows = list(features_of_files(paths, workers=1, **LIMITS))
    assert [row["filename"] for row in rows] == [path.name for path in paths]
    assert [row["reason"] is None for row in rows] == [True, True, False, False, False, False]
    assert rows[-1]["reason"] == "the file cannot be read: No such file or directory"
    assert [row["reason_code"] for row in rows[-2:]] == ["too_long", "cannot_read"]
    assert {row["genre"] for row in rows} == {"blues"}
    spread = list(features_of_files(paths, workers=2, **LIMITS))
    pd.testing.assert_frame_equal(pd.DataFrame(rows), pd.DataFrame(spread))


def square(path: Path, height: float) -> None:
    wave = np.where(np.arange(22_050) % 100 < 50, height, -height)
    soundfile.write(path, wave, 22_050, subtype="FLOAT")


@pytest.mark.parametrize("killers", [{3}, {0, 8}, {4, 5, 6}])
def test_a_file_that_ends_its_process_has_a_reason_and_the_others_their_features(
    killers: set[int], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(9)]
    for number, path in enumerate(paths):
        square(path, KILLS if number in killers else 0.5)
    rows = list(features_of_files(paths, feature_set=TREACHEROUS, max_clip_s=60, workers=2))
    assert [row["filename"] for row in rows] == [path.name for path in paths]
    assert {number for number, row in enumerate(rows) if row["reason"] is not None} == killers
    for number in killers:
        assert rows[number]["reason"] == "it ended the process that computed its features, also alone"
        assert rows[number]["reason_code"] == "ended_process"
        about = {"filename", "track_id", "genre", "sha256", "feature_version", "reason", "reason_code"}
        assert rows[number].keys() == about
    good = [row for row in rows if row["reason"] is None]
    assert [row["tiny_rms"] for row in good] == [pytest.approx(0.5, abs=0.01)] * len(good)


def test_published_table_has_the_published_columns(blues: Path) -> None:
    rows = pd.DataFrame(features_of_files(sorted(blues.iterdir()), workers=1, **LIMITS))
    table = published_table(rows, FEATURES)
    assert list(table.columns) == ["filename", "length", *FEATURES.columns, "label"]
    assert table["filename"].tolist() == ["a.wav", "b.flac"]
    assert table["label"].tolist() == ["blues", "blues"]
    from_lake = published_table(rows.drop(columns="filename"), FEATURES)
    assert from_lake["filename"].tolist() == ["a.wav", "b.wav"]


def test_nothing_heavy_is_imported_before_a_feature_is_computed() -> None:
    code = (
        "import sys, spark.extraction, spark.clip_source\n"
        "import genres.audio.feature_sets, genres.audio.gate, genres.audio.decode, genres.audio.clip_features\n"
        "sys.exit(','.join({'librosa', 'numpy', 'pandas', 'pyspark', 'requests', 'soundfile'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, check=False)
    assert run.stderr.strip() == ""


@contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[str]:
    """An HTTP server that gives these answers in turn, over and over; yields its address."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[len(requested) % len(answers)]
            requested.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as url:
        yield url


def remote_exception(name: str, message: str) -> bytes:
    return json.dumps({"RemoteException": {"exception": name, "message": message, "javaClassName": ""}}).encode()


def manifest(data: bytes) -> list[dict[str, str]]:
    digest = hashlib.sha256(data).hexdigest()
    return [{"track_id": "a", "genre": "blues", "path": "/lake/blues/a b.wav", "sha256": digest}]


def test_a_fetch_is_tried_again_until_hdfs_answers() -> None:
    with answering((503, b""), (200, b"the bytes")) as url:
        (clip,) = WebHdfsClips(HdfsAccess(url, "genres")).clips(manifest(b"the bytes"))
    assert clip == Clip({"track_id": "a", "genre": "blues"}, ".wav", b"the bytes")


def test_an_outage_fails_and_quarantines_nothing() -> None:
    nobody = WebHdfsClips(HdfsAccess("http://127.0.0.1:1", "genres"), give_up_after_s=0.1)
    with pytest.raises(GenresError, match=r"HDFS at http://127.0.0.1:1 does not give /lake/blues/a b.wav"):
        list(feature_batches([pa.RecordBatch.from_pylist(manifest(b"the bytes"))], source=nobody, **LIMITS))


def test_a_file_that_is_gone_or_changed_fails() -> None:
    gone = remote_exception("FileNotFoundException", "File does not exist")
    with answering((404, gone)) as url, pytest.raises(GenresError, match=r"has no /lake/blues/a b\.wav"):
        list(WebHdfsClips(HdfsAccess(url, "genres")).clips(manifest(b"the bytes")))
    with answering((200, b"other bytes")) as url, pytest.raises(GenresError, match="is not the file in the manifest"):
        list(WebHdfsClips(HdfsAccess(url, "genres")).clips(manifest(b"the bytes")))


def test_a_404_of_somebody_elses_is_an_outage_and_does_not_say_that_a_file_is_gone() -> None:
    page = b"<html>404 Not Found, nginx</html>"
    with answering((404, page), (200, b"the bytes")) as url:
        (clip,) = WebHdfsClips(HdfsAccess(url, "genres")).clips(manifest(b"the bytes"))
    assert clip.data == b"the bytes"
    with answering((404, page)) as url, pytest.raises(GenresError, match=r"does not give .* fix GENRES_WEBHDFS_URL"):
        list(WebHdfsClips(HdfsAccess(url, "genres"), give_up_after_s=0.1).clips(manifest(b"the bytes")))


@pytest.mark.parametrize(
    ("status", "exception", "line"),
    [
        (403, "AccessControlException", "Permission denied: user=genres"),
        (500, "IOException", "no such codec"),
        (400, "IllegalArgumentException", "no such offset"),
    ],
)
def test_what_hdfs_refuses_is_said_at_once_and_is_no_fault_of_the_clip(status: int, exception: str, line: str) -> None:
    with (
        answering((status, remote_exception(exception, line)), (200, b"the bytes")) as url,
        pytest.raises(GenresError, match=f"does not.*{line}"),
    ):
        list(WebHdfsClips(HdfsAccess(url, "genres")).clips(manifest(b"the bytes")))


def test_silence_has_features(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(22_050), 22_050)
    clip = clip_features((tmp_path / "silence.wav").read_bytes(), file_suffix=".wav", **LIMITS)
    assert clip.values["rms_mean"] == clip.values["tempo"] == 0.0
    assert all(math.isfinite(value) for value in clip.values.values())

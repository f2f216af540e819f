"""Bringing clips to HDFS: what is wrong with one file is its row, what is wrong with its disk ends the asset."""

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from fsspec.implementations.local import LocalFileSystem

from genre_assets import raw_audio as module
from genre_assets.raw_audio import upload_clips
from genres.audio.known_good import known_good_wav
from genres.datasets.folder import LabelledFile
from genres.errors import GenresError
from genres.settings import Settings
from genres.store.batch_tables import BatchTables
from genres.store.database import Database
from genres.store.lake import Lake


class Rig:
    """A folder of two clips, and where they are brought."""

    def __init__(self, tmp_path: Path) -> None:
        self.music = tmp_path / "music"
        self.files = []
        for genre in ("blues", "metal"):
            path = self.music / genre / "a.wav"
            path.parent.mkdir(parents=True)
            path.write_bytes(known_good_wav())
            self.files.append(LabelledFile(f"{genre}.a", genre, path, path.name))
        database = Database(f"sqlite:///{tmp_path / 'genres.db'}")
        lake = Lake(cast("Any", LocalFileSystem(auto_mkdir=True)), hdfs="", root=str(tmp_path / "lake"))
        self.tables = BatchTables(lake, database, "music")

    def rows(self, *more: LabelledFile, max_clip_s: float = 60) -> list[dict[str, Any]]:
        files = [*self.files, *more]
        return [row for row, _ in upload_clips(files, self.tables, None, Settings(max_clip_s=max_clip_s))]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def failing(monkeypatch: pytest.MonkeyPatch, method: str, number: int) -> None:
    """Let the system refuse to read the blues; rights keep nothing from root, whom tests may run as."""
    real = getattr(Path, method)

    def refused(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.parent.name == "blues" and path.suffix == ".wav":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, method, refused)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOENT, errno.EISDIR])
def test_a_file_that_cannot_be_read_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing(monkeypatch, "read_bytes", number)
    blues, metal = rig.rows()
    assert blues["status"] == "quarantined"
    assert blues["reason"] == f"the file cannot be read: {os.strerror(number)}"
    assert blues["reason_code"] == "cannot_read"
    assert (metal["status"], metal["reason_code"]) == ("accepted", None)


def test_a_file_behind_a_broken_path_is_refused(rig: Rig) -> None:
    (rig.music / "loop.wav").symlink_to("loop.wav")
    paths = [rig.music / "loop.wav", rig.music / "blues" / "a.wav" / "b.wav", rig.music / f"{'n' * 300}.wav"]
    refused = rig.rows(*(LabelledFile(f"{place}", "blues", path, path.name) for place, path in enumerate(paths)))[2:]
    numbers = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)
    assert [row["reason"] for row in refused] == [
        f"the file cannot be read: {os.strerror(number)}" for number in numbers
    ]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
@pytest.mark.parametrize("method", ["stat", "read_bytes"])
def test_a_disk_that_fails_is_no_fault_of_the_clips(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    """Were it, the manifest would be published without the clips that were on it."""
    failing(monkeypatch, method, number)
    with pytest.raises(GenresError, match=rf"blues/a\.wav cannot be read \({os.strerror(number)}\), .* nothing was"):
        rig.rows()


@pytest.mark.parametrize("most", [2, 1, 0])
def test_the_threads_hold_so_many_bytes_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    size = len(known_good_wav())
    monkeypatch.setattr(module, "_HELD_BYTES", most * size)
    more = []
    for number in range(20):
        path = rig.music / "blues" / f"{number}.wav"
        path.write_bytes(known_good_wav())
        more.append(LabelledFile(f"blues.{number}", "blues", path, path.name))
    held, highest, lock = 0, 0, threading.Lock()
    read_bytes, put_clip = Path.read_bytes, Lake.put_clip

    def read(path: Path) -> bytes:
        nonlocal held, highest
        with lock:
            held += 1
            highest = max(highest, held)
        time.sleep(0.01)  # for the other threads to come as far
        return read_bytes(path)

    def put(lake: Lake, path: str, data: bytes) -> None:
        nonlocal held
        put_clip(lake, path, data)
        with lock:
            held -= 1

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(Lake, "put_clip", put)
    rows = rig.rows(*more)
    assert [row["status"] for row in rows] == ["accepted"] * 22
    assert 1 <= highest <= max(most, 1)


def test_a_file_that_is_too_large_may_be_unreadable_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in rig.files:
        os.truncate(file.path, 2**25)
    rows = rig.rows(max_clip_s=1)
    assert all("bytes; 1 s of audio may have" in row["reason"] for row in rows)
    assert {row["reason_code"] for row in rows} == {"too_many_bytes"}
    failing(monkeypatch, "open", errno.EACCES)
    blues, metal = rig.rows(max_clip_s=1)
    assert blues["reason"] == f"the file cannot be read: {os.strerror(errno.EACCES)}"
    assert "bytes; 1 s of audio may have" in metal["reason"] and metal["sha256"]


def test_a_size_is_asked_for_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a share each question is a round trip, and two answers may differ."""
    asked: list[str] = []
    real = Path.stat

    def stat(path: Path, **named: Any) -> os.stat_result:
        if path.is_relative_to(rig.music):
            asked.append(path.parent.name)
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    assert [row["status"] for row in rig.rows()] == ["accepted", "accepted"]
    assert sorted(asked) == ["blues", "metal"]

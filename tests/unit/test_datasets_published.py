"""Another published dataset: its facts and a line in the list are all that the scan, the split and the asset need."""

import hashlib
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from genre_assets.raw_audio import published_checksums
from genres.datasets import published_datasets
from genres.datasets.folder import dataset_id, scan
from genres.datasets.gtzan import GTZAN
from genres.datasets.published_dataset import PublishedDataset, PublishedTrack
from genres.datasets.split import EXCLUDED, HASHED, split_tracks


def original(track_id: str) -> bytes:
    return f"the original bytes of {track_id}".encode()


TRACKS = {
    f"{genre}.{part}": PublishedTrack(
        f"{genre}.{part}", genre, hashlib.md5(original(f"{genre}.{part}"), usedforsecurity=False).hexdigest(), part
    )
    for genre in ("dub", "ska")
    for part in ("train", "valid", "test", "")
}
TINY = PublishedDataset(name="tiny", title="Tiny", split_name="hand-picked", read_tracks=lambda: TRACKS)


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_datasets, "PUBLISHED", (GTZAN, TINY))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for track in TRACKS.values():
        path = tmp_path / "anything" / track.genre / f"{track.track_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(original(track.track_id))
    return tmp_path / "anything"


def manifest(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "track_id": file.track_id,
                "genre": file.genre,
                "sha256": hashlib.sha256(file.path.read_bytes()).hexdigest(),
                "md5": hashlib.md5(file.path.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for file in scan(folder).files
        ]
    )


def checks(folder: Path) -> dict[str | None, dg.AssetCheckResult]:
    return {result.check_name: result for result in published_checksums(manifest(folder), dataset="own")}


def test_its_folder_has_its_id(folder: Path) -> None:
    assert dataset_id(folder, scan(folder).files) == "tiny"
    (folder / "ska" / "mine.wav").touch()
    assert dataset_id(folder, scan(folder).files) == "anything"


@pytest.mark.parametrize("name", ["gtzan", "tiny", "Tiny"])
def test_a_folder_merely_called_like_one_does_not_get_its_id(tmp_path: Path, name: str) -> None:
    for genre in ("ska", "dub"):
        (tmp_path / name / genre).mkdir(parents=True)
        for n in range(3):
            (tmp_path / name / genre / f"{n}.wav").touch()
    assert dataset_id(tmp_path / name, scan(tmp_path / name).files) == f"own_{name.lower()}"


def test_its_published_split_is_taken(folder: Path) -> None:
    split = split_tracks(manifest(folder))
    assert split.method == "hand-picked"
    assert split.why == ("Tiny's published hand-picked split: all names are Tiny's and every genre is in every part.")
    table = split.table.set_index("track_id")
    assert table["part"].to_dict() == {name: track.part or EXCLUDED for name, track in TRACKS.items()}
    assert table.loc["ska.", "reason"] == "left out by the hand-picked split"


def test_where_its_split_leaves_gaps_the_tracks_are_stratified(folder: Path) -> None:
    (folder / "ska" / "ska.test.wav").unlink()
    split = split_tracks(manifest(folder))
    assert split.method == HASHED
    assert "of the Tiny tracks at hand, the hand-picked split would leave 1 gaps" in split.why
    assert "ska has no test track" in split.why


def test_other_tracks_are_said_to_be_of_none(folder: Path) -> None:
    (folder / "ska" / "mine.wav").write_bytes(b"mine")
    assert split_tracks(manifest(folder)).why.endswith("the tracks are not GTZAN's or Tiny's.")


def test_its_files_are_compared_with_the_originals(folder: Path) -> None:
    results = checks(folder)
    assert results.keys() == {"gtzan_checksums", "tiny_checksums"}
    assert all(result.passed for result in results.values())
    assert results["gtzan_checksums"].metadata["actual"].value == "the names are not GTZAN's"

    (folder / "ska" / "ska.train.wav").write_bytes(b"another recording")
    (folder / "dub" / "dub.test.wav").unlink()
    results = checks(folder)
    assert results["gtzan_checksums"].passed
    assert not results["tiny_checksums"].passed
    assert results["tiny_checksums"].metadata["actual"].value == "1 differ, 1 of Tiny's 8 are not here"
    assert results["tiny_checksums"].metadata["different"].value == ["ska.train"]

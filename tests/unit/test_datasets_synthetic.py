"""Synthetic clips: the same bytes every time, whole files only, never mistaken for music."""

import hashlib
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from genres.datasets import gtzan
from genres.datasets.folder import SYNTHETIC_MARKER, dataset_id, scan
from genres.datasets.synthetic import GENRES, SAMPLE_RATE, synthesise, write_clips
from genres.errors import GenresError


def write(folder: Path, seed: int = 1) -> list[tuple[int, int]]:
    """Write three half-second clips of each genre; gives the progress that was reported."""
    progress: list[tuple[int, int]] = []
    write_clips(
        folder,
        clips_per_genre=3,
        clip_s=0.5,
        seed=seed,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    return progress


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.wav"))
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    assert write(folder) == [(done, 30) for done in range(31)]
    return folder


@pytest.fixture
def copy(tmp_path: Path, written: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copy")


def test_genres_are_gtzans() -> None:
    assert set(GENRES) == {track.genre for track in gtzan.tracks().values()}


@pytest.mark.parametrize("genre", GENRES)
def test_clip_is_sound_of_the_length_asked_for(genre: str) -> None:
    clip = synthesise(genre, 0, clip_s=4, seed=0)
    assert clip.dtype == np.int16
    assert clip.shape == (4 * SAMPLE_RATE,)
    assert 300 < np.std(clip.astype(float)) < 20_000
    # Sound throughout, not a click and silence.
    halves = clip.astype(float).reshape(8, -1).std(axis=1)
    assert (halves > 0.03 * halves.max()).sum() >= 4


def test_seed_genre_and_index_decide_the_clip() -> None:
    clip = synthesise("jazz", 1, clip_s=1, seed=5)
    assert np.array_equal(clip, synthesise("jazz", 1, clip_s=1, seed=5))
    for other in (("jazz", 2, 5), ("rock", 1, 5), ("jazz", 1, 6)):
        assert not np.array_equal(clip, synthesise(other[0], other[1], clip_s=1, seed=other[2]))


def test_folder_reads_back_as_synthetic(written: Path) -> None:
    found = scan(written)
    files = found.files
    assert (len(files), found.passed_over.by_reason()) == (30, {})
    assert files[0].track_id == "synthetic_blues.00000"
    assert dataset_id(written, files) == "synthetic"
    assert json.loads((written / SYNTHETIC_MARKER).read_text())["synthetic"] is True
    with wave.open(str(files[0].path)) as clip:
        assert clip.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE // 2)
        samples = np.frombuffer(clip.readframes(SAMPLE_RATE), dtype="<i2")
    # Made in another process.
    assert np.array_equal(samples, synthesise("blues", 0, clip_s=0.5, seed=1))


def test_second_run_makes_nothing(copy: Path) -> None:
    assert write(copy) == [(30, 30)]


def test_lost_clips_are_made_again_and_the_rest_kept(copy: Path, written: Path) -> None:
    (copy / "rock" / "synthetic_rock.00000.wav").write_bytes(b"not made again")
    (copy / "jazz" / "synthetic_jazz.00002.wav").unlink()
    assert write(copy) == [(29, 30), (30, 30)]
    expected = hashes(written)
    assert {name for name, sha256 in hashes(copy).items() if sha256 != expected[name]} == {
        "rock/synthetic_rock.00000.wav"
    }


def test_another_seed_replaces_all_clips_and_nothing_else(copy: Path, written: Path) -> None:
    (copy / "rock" / "mine.txt").write_text("mine")
    assert write(copy, seed=2)[0] == (0, 30)
    assert hashes(copy).keys() == hashes(written).keys()
    assert not set(hashes(copy).values()) & set(hashes(written).values())
    assert (copy / "rock" / "mine.txt").read_text() == "mine"


def test_somebody_elses_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rock").mkdir()
    mine = tmp_path / "rock" / "mine.wav"
    mine.write_bytes(b"mine")
    with pytest.raises(GenresError, match="holds files that were not synthesised"):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]

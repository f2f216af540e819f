"""GTZAN's facts: numbers that its literature gives, and the real clips where they are at hand."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from genres.datasets import gtzan
from genres.datasets.folder import dataset_id, scan
from genres.datasets.gtzan import GTZAN
from genres.datasets.published_dataset import Validation
from genres.settings import PROJECT_DIR

SAMPLE_AUDIO = PROJECT_DIR.parent / "shared" / "data" / "gtzan" / "sample_audio"
real_clips = pytest.mark.skipif(
    not SAMPLE_AUDIO.is_dir(), reason="no real GTZAN clips beside the project; they are not part of it"
)


def test_a_thousand_tracks_of_ten_genres() -> None:
    tracks = gtzan.tracks()
    assert list(tracks) == [
        f"{genre}.{n:05d}" for genre in sorted({t.genre for t in tracks.values()}) for n in range(100)
    ]
    assert set(Counter(track.genre for track in tracks.values()).values()) == {100}
    assert len(tracks) == 1000
    assert all(len(track.md5) == 32 and int(track.md5, 16) >= 0 for track in tracks.values())


def test_sizes_of_the_fault_filtered_split() -> None:
    parts = Counter(track.part for track in gtzan.tracks().values())
    assert parts == {"train": 443, "valid": 197, "test": 290, "": 70}


def test_fourteen_identical_pairs() -> None:
    pairs = identical_pairs()
    assert len(pairs) == 14
    assert len({track for pair in pairs for track in pair}) == 28
    tracks = gtzan.tracks()
    assert [pair for pair in pairs if tracks[pair[0]].genre != tracks[pair[1]].genre] == [("metal.00058", "rock.00016")]


def test_the_fault_filtered_split_lists_one_of_each_identical_pair() -> None:
    tracks = gtzan.tracks()
    listed = [[bool(tracks[track].part) for track in pair] for pair in identical_pairs()]
    assert listed == [[False, True]] * 14


def test_validate_tells_missing_different_and_unknown() -> None:
    md5 = {track_id: track.md5 for track_id, track in gtzan.tracks().items()}
    assert GTZAN.validate(md5) == Validation(missing=[], different=[], unknown=[])
    del md5["rock.00099"], md5["blues.00000"]
    md5["jazz.00054"] = "0" * 32
    md5["polka.00000"] = "0" * 32
    assert GTZAN.validate(md5) == Validation(
        missing=["blues.00000", "rock.00099"], different=["jazz.00054"], unknown=["polka.00000"]
    )


def test_gtzan_takes_name_and_genre() -> None:
    assert GTZAN.recognises([("blues.00000", "blues")])
    assert not GTZAN.recognises([("blues.00000", "blues"), ("blues.00100", "blues")])
    assert not GTZAN.recognises([("blues.00000", "jazz")])
    assert not GTZAN.recognises([])


@real_clips
def test_real_clips_are_the_originals() -> None:
    files = scan(SAMPLE_AUDIO).files
    assert dataset_id(SAMPLE_AUDIO, files) == "gtzan"
    found = GTZAN.validate(
        {file.track_id: hashlib.md5(Path(file.path).read_bytes()).hexdigest() for file in files}  # noqa: S324
    )
    assert (len(found.missing), found.different, found.unknown) == (1000 - len(files), [], [])


def identical_pairs() -> list[tuple[str, str]]:
    """Return the pairs of tracks whose original files are byte for byte the same, sorted."""
    by_md5: dict[str, list[str]] = defaultdict(list)
    for track in gtzan.tracks().values():
        by_md5[track.md5].append(track.track_id)
    return sorted((group[0], group[1]) for group in by_md5.values() if len(group) > 1)

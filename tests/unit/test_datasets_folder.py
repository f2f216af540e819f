"""The folder loader: what is a clip, what it is called, and what is said about folders that cannot be used."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genres.datasets.folder import FolderScan, dataset_id, notices, safe_name, scan
from genres.errors import GenresError


def fill(folder: Path, *names: str | bytes) -> Path:
    """Make empty files; the scan reads names only."""
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))  # noqa: PTH118
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def two_genres(folder: Path) -> Path:
    return fill(folder, *(f"{genre}/{genre}.0000{n}.wav" for genre in ("jazz", "blues") for n in range(3)))


def ids(found: FolderScan) -> list[str]:
    return [file.track_id for file in found.files]


def test_scan_is_sorted_and_complete(tmp_path: Path) -> None:
    found = scan(two_genres(tmp_path))
    assert ids(found) == [
        "blues.00000",
        "blues.00001",
        "blues.00002",
        "jazz.00000",
        "jazz.00001",
        "jazz.00002",
    ]
    first = found.files[0]
    assert (first.genre, first.file_name) == ("blues", "blues.00000.wav")
    assert first.path == tmp_path.resolve() / "blues" / "blues.00000.wav"
    assert found.passed_over.by_reason() == {}


def test_every_suffix_in_either_case_is_audio(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "jazz/a.WAV", "jazz/b.au", "jazz/c.Flac", "jazz/d.mp3", "jazz/e.ape")
    found = scan(tmp_path)
    assert ids(found)[-4:] == ["jazz.a", "jazz.b", "jazz.c", "jazz.d"]
    assert [file.lake_name for file in found.files[-4:]] == [
        "jazz/jazz.a.wav",
        "jazz/jazz.b.au",
        "jazz/jazz.c.flac",
        "jazz/jazz.d.mp3",
    ]
    assert found.passed_over.by_reason() == {"not audio by its suffix": 1}


def test_track_id_repeats_the_genre_only_where_the_stem_lacks_it(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "jazz/jazzy.wav", "jazz/synthetic_jazz.00001.wav", "jazz/blues.00000.wav")
    assert ids(scan(tmp_path))[3:] == [
        "jazz.00000",
        "jazz.00001",
        "jazz.00002",
        "jazz.blues.00000",
        "jazz.jazzy",
        "synthetic_jazz.00001",
    ]


def test_odd_names_are_kept_as_data_and_spelt_safely_in_paths(tmp_path: Path) -> None:
    names = ["a b.wav", "..;rm -rf ~.wav", "naïve%2e|x.wav", "two\nlines.wav", "_part=0.wav", "-o.wav"]
    odd_bytes = b"hip hop/\xff\xfe.wav"
    fill(two_genres(tmp_path), *(f"hip hop/{name}" for name in names), odd_bytes)
    found = [file for file in scan(tmp_path).files if file.genre == "hip hop"]
    # The name that begins with a dot is hidden; the rest are there.
    assert {file.file_name for file in found} == {
        "a b.wav",
        "naïve%2e|x.wav",
        "two\nlines.wav",
        "_part=0.wav",
        "-o.wav",
        r"\xff\xfe.wav",
    }
    by_name = {file.file_name: file for file in found}
    assert by_name["a b.wav"].lake_name == "hip~20hop/hip~20hop.a~20b.wav"
    assert by_name["_part=0.wav"].track_id == "hip~20hop.~5fpart~3d0"
    assert all(file.path.is_file() for file in found)


def test_names_too_long_for_the_lake_are_cut_and_stay_apart(tmp_path: Path) -> None:
    same_start = "é" * 115
    fill(two_genres(tmp_path), f"jazz/{same_start}1.wav", f"jazz/{same_start}2.wav")
    long = [file for file in scan(tmp_path).files if file.file_name.startswith("é")]
    assert len({file.track_id for file in long}) == 2
    assert all(len(part) <= 255 for file in long for part in file.lake_name.split("/"))


def test_composed_and_decomposed_names_are_one_genre(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "caf\u00e9/1.wav", "cafe\u0301/2.wav", "cafe\u0301/3.wav")
    assert [file.genre for file in scan(tmp_path).files].count("café") == 3


def test_hidden_and_foreign_entries_are_counted_not_followed(tmp_path: Path) -> None:
    folder, outside = two_genres(tmp_path / "data"), fill(tmp_path / "outside", "x.wav")
    fill(folder, ".git/x.wav", "jazz/._a.wav", "README.md", "loose.wav", "jazz/deep/x.wav", "notes/x.txt")
    (folder / "jazz" / "link.wav").symlink_to(outside / "x.wav")
    (folder / "rock").symlink_to(outside)
    (folder / "jazz" / "nowhere.wav").symlink_to(folder / "gone.wav")
    (folder / "jazz" / "inside.wav").symlink_to(folder / "blues" / "blues.00000.wav")
    os.mkfifo(folder / "jazz" / "pipe.wav")
    found = scan(folder)
    assert ids(found)[-1] == "jazz.inside"
    assert len(found.files) == 7
    assert found.passed_over.by_reason() == {
        "audio outside a genre folder": 1,
        "folder inside a genre": 1,
        "hidden": 2,
        "link that leads out of the folder": 2,
        "neither file nor folder": 2,
        "not audio by its suffix": 2,
    }


def test_a_person_is_told_what_was_passed_over(tmp_path: Path) -> None:
    assert notices(scan(two_genres(tmp_path))) == []
    fill(tmp_path, "jazz/.hidden.wav", "jazz/a.mid", "jazz/deep/x.wav", "jazz/b.ape", "rock/cover.jpg")
    (tmp_path / "metal").mkdir()
    assert notices(scan(tmp_path)) == [
        "passed over: folder inside a genre: 1, hidden: 1, not audio by its suffix: 1 .ape, 1 .jpg, 1 .mid",
        "sub-folders without a clip: 'metal', 'rock'",
    ]


def test_suffixes_that_are_passed_over_are_named_the_most_frequent_first(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "LICENSE", *(f"jazz/{n}.{suffix}" for suffix in ("txt", "TXT", "jpg") for n in range(2)))
    assert notices(scan(tmp_path)) == ["passed over: not audio by its suffix: 4 .txt, 2 .jpg, 1 without one"]
    fill(tmp_path, *(f"rock/a.{suffix}" for suffix in ("jpg", "a", "b", "c\n", "d", "e")))
    (line, _) = notices(scan(tmp_path))
    assert line == "passed over: not audio by its suffix: 4 .txt, 3 .jpg, 1 without one, 1 .a, 1 .b, 3 with others"


def test_genres_that_look_alike_are_doubted(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{genre}/{n}.wav" for genre in ("Rock", "rock", "rock ", "jazz") for n in range(3)))
    (line,) = notices(scan(tmp_path))
    assert line.startswith("genres that differ in case or spaces only: 'Rock', 'rock', 'rock ': if they are one")


def test_one_name_in_two_forms_of_unicode_is_said_to_be_so(tmp_path: Path) -> None:
    two_genres(tmp_path)
    fill(tmp_path, "jazz/caf\u00e9.wav", "jazz/cafe\u0301.wav")
    with pytest.raises(GenresError, match="whose names differ in the form of their accents: keep one"):
        scan(tmp_path)


def test_a_name_that_looks_like_one_that_is_not_utf8_is_said_to_be_so(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "jazz/caf\\xe9.wav", os.fsdecode(b"jazz/caf\xe9.wav"))
    with pytest.raises(GenresError, match="one of whose names has bytes that are not UTF-8: keep one"):
        scan(tmp_path)


def test_blanks_in_a_suffix_that_is_passed_over_are_seen(tmp_path: Path) -> None:
    fill(two_genres(tmp_path), "jazz/a.wav ", "jazz/b.wav ", "jazz/c. wav", "jazz/d.wav.")
    (line,) = notices(scan(tmp_path))
    assert line == "passed over: not audio by its suffix: 2 '.wav ', 1 without one, 1 '. wav'"


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    folder = two_genres(tmp_path)
    (folder / "jazz" / "self.wav").symlink_to("self.wav")
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / "jazz" / "up").symlink_to("..")
    assert scan(folder).passed_over.by_reason() == {"folder inside a genre": 1, "neither file nor folder": 3}


def test_genres_that_are_numbers_are_doubted(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{genre:03d}/{genre:03d}{n:03d}.mp3" for genre in range(7) for n in range(3)))
    (line,) = notices(scan(tmp_path))
    assert line.startswith("all genres are numbers (000, 001, 002, 003, 004 …): if these folders only number the files")
    fill(tmp_path, *(f"jazz/{n}.wav" for n in range(3)))
    assert notices(scan(tmp_path)) == []


@pytest.mark.parametrize(
    ("names", "named", "message"),
    [
        (("Data/features.csv", *(f"Data/genres_original/{g}/1.wav" for g in "ab")), "Data", "Data/genres_original"),
        (("Data/features.csv", *(f"Data/genres_original/{g}/1.wav" for g in "ab")), "", "Data/genres_original"),
        (tuple(f"fma_small/00{n}/{n}.mp3" for n in range(3)), "", "fma_small"),
        (tuple(f"{part}/{g}/1.wav" for part in ("test", "train") for g in "ab"), "", "test or {root}/train"),
        (("blobs/1.wav", "blobs/2.wav", "main/a/1.wav", "main/b/1.wav"), "", "main"),
    ],
)
def test_the_folder_that_holds_the_genres_is_named(
    tmp_path: Path, names: tuple[str, ...], named: str, message: str
) -> None:
    fill(tmp_path, *names, "images_original/a/1.png", ".git/a/1.wav", ".git/b/1.wav")
    with pytest.raises(GenresError) as caught:
        scan(tmp_path / named)
    place = f"{tmp_path}/{message.format(root=tmp_path)}"
    todo = "one of them, or bring their genres together" if " or " in message else "that folder"
    assert str(caught.value).endswith(f"; genre folders are in {place}: name {todo}")


def test_albums_are_not_taken_for_genres(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{g}/artist_{n}/album_{m}/1.mp3" for g in ("jazz", "ska") for n in range(4) for m in range(2)))
    with pytest.raises(GenresError, match=r"in genre folders \(folder inside a genre: 8\): lay the audio out as"):
        scan(tmp_path)


def test_links_that_lead_out_are_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "snapshot" / "jazz").mkdir(parents=True)
    (tmp_path / "snapshot" / "jazz" / "a.wav").symlink_to(fill(tmp_path, "blob.wav") / "blob.wav")
    with pytest.raises(GenresError, match=r"\(link that leads out of the folder: 1\): copy what the links lead to"):
        scan(tmp_path / "snapshot")


def test_folder_reached_through_a_link_is_scanned(tmp_path: Path) -> None:
    two_genres(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert len(scan(tmp_path / "link").files) == 6


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "is empty: lay the audio out as <genre>/<track>.wav"),
        (("a.wav", "b.wav"), r"holds 2 audio file\(s\) but no genre folders"),
        (("jazz/readme.txt",), r"no \.wav/.*/\.opus files in genre folders \(not audio by its suffix: 1 \.txt\): lay"),
        (("jazz/1.wav", "jazz/2.wav", "jazz/3.wav"), "one genre only, 'jazz'"),
        (
            ("a/1.wav", "a/2.wav", "a/3.wav", "b\n/1.wav", "c/1.wav", "c/2.wav"),
            r"too few clips of 'b\\n': 1, 'c': 2: the split needs 3",
        ),
        (
            ("a/x.wav", "a/x.mp3", "a/y.wav", "b/1.wav", "b/2.wav", "b/3.wav"),
            r"'a/x.mp3' and 'a/x.wav' would both be track 'a\.x': keep one of them or rename it",
        ),
        (
            (
                "a/1.wav",
                "a/2.wav",
                "a/3.wav",
                *(f"b/b.0000{song}.{part}.wav" for song in range(2) for part in range(9)),
            ),
            r"genre 'b' has clips of 2 songs only, .* \(b\.00000, b\.00001\): the split needs 3",
        ),
        (
            ("a/b.c.wav", "a/1.wav", "a/2.wav", "a.b/c.wav", "a.b/1.wav", "a.b/2.wav"),
            r"'a/b\.c\.wav' and 'a\.b/c\.wav' would both be track 'a\.b\.c'",
        ),
    ],
)
def test_unusable_folder_is_named_in_one_line(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(GenresError, match=message) as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(GenresError, match=r"/gone does not exist"):
        scan(tmp_path / "gone")
    fill(tmp_path, "song.wav")
    with pytest.raises(GenresError, match=r"/song\.wav is a file"):
        scan(tmp_path / "song.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_named(tmp_path: Path) -> None:
    (two_genres(tmp_path) / "jazz").chmod(0)
    try:
        with pytest.raises(GenresError, match=r"cannot read .*/jazz"):
            scan(tmp_path)
    finally:
        (tmp_path / "jazz").chmod(0o700)


@given(st.text(max_size=40), st.text(max_size=40))
def test_safe_names_are_safe_short_and_distinct(one: str, other: str) -> None:
    for name in (one, other):
        safe = safe_name(name)
        assert len(safe) <= 100
        assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~")
        assert not safe.startswith((".", "_"))
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (safe_name(one) == safe_name(other)) == same


def test_gtzan_is_recognised_by_names_and_genres(tmp_path: Path) -> None:
    folder = two_genres(tmp_path / "anything")
    assert dataset_id(folder, scan(folder).files) == "gtzan"
    fill(folder, "jazz/mine.wav")
    assert dataset_id(folder, scan(folder).files) == "anything"
    swapped = fill(tmp_path / "swapped", *(f"{g}/{g}.0000{n}.wav" for g in ("ska", "dub") for n in range(3)))
    assert dataset_id(swapped, scan(swapped).files) == "swapped"


def test_synthetic_only_by_its_marker(tmp_path: Path) -> None:
    names = [f"{genre}/synthetic_{genre}.0000{n}.wav" for genre in ("jazz", "blues") for n in range(3)]
    folder = fill(tmp_path / "synthetic", *names)
    assert dataset_id(folder, scan(folder).files) == "own_synthetic"
    fill(folder, "synthetic.json")
    assert dataset_id(folder, scan(folder).files) == "synthetic"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Music (2024)", "my_music_2024"),
        ("Überjazz", "uberjazz"),
        ("__x__", "x"),
        ("gtzan", "own_gtzan"),
        ("a" * 60, "a" * 40),
        ("音楽", "audio_14b31fd9"),
    ],
)
def test_other_datasets_are_called_like_their_folder(tmp_path: Path, name: str, expected: str) -> None:
    folder = fill(tmp_path / name, *(f"{genre}/{n}.wav" for genre in ("ska", "dub") for n in range(3)))
    assert dataset_id(folder, scan(folder).files) == expected

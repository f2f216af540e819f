"""Genres written into files: the tag changes, the sound does not, and a file is whole at any time."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
from mutagen.flac import FLAC
from mutagen.id3 import ID3, TCON, TIT2
from mutagen.mp3 import MP3

from genres.audio.decode import decode
from genres.errors import GenresError
from genres_cli import file_tags, local_files
from genres_cli.file_tags import TagChange, tag_changes, write_tag
from genres_cli.main import main
from tests.audio_files import music, written
from tests.tools import skip_without

RATE = 44_100
SOUNDS = {
    ".wav": lambda: written("WAV", music(1, RATE, 2), RATE),
    ".aiff": lambda: written("AIFF", music(1, RATE), RATE),
    ".mp3": lambda: written("MP3", music(1, RATE, 2), RATE),
    ".flac": lambda: written("FLAC", music(1, RATE, 2), RATE),
    ".ogg": lambda: written("OGG", music(1, RATE, 2), RATE),
    ".opus": lambda: written("OGG", music(1, 48_000), 48_000, subtype="OPUS"),
}
FORMATS = [*SOUNDS, ".m4a"]


def sound_file(folder: Path, suffix: str) -> Path:
    path = folder / f"Caf\u00e9 song{suffix}"
    if suffix == ".m4a":
        if shutil.which("ffmpeg") is None:
            skip_without("there is no ffmpeg (apt install ffmpeg)")
        wav = folder / "in.wav"
        wav.write_bytes(SOUNDS[".wav"]())
        subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav, path], check=True)
        wav.unlink()
    else:
        path.write_bytes(SOUNDS[suffix]())
    return path


def answer(path: Path, genre: str, **other: Any) -> dict[str, Any]:
    return {"path": path, "predicted_genre": genre, "is_uncertain": False, "is_unlike": False, **other}


def only_change(path: Path, genre: str) -> TagChange:
    changes, left = tag_changes([answer(path, genre)])
    assert left == []
    return changes[0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_genre_is_written_and_the_sound_stays(suffix: str, tmp_path: Path) -> None:
    path = sound_file(tmp_path, suffix)
    path.chmod(0o640)
    before = decode(path.read_bytes(), sample_rate=RATE)
    for genre, was in (("hip hop", ()), ("M\u00fasica", ("hip hop",))):
        change = only_change(path, genre)
        assert change == TagChange(path, was, genre)
        write_tag(change, max_clip_s=60)
        assert tag_changes([answer(path, genre)]) == ([], [f"{path}: its tag says {genre} already"])
    after = decode(path.read_bytes(), sample_rate=RATE)
    np.testing.assert_array_equal(before, after)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    # As other programs find it.
    assert "M\u00fasica" in str(dict(mutagen.File(path).tags))


def test_other_tags_stay_and_so_does_their_version(tmp_path: Path) -> None:
    path = sound_file(tmp_path, ".mp3")
    tags = ID3()
    tags.add(TIT2(encoding=1, text=["A title"]))
    tags.add(TCON(encoding=1, text=["(17)"]))
    tags.save(path, v2_version=3)
    change = only_change(path, "metal")
    assert change.before == ("Rock",)
    write_tag(change, max_clip_s=60)
    assert path.read_bytes()[:4] == b"ID3\x03"
    found = MP3(path).tags
    assert str(found["TIT2"]) == "A title" and str(found["TCON"]) == "metal"

    flac = sound_file(tmp_path, ".flac")
    several = FLAC(flac)
    several["genre"], several["artist"] = ["Rock", "Pop"], ["Somebody"]
    several.save()
    assert str(only_change(flac, "pop")).endswith("Rock, Pop -> pop")
    write_tag(only_change(flac, "pop"), max_clip_s=60)
    assert (FLAC(flac)["genre"], FLAC(flac)["artist"]) == (["pop"], ["Somebody"])


def test_uncertain_unlike_and_unwritable_files_keep_their_tags(tmp_path: Path) -> None:
    wav, au = sound_file(tmp_path, ".wav"), tmp_path / "a.au"
    au.write_bytes(written("AU", music(1)))
    broken = tmp_path / "x.flac"
    broken.write_bytes(b"fLaC and no more")
    rows = [
        answer(wav, "rock", is_uncertain=True),
        answer(wav, "rock", is_unlike=True, is_uncertain=True),
        answer(au, "rock"),
        answer(broken, "rock"),
    ]
    changes, left = tag_changes(rows)
    assert changes == []
    assert left[:2] == [f"{wav}: uncertain, so its tag stays", f"{wav}: unlike anything learnt, so its tag stays"]
    assert left[2].startswith(f"{au}: tags are written to .wav, ") and left[3].startswith(f"{broken}: its tags cannot")


def test_a_file_stays_as_it_is_when_anything_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sound_file(tmp_path, ".mp3")
    before = path.read_bytes()
    change = only_change(path, "metal")

    def touched(copy: Any, *_: object) -> None:
        Path(copy.filename).write_bytes(SOUNDS[".wav"]()[:-1_000])

    def other(copy: Any, *_: object) -> None:
        Path(copy.filename).write_bytes(written("MP3", music(1, RATE, 2) / 2, RATE))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def full_while_it_saves(*_: object) -> None:
        raise mutagen.MutagenError(OSError(28, "No space left on device"))

    def of_an_odd_format(*_: object) -> None:
        raise IndexError("list index out of range")

    def nothing(*_: object) -> None:
        pass

    for wrong, words in (
        (touched, "cannot be tagged: "),
        (other, "would change its sound"),
        (full, "No space left on device"),
        (full_while_it_saves, "cannot be tagged: No space left on device$"),
        (of_an_odd_format, "cannot be tagged: list index out of range"),
        (nothing, "its genre cannot be written"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(file_tags, "_set_genre", wrong)
            with pytest.raises(GenresError, match=words):
                write_tag(change, max_clip_s=60)
        assert path.read_bytes() == before
        assert [found.name for found in tmp_path.iterdir()] == [path.name]

    real = file_tags._set_genre

    def meanwhile(file: Any, suffix: str, genre: str) -> None:
        real(file, suffix, genre)
        path.write_bytes(before + b"\0")

    monkeypatch.setattr(file_tags, "_set_genre", meanwhile)
    with pytest.raises(GenresError, match="was changed meanwhile"):
        write_tag(change, max_clip_s=60)
    assert path.read_bytes() == before + b"\0"


def test_a_file_that_nobody_may_write_to_gets_its_tag_and_keeps_its_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sound_file(tmp_path, ".flac")
    path.chmod(0o444)
    real, modes = file_tags._set_genre, []

    def noted(copy: Any, suffix: str, genre: str) -> None:
        modes.append(Path(copy.filename).stat().st_mode & 0o777)
        real(copy, suffix, genre)

    monkeypatch.setattr(file_tags, "_set_genre", noted)
    write_tag(only_change(path, "ska"), max_clip_s=60)
    assert modes == [0o644], "whoever is not root can write to the copy"
    assert FLAC(path)["genre"] == ["ska"]
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_link_is_followed(tmp_path: Path) -> None:
    path = sound_file(tmp_path, ".flac")
    link = tmp_path / "link.flac"
    link.symlink_to(path)
    write_tag(only_change(link, "ska"), max_clip_s=60)
    assert link.is_symlink() and FLAC(path)["genre"] == ["ska"]


def test_the_command_writes_nothing_unless_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sound_file(tmp_path, ".flac")
    before = path.read_bytes()
    rows = [answer(path, "ska", file_name=path.name, probability=0.9, probabilities={"ska": 0.9, "dub": 0.1})]
    monkeypatch.setattr(local_files, "predict_files", lambda *_: (rows, []))
    monkeypatch.setattr(sys, "argv", ["genres", "predict", str(path), "--m3u", "--write-tags"])
    main_ends()
    said = capsys.readouterr()
    assert path.read_bytes() == before
    assert "no genre -> ska" in said.err and "nothing is written; --yes writes 1 tag" in said.err
    assert said.out.startswith("#EXTM3U")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--yes"])
    main_ends()
    assert FLAC(path)["genre"] == ["ska"]
    assert "1 tag written" in capsys.readouterr().err
    main_ends()
    assert "no tag is to be written" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["genres", "predict", str(path), "--yes"])
    with pytest.raises(SystemExit):
        main()
    assert "--yes goes with --write-tags" in capsys.readouterr().err


def main_ends() -> None:
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code

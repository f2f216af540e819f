"""Local files for ``genres features`` and ``genres predict``: which are taken, and what becomes of odd names."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from genres.errors import GenresError
from genres.file_names import unicode_name
from genres.settings import Settings
from genres_cli import local_files
from genres_cli.local_files import _audio_files, answers_as, answers_kind, write_answers, write_features


def console() -> tuple[Console, io.StringIO]:
    said = io.StringIO()
    return Console(file=said, width=500), said


@pytest.fixture
def music(tmp_path: Path, write_clips: Callable[..., None]) -> Path:
    folder = tmp_path / "music"
    write_clips(folder, ("blues", "metal"), 1)
    (folder / "blues" / "blues_0.wav").rename(folder / "blues" / "R&B_0.wav")
    (folder / "blues").rename(folder / "R&B")
    return folder


def test_what_is_not_read_is_counted_by_reason(music: Path, tmp_path: Path) -> None:
    (clip,) = (music / "metal").glob("*.wav")
    deep = music / "metal" / "album" / "cd 1"
    deep.mkdir(parents=True)
    clip.rename(deep / "deep.wav")
    for name in ("a.ape", "cover.jpg", ".DS_Store", "._a.wav"):
        (music / name).touch()
    (music / ".git").mkdir()
    (music / ".git" / "x.wav").touch()
    (music / "all").symlink_to(music)
    (music / "gone.wav").symlink_to(music / "nowhere")
    os.mkfifo(music / "pipe.wav")
    (tmp_path / "outside.wav").touch()
    (music / "link.wav").symlink_to(tmp_path / "outside.wav")
    shown, said = console()
    found = _audio_files(shown, [music])
    assert [str(file.relative_to(music)) for file in found] == [
        "R&B/R&B_0.wav",
        "link.wav",
        "metal/album/cd 1/deep.wav",
    ]
    assert said.getvalue() == (
        "passed over: hidden: 3, link to a folder: 1, neither file nor folder: 2, "
        "not audio by its suffix: 1 .ape, 1 .jpg\n"
    )
    with pytest.raises(GenresError, match=r"holds no audio .*; passed over: not audio by its suffix: 1 \.ape$"):
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "a.ape").touch()
        _audio_files(shown, [empty])


def test_a_pipe_is_not_waited_for(music: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(GenresError, match=r"pipe.wav is neither a file nor a folder: write what it holds to a file"):
        write_features(Console(), [music, tmp_path / "pipe.wav"], tmp_path / "out.csv", Settings())


def test_a_file_larger_than_any_clip_is_not_read(music: Path, tmp_path: Path) -> None:
    with (music / "huge.wav").open("wb") as file:
        file.truncate(2**42)  # no machine's memory holds as much
    said = io.StringIO()
    write_features(Console(file=said, width=1000), [music], tmp_path / "out.csv", Settings(max_clip_s=600))
    assert "refused huge.wav: 4,398,046,511,104 bytes; 600 s of audio may have" in said.getvalue()


def test_a_name_that_is_not_utf_8_becomes_text(music: Path, tmp_path: Path) -> None:
    (clip,) = (music / "metal").glob("*.wav")
    os.rename(os.fsencode(clip), os.fsencode(music / "metal") + b"/caf\xe9.wav")  # noqa: PTH104
    os.rename(os.fsencode(music / "metal"), os.fsencode(music) + b"/m\xfctal")  # noqa: PTH104
    (music / "R&B" / "notes.wav").write_text("no samples")
    for output in (tmp_path / "f.csv", tmp_path / "f.parquet"):
        shown, said = console()
        write_features(shown, [music], output, Settings())
        table = pd.read_csv(output) if output.suffix == ".csv" else pd.read_parquet(output)
        assert table[["filename", "label"]].to_numpy().tolist() == [["R&B_0.wav", "R&B"], [r"caf\xe9.wav", r"m\xfctal"]]
        assert "refused notes.wav: " in said.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.parquet", "music"]


def test_what_was_there_stays_until_the_new_table_is_whole(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "f.csv"
    output.write_text("what was there")

    def full(_: pd.DataFrame, path: Path, **__: object) -> None:
        path.write_text("half a ta")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_files.pd.DataFrame, "to_csv", full)
    with pytest.raises(GenresError, match=r"f\.csv cannot be written: No space left on device"):
        write_features(console()[0], [music], output, Settings())
    assert output.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "music"]


def answer(path: Path, genre: str, probability: float) -> dict[str, Any]:
    return {
        "file_name": unicode_name(path.name),
        "path": path,
        "predicted_genre": genre,
        "probability": probability,
        "probabilities": {"ska": 0.01, genre: probability, "dub": 0.1},
        **dict.fromkeys(("is_calibrated", "is_uncertain", "distance", "is_unlike", "over_time"), None),
        **{"model_name": "genres-own", "model_version": 3, "dataset": "own"},
        **{"is_synthetic": False, "feature_version": "gtzan57-1"},
    }


ANSWERS = [
    answer(Path("/m/b, c.wav"), "rock", 0.5),
    answer(Path("/m/Bjørk.wav"), "pop", 0.6),
    answer(Path("/m/a.wav"), "pop", 0.71234),
]


def test_answers_as_csv_have_a_column_for_each_of_the_likeliest() -> None:
    table = pd.read_csv(io.StringIO(answers_as("csv", ANSWERS, top=2)))
    assert list(table.columns[:5]) == ["path", "predicted_genre", "probability", "predicted_genre_2", "probability_2"]
    assert table.iloc[0, :5].tolist() == ["/m/b, c.wav", "rock", 0.5, "dub", 0.1]
    assert table["path"][1] == "/m/Bjørk.wav" and table["model_version"].tolist() == [3, 3, 3]
    assert "probability_2" not in answers_as("csv", ANSWERS, top=1)


def test_answers_as_json_are_whole_and_name_the_likeliest() -> None:
    text = answers_as("json", ANSWERS, top=2)
    assert "Bjørk.wav" in text
    first = json.loads(text)[0]
    assert first["top"] == [["rock", 0.5], ["dub", 0.1]]
    assert first["probabilities"] == {"ska": 0.01, "rock": 0.5, "dub": 0.1}


def test_a_playlist_goes_genre_by_genre_the_surest_first() -> None:
    lines = answers_as("m3u", ANSWERS, top=1).splitlines()
    assert lines[0] == "#EXTM3U"
    assert lines[2::2] == ["/m/a.wav", "/m/Bjørk.wav", "/m/b, c.wav"]
    assert lines[1] == "#EXTINF:-1,pop 0.71 - a.wav"


def test_a_name_of_two_lines_is_one_line_of_a_playlist() -> None:
    lines = answers_as("m3u", [answer(Path("/m/a\nb.wav"), "pop", 0.6)], top=1).splitlines()
    assert lines == ["#EXTM3U", r"#EXTINF:-1,pop 0.60 - 'a\nb.wav'", "file:///m/a%0Ab.wav"]


def test_a_playlist_opens_files_whose_names_are_no_text(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    Path(os.fsdecode(odd)).touch()
    for name in ("a.m3u", "a.json", "a.csv"):
        output = tmp_path / name
        write_answers(output, [answer(Path(os.fsdecode(odd)), "pop", 0.6)], answers_kind([], output), top=1)
    assert (tmp_path / "a.m3u").read_bytes().splitlines()[2] == odd
    assert json.loads((tmp_path / "a.json").read_text())[0]["path"] == rf"{tmp_path}/caf\xe9.wav"
    assert not list(tmp_path.glob(".genres*"))


def test_how_answers_are_written(tmp_path: Path) -> None:
    assert answers_kind([], None) == ""
    assert answers_kind(["json"], None) == "json"
    assert answers_kind([], tmp_path / "a.CSV") == "csv"
    assert answers_kind([], tmp_path / "a.m3u8") == "m3u"
    assert answers_kind(["csv"], tmp_path / "a.txt") == "csv"
    with pytest.raises(GenresError, match="--csv and --m3u are two ways"):
        answers_kind(["csv", "m3u"], None)
    with pytest.raises(GenresError, match=r"a\.txt: write to a name that ends in \.csv"):
        answers_kind([], tmp_path / "a.txt")
    with pytest.raises(GenresError, match="there is no folder"):
        answers_kind([], tmp_path / "no" / "a.csv")

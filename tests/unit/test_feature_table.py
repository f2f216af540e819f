"""Tables of features by strangers: what can be used is used, what cannot is named, and nothing is silently dropped."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genres.datasets.feature_table import FeatureTable, TrackNames, read_feature_table, songs_in_genre, track_id_of
from genres.datasets.leaks import find_leaks
from genres.datasets.table_split import (
    LISTS,
    assign_folds,
    listed_parts,
    pipeline_parts,
    random_parts,
    read_artists,
    together,
)
from genres.errors import GenresError
from genres.settings import PROJECT_DIR

GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"


def frame(genres: tuple[str, ...] = ("blues", "rock"), n: int = 12, name: str = "{genre}.{number:05d}.wav") -> Any:
    random = np.random.default_rng(0)
    names = [(name.format(genre=genre, number=number), genre) for genre in genres for number in range(n)]
    values = random.normal(size=(len(names), 2))
    return pd.DataFrame(
        {
            "filename": [name for name, _ in names],
            "length": 661_794,
            "tempo": values[:, 0],
            "mfcc1_var": np.exp(values[:, 1]),
            "label": [genre for _, genre in names],
        }
    )


def read(table: pd.DataFrame, folder: Path, name: str = "table.csv") -> FeatureTable:
    path = folder / name
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
    return read_feature_table(path)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
@pytest.mark.parametrize("columns", [[], ["length"]])
def test_both_kinds_of_file_say_the_same(name: str, columns: list[str], tmp_path: Path) -> None:
    table = read(frame().drop(columns=columns), tmp_path, name)
    assert table.columns == ("tempo", "mfcc1_var")
    assert table.notices == ()
    assert table.rows["track_id"].tolist()[:2] == ["blues.00000", "blues.00001"]
    assert set(table.rows["genre"]) == {"blues", "rock"}
    np.testing.assert_allclose(table.rows["tempo"], frame()["tempo"])


def test_file_names_mean_tracks() -> None:
    for name in ("blues.00012.wav", "blues.00012", "blues/blues.00012.wav", "a\\blues\\blues.00012.AU"):
        assert track_id_of(name) == "blues.00012"
    assert track_id_of("blues.00012.3.wav") == "blues.00012.3"
    assert track_id_of("jazz/take.five.mp3") == "jazz.take.five"
    assert songs_in_genre(["blues.00012.3"], "blues") == {"blues.00012.3": "blues.00012"}
    assert songs_in_genre(["blues.00012"], "blues") == {"blues.00012": "blues.00012"}
    assert songs_in_genre(["a.x_1", "a.x_2", "a.y_1", "a.y_2", "a.z_1", "a.z_2"], "a")["a.y_2"] == "a.y"


def test_what_is_no_feature_is_left_out_and_named(tmp_path: Path) -> None:
    table = frame()
    table.insert(0, "Unnamed: 0", range(len(table)))
    table = table.assign(artist="x y", empty=np.nan, same=3.0, silent=[np.inf] * len(table))
    table.loc[3, "tempo"] = np.nan
    table.loc[4, "label"] = ""
    table.loc[5, ["tempo", "mfcc1_var"]] = np.nan
    found = read(table, tmp_path)
    assert found.columns == ("tempo", "mfcc1_var")
    assert len(found.rows) == len(table) - 2
    said = "; ".join(found.notices)
    for part in (
        "number the rows: Unnamed: 0",
        "hold text: artist",
        "no value: empty, silent",
        "same in all rows: same",
    ):
        assert part in said
    assert "1 row without a filename or a label" in said
    assert "1 row without any feature left out: blues.00005.wav" in said
    assert "1 value missing, in tempo" in said


def test_a_row_twice_is_taken_once_and_two_different_rows_of_a_file_are_refused(tmp_path: Path) -> None:
    table = frame()
    found = read(pd.concat([table, table.iloc[[1]]]), tmp_path)
    assert len(found.rows) == len(table)
    assert "1 row twice in the table, taken once: blues.00001" in found.notices[0]
    other = table.iloc[[1]].assign(tempo=9.0)
    with pytest.raises(GenresError, match=r"several different rows of one file, .*: blues\.00001; leave one"):
        read(pd.concat([table, other]), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="label"), "no column label"),
        (lambda table: table.rename(columns={"filename": "file"}), r"no column filename \(it has: file, "),
        (lambda table: table[["filename", "label", "length"]], "no column of numbers that differ"),
        (lambda table: table.iloc[:0], "no column of numbers|no row"),
        (lambda table: table.assign(label=""), "no row that can be used|no column of numbers"),
    ],
)
def test_what_is_no_table_is_one_clear_line(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(GenresError, match=said) as error:
        read(change(frame()), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", None, "there is no file"),
        ("t.xlsx", b"", r"name a file that ends in \.csv or \.parquet"),
        ("t.csv", b"", "cannot be read as a csv table"),
        ("t.csv", b"\xff\xfe\x00\x01", "cannot be read as a csv table"),
        ("t.parquet", b"no parquet", "cannot be read as a parquet table"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GenresError, match=said) as error:
        read_feature_table(tmp_path / name)
    assert "\n" not in str(error.value)


def csv_text(table: pd.DataFrame, **options: Any) -> bytes:
    return table.to_csv(index=False, **options).encode()


@pytest.mark.parametrize("separator", [",", ";"])
def test_names_may_be_longer_together_than_a_cell_may_be(separator: str, tmp_path: Path) -> None:
    """A line is tried with each separator, and with all but one it is a single cell."""
    rows = frame()[["filename", "label"]].assign(label="null")
    values = np.random.default_rng(0).normal(size=(len(rows), 100))
    names = [f"{'of_the_difference_' * 80}{number}" for number in range(100)]
    table = rows.join(pd.DataFrame(values, columns=names))
    assert len(",".join(names)) > csv.field_size_limit()
    (tmp_path / "t.csv").write_bytes(csv_text(table, sep=separator, decimal="." if separator == "," else ","))
    found = read_feature_table(tmp_path / "t.csv")
    assert list(found.columns) == names
    assert set(found.rows["genre"]) == {"null"}, "which pandas reads as missing where it does not know the column"


@pytest.mark.parametrize(
    "options",
    [
        {"sep": ";"},
        {"sep": ";", "decimal": ","},
        {"sep": "\t", "decimal": ","},
        {"sep": "|"},
        {"quoting": csv.QUOTE_ALL},
        {"lineterminator": "\r\n"},
    ],
)
def test_a_csv_file_means_the_same_however_its_cells_are_set_apart(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_text(frame(), **options))
    found = read_feature_table(path)
    assert (found.columns, found.notices) == (("tempo", "mfcc1_var"), ())
    np.testing.assert_allclose(found.rows[["tempo", "mfcc1_var"]], frame()[["tempo", "mfcc1_var"]])


@pytest.mark.parametrize("which", ["rows", "all lines", "rows begin with a number"])
def test_lines_with_a_cell_more_are_read_as_they_are_meant(which: str, tmp_path: Path) -> None:
    head, *lines = csv_text(frame()).decode().splitlines()
    if which == "all lines":
        head += ","
    lines = [f"{place},{line}" if "number" in which else f"{line}," for place, line in enumerate(lines)]
    (tmp_path / "table.csv").write_text("\n".join([head, *lines]))
    found = read_feature_table(tmp_path / "table.csv")
    assert found.columns == ("tempo", "mfcc1_var")
    assert found.rows["track_id"].iloc[0] == "blues.00000"


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.set_index("filename"),
        lambda table: table.sample(frac=1, random_state=0),
        lambda table: table.astype({"label": "category", "filename": "category", "tempo": "float64"}),
        lambda table: table.assign(label=table["label"].str.encode("utf-8")),
        lambda table: table.rename(columns={"filename": " Filename", "label": "Label", "length": "Length "}),
    ],
)
def test_a_parquet_file_means_the_same_whatever_its_types_are(change: Any, tmp_path: Path) -> None:
    change(frame()).to_parquet(tmp_path / "table.parquet")
    found = read_feature_table(tmp_path / "table.parquet")
    assert (found.columns, found.notices) == (("tempo", "mfcc1_var"), ())
    assert found.rows["genre"].tolist() == frame()["label"].tolist()
    np.testing.assert_allclose(found.rows["tempo"], frame()["tempo"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        *(
            (
                lambda table, name=name: {name: [7, 3, 5, 3] * (len(table) // 4)},
                f"say which clip a row is about: {name}",
            )
            for name in ("artist_group", "artistId", "Album ID", "fold", "split", "group", "song_index", "artist")
        ),
        (lambda table: {"no": np.arange(len(table)) * 2}, "number the rows: no"),
        (lambda table: {"no": np.random.default_rng(0).permutation(len(table))}, "number the rows: no"),
        (lambda table: {"code": table["label"].map({"blues": 3, "rock": 7})}, "one value for each label, as a code"),
        (lambda table: {"rock": table["label"] == "rock"}, "one value for each label, as a code of it has: rock"),
        (lambda table: {"made": pd.Timestamp("2020-01-01") + pd.to_timedelta(table["tempo"], "D")}, "text: made"),
        (lambda table: {"track_id": table["tempo"] * 2, "Part": table["tempo"]}, "is about: track_id, Part"),
    ],
)
def test_columns_that_would_tell_the_label_are_no_features(columns: Any, said: str, tmp_path: Path) -> None:
    found = read(frame().assign(**columns(frame())), tmp_path, "table.parquet")
    assert found.columns == ("tempo", "mfcc1_var")
    assert len(found.notices) == 1 and said in found.notices[0]


def test_whole_numbers_are_features_where_they_do_not_number_rows(tmp_path: Path) -> None:
    counts = np.random.default_rng(1).permutation(np.arange(24) * 3 % 50)
    found = read(frame().assign(count=counts, few=np.arange(24) // 3), tmp_path)
    assert found.columns == ("tempo", "mfcc1_var", "count", "few")


def test_features_that_many_labels_share_are_no_sign_of_copies(tmp_path: Path) -> None:
    table = frame().drop(columns="mfcc1_var").assign(tempo=[100.0, 120.0, 140.0, 160.0] * 6)
    found = read(table, tmp_path)
    assert "24 rows of 24 have features that rows of other labels have too" in found.notices[0]
    assert found.rows["digest"].is_unique
    one_pair = frame(n=20)
    one_pair.loc[1, ["tempo", "mfcc1_var"]] = one_pair.loc[30, ["tempo", "mfcc1_var"]].to_numpy()
    found = read(one_pair, tmp_path)
    assert found.notices == () and found.rows["digest"].duplicated().sum() == 1


def test_labels_are_one_text_however_they_are_composed_and_a_difference_of_case_is_said(tmp_path: Path) -> None:
    table = frame()
    table["label"] = ["re\u0301", "r\u00e9", "Rock", "rock"] * 6
    found = read(table, tmp_path)
    assert set(found.rows["genre"]) == {"r\u00e9", "Rock", "rock"}
    assert found.notices == ("labels that differ by case alone count as different genres: Rock and rock",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(**{"tempo ": 1.0}), "several columns of one name: tempo; leave one"),
        (lambda table: table.rename(columns={"label": "genre"}), r"no column label \(it has: filename, length"),
    ],
)
def test_a_mistake_says_what_to_change(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(GenresError, match=said) as error:
        read(change(frame()), tmp_path)
    assert "\n" not in str(error.value)


def test_files_of_one_name_in_several_genres_are_told_apart_by_label(tmp_path: Path) -> None:
    rows = frame().assign(filename=[f"{number % 12:02d}.wav" for number in range(24)])
    table = read(rows, tmp_path)
    assert table.rows["track_id"].tolist()[10:14] == ["blues.10", "blues.11", "rock.00", "rock.01"]
    parts, said = listed_parts(table, lists(tmp_path, train=["blues/00.wav"], test=["rock/00.wav", "rock.01"]))
    assert parts.dropna().tolist() == ["train", "test", "test"]
    assert len(said) == 1


def test_values_that_cannot_be_reckoned_with_count_as_missing(tmp_path: Path) -> None:
    rows = frame()
    rows["mfcc1_var"] *= 1e300
    rows.loc[0, "tempo"] = -np.inf
    found = read(rows, tmp_path)
    assert found.columns == ("tempo",)
    assert "hold no value: mfcc1_var" in found.notices[0]


def test_a_table_says_the_same_as_csv_and_as_parquet(tmp_path: Path) -> None:
    found = [read(frame(n=200), tmp_path, name).rows["digest"].tolist() for name in ("table.csv", "table.parquet")]
    assert found[0] == found[1]


def test_a_csv_file_in_another_encoding_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(frame().to_csv(index=False).replace("rock", "rück").encode("latin-1"))
    with pytest.raises(GenresError, match=r"it is not UTF-8 .*; save it as that"):
        read_feature_table(tmp_path / "table.csv")


@pytest.mark.parametrize(
    "spelling",
    [
        "audio/{genre}.{number}.wav",
        "./{genre}.{number}.au",
        "/data/genres_original/{genre}/{genre}.{number}.wav",
        "C:\\data\\{genre}.{number}.WAV",
        "{genre}.{number}.npy",
        "{genre}.{number}",
    ],
)
def test_lists_and_groups_fit_a_table_that_spells_its_files_otherwise(spelling: str, tmp_path: Path) -> None:
    rows = frame()
    rows["filename"] = [
        spelling.format(genre=row.label, number=row.filename.split(".")[1]) for row in rows.itertuples()
    ]
    table = read(rows, tmp_path)
    assert table.rows["track_id"].iloc[0] == "blues.00000"
    names = [f"{genre}/{genre}.{number:05d}.wav" for genre in ("blues", "rock") for number in range(12)]
    parts, said = listed_parts(table, lists(tmp_path, train=names[::2], test=[name.upper() for name in names[1::2]]))
    assert parts.value_counts().to_dict() == {"train": 12, "test": 12} and said == []
    (tmp_path / "groups.csv").write_text("".join(f"{name},{place}\n" for place, name in enumerate(names)))
    found, said = read_artists(table, tmp_path / "groups.csv")
    assert found.tolist() == [str(number) for number in range(24)] and said == []


def test_a_name_of_another_genre_means_no_track_of_the_table(tmp_path: Path) -> None:
    rows = frame(name="{genre}/{number:02d}.wav")
    rows = rows.drop(index=rows.index[rows["filename"] == "rock/03.wav"])
    names = TrackNames(read(rows, tmp_path).rows)
    assert names.meant("blues/03.wav") == "blues.03"
    assert names.meant("rock/03.wav") == "rock.03"
    assert names.meant("03.wav") == "blues.03"
    assert names.meant("04.wav") == "04"


def test_names_that_differ_by_case_alone_are_two_tracks(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[[0, 1, 2], "filename"] = ["Song.wav", "song.wav", "Alone.wav"]
    names = TrackNames(read(rows, tmp_path).rows)
    assert [names.meant(f"x/{name}.mp3") for name in ("Song", "song", "alone")] == ["Song", "song", "Alone"]
    assert names.meant("SONG.wav") == "SONG"


@pytest.mark.parametrize("suffix", [".npy", ".mp3.json", ".mp4", ".wav.npz", ".PNG"])
def test_a_suffix_may_be_that_of_what_a_tool_made_of_the_clip(suffix: str, tmp_path: Path) -> None:
    table = read(frame(name="{genre} tr{number}x" + suffix), tmp_path)
    assert table.rows["track_id"].iloc[0] == "blues tr0x"
    parts, said = listed_parts(
        table, lists(tmp_path, train=["blues tr0x.wav", "blues tr1x"], test=["rock tr0x.npy", "rock tr1x.mp3"])
    )
    assert parts.value_counts().to_dict() == {"train": 2, "test": 2} and len(said) == 1


def test_a_name_with_several_labels_is_said_to_be_several_tracks(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[0, "filename"] = "rock.00003.wav"
    (said,) = read(rows, tmp_path).notices
    assert said == "1 name with several labels, a track for each of these: rock.00003"


def lists(folder: Path, **names: list[str]) -> Path:
    for part, name in LISTS.items():
        (folder / name).write_text("".join(f"{line}\n" for line in names.get(part, [])))
    return folder


def test_lists_say_who_is_where(tmp_path: Path) -> None:
    table = read(frame(), tmp_path)
    folder = lists(
        tmp_path,
        train=["blues/blues.00000.wav", "rock/rock.00000.wav", "blues/blues.00099.wav", "blues/blues.00000.wav"],
        valid=["blues.00001.wav"],
        test=["rock/rock.00001.wav"],
    )
    parts, said = listed_parts(table, folder)
    of_track = dict(zip(table.rows["track_id"], parts, strict=True))
    assert {track: part for track, part in of_track.items() if isinstance(part, str)} == {
        "blues.00000": "train",
        "rock.00000": "train",
        "blues.00001": "valid",
        "rock.00001": "test",
    }
    assert said == [
        "train_filtered.txt names 1 track twice, the first being blues.00000",
        "of the 3 tracks in train_filtered.txt the table lacks 1, the first being blues.00099",
        "left out, since no list names them: 20 rows, the first being blues.00002",
    ]


def test_parts_of_a_track_are_where_the_lists_have_the_track(tmp_path: Path) -> None:
    table = read(frame(name="{genre}.00000.{number}.wav"), tmp_path)
    parts, _ = listed_parts(table, lists(tmp_path, train=["blues/blues.00000.wav"], test=["rock/rock.00000.wav"]))
    assert set(zip(table.rows["genre"], parts, strict=True)) == {("blues", "train"), ("rock", "test")}


def test_a_missing_list_and_a_track_in_two_are_refused(tmp_path: Path) -> None:
    table = read(frame(), tmp_path)
    with pytest.raises(GenresError, match=r"holds no train_filtered\.txt"):
        listed_parts(table, tmp_path)
    with pytest.raises(GenresError, match="there is no folder"):
        listed_parts(table, tmp_path / "none")
    with pytest.raises(GenresError, match=r"none of the table's tracks: ska\.1 is one of theirs, blues\.00000 of the"):
        listed_parts(table, lists(tmp_path, train=["ska/ska.1.wav"]))
    folder = lists(tmp_path, train=["rock.00001.wav"], test=["rock/rock.00001.wav"])
    with pytest.raises(GenresError, match=r"rock\.00001 is in train_filtered\.txt and in test_filtered\.txt"):
        listed_parts(table, folder)


def test_a_random_split_keeps_tracks_and_copies_whole(tmp_path: Path) -> None:
    rows = frame(n=100, name="{genre}.{number:05d}.wav")
    rows["filename"] = [
        f"{row.label}.{number // 10:05d}.{number % 10}.wav" for number, row in enumerate(rows.itertuples())
    ]
    rows.loc[5, ["tempo", "mfcc1_var"]] = rows.loc[95, ["tempo", "mfcc1_var"]].to_numpy()
    table = read(rows, tmp_path)
    found = [random_parts(table, seed) for seed in (0, 1)]
    assert list(found[0]) != list(found[1])
    for parts in found:
        assert not find_leaks(table.rows.assign(part=parts))
        assert (parts == "test").mean() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(
    ("column", "said"),
    [("digest", "identical audio or features"), ("song", "parts of one track"), ("artist", "tracks of one artist")],
)
def test_each_leak_fires(column: str, said: str) -> None:
    rows = pd.DataFrame(
        {"track_id": list("abcdef"), "digest": list("123456"), "song": list("123456"), "artist": [*"12345", None]}
    )
    rows["part"] = ["train", "train", "valid", "test", "test", "test"]
    assert find_leaks(rows) == []
    rows.loc[4, column] = "1"
    (leak,) = find_leaks(rows)
    assert (leak.kind, leak.groups, leak.rows, leak.example) == (column, 1, 1, ("a", "e"))
    assert said in str(leak)


def test_nothing_is_known_of_artists_that_are_missing() -> None:
    rows = pd.DataFrame({"track_id": ["a", "b"], "artist": [None, None], "part": ["train", "test"]})
    assert find_leaks(rows) == []


def test_groups_are_read_by_track_or_refused(tmp_path: Path) -> None:
    table = read(frame(), tmp_path)
    path = tmp_path / "groups.csv"
    path.write_text("track_id,artist_group\nblues.00000,7\nblues/blues.00001.wav,7\nother.00000,8\n")
    found, said = read_artists(table, path)
    assert found.dropna().tolist() == ["7", "7"]
    assert said == [f"in no group of {path}: 22 rows, whose tracks stand each for itself"]
    for text in (
        "7;blues.00000.au\n7;blues.00001\n",
        '"Artist","File"\r\n"7","blues.00000"\r\n7,blues.00001\r\n',
        ",track,Artist Name,album\n0,blues.00000,7,a\n1,blues.00001,7,b\n",
    ):
        path.write_text(text)
        assert read_artists(table, path)[0].dropna().tolist() == ["7", "7"]
    for text, why in (
        ("track_id\nblues.00000\n", "has 1 column"),
        ("a,b\nblues.00000,1\nblues.00000,2\n", "in two groups"),
        ("a,b\nska.1,2\n", "names none of the table's tracks"),
        ("track,album,year\nblues.00000,1,2\n", "has 3 columns, track, album, year: .* called artist or group"),
    ):
        path.write_text(text)
        with pytest.raises(GenresError, match=why):
            read_artists(table, path)
    path.write_text("blues.00000;Band, The\nblues.00001;Band, The\nblues.00002;7\n")
    assert read_artists(table, path)[0].dropna().tolist() == ["Band, The", "Band, The", "7"]
    with pytest.raises(GenresError, match="there is no file"):
        read_artists(table, tmp_path / "none.csv")


def test_a_group_may_have_the_name_of_a_track(tmp_path: Path) -> None:
    table = read(frame().assign(filename=[str(number) for number in range(24)]), tmp_path)
    path = tmp_path / "groups.csv"
    path.write_text("artist,track\n" + "".join(f"{number // 4},{number}\n" for number in range(40)))
    found, said = read_artists(table, path)
    assert dict(zip(table.rows["track_id"], found, strict=True)) == {str(n): str(n // 4) for n in range(24)}
    assert said == []


def test_folds_keep_groups_whole_and_genres_spread() -> None:
    genres = pd.Series(["a", "b"] * 50)
    groups = [number // 4 for number in range(100)]
    folds = assign_folds(genres, groups, n=5, seed=0)
    assert set(folds) == set(range(5))
    assert all(len({folds[row] for row in range(100) if groups[row] == group}) == 1 for group in groups)
    assert set(assign_folds(pd.Series(["a", "b", "a"]), [0, 1, 2], n=5, seed=0)) == {0, 1}
    with pytest.raises(GenresError, match="cannot be split"):
        assign_folds(pd.Series(["a", "b"]), [0, 0], n=5, seed=0)


def test_rows_that_are_linked_by_anything_are_together() -> None:
    rows = pd.DataFrame({"song": ["a", "a", "b", "c"], "artist": [None, "x", "x", None]})
    found = together(rows, ["song", "artist"])
    assert found[0] == found[1] == found[2] != found[3]


def test_the_pipelines_split_of_a_table_has_no_leak_and_no_test_without_a_reason(tmp_path: Path) -> None:
    rows = frame(("ska", "dub"), n=60, name="{genre}_{number}.wav")
    rows.loc[3, ["tempo", "mfcc1_var"]] = rows.loc[40, ["tempo", "mfcc1_var"]].to_numpy()
    table = read(rows, tmp_path)
    parts, said = pipeline_parts(table)
    assert set(parts.dropna()) == {"train", "valid", "test"}
    assert parts.isna().sum() == 1
    assert "hash" in said[0] and "left out: 1 row," in said[1]
    assert find_leaks(table.rows.assign(part=parts)[parts.notna()]) == []


@pytest.mark.skipif(not GTZAN.exists(), reason="GTZAN's tables are not beside the checkout")
def test_gtzans_table_lists_and_artists_fit() -> None:
    table = read_feature_table(GTZAN / "features_30_sec_train_valid.csv")
    assert (len(table.rows), len(table.columns), table.notices) == (640, 57, ())
    parts, said = listed_parts(table, GTZAN)
    assert parts.value_counts().to_dict() == {"train": 443, "valid": 197}
    assert said == ["of the 290 tracks in test_filtered.txt the table lacks 290, the first being blues.00012"]
    artists, said = read_artists(table, GTZAN / "artist_groups.csv")
    assert said == [] and artists.notna().all()
    kinds = [leak.kind for leak in find_leaks(table.rows.assign(part=parts, artist=artists))]
    assert kinds == []

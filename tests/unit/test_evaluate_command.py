"""What ``genres evaluate`` makes of a table before anything is trained, and how it lays out what came of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from genres.datasets.feature_table import FeatureTable, read_feature_table
from genres.datasets.table_split import LISTS, read_artists
from genres.errors import GenresError
from genres_cli.evaluate import figures_table, split_trials


def read(folder: Path, genres: tuple[str, ...] = ("blues", "rock"), n: int = 20) -> FeatureTable:
    names = [(f"{genre}.{number:05d}.wav", genre) for genre in genres for number in range(n)]
    table = pd.DataFrame(names, columns=["filename", "label"])
    table["tempo"] = np.random.default_rng(0).normal(size=len(table))
    table.to_csv(folder / "table.csv", index=False)
    return read_feature_table(folder / "table.csv")


def lists(folder: Path, **names: list[str]) -> Path:
    for part, name in LISTS.items():
        (folder / name).write_text("\n".join(names.get(part, [])))
    return folder


def tracks(genre: str, *numbers: int) -> list[str]:
    return [f"{genre}/{genre}.{number:05d}.wav" for number in numbers]


def test_each_part_has_its_rows_and_folds_are_of_what_is_learnt_from(tmp_path: Path) -> None:
    table = read(tmp_path)
    folder = lists(
        tmp_path,
        train=[*tracks("blues", *range(10)), *tracks("rock", *range(10))],
        test=[*tracks("blues", 10, 11), *tracks("rock", 10)],
    )
    (trial,), rows, notices = split_trials(table, table.rows, folder, [])
    assert trial.parts.value_counts().to_dict() == {"train": 20, "test": 3}
    assert len(rows) == 23
    folds = {fold for fold, part in zip(trial.folds, trial.parts, strict=True) if part == "train"}
    assert folds == set(range(5))
    assert notices == [
        "left out, since no list names them: 17 rows, the first being blues.00012",
        "the valid part has no row: validated by cross-validation alone",
    ]


def test_rows_that_nobody_could_name_are_left_out_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, ("blues", "rock", "ska"))
    folder = lists(
        tmp_path,
        train=[*tracks("blues", *range(10)), *tracks("rock", *range(10))],
        valid=tracks("blues", 10),
        test=[*tracks("ska", 1, 2, 3), *tracks("rock", 11)],
    )
    (trial,), rows, notices = split_trials(table, table.rows, folder, [])
    assert set(rows["genre"]) == {"blues", "rock"}
    assert (trial.parts == "test").sum() == 1
    assert "3 test rows are left out: no row to learn from has their genre (ska)" in notices


def test_one_genre_is_not_enough(tmp_path: Path) -> None:
    table = read(tmp_path)
    folder = lists(tmp_path, train=tracks("blues", *range(10)), test=tracks("rock", 1))
    with pytest.raises(GenresError, match=r"^10 rows of 1 genre are there to learn from: two genres are needed"):
        split_trials(table, table.rows, folder, [])
    folder = lists(tmp_path, train=tracks("blues", 1), test=tracks("rock", 1))
    with pytest.raises(GenresError, match=r"^1 row of 1 genre is there to learn from"):
        split_trials(table, table.rows, folder, [])
    folder = lists(tmp_path, test=tracks("rock", 1))
    with pytest.raises(GenresError, match=r"^0 rows of 0 genres are"):
        split_trials(table, table.rows, folder, [])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"train": ["blues", "blues", "rock"]}, r"for fold \d, models would learn from 1 row, of the 3"),
        ({"train": ["blues"], "valid": ["blues", "blues", "rock", "rock"]}, "for valid, models would learn from 1 row"),
    ],
)
def test_a_model_of_one_row_is_refused_before_anything_starts(
    parts: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    table = read(tmp_path)
    numbers = iter(range(20))
    folder = lists(
        tmp_path,
        **{part: [name for genre in genres for name in tracks(genre, next(numbers))] for part, genres in parts.items()},
    )
    with pytest.raises(GenresError, match=said):
        split_trials(table, table.rows, folder, [])


def test_a_part_that_has_no_row_is_said(tmp_path: Path) -> None:
    table = read(tmp_path)
    folder = lists(tmp_path, valid=[*tracks("blues", *range(10)), *tracks("rock", *range(10))])
    _, _, notices = split_trials(table, table.rows, folder, [])
    assert "the train part has no row: the validation part is learnt from, and has no figures of its own" in notices
    folder = lists(tmp_path, test=tracks("rock", *range(10)))
    with pytest.raises(GenresError, match=r"which has 0 in train, 0 in valid, 10 in test$"):
        split_trials(table, table.rows, folder, [])


def test_an_artist_on_two_sides_is_a_warning_with_its_number_and_in_one_fold(tmp_path: Path) -> None:
    table = read(tmp_path)
    groups = tmp_path / "groups.csv"
    pd.DataFrame(
        {"track": table.rows["track_id"], "artist": [str(number // 4) for number in range(len(table.rows))]}
    ).to_csv(groups, index=False)
    artists, _ = read_artists(table, groups)
    trials, rows, notices = split_trials(table, table.rows.assign(artist=artists), None, [3, 4])
    assert len(trials) == 2
    assert all(set(trial.parts) == {"train", "test"} for trial in trials)
    leaks = [notice for notice in notices if "leak" in notice]
    assert [notice.split(":")[0] for notice in leaks] == ["split 1", "split 2"]
    assert "tracks of one artist on two sides of the split, " in leaks[0]
    for trial in trials:
        known = pd.DataFrame({"artist": rows["artist"], "fold": list(trial.folds)})[trial.parts == "train"]
        assert (known.groupby("artist")["fold"].nunique() == 1).all()


def row(model: str, **figures: Any) -> dict[str, Any]:
    shares = {f"{part}_{name}": 0.5 for part in ("cv", "valid", "test") for name in ("accuracy", "macro_f1")}
    intervals = {f"{part}_accuracy_ci": [0.25, 0.75] for part in ("cv", "valid", "test")}
    counts = {"cv_n": 640, "valid_n": 197, "test_n": 290}
    own = {"model": model, "chosen": False, "is_baseline": False, "test_top3_accuracy": 0.8, "test_ece": None}
    return {**own, **shares, **intervals, **counts, **figures}


def test_the_table_says_of_how_many_clips_its_figures_are(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    rows = [row("Best", chosen=True), row("Other", valid_accuracy=None), row("majority", is_baseline=True)]
    console.print(figures_table(rows, Path("table.csv")))
    text = console.export_text()
    for said in ("n=640", "n=197", "n=290", "Best *", "0.500", "0.25-0.75", "the test part only reports"):
        assert said in text
    assert "Other *" not in text


def test_a_table_may_have_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"Mot\xf6rhead [bold].csv")
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        Console(width=80, file=file).print(figures_table([row("Best")], Path(name)))
    assert r"Mot\xf6rhead [bold].csv: accuracy" in (tmp_path / "out").read_text(encoding="utf-8")

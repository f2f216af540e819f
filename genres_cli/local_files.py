"""What ``genres features`` and ``genres predict`` do: local files in, the published columns or predictions out."""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import chosen_sets, feature_set_of, feature_sets_named
from genres.audio.gate import SUFFIXES
from genres.audio.gtzan57 import GTZAN57
from genres.datasets.folder import PassedOverCounts
from genres.errors import GenresError
from genres.file_names import display_name, display_path, unicode_name
from genres.plurals import counted
from genres.settings import Settings
from genres.written_files import replaced, require_place
from genres_cli.report import likeliest, print_lines

_CSV_COLUMNS = (
    *("is_calibrated", "is_uncertain", "distance", "is_unlike", "model_name", "model_version", "dataset"),
    *("is_synthetic", "feature_version"),
)


def write_features(console: Console, paths: Sequence[Path], output: Path, settings: Settings) -> None:
    """Write the published GTZAN table's columns for local files.

    Parameters
    ----------
    console
        Where progress and refused files are shown.
    paths
        Files, or folders that are searched.
    output
        ``.csv`` or ``.parquet``; replaced when it is there.

    Raises
    ------
    GenresError
        If there is nothing to read, no file can be used, or `output` is no place or no kind to write.
    """
    from genres.audio.clip_features import published_table

    if output.suffix not in {".csv", ".parquet"}:
        raise GenresError(f"{output}: write to a name that ends in .csv or .parquet")
    require_place(output)
    # The published table's columns, unless the settings say others.
    feature_set = feature_sets_named(chosen_sets(settings.feature_sets or GTZAN57.name))
    rows = _features(console, _audio_files(console, paths), feature_set, settings)
    print_lines(console, _refusals(rows))
    table = published_table(rows, feature_set)
    with replaced(output) as unfinished:
        if output.suffix == ".csv":
            table.to_csv(unfinished, index=False)
        else:
            table.to_parquet(unfinished, index=False)
    print_lines(console, [f"{counted(len(table), 'row')}, {table.shape[1]} columns: {output}"])


def answers_kind(kinds: Sequence[str], output: Path | None) -> str:
    """Return how answers are to be written: ``csv``, ``json`` or ``m3u``; empty for a table on the screen.

    Parameters
    ----------
    kinds
        Those that were asked for.
    output
        The file that they go to, whose suffix says it if nothing else does.

    Raises
    ------
    GenresError
        If several were asked for, nothing says which, or the file cannot be there.
    """
    if len(kinds) > 1:
        raise GenresError(f"--{' and --'.join(kinds)} are two ways to write answers: leave one of them out")
    if output is None:
        return "".join(kinds)
    require_place(output)
    kind = "".join(kinds) or {".m3u8": "m3u"}.get(output.suffix.lower(), output.suffix.lower().removeprefix("."))
    if kind not in {"csv", "json", "m3u"}:
        raise GenresError(f"{output}: write to a name that ends in .csv, .json, .m3u or .m3u8, or say --csv")
    return kind


def write_answers(output: Path, rows: Sequence[dict[str, Any]], kind: str, *, top: int) -> None:
    """Write answers to a file, which is replaced when it is there."""
    with replaced(output) as unfinished:
        # A playlist's paths open their files whatever bytes they are made of.
        unfinished.write_text(answers_as(kind, rows, top=top), encoding="utf-8", errors="surrogateescape")


def answers_as(kind: str, rows: Sequence[dict[str, Any]], *, top: int) -> str:
    """Return answers as the text of a CSV or JSON file, or of a playlist: genre by genre, the surest first.

    Parameters
    ----------
    top
        How many genres CSV has columns for, and JSON lists beside all of them.
    """
    if kind == "m3u":
        ordered = sorted(rows, key=lambda row: (row["predicted_genre"], -row["probability"]))
        lines = ["#EXTM3U"]
        for row in ordered:
            note = f"{row['predicted_genre']} {row['probability']:.2f}"
            path = row["path"]
            # A line is a path or, where that is of several lines, an address.
            place = path.as_uri() if len(str(path).splitlines()) > 1 else str(path)
            lines += [f"#EXTINF:-1,{display_name(note)} - {display_name(row['file_name'])}", place]
        return "\n".join([*lines, ""])
    named = [{**row, "path": unicode_name(str(row["path"]))} for row in rows]
    if kind == "json":
        listed = [{**row, "top": [list(found) for found in likeliest(row, top)]} for row in named]
        return json.dumps(listed if top > 1 else named, indent=2, ensure_ascii=False, default=str) + "\n"
    table = []
    for row in named:
        genres: dict[str, str | float] = {}
        for number, (genre, probability) in enumerate(likeliest(row, top), start=1):
            suffix = f"_{number}" if number > 1 else ""
            genres |= {f"predicted_genre{suffix}": genre, f"probability{suffix}": round(probability, 4)}
        table.append({"path": row["path"], **genres, **{name: row[name] for name in _CSV_COLUMNS}})
    return str(pd.DataFrame(table).to_csv(index=False))


def predict_files(
    console: Console, paths: Sequence[Path], settings: Settings, dataset: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Predict the genre of local files with a dataset's champion.

    Parameters
    ----------
    dataset
        Its id; empty for the one the settings mean: their folder's, else the current one.

    Returns
    -------
    list of dict, list of str
        ``file_name, path, predicted_genre, probability, probabilities, over_time, is_calibrated, is_uncertain,
        distance, is_unlike, model_name, model_version, dataset, is_synthetic, feature_version`` of each file that is
        audio, and a line about each that was refused.
    """
    from genres.store.database import Database
    from genres.store.lake import Lake
    from genres.store.ledger import dataset_meant, registered_dataset
    from genres.store.model_registry import ModelRegistry
    from spark.scoring import Scorer, score_clips
    from spark.session import open_session, session_config, stop_session

    files = _audio_files(console, paths)
    database = Database.opened(settings.database)
    meant = dataset_meant(database, **settings.meaning(dataset))
    entry = registered_dataset(database, meant)
    champion = ModelRegistry(settings.tracking_uri).champion(entry.dataset)
    feature_set = feature_set_of(champion.feature_version)
    features = _features(console, files, feature_set, settings)
    good = features[features["reason"].isna()]
    spark = open_session(session_config(settings, app_name="genres predict"))
    try:
        with Scorer(champion, trained_on=entry, lake=Lake.of(settings)) as scorer:
            # Two folders may hold the same file name; their places tell them apart.
            scored = score_clips(scorer, good.to_dict("records"), spark=spark)
            rows = {number: scored[place] for place, number in enumerate(good.index)}
    finally:
        stop_session(spark, remote=settings.remote)
    answers = [
        {"file_name": features["filename"][number], "path": file.absolute(), **rows[number]}
        for number, file in enumerate(files)
        if number in rows
    ]
    return answers, _refusals(features)


def _features(console: Console, files: Sequence[Path], feature_set: AnyFeatureSet, settings: Settings) -> pd.DataFrame:
    from genres.audio.clip_features import features_of_files
    from genres.audio.compile_kernels import compile_kernels

    compile_kernels(console.print)
    rows = features_of_files(files, feature_set=feature_set, max_clip_s=settings.max_clip_s)
    shown = track(rows, "features", total=len(files), console=console, disable=not console.is_terminal)
    table = pd.DataFrame(list(shown))
    for column in ("filename", "track_id", "genre"):
        table[column] = table[column].map(unicode_name)
    refused = table[table["reason"].notna()].to_dict("records")
    if len(refused) == len(table):
        first = f"{display_name(refused[0]['filename'])}: {refused[0]['reason']}"
        if len(refused) == 1:
            raise GenresError(f"{first}; name another file")
        print_lines(console, _refusals(table))
        raise GenresError(f"none of the {len(table)} files is audio that can be used (the first: {first}); name others")
    return table


def _refusals(table: pd.DataFrame) -> list[str]:
    refused = table[table["reason"].notna()]
    return [f"refused {display_name(row['filename'])}: {row['reason']}" for row in refused.to_dict("records")]


def _audio_files(console: Console, paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named and the audio in the folders that are named, however deep; say what is left."""
    files: list[Path] = []
    passed_over = PassedOverCounts()
    for path in paths:
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise GenresError(f"there is no file or folder {display_path(path)}") from error
        except OSError:  # who reads it says why it cannot be
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            found = sorted(_audio_in(path, passed_over))
            if not found:
                seen = f"; passed over: {left}" if (left := passed_over.line()) else ""
                raise GenresError(f"folder {display_path(path)} holds no audio ({', '.join(SUFFIXES)}){seen}")
            files += found
        elif stat.S_ISREG(mode):
            files.append(path)
        else:
            raise GenresError(f"{display_path(path)} is neither a file nor a folder: write what it holds to a file")
    if left := passed_over.line():
        print_lines(console, [f"passed over: {left}"])
    return files


def _audio_in(folder: Path, passed_over: PassedOverCounts) -> Iterator[Path]:
    """Go through a folder's audio, its sub-folders' too; the rest is counted in `passed_over`."""
    # Links to folders are not followed: they may lead in a circle.
    for place, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        hidden = [name for name in [*folders, *names] if name.startswith(".")]
        passed_over.add("link to a folder", len(linked))
        passed_over.add("hidden", len(hidden))
        folders[:] = [name for name in folders if name not in (*hidden, *linked)]
        for name in names:
            file = Path(place) / name
            if name.startswith("."):
                continue
            if file.suffix.lower() not in SUFFIXES:
                passed_over.add_unread(file)
            elif not file.is_file():
                passed_over.add("neither file nor folder")
            else:
                yield file

"""What ``genres features`` and ``genres predict`` do: local files in, the published columns or predictions out."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import chosen_sets, feature_set_of, feature_sets_named
from genres.audio.gate import SUFFIXES
from genres.audio.gtzan57 import GTZAN57
from genres.datasets.folder import reasons
from genres.errors import GenresError
from genres.file_names import display_name, display_path, unicode_name
from genres.settings import Settings


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
    if not output.parent.is_dir():
        raise GenresError(f"{output}: there is no folder {output.parent}; make it first")
    # The published table's columns, unless the settings say others.
    feature_set = feature_sets_named(chosen_sets(settings.feature_sets or GTZAN57.name))
    table = published_table(_features(console, _audio_files(console, paths), feature_set, settings), feature_set)
    # Beside its place and renamed: what is there stays until the new table is whole.
    unfinished = output.with_name(f".genres-features.{os.getpid()}")
    try:
        if output.suffix == ".csv":
            table.to_csv(unfinished, index=False)
        else:
            table.to_parquet(unfinished, index=False)
        unfinished.replace(output)
    except OSError as error:
        raise GenresError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    console.print(f"{len(table)} rows, {table.shape[1]} columns: {escape(str(output))}")


def predict_files(console: Console, paths: Sequence[Path], settings: Settings, dataset: str) -> list[dict[str, Any]]:
    """Predict the genre of local files with a dataset's champion.

    Parameters
    ----------
    dataset
        Its id; empty for the one the settings mean: their folder's, else the one loaded last.

    Returns
    -------
    list of dict
        ``file_name, predicted_genre, probability, probabilities, over_time, is_calibrated, is_uncertain, distance,
        is_unlike, model_name, model_version, dataset, is_synthetic, feature_version`` of each file that is audio.
    """
    from genres.store.database import Database
    from genres.store.lake import Lake
    from genres.store.ledger import dataset_meant, registered_dataset
    from genres.store.model_registry import ModelRegistry
    from spark.scoring import Scorer, score_clips
    from spark.session import open_session, session_config, stop_session

    files = _audio_files(console, paths)
    database = Database(settings.database)
    database.check_migrated()
    meant = dataset_meant(database, dataset=dataset or settings.dataset, folder=settings.audio)
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
    return [{"file_name": name, **rows[number]} for number, name in good["filename"].items()]


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
        raise GenresError(f"none of the {len(table)} files is audio that can be used (the first: {first}); name others")
    for file in refused:
        console.print(f"refused {escape(display_name(file['filename']))}: {escape(file['reason'])}")
    return table


def _audio_files(console: Console, paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named and the audio in the folders that are named, however deep; say what is left."""
    files: list[Path] = []
    passed_over: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            found = sorted(_audio_in(path, passed_over))
            if not found:
                seen = f"; passed over: {reasons(passed_over)}" if passed_over else ""
                raise GenresError(f"folder {display_path(path)} holds no audio ({', '.join(SUFFIXES)}){seen}")
            files += found
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise GenresError(f"{display_path(path)} is neither a file nor a folder: write what it holds to a file")
        else:
            raise GenresError(f"there is no file or folder {display_path(path)}")
    if passed_over:
        console.print(f"passed over: {reasons(passed_over)}")
    return files


def _audio_in(folder: Path, passed_over: "Counter[str]") -> Iterator[Path]:
    """Go through a folder's audio, its sub-folders' too; what is not taken is counted by reason."""
    # Links to folders are not followed: they may lead in a circle.
    for place, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        hidden = [name for name in [*folders, *names] if name.startswith(".")]
        passed_over.update(["link to a folder"] * len(linked) + ["hidden"] * len(hidden))
        folders[:] = [name for name in folders if name not in (*hidden, *linked)]
        for name in names:
            file = Path(place) / name
            if name.startswith("."):
                continue
            if file.suffix.lower() not in SUFFIXES:
                passed_over["not audio by its suffix"] += 1
            elif not file.is_file():
                passed_over["neither file nor folder"] += 1
            else:
                yield file

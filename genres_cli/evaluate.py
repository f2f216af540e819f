"""What ``genres evaluate`` does: a table of features in, the candidates' figures out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genres.addresses import require_addresses
from genres.errors import GenresError
from genres.file_names import display_name, unicode_name
from genres.plurals import counted
from genres.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from genres.datasets.feature_table import FeatureTable
    from spark.comparison import Trial

_FOLDS = 5
_LEAST_LEARNT = 2
"""Rows without which nothing varies."""
_COMPARED = (
    "LogisticRegression,WhitenedLogisticRegression,FourierLogisticRegression,LinearDiscriminantAnalysis,RandomForest"
)
"""More than a dataset's models are trained with by default: nobody waits here for a batch to be scored."""


def evaluate_table(
    console: Console, path: Path, *, split_dir: Path | None, seeds: Sequence[int], groups: Path | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Train and judge the candidates on a table of features.

    Parameters
    ----------
    console
        Where progress is shown.
    path
        The table, for `genres.datasets.feature_table.read_feature_table`.
    split_dir
        Folder of lists that say who is in which part.
    seeds
        Of random splits, one for each; without them and `split_dir` it is the split that the pipeline makes.
    groups
        CSV of tracks and their artists.

    Returns
    -------
    list of dict
        From `spark.comparison.Comparison`.
    list of str
        What to know about the table, the split and the figures.

    Raises
    ------
    GenresError
        If table, lists or groups cannot be used, or leave too little to train on.
    """
    from genres.datasets.feature_table import read_feature_table
    from genres.datasets.table_split import read_artists
    from local_stack.stack import up_engine
    from spark.classifiers import choose
    from spark.comparison import compare
    from spark.session import open_session, session_config, stop_session

    settings = Settings()
    require_addresses(settings)
    # What can be wrong is read before anything is started.
    candidates = choose((settings.classifiers or _COMPARED).split(","))
    table = read_feature_table(path)
    notices = list(table.notices)
    rows = table.rows.copy()
    if groups is not None:
        rows["artist"], said = read_artists(table, groups)
        notices += said
    else:
        notices.append(
            "artists are not known: tracks of one may be learnt from and judged, which flatters; see --groups"
        )
    trials, rows, said = split_trials(table, rows, split_dir, seeds)
    notices += said
    up_engine(settings, on_progress=lambda line: console.print(f"  {escape(line)}"))
    settings = Settings()  # with this stack's ports
    spark = open_session(session_config(settings, app_name="genres evaluate"))
    try:
        comparison = compare(
            spark,
            rows,
            columns=table.columns,
            trials=trials,
            groups=_together(rows, "artist"),
            candidates=candidates,
            on_progress=lambda line: console.print(f"  {escape(line)}"),
        )
    finally:
        stop_session(spark, remote=settings.remote)
    return comparison.rows, [*notices, *comparison.notices]


def figures_table(rows: Sequence[dict[str, Any]], path: Path) -> Table:
    """Lay out the figures, with how many clips each is of."""
    first = rows[0]
    counts = {part: f"n={first[f'{part}_n']}" for part in ("cv", "valid", "test")}
    title = f"{escape(display_name(unicode_name(path.name)))}: accuracy with its 95 % interval"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("model", min_width=18, overflow="fold")
    for part, head in (("cv", "cross-\nvalidation"), ("valid", "valid\naccuracy"), ("test", "test\naccuracy")):
        table.add_column(f"{head}\n{counts[part]}", min_width=9)
    for head in ("macro-F1", "top-3", "ECE"):
        table.add_column(f"test\n{head}\n{counts['test']}", min_width=5)
    for row in rows:
        name = f"[bold]{row['model']} *[/]" if row["chosen"] else row["model"]
        shares = [_with_interval(row, part) for part in ("cv", "valid", "test")]
        others = (row["test_macro_f1"], row["test_top3_accuracy"], row["test_ece"])
        table.add_row(name, *shares, *(_figure(value) for value in others), style="dim" if row["is_baseline"] else "")
    table.caption = "* chosen by cross-validated accuracy; the test part only reports; ECE after calibration"
    return table


def _with_interval(row: dict[str, Any], part: str) -> str:
    if row[f"{part}_accuracy"] is None:
        return "-"
    low, high = row[f"{part}_accuracy_ci"]
    return f"{row[f'{part}_accuracy']:.3f}\n{low:.2f}-{high:.2f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def split_trials(
    table: "FeatureTable", rows: "pd.DataFrame", split_dir: Path | None, seeds: Sequence[int]
) -> "tuple[list[Trial], pd.DataFrame, list[str]]":
    """Split the rows; return the splits, the rows that any of them uses, and sentences about both."""
    from genres.datasets.leaks import find_leaks
    from genres.datasets.split import PARTS
    from genres.datasets.table_split import assign_folds, listed_parts, pipeline_parts, random_parts
    from spark.comparison import Trial

    notices: list[str] = []
    if split_dir is not None:
        parts, notices = listed_parts(table, split_dir)
        splits = [parts]
    elif seeds:
        splits = [random_parts(table, seed) for seed in seeds]
    else:
        parts, notices = pipeline_parts(table)
        splits = [parts]
    rows_of = [", ".join(f"{int((parts == part).sum())} in {part}" for part in PARTS) for parts in splits]
    splits, notices = _known_genres_only(rows, splits, notices)
    used = splits[0].notna()
    rows, splits = rows[used].reset_index(drop=True), [parts[used].reset_index(drop=True) for parts in splits]
    trials = []
    for number, parts in enumerate(splits):
        known = (parts != "test").to_numpy()
        if rows.loc[known, "genre"].nunique() < 2:
            count = int(known.sum())
            there = f"{counted(count, 'row')} of {counted(rows.loc[known, 'genre'].nunique(), 'genre')}"
            raise GenresError(
                f"{there} {'is' if count == 1 else 'are'} there to learn from: two genres are needed; check the "
                f"table's labels and the split, which has {rows_of[number]}"
            )
        for absent, why in (
            ("train", "the validation part is learnt from, and has no figures of its own"),
            ("valid", "validated by cross-validation alone"),
            ("test", "there are no test figures"),
        ):
            # A random split has two parts.
            if not (parts == absent).any() and not (seeds and absent == "valid"):
                notices.append(f"the {absent} part has no row: {why}")
        found = assign_folds(
            rows.loc[known, "genre"],
            _together(rows[known], "artist", "digest"),
            n=_FOLDS,
            seed=0,
        )
        folds = [0] * len(rows)
        for place, fold in zip(known.nonzero()[0], found, strict=True):
            folds[place] = fold
        trials.append(Trial(parts, folds))
        for name, (learnt, _) in trials[-1].rounds().items():
            if learnt.sum() < _LEAST_LEARNT:
                raise GenresError(
                    f"for {name}, models would learn from 1 row, of the {int(known.sum())} that the split has in train "
                    f"and valid: {_LEAST_LEARNT} are needed; add tracks, or change the split"
                )
        of = f"split {number + 1}: " if len(splits) > 1 else ""
        notices += [f"{of}{leak}" for leak in find_leaks(rows.assign(part=parts))]
    return trials, rows, notices


def _known_genres_only(
    rows: "pd.DataFrame", splits: "list[pd.Series]", notices: list[str]
) -> "tuple[list[pd.Series], list[str]]":
    """Leave out rows of genres that no row to learn from has: nobody could name them."""
    for parts in splits:
        known = set(rows.loc[parts.isin(["train", "valid"]), "genre"])
        unknown = parts.notna() & ~rows["genre"].isin(known)
        if unknown.any():
            count = int(unknown.sum())
            genres = ", ".join(sorted(rows.loc[unknown, "genre"].unique()))
            notices = [
                *notices,
                f"{counted(count, 'test row')} {'is' if count == 1 else 'are'} left out: no row to learn from has "
                f"{'its' if count == 1 else 'their'} genre ({genres})",
            ]
            splits = [others.mask(unknown) for others in splits]
    return splits, notices


def _together(rows: "pd.DataFrame", *keys: str) -> list[int]:
    from genres.datasets.table_split import together

    return together(rows, ["song", *(key for key in keys if key in rows)])

"""All 57 columns agree with the published GTZAN table on the real clips, so that its rows and ours are one kind.

Of the 30 clips, 25 are in the table (it holds training and validation tracks). The worst column is
``harmony_mean``: a mean of 660,000 samples around zero that is itself 10,000 times smaller than they are, so
that the order in which float32 terms are added shows in its fourth digit.
"""

import pandas as pd
import pytest

from genres.audio.clip_features import features_of_files, published_table
from genres.audio.feature_sets import GTZAN57
from genres.settings import PROJECT_DIR

GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"
MEDIAN_TOLERANCE = 1e-5
"""Median over the clips of the relative difference, for every column."""
LARGEST_TOLERANCE = dict.fromkeys(GTZAN57.columns, 1e-4) | {"harmony_mean": 5e-3, "perceptr_mean": 5e-4}
"""Largest relative difference of any clip."""

pytestmark = pytest.mark.skipif(not GTZAN.is_dir(), reason="the real GTZAN clips are not beside the project")


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    published = pd.read_csv(GTZAN / "features_30_sec_train_valid.csv")
    paths = [path for path in sorted(GTZAN.glob("sample_audio/*/*.wav")) if path.name in set(published["filename"])]
    rows = features_of_files(paths, feature_set=GTZAN57, max_clip_s=31, workers=1)
    ours = published_table(pd.DataFrame(rows), GTZAN57)
    theirs = published[published["filename"].isin(ours["filename"])].sort_values("filename", ignore_index=True)
    return ours, theirs


def test_same_columns_files_lengths_and_labels(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ours, theirs = tables
    assert len(ours) == 25
    assert list(ours.columns) == list(theirs.columns)
    exact = ["filename", "length", "label"]
    pd.testing.assert_frame_equal(ours[exact], theirs[exact])


@pytest.mark.parametrize("column", GTZAN57.columns)
def test_column_agrees_with_the_published_table(tables: tuple[pd.DataFrame, pd.DataFrame], column: str) -> None:
    ours, theirs = tables
    difference = (ours[column] - theirs[column]).abs() / theirs[column].abs()
    assert difference.median() <= MEDIAN_TOLERANCE
    assert difference.max() <= LARGEST_TOLERANCE[column]

"""Distances to what was learnt: they are scikit-learn's, and noise, silence, tones and speech are far from music."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf

from genres.audio.gtzan57 import GTZAN57
from genres.datasets.table_split import assign_folds
from genres.settings import PROJECT_DIR
from spark.classifiers import Scale
from spark.distance import LearntClips, held_out_distances, scales_of
from tests.sounds import SR, clicks, coloured_noise, seconds, speech, tone

COLUMNS = ("tempo", "mfcc1_var", "mfcc2_mean", "same")
GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"


def clips(n: int, seed: int = 0) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(seed)
    tempo, loud = random.normal(120, 20, n), random.normal(size=n)
    return np.column_stack([tempo, np.exp(loud), 3 * loud + 0.1 * tempo + random.normal(size=n), np.full(n, 5.0)])


def test_scales_are_those_of_the_training_clips() -> None:
    values = clips(50)
    values[3, 0] = np.nan
    logs = np.log(values[:, 1] + 1e-9)
    tempo = pd.Series(values[:, 0])
    expected = (
        Scale(tempo.mean(), tempo.std(), offset=None),
        Scale(logs.mean(), logs.std(ddof=1), offset=1e-9),
        Scale(values[:, 2].mean(), values[:, 2].std(ddof=1), offset=None),
        Scale(5.0, 0.0, offset=None),
    )
    for found, wanted in zip(scales_of(values, COLUMNS), expected, strict=True):
        assert found == (pytest.approx(wanted.mean), pytest.approx(wanted.deviation), wanted.offset)
    assert scales_of(-values, COLUMNS)[1].offset is None, "what is negative somewhere is no variance"


def test_distances_are_scikit_learns_mahalanobis_distances() -> None:
    values, asked = clips(40), clips(10, seed=1)
    learnt = LearntClips.of(values, COLUMNS)
    assert learnt is not None

    def standardised(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = [(rows[:, place] - values[:, place].mean()) / values[:, place].std(ddof=1) for place in (0, 2)]
        logs, own = np.log(rows[:, 1] + 1e-9), np.log(values[:, 1] + 1e-9)
        return np.column_stack([found[0], (logs - own.mean()) / own.std(ddof=1), found[1], np.zeros(len(rows))])

    reference = LedoitWolf().fit(standardised(values))
    assert 0 < reference.shrinkage_ < 1
    for rows in (values, asked):
        # Nothing of these is cut off, so that the mean is the middle.
        np.testing.assert_allclose(learnt.distances(rows) ** 2, reference.mahalanobis(standardised(rows)), rtol=1e-6)


def test_what_is_missing_or_never_varied_tells_nothing() -> None:
    learnt = LearntClips.of(clips(40), COLUMNS)
    assert learnt is not None
    row = clips(1, seed=2)
    other = row.copy()
    other[0, 3] = -1e9
    assert learnt.distances(other) == pytest.approx(learnt.distances(row))
    middle = np.array([[np.nan, np.nan, np.nan, np.nan]])
    assert learnt.distances(middle) == pytest.approx(0)
    assert LearntClips.of(np.full((10, 4), 5.0), COLUMNS) is None
    odd = row.copy()
    odd[0, 0] = 1e12
    assert np.isfinite(learnt.distances(odd)).all() and learnt.distances(odd)[0] > 3


def test_there_may_be_fewer_clips_than_columns() -> None:
    values = np.random.default_rng(0).normal(size=(12, 60))
    learnt = LearntClips.of(values, [f"feature_{number}" for number in range(60)])
    assert learnt is not None
    assert np.isfinite(learnt.distances(values)).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_handful_of_clips_says_nothing_or_gives_numbers(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 96))
    columns = [f"feature_{number}" for number in range(96)]
    learnt = LearntClips.of(values, columns)
    assert learnt is None or np.isfinite(learnt.distances(values)).all()
    held_out = held_out_distances(values, columns, np.arange(n) % 3)
    assert np.isfinite(held_out).tolist() == [n == 4 and place in {1, 2} for place in range(n)], "two say nothing"
    assert LearntClips.of(values[:2], columns) is None


def test_a_fold_of_which_the_others_say_nothing_has_no_distances() -> None:
    """Zeros would count as the nearest clips that there are, and lower the threshold."""
    found = held_out_distances(clips(5), COLUMNS, np.array([0, 0, 0, 1, 1]))
    assert np.isnan(found[:3]).all()
    others = LearntClips.of(clips(5)[:3], COLUMNS)
    assert others is not None
    np.testing.assert_array_equal(found[3:], others.distances(clips(5)[3:]))


def test_a_clip_is_compared_with_the_other_folds_alone() -> None:
    values, folds = clips(30), np.arange(30) % 3
    values[4] = [1000, 1e9, 1000, 5.0]
    held_out = held_out_distances(values, COLUMNS, folds)
    others = LearntClips.of(values[folds != 1], COLUMNS)
    everything = LearntClips.of(values, COLUMNS)
    assert others is not None and everything is not None
    # Had it been learnt from, the odd clip would be nearer.
    np.testing.assert_allclose(held_out[folds == 1], others.distances(values[folds == 1]))
    assert held_out[4] > everything.distances(values)[4] > 10


@pytest.mark.parametrize(("n", "beyond"), [(30, 0), (50, 0), (1000, 20)])
def test_the_threshold_leaves_out_one_in_fifty(n: int, beyond: int) -> None:
    learnt = LearntClips.of(clips(20), COLUMNS)
    assert learnt is not None
    held_out = np.random.default_rng(0).exponential(size=n)
    scaled = learnt.with_threshold(held_out, np.full(29, 1e9))  # so few say nothing
    assert abs(int((held_out / scaled.threshold > 1).sum()) - beyond) <= 1 - (n < 100)
    np.testing.assert_allclose(scaled.distances(clips(5)) * scaled.threshold, learnt.distances(clips(5)))


def test_music_that_is_further_away_than_the_folds_were_raises_the_threshold() -> None:
    learnt = LearntClips.of(clips(20), COLUMNS)
    assert learnt is not None
    folds, validation = np.linspace(0, 1, 101), np.linspace(0, 2, 101)
    assert learnt.with_threshold(folds, validation).threshold == pytest.approx(0.97 * 2)
    assert learnt.with_threshold(folds, validation / 4).threshold == pytest.approx(0.98)


LENGTH = 20.0
NO_MUSIC = {
    **{f"{name} noise": coloured_noise(LENGTH, exponent) for exponent, name in enumerate(("white", "pink", "brown"))},
    "silence": np.zeros(int(LENGTH * SR), np.float32),
    "almost silence": np.round(coloured_noise(LENGTH, 0)).astype(np.float32) / 32_768,
    "low tone": tone(55, LENGTH),
    "tone": tone(440, LENGTH),
    "high tone": tone(5_000, LENGTH),
    "sweep": (0.5 * np.sin(2 * np.pi * 100 * seconds(LENGTH) ** 2)).astype(np.float32),
    "clicks": clicks(SR // 2, LENGTH),
    "speech": speech(LENGTH),
    "higher speech": speech(LENGTH, 200, seed=1),
}


@pytest.fixture(scope="module")
def published() -> tuple[LearntClips, pd.DataFrame]:
    """What the published features of GTZAN's training part are like, and those of its validation part."""
    if not GTZAN.is_dir():
        pytest.skip("the published table is not beside the project")
    table = pd.read_csv(GTZAN / "features_30_sec_train_valid.csv")
    parts = {
        part: table["filename"].isin({line.split("/")[-1].strip() for line in (GTZAN / f"{part}_filtered.txt").open()})
        for part in ("train", "valid")
    }
    train, valid = table[parts["train"]], table[parts["valid"]]
    values = train[list(GTZAN57.columns)].to_numpy(float)
    folds = np.array(assign_folds(train["label"], list(range(len(train))), n=5, seed=0))
    learnt = LearntClips.of(values, GTZAN57.columns)
    assert learnt is not None
    return learnt.with_threshold(held_out_distances(values, GTZAN57.columns, folds), np.array([])), valid


@pytest.mark.parametrize("loudness", [1.0, 0.1])
@pytest.mark.parametrize("name", NO_MUSIC)
def test_what_is_no_music_is_unlike_it(published: tuple[LearntClips, pd.DataFrame], name: str, loudness: float) -> None:
    learnt, _ = published
    samples = np.round(loudness * NO_MUSIC[name] * 32_767).astype(np.float32) / np.float32(32_768)
    features = GTZAN57.kernel(samples).clip
    assert learnt.distances(np.array([[features[column] for column in GTZAN57.columns]]))[0] > 1


def test_music_that_was_held_out_is_like_it(published: tuple[LearntClips, pd.DataFrame]) -> None:
    learnt, valid = published
    assert len(valid) == 197
    marked = learnt.distances(valid[list(GTZAN57.columns)].to_numpy(float)) > 1
    assert marked.mean() <= 0.05

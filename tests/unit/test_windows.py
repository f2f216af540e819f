"""A clip's windows: where they are, what is measured of them, and how they lie beside the clip's features."""

import io
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genres.audio.clip_features import clip_features
from genres.audio.feature_set import WINDOW_S, FeatureSet, JoinedFeatureSets, window_starts
from genres.audio.feature_sets import feature_sets_named
from genres.audio.gtzan57 import GTZAN57
from genres.audio.gtzan57.kernel import gtzan57
from genres.audio.known_good import known_good_wav
from genres.audio.librosa96 import LIBROSA96
from genres.audio.librosa96.kernel import librosa96
from genres.audio.librosa96.reference import reference_librosa96
from genres.audio.musicnn import MUSICNN
from genres.audio.musicnn import kernel as network
from genres.settings import PROJECT_DIR
from spark.extraction import feature_batches
from spark.isolation import KnownGoodClips
from tests.sounds import SR, clicks, music, noise
from tests.tiny_features import TINY

GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"
STEP = WINDOW_S * SR
needs_weights = pytest.mark.skipif(MUSICNN.missing() is not None, reason=str(MUSICNN.missing()))


def frames_of(samples: np.ndarray) -> list[slice]:
    """The frames of each whole window, counted by hand: 128 or 129."""
    hops = [int(number * 65_973.6) // 512 for number in range(1 + int(len(samples) / 65_973.6))]
    return [slice(*pair) for pair in pairwise(hops)]


def wav(samples: np.ndarray, rate: int = SR) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_windows_follow_each_other_and_the_rest_is_in_none() -> None:
    assert pytest.approx(65_973.6) == STEP
    assert window_starts(100, SR) == [0]
    assert window_starts(65_973, SR) == [0]
    assert window_starts(65_974, SR) == [0, STEP]
    assert window_starts(30 * SR, SR) == [number * STEP for number in range(11)]
    assert len(window_starts(600 * 16_000, 16_000)) == 201


def reals() -> list[np.ndarray]:
    from genres.audio.decode import decode

    paths = sorted(GTZAN.glob("sample_audio/*/*.wav"))[2::13]
    return [decode(path.read_bytes(), sample_rate=SR) for path in paths]


SOUNDS = {
    "music": music(9.2),
    "noise, then silence": np.concatenate([noise(3.2), np.zeros(6 * SR, np.float32)]),
    "clicks, 93 a minute": clicks(14_226, 12.0),
    "quiet, then loud": np.concatenate([1e-3 * music(3.1, seed=4), music(3.1, seed=5)]),
} | {f"real {number}": samples for number, samples in enumerate(reals())}


@pytest.mark.parametrize("samples", SOUNDS.values(), ids=SOUNDS.keys())
def test_a_windows_features_are_of_its_part_of_what_librosa_says_of_the_clip(samples: np.ndarray) -> None:
    windows = librosa96(samples).windows
    cut = frames_of(samples)
    assert len(windows) == len(cut) >= 2
    for number in {0, 1, len(cut) - 1}:
        expected = reference_librosa96(samples, window=cut[number])
        far = {}
        for column, value in expected.items():
            absolute = 2e-5 if column.startswith(("mfcc", "spectral_contrast", "onset")) else 1e-8
            if column.endswith("_var"):
                rounding = 2.0**-23 * abs(expected[column.replace("_var", "_mean")])
                absolute += 2 * np.sqrt(value) * rounding + rounding**2
            if windows[number][column] != pytest.approx(value, rel=1e-4, abs=absolute):
                far[column] = windows[number][column], value
        assert far == {}, number


def test_a_windows_57_features_are_among_its_96() -> None:
    samples = music(7.0)
    for inner, outer in zip(gtzan57(samples).windows, librosa96(samples).windows, strict=True):
        assert inner.items() <= outer.items()


@pytest.mark.parametrize("feature_set", [GTZAN57, LIBROSA96, pytest.param(MUSICNN, marks=needs_weights)])
def test_a_clip_shorter_than_a_window_is_one_window(feature_set: FeatureSet) -> None:
    measured = feature_set.kernel(music(1.0))
    assert measured.windows == [measured.clip]


def test_what_changes_in_the_clip_changes_in_its_windows() -> None:
    quiet_then_loud = librosa96(np.concatenate([noise(3.0, 1e-3), noise(3.0, 0.1)])).windows
    first, second = (window["rms_mean"] for window in quiet_then_loud)
    assert 50 * first < second
    # Four windows of 100 beats a minute, then four of 150.
    beats = np.concatenate([clicks(SR * 60 // 100, 4 * STEP / SR), clicks(SR * 60 // 150, 4 * STEP / SR)])
    tempi = [window["tempo"] for window in librosa96(np.maximum(beats, noise(30, 1e-3)[: len(beats)])).windows]
    assert (tempi[0], tempi[-1]) == (pytest.approx(100, abs=3), pytest.approx(150, abs=4))


@settings(max_examples=15, deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(int(2 * STEP) + 1, int(2.2 * STEP)),
        elements=st.floats(-10, 10, width=32),
        fill=st.sampled_from([0.0, 0.5, -1.0]),
    )
)
def test_whatever_decodes_has_finite_windows(samples: np.ndarray) -> None:
    windows = librosa96(samples).windows
    assert len(windows) == 2
    assert np.isfinite([list(window.values()) for window in windows]).all()


@needs_weights
def test_musicnns_windows_are_its_patches() -> None:
    rng = np.random.default_rng(3)
    samples = (0.1 * rng.standard_normal(20 * 16_000)).astype(np.float32)
    measured = network.musicnn(samples)
    assert len(measured.windows) == len(window_starts(len(samples), 16_000)) - 1 == 6
    means = np.mean([list(window.values()) for window in measured.windows], axis=0)
    np.testing.assert_allclose(list(measured.clip.values()), means, rtol=1e-12)
    # The second patch hears no sample that is farther than half a frame from it.
    far = samples.copy()
    far[: 187 * 256 - 256] = far[2 * 187 * 256 + 256 :] = 0
    changed = network.musicnn(far).windows
    assert changed[1] == measured.windows[1]
    assert changed[0] != measured.windows[0]
    # One frame short of two windows, there are two patches, and one window.
    assert len(network.musicnn(samples[: 2 * 187 * 256 - 1]).windows) == 1


def test_each_set_has_the_windows_of_its_own_columns() -> None:
    joined = feature_sets_named(["gtzan57", "librosa96"])
    data = wav(music(7.0))
    found = clip_features(data, file_suffix=".wav", feature_set=joined, max_clip_s=10)
    assert [len(rows) for rows in found.windows.values()] == [2, 2]
    alone = clip_features(data, file_suffix=".wav", feature_set=GTZAN57, max_clip_s=10)
    np.testing.assert_array_equal(found.windows["windows_gtzan57"], alone.windows["windows_gtzan57"])
    for number, window in enumerate(librosa96(music(7.0)).windows):
        expected = np.array([window[column] for column in LIBROSA96.columns], np.float32)
        np.testing.assert_array_equal(found.windows["windows_librosa96"][number], expected)


def test_windows_lie_beside_the_features_and_a_set_may_have_none() -> None:
    rows = pa.RecordBatch.from_pylist([{"track_id": "known good"}])
    both = JoinedFeatureSets((LIBROSA96, TINY))
    (found,) = feature_batches([rows], source=KnownGoodClips(), feature_set=both, max_clip_s=60)
    (row,) = found.to_pylist()
    expected = clip_features(known_good_wav(30), file_suffix=".wav", feature_set=LIBROSA96, max_clip_s=60)
    assert row["windows_tiny"] is None
    np.testing.assert_array_equal(row["windows_librosa96"], expected.windows["windows_librosa96"])


def test_ten_minutes_have_two_hundred_windows() -> None:
    part = music(30.0, seed=9)[: 20 * int(SR * 1.5)]
    samples = np.tile(part, 20)
    measured = LIBROSA96.kernel(samples)
    assert len(measured.windows) == 200
    for column in ("rms_mean", "zero_crossing_rate_mean", "spectral_centroid_mean"):
        assert [window[column] for window in measured.windows[:9]] == pytest.approx(
            [window[column] for window in LIBROSA96.kernel(part).windows[:9]], rel=1e-6
        )


def test_decibels_of_a_window_count_from_the_clips_loudest() -> None:
    samples = np.concatenate([noise(STEP / SR, 1e-6), noise(STEP / SR, 0.5)])
    alone, inside = librosa96(samples[: int(STEP)]).windows[0], librosa96(samples).windows[0]
    assert alone["mfcc1_mean"] != pytest.approx(inside["mfcc1_mean"], rel=1e-2)

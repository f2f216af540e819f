"""The kernel that shares its spectra gives what the librosa functions give one by one."""

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import median_filter

from spark.feature_sets import DEFAULT_FEATURE_SET, FEATURE_SETS, GTZAN57
from spark.features import _line_medians, gtzan57

SR = 22_050


def music(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """A chord, a click twice a second and some noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * SR) + 123) / SR
    chord = sum(np.sin(2 * np.pi * pitch * at) for pitch in rng.uniform(100, 2_000, 4))
    clicks = rng.standard_normal(len(at)) * (at % 0.5 < 0.03)
    return (0.1 * chord + 0.3 * clicks + 0.01 * rng.standard_normal(len(at))).astype(np.float32)


def plain_librosa(y: np.ndarray) -> dict[str, float]:
    """The published definitions, each by calls of librosa's public functions with the samples."""
    reflect = {"pad_mode": "reflect"}
    spectrum = librosa.stft(y, **reflect)
    mel = librosa.feature.melspectrogram(y=y, sr=SR, **reflect)
    onsets = librosa.onset.onset_strength(S=librosa.power_to_db(mel), sr=SR, aggregate=np.median)
    harmonic, percussive = (
        librosa.util.fix_length(librosa.istft(part), size=len(y)) for part in librosa.decompose.hpss(spectrum)
    )
    frames = {
        "chroma_stft": librosa.feature.chroma_stft(y=y, sr=SR, **reflect),
        "rms": librosa.feature.rms(y=y, **reflect),
        "spectral_centroid": librosa.feature.spectral_centroid(y=y, sr=SR, **reflect),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=y, sr=SR, **reflect),
        "rolloff": librosa.feature.spectral_rolloff(y=y, sr=SR, **reflect),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(y),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    mfcc = librosa.feature.mfcc(y=y, sr=SR, **reflect)
    frames |= {f"mfcc{number}": row for number, row in enumerate(mfcc, start=1)}
    values = {f"{name}_mean": np.mean(rows) for name, rows in frames.items()}
    values |= {f"{name}_var": np.var(rows) for name, rows in frames.items()}
    return values | {"tempo": float(np.squeeze(librosa.beat.beat_track(onset_envelope=onsets, sr=SR)[0]))}


@pytest.mark.parametrize(
    "samples",
    [music(), music(3.3, seed=1), music(0.1, seed=2), np.zeros(2 * SR, np.float32)],
    ids=["six seconds", "another", "a tenth of a second", "silence"],
)
def test_shared_spectra_give_the_values_of_the_plain_calls(samples: np.ndarray) -> None:
    expected = plain_librosa(samples)
    found = gtzan57(samples)
    assert set(found) == set(expected)
    for column, value in found.items():
        # Float32 rounding; the absolute part is for means that cancel out, whose terms are of the order of 0.1.
        assert value == pytest.approx(expected[column], rel=2e-6, abs=1e-9), column


def test_librosa_is_the_release_that_the_version_names() -> None:
    assert f"librosa{'.'.join(librosa.__version__.split('.')[:2])}" == GTZAN57.library
    assert GTZAN57.feature_version == "gtzan57-v1-librosa0.11"


def test_kernel_gives_the_columns_of_its_set() -> None:
    assert FEATURE_SETS[DEFAULT_FEATURE_SET.name] is DEFAULT_FEATURE_SET
    for feature_set in FEATURE_SETS.values():
        values = feature_set.kernel(music(1.0))
        assert sorted(values) == sorted(feature_set.columns)
        assert len(set(feature_set.columns)) == len(feature_set.columns)


@settings(max_examples=25, deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(GTZAN57.min_samples, 3 * GTZAN57.min_samples),
        elements=st.floats(-10, 10, width=32),
        fill=st.floats(-1, 1, width=32),
    )
)
def test_whatever_decodes_has_finite_features(samples: np.ndarray) -> None:
    not_finite = {column: value for column, value in gtzan57(samples).items() if not np.isfinite(value)}
    assert not_finite == {}


# From three on: over lines of two, SciPy 1.17 takes a wrong reflection.
@given(arrays(np.float32, st.tuples(st.integers(3, 90), st.integers(3, 6)), elements=st.floats(0, 100, width=32)))
def test_line_medians_are_the_two_dimensional_filter(magnitude: np.ndarray) -> None:
    np.testing.assert_array_equal(_line_medians(magnitude), median_filter(magnitude, size=(1, 31), mode="reflect"))
    np.testing.assert_array_equal(_line_medians(magnitude.T), median_filter(magnitude, size=(31, 1), mode="reflect").T)

"""The kernel gives what plain librosa calls give, on whatever a clip may hold, and gives it again.

Where a value is decided rather than measured (roll-off bins, the tuning, the tempo), one frame decided differently
shows in the mean; the kernel rounds as librosa does wherever that decides, so no tolerance is made for it.
"""

import threading
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from librosa.onset import onset_strength
from scipy.ndimage import median_filter

from genres.audio.compile_kernels import compile_kernels
from genres.audio.decode import decode
from genres.audio.feature_set import WINDOW_S
from genres.audio.feature_sets import FEATURE_SETS, installed_sets
from genres.audio.filter_banks import chroma_filter_bank, hann_window, mel_filter_bank
from genres.audio.gtzan57 import GTZAN57, kernel
from genres.audio.gtzan57.reference import reference_gtzan57
from genres.audio.spectral import analysis, loops
from genres.settings import PROJECT_DIR
from tests.sounds import CLIPS, SR, music, noise

GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"

RELATIVE = 1e-4
ABSOLUTE = 1e-8
"""For means that cancel out and variances of what stands still; their terms are of the order of 0.1 and more."""
ABSOLUTE_MFCC = 2e-5
"""In dB. MFCCs are sums of decibels, down to -100 of them, whose last digit in single precision is 8e-6."""
SINGLE = 2.0**-23
"""Rounding of librosa's values, relative to them: a centroid of 5,000 Hz that hardly moves has a variance that single
precision does not tell to four digits."""


def gtzan57(samples: np.ndarray) -> dict[str, float]:
    return kernel.gtzan57(samples).clip


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert set(found) == set(expected) == set(GTZAN57.columns)
    far = {}
    for column, value in expected.items():
        absolute = ABSOLUTE_MFCC if column.startswith("mfcc") else ABSOLUTE
        if column.endswith("_var"):
            rounding = SINGLE * abs(expected[column.replace("_var", "_mean")])
            absolute += 2 * np.sqrt(value) * rounding + rounding**2
        if found[column] != pytest.approx(value, rel=RELATIVE, abs=absolute):
            far[column] = (found[column], value)
    assert far == {}


@pytest.mark.parametrize("samples", CLIPS.values(), ids=CLIPS.keys())
@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty frequency set")
def test_kernel_gives_the_values_of_plain_librosa(samples: np.ndarray) -> None:
    assert_close(gtzan57(samples), reference_gtzan57(samples))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
def test_resampled_clips_agree(tmp_path: Path, rate: int) -> None:
    at = np.arange(2 * rate) / rate
    samples = 0.4 * np.sin(2 * np.pi * 311 * at) * (at % 0.5 < 0.3) + np.random.default_rng(0).normal(0, 0.02, len(at))
    soundfile.write(tmp_path / "clip.wav", samples, rate)
    decoded = decode((tmp_path / "clip.wav").read_bytes(), sample_rate=SR)
    assert_close(gtzan57(decoded), reference_gtzan57(decoded))


def test_five_minutes_agree() -> None:
    # The separation, which takes the oracle a minute, knows no more than its neighbouring frames.
    samples = music(300.0)
    found = gtzan57(samples)
    mel = librosa.feature.melspectrogram(y=samples, sr=SR, pad_mode="reflect")
    decibels = librosa.power_to_db(mel)
    onsets = onset_strength(S=decibels, sr=SR, aggregate=np.median)
    assert found["tempo"] == pytest.approx(librosa.feature.tempo(onset_envelope=onsets, sr=SR)[0])
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=20).astype(np.float64)
    level = librosa.feature.rms(y=samples, pad_mode="reflect").astype(np.float64)
    rolloff = librosa.feature.spectral_rolloff(y=samples, sr=SR, pad_mode="reflect")
    for name, values in {"mfcc3": mfcc[2], "mfcc20": mfcc[19], "rms": level, "rolloff": rolloff}.items():
        assert found[f"{name}_mean"] == pytest.approx(values.mean(), rel=RELATIVE), name
        assert found[f"{name}_var"] == pytest.approx(values.var(), rel=RELATIVE), name
    # Both waveforms together are the samples, up to the last whole hop.
    whole = samples[: len(samples) // 512 * 512].astype(np.float64)
    both = found["harmony_mean"] + found["perceptr_mean"]
    assert both == pytest.approx(whole.sum() / len(samples), rel=RELATIVE, abs=ABSOLUTE)
    assert analysis._kept.buffers.n_frames <= analysis.KEPT_FRAMES


@pytest.mark.skipif(not GTZAN.is_dir(), reason="the real GTZAN clips are not beside the project")
def test_real_clips_agree() -> None:
    # One clip of each genre; all of them are compared with the published table elsewhere.
    paths = sorted(GTZAN.glob("sample_audio/*/*.wav"))[::3]
    assert len(paths) == 10
    for path in paths:
        samples = decode(path.read_bytes(), sample_rate=SR)
        assert_close(gtzan57(samples), reference_gtzan57(samples))


def test_librosa_is_the_release_that_the_version_names() -> None:
    assert f"librosa{'.'.join(librosa.__version__.split('.')[:2])}" == GTZAN57.library
    assert GTZAN57.feature_version == "gtzan57-v1-librosa0.11"


def test_kernel_gives_the_columns_of_its_set() -> None:
    assert FEATURE_SETS[GTZAN57.name] is GTZAN57
    for feature_set in installed_sets().values():
        measured = feature_set.kernel(music(7.0))
        assert len(measured.windows) == int(len(music(7.0)) / feature_set.sample_rate / WINDOW_S) >= 2
        for values in (measured.clip, *measured.windows):
            assert sorted(values) == sorted(feature_set.columns)
            assert {type(value) for value in values.values()} == {float}
        assert len(set(feature_set.columns)) == len(feature_set.columns)


def test_a_clip_does_not_depend_on_the_clips_before_it() -> None:
    clips = [
        music(1.0),
        10 * noise(7),
        music(0.1),
        np.full(2_048, 10, np.float32),
        np.zeros(SR, np.float32),
        music(5.0),
    ]
    first_time = [gtzan57(samples) for samples in clips]
    for samples, expected in zip(reversed(clips), reversed(first_time), strict=True):
        assert gtzan57(samples) == expected
    del analysis._kept.buffers
    assert gtzan57(clips[0]) == first_time[0]


def test_threads_do_not_share_buffers() -> None:
    clips = [music(1.0 + number, seed=number) for number in range(4)]
    expected = [gtzan57(samples) for samples in clips]
    found: dict[int, list[dict[str, float]]] = {}

    def compute(number: int) -> None:
        found[number] = [gtzan57(clips[number]) for _ in range(5)]

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [expected[number]] * 5 for number in range(4)}


def test_samples_are_left_as_they_are() -> None:
    samples = music(1.0)
    before = samples.copy()
    gtzan57(samples)
    np.testing.assert_array_equal(samples, before)


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


@settings(max_examples=25, deadline=None)
@given(
    arrays(
        np.int16,
        st.integers(GTZAN57.min_samples, 3 * GTZAN57.min_samples),
        elements=st.integers(-32_768, 32_767),
        fill=st.integers(-2, 2),
    )
)
@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty frequency set")
def test_whatever_16_bits_hold_agrees(samples: np.ndarray) -> None:
    decoded = samples.astype(np.float32) / 32_768
    assert_close(gtzan57(decoded), reference_gtzan57(decoded))


@given(st.integers(1, 12), st.data())
def test_running_medians_are_scipys(tiles: int, data: st.DataObject) -> None:
    shape = (8 * tiles + 30, loops.LANES)
    values = data.draw(arrays(np.float32, shape, elements=st.floats(0, 100, width=32), fill=st.floats(0, 1, width=32)))
    medians = np.empty((8 * tiles, loops.LANES), np.float32)
    loops.running_medians(values, medians)
    np.testing.assert_array_equal(medians, median_filter(values, size=(31, 1))[15:-15])


def test_running_medians_of_noise_are_scipys() -> None:
    values = np.random.default_rng(0).standard_normal((1_062, loops.LANES)).astype(np.float32)
    medians = np.empty((1_032, loops.LANES), np.float32)
    loops.running_medians(values, medians)
    np.testing.assert_array_equal(medians, median_filter(values, size=(31, 1))[15:-15])


@pytest.mark.parametrize("sr", [SR, 44_100.0])
def test_filter_banks_are_librosas(sr: float) -> None:
    for width in (2_048, 344):
        np.testing.assert_array_equal(hann_window(width), librosa.filters.get_window("hann", width, fftbins=True))
    weights, corners = mel_filter_bank(sr, 2_048, 128)
    np.testing.assert_allclose(weights, librosa.filters.mel(sr=sr, n_fft=2_048), rtol=1e-6)
    np.testing.assert_allclose(corners, librosa.mel_frequencies(130, fmin=0, fmax=sr / 2))
    for tuning in (-0.5, -0.01, 0.0, 0.13, 0.49):
        expected = librosa.filters.chroma(sr=sr, n_fft=2_048, tuning=tuning)
        np.testing.assert_allclose(chroma_filter_bank(sr, 2_048, tuning), expected, rtol=1e-6)


def test_a_compiled_kernel_is_not_compiled_again() -> None:
    gtzan57(music(1.0))
    said: list[str] = []
    compile_kernels(said.append)
    assert said == []

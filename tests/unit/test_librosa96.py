"""``librosa96`` gives what plain librosa and NumPy calls give, and the columns of ``gtzan57`` to the bit."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genres.audio.decode import decode
from genres.audio.gtzan57 import kernel as gtzan57_kernel
from genres.audio.librosa96 import LIBROSA96, kernel
from genres.audio.librosa96.kernel import beat_features, chroma_features, shape
from genres.audio.librosa96.reference import reference_librosa96
from genres.audio.spectral import loops
from genres.audio.spectral.analysis import octave_bands
from genres.settings import PROJECT_DIR
from tests.sounds import CLIPS, SR, clicks, music, noise, tone

GTZAN = PROJECT_DIR.parent / "shared/data/gtzan"
ADDED = LIBROSA96.columns[57:]
RELATIVE, ABSOLUTE = 1e-4, 1e-8
ABSOLUTE_DB = 2e-5
"""For contrasts and onsets: differences of decibels, whose last digit in single precision is 8e-6."""


def gtzan57(samples: np.ndarray) -> dict[str, float]:
    return gtzan57_kernel.gtzan57(samples).clip


def librosa96(samples: np.ndarray) -> dict[str, float]:
    return kernel.librosa96(samples).clip


def assert_close(found: dict[str, float], expected: dict[str, float]) -> None:
    assert set(found) == set(expected) == set(LIBROSA96.columns)
    far = {}
    for column in ADDED:
        absolute = ABSOLUTE_DB if "contrast" in column or column.startswith("onset") else ABSOLUTE
        if found[column] != pytest.approx(expected[column], rel=RELATIVE, abs=absolute):
            far[column] = (found[column], expected[column])
    assert far == {}


@pytest.mark.parametrize("samples", CLIPS.values(), ids=CLIPS.keys())
@pytest.mark.filterwarnings("ignore:Trying to estimate tuning from empty frequency set")
def test_kernel_gives_the_values_of_the_reference(samples: np.ndarray) -> None:
    found = librosa96(samples)
    assert_close(found, reference_librosa96(samples))
    assert np.isfinite(list(found.values())).all()
    # Computed beside the others, the 57 are what they are alone.
    assert gtzan57(samples).items() <= found.items()


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_resampled_clips_agree(tmp_path: Path, rate: int) -> None:
    at = np.arange(2 * rate) / rate
    samples = 0.4 * np.sin(2 * np.pi * 311 * at) * (at % 0.5 < 0.3) + np.random.default_rng(0).normal(0, 0.02, len(at))
    soundfile.write(tmp_path / "clip.wav", samples, rate)
    decoded = decode((tmp_path / "clip.wav").read_bytes(), sample_rate=SR)
    assert_close(librosa96(decoded), reference_librosa96(decoded))


@pytest.mark.skipif(not GTZAN.is_dir(), reason="the real GTZAN clips are not beside the project")
def test_real_clips_agree() -> None:
    paths = sorted(GTZAN.glob("sample_audio/*/*.wav"))[1::9]
    assert len(paths) == 4
    for path in paths:
        samples = decode(path.read_bytes(), sample_rate=SR)
        assert_close(librosa96(samples), reference_librosa96(samples))


@settings(max_examples=25, deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(LIBROSA96.min_samples, 3 * LIBROSA96.min_samples),
        elements=st.floats(-10, 10, width=32),
        fill=st.floats(-1, 1, width=32),
    )
)
def test_whatever_decodes_has_finite_features(samples: np.ndarray) -> None:
    not_finite = {column: value for column, value in librosa96(samples).items() if not np.isfinite(value)}
    assert not_finite == {}


def test_a_clip_does_not_depend_on_the_clips_before_it() -> None:
    sounds = [music(1.0), 10 * noise(7), np.zeros(SR, np.float32), music(5.0)]
    first_time = [librosa96(samples) for samples in sounds]
    for samples, expected in zip(reversed(sounds), reversed(first_time), strict=True):
        assert gtzan57(samples).items() <= expected.items()
        assert librosa96(samples) == expected


def test_there_are_96_columns_and_gtzan57s_come_first() -> None:
    assert len(LIBROSA96.columns) == len(set(LIBROSA96.columns)) == 96
    assert tuple(gtzan57(music(1.0))) == tuple(librosa96(music(1.0)))[:57]


def test_what_is_heard_shows_in_the_columns() -> None:
    hiss, whistle = librosa96(noise(4)), librosa96(tone(440, 4.0))
    assert hiss["spectral_flatness_mean"] > 0.5 > 0.01 > whistle["spectral_flatness_mean"]
    assert whistle["spectral_contrast3_mean"] > 2 * hiss["spectral_contrast3_mean"]
    assert hiss["spectral_flux_mean"] > 0.1 > 0.01 > whistle["spectral_flux_mean"]
    # An A is nine semitones above C.
    assert whistle["chroma_peak_class"] == 9
    assert whistle["chroma_peak_amplitude"] > 2 * hiss["chroma_peak_amplitude"]
    # Clicks half a second apart: 120 a minute, and 60 as well.
    beaten = librosa96(np.maximum(clicks(SR // 2, 12.0), noise(12.1, 0.001)[: len(clicks(SR // 2, 12.0))]))
    assert sorted([beaten["beat_tempo1"], beaten["beat_tempo2"]]) == pytest.approx([60, 120], abs=3)
    assert beaten["beat_salience"] > hiss["beat_salience"]
    # Loud for one second of three, as good as silent for the others.
    loud = np.concatenate([noise(1), noise(2, 1e-3)])
    assert librosa96(loud)["low_energy_rate"] == pytest.approx(2 / 3, abs=0.03)
    assert librosa96(np.full(SR, 0.5, np.float32))["low_energy_rate"] == 0


def test_silence_has_no_beat_and_no_pitch() -> None:
    silent = librosa96(np.zeros(SR, np.float32))
    nothing = [column for column in ADDED if column.startswith(("beat", "chroma", "onset"))]
    assert {silent[column] for column in nothing} == {0.0}
    assert silent["spectral_flatness_mean"] == pytest.approx(1.0)
    assert silent["low_energy_rate"] == silent["spectral_flux_mean"] == 0


def test_chroma_intervals_are_steps_on_the_circle_of_fifths() -> None:
    def interval(first: int, second: int) -> float:
        strengths = np.full(12, 0.1)
        strengths[[first, second]] = 1.0, 0.8
        return chroma_features(strengths)["chroma_peak_interval"]

    # C and G, C and F, C and E, C and F sharp, B and D.
    assert [interval(*pair) for pair in [(0, 7), (0, 5), (0, 4), (0, 6), (11, 2)]] == [1, 1, 4, 6, 3]


def test_a_histogram_without_a_maximum_has_no_beat() -> None:
    falling = beat_features(np.linspace(1, 0, 344), SR)
    assert [falling[name] for name in ("beat_peak1", "beat_tempo1", "beat_salience", "beat_peak_ratio")] == [0] * 4
    assert falling["beat_sum"] > 0


def test_skew_and_kurtosis_of_equal_values_are_nothing() -> None:
    still = shape(np.full(10, 3.0), 1e-3)
    assert (still["mean"], still["std"], still["skew"], still["kurtosis"]) == (3, 0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, loops.EXTREMES), st.data())
def test_extremes_are_those_of_sorted_values(width: int, count: int, data: st.DataObject) -> None:
    shape = (loops.LINES + 2 * loops.REACH, loops.LANES)
    lines = np.zeros(shape, np.float32)
    values = data.draw(arrays(np.float32, (width, loops.LANES), elements=st.floats(0, 100, width=32)))
    lines[loops.REACH + 5 : loops.REACH + 5 + width] = values
    count = min(count, width)
    peaks, valleys = np.empty((2, 1, loops.LANES), np.float32)
    loops.octave_extremes(lines, np.array([[5, 5 + width, count]]), peaks, valleys)
    ordered = np.sort(values, axis=0)
    np.testing.assert_allclose(peaks[0], ordered[-count:].mean(axis=0), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(valleys[0], ordered[:count].mean(axis=0), rtol=1e-5, atol=1e-30)


def test_no_band_has_more_extremes_than_are_found() -> None:
    bands = octave_bands(SR)
    assert bands[:, 2].max() <= loops.EXTREMES
    # Neighbouring bands share no bin, and together they are all of them.
    assert (bands[1:, 0] == bands[:-1, 1]).all()
    assert (bands[0, 0], bands[-1, 1]) == (0, loops.BINS)

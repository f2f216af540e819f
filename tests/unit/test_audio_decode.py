"""Decoding gives what ``librosa.load`` gives, and refuses what only shows in the samples."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from genres.audio.decode import decode
from genres.audio.gate import RejectedAudio

SAMPLE_RATE = 22_050


def clip(folder: Path, name: str, *, rate: int = SAMPLE_RATE, channels: int = 1, subtype: str | None = None) -> Path:
    samples = np.random.default_rng(rate + channels).uniform(-0.5, 0.5, (rate // 2 + 7, channels))
    soundfile.write(folder / name, samples, rate, subtype=subtype)
    return folder / name


@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 16_000])
@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("gtzan.wav", 22_050, 1, "PCM_16"),
        ("stereo.wav", 22_050, 2, "PCM_16"),
        ("cd.wav", 44_100, 2, "PCM_16"),
        ("studio.wav", 96_000, 2, "PCM_24"),
        ("speech.wav", 8_000, 1, "FLOAT"),
        ("bytes.wav", 11_025, 1, "PCM_U8"),
        ("sun.au", 22_050, 1, "PCM_16"),
        ("phone.au", 8_000, 1, "ULAW"),
        ("small.flac", 48_000, 2, None),
        ("lossy.mp3", 44_100, 2, None),
    ],
)
def test_equal_to_librosa_load(
    tmp_path: Path, name: str, rate: int, channels: int, subtype: str | None, sample_rate: int
) -> None:
    path = clip(tmp_path, name, rate=rate, channels=channels, subtype=subtype)
    samples = decode(path.read_bytes(), sample_rate=sample_rate)
    expected, _ = librosa.load(path, sr=sample_rate)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, expected)


def test_silence_is_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(4_000), SAMPLE_RATE)
    samples = decode((tmp_path / "silence.wav").read_bytes(), sample_rate=SAMPLE_RATE)
    np.testing.assert_array_equal(samples, np.zeros(4_000, np.float32))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (32_768.0, "samples as large as 3.28e+04")],
)
def test_impossible_samples_are_rejected(tmp_path: Path, value: float, reason: str) -> None:
    samples = np.zeros(4_000, np.float32)
    samples[1_234] = value
    soundfile.write(tmp_path / "bad.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(RejectedAudio, match=reason.replace("+", r"\+")):
        decode((tmp_path / "bad.wav").read_bytes(), sample_rate=SAMPLE_RATE)


@pytest.mark.parametrize("name", ["cut.flac", "cut.mp3"])
def test_streams_that_end_early_are_rejected(tmp_path: Path, name: str) -> None:
    data = clip(tmp_path, name).read_bytes()
    with pytest.raises(RejectedAudio, match=r"cannot decode it|header promises 0\.5 s, the file holds 0\.[0-4] s"):
        decode(data[: len(data) // 2], sample_rate=SAMPLE_RATE)

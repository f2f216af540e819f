"""The spectrogram that people look at is librosa's."""

import librosa
import numpy as np
import pytest

from genres.audio.mel_spectrogram import mel_spectrogram

RATE = 22_050
SOUNDS = {
    "noise": np.random.default_rng(0).normal(scale=0.1, size=3 * RATE),
    "tone": np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE),
    "silence": np.zeros(RATE),
    "shorter than a frame": np.random.default_rng(1).normal(size=600),
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_a_mel_spectrogram_is_librosas(sound: str) -> None:
    samples = SOUNDS[sound].astype(np.float32)
    theirs = librosa.power_to_db(librosa.feature.melspectrogram(y=samples, sr=RATE), ref=np.max)
    assert mel_spectrogram(samples, RATE) == pytest.approx(theirs, abs=1e-3)

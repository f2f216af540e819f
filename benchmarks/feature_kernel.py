"""How long the feature kernel takes for a clip, beside the plain librosa calls that define it, on one core.

Run it from the project's folder, with or without an audio file: ``python benchmarks/feature_kernel.py [CLIP]``.
The two sides take turns in one run, so that a busy machine slows both; each figure is the median of the rounds.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from spark.worker_daemon import single_threaded

single_threaded()

import librosa  # noqa: E402  (the pools read their size when they are imported)
import numpy as np  # noqa: E402

from spark import features  # noqa: E402
from spark.audio_decode import decode  # noqa: E402

ROUNDS = 7
MEDIANS = "of it, the medians"


def main() -> None:
    """Print seconds per clip for both sides, their ratio, and where the kernel's own time goes."""
    if len(sys.argv) > 1:
        samples, sr = decode(Path(sys.argv[1]).read_bytes()), 22_050
    else:
        sr = 22_050
        seconds = np.arange(30 * sr) / sr
        chord = sum(np.sin(2 * np.pi * pitch * seconds) for pitch in (220.0, 277.2, 329.6))
        noise = np.random.default_rng(0).standard_normal(len(seconds)) * (seconds % 0.5 < 0.05)
        samples = (0.1 * chord + 0.1 * noise).astype(np.float32)
    print(f"clip of {len(samples) / sr:.1f} s, {ROUNDS} rounds, one core")

    sides = {"plain librosa calls": plain_librosa, "shared kernel": features.gtzan57}
    seconds_of = {name: median(times) for name, times in taken_in_turns(sides, samples).items()}
    for name, took in seconds_of.items():
        print(f"{name:24s} {took:7.3f} s/clip")
    plain, shared = seconds_of.values()
    print(f"{'ratio':24s} {plain / shared:7.2f}")

    print("\nshares of the kernel's steps")
    steps = {name: median(times) for name, times in taken_in_turns(kernel_steps(samples, sr), samples).items()}
    whole = sum(took for name, took in steps.items() if name != MEDIANS)
    for name, took in sorted(steps.items(), key=lambda step: -step[1]):
        print(f"{name:24s} {took * 1e3:7.1f} ms {took / whole:6.1%}")


def taken_in_turns(sides: dict[str, Callable], samples: np.ndarray) -> dict[str, list[float]]:
    """Run every side once to warm it, then `ROUNDS` times in turn; seconds of each run."""
    for run in sides.values():
        run(samples)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, run in sides.items():
            start = time.perf_counter()
            run(samples)
            times[name].append(time.perf_counter() - start)
    return times


def plain_librosa(samples: np.ndarray, sr: float = 22_050) -> None:
    """Call the librosa functions as one would in a notebook: each from the samples."""
    librosa.feature.chroma_stft(y=samples, sr=sr)
    librosa.feature.rms(y=samples)
    librosa.feature.spectral_centroid(y=samples, sr=sr)
    librosa.feature.spectral_bandwidth(y=samples, sr=sr)
    librosa.feature.spectral_rolloff(y=samples, sr=sr)
    librosa.feature.zero_crossing_rate(samples)
    librosa.effects.hpss(samples)
    librosa.beat.beat_track(y=samples, sr=sr)
    librosa.feature.mfcc(y=samples, sr=sr)


def kernel_steps(samples: np.ndarray, sr: float) -> dict[str, Callable]:
    """Give the kernel's steps one by one, each with its input ready."""
    spectrum = librosa.stft(samples, pad_mode="reflect")
    magnitude = np.abs(spectrum)
    power = magnitude**2
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=sr))
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sr)
    return {
        "stft": lambda _: librosa.stft(samples, pad_mode="reflect"),
        MEDIANS: lambda _: (features._line_medians(magnitude), features._line_medians(magnitude.T)),
        "separation": lambda _: features._separate(spectrum, len(samples)),
        "chroma": lambda _: librosa.feature.chroma_stft(S=power, sr=sr),
        "rms": lambda _: librosa.feature.rms(y=samples, pad_mode="reflect"),
        "centroid": lambda _: librosa.feature.spectral_centroid(S=magnitude, sr=sr),
        "bandwidth": lambda _: librosa.feature.spectral_bandwidth(S=magnitude, sr=sr, centroid=centroid),
        "rolloff": lambda _: librosa.feature.spectral_rolloff(S=magnitude, sr=sr),
        "zero crossings": lambda _: librosa.feature.zero_crossing_rate(samples),
        "mel, mfcc": lambda _: librosa.feature.mfcc(
            S=librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=sr)), sr=sr
        ),
        "tempo": lambda _: features._tempo(decibels, sr),
    }


if __name__ == "__main__":
    main()

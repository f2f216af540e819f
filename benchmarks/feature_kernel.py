"""What a clip's 57 features cost on one core: as a notebook asks librosa for them, in this kernel, and at the least.

And what the 39 cost that `librosa96` adds to them.

Run it from the project's folder, with or without an audio file: ``python benchmarks/feature_kernel.py [CLIP]``. All
sides decode the clip and take turns in one run. Figures are processor time, so that other processes on the machine
disturb them little; each is the median of the rounds, with the fastest and slowest round. Prints Markdown.
"""

import functools
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from genres.audio.thread_pools import single_threaded

single_threaded()

import librosa  # noqa: E402  (the pools read their size when they are imported)
import numpy as np  # noqa: E402
import scipy.fft  # noqa: E402
import soundfile  # noqa: E402
from numpy.lib.stride_tricks import sliding_window_view  # noqa: E402
from scipy.ndimage import median_filter  # noqa: E402

from genres.audio.decode import decode  # noqa: E402
from genres.audio.gtzan57 import GTZAN57  # noqa: E402
from genres.audio.gtzan57.kernel import gtzan57  # noqa: E402
from genres.audio.librosa96 import kernel as librosa96_kernel  # noqa: E402
from genres.audio.librosa96.kernel import librosa96  # noqa: E402
from genres.audio.spectral import analysis, loops  # noqa: E402
from genres.audio.spectral.loops import HOP, N_FFT  # noqa: E402

SAMPLE_RATE = GTZAN57.sample_rate
ROUNDS = 9
NOTEBOOK = "notebook: each librosa call by itself"
KERNEL = "this kernel"
KERNEL_96 = "this kernel, all 96 features of librosa96"
FLOOR = "floor: decode, frame, transform, invert, overlap-add"


def main() -> None:
    """Print a table of all sides, the two ratios that are promised, and where the kernel's own time goes."""
    clip = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else synthetic_clip()
    sides = {
        NOTEBOOK: notebook,
        "the same, with both parts from one separation": functools.partial(notebook, one_separation=True),
        "shared spectra: librosa and SciPy, one separation": shared_spectra,
        KERNEL: gtzan57,
        KERNEL_96: librosa96,
        FLOOR: floor,
    }
    times = taken_in_turns(sides, clip)
    print(f"{len(decode(clip, sample_rate=SAMPLE_RATE)) / SAMPLE_RATE:.1f} s of audio, {ROUNDS} rounds, one thread\n")
    print("| 57 features of a clip | median ms | fastest | slowest | times the floor |\n|---|---:|---:|---:|---:|")
    for name, took in times.items():
        factor = ratio(times, name, FLOOR)
        print(f"| {name} | {median(took):,.1f} | {min(took):,.1f} | {max(took):,.1f} | {factor} |")
    print(f"\n{KERNEL}: {ratio(times, NOTEBOOK, KERNEL)} times as fast as the notebook (at least 40 are promised),")
    print(
        f"{ratio(times, KERNEL, FLOOR)} times the floor (at most 4); librosa96 takes {ratio(times, KERNEL_96, KERNEL)}"
    )
    print("times as long (at most 1.3); in brackets the lowest and highest of a round.")

    print("\n| step of the kernel of librosa96 | ms | share |\n|---|---:|---:|")
    steps = kernel_steps(clip)
    for name, took in sorted(steps.items(), key=lambda step: -step[1]):
        print(f"| {name} | {took:.2f} | {took / sum(steps.values()):.0%} |")


def taken_in_turns(sides: dict[str, Callable], clip: bytes) -> dict[str, list[float]]:
    """Run every side once to warm it, then `ROUNDS` times in turn; milliseconds of each run."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for warm in (False, *(True for _ in range(ROUNDS))):
        for name, run in sides.items():
            start = time.process_time()
            run(decode(clip, sample_rate=SAMPLE_RATE))
            if warm:
                times[name].append(1e3 * (time.process_time() - start))
    return times


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> str:
    """Return how many times as long the one takes, in the median and at both extremes of the rounds."""
    of_round = [a / b for a, b in zip(times[slow], times[fast], strict=True)]
    return f"{median(of_round):.1f} ({min(of_round):.1f} to {max(of_round):.1f})"


def synthetic_clip() -> bytes:
    """Write a WAV file of 30 s: a chord, with a burst of noise twice a second."""
    seconds = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * pitch * seconds) for pitch in (220.0, 277.2, 329.6))
    noise = np.random.default_rng(0).standard_normal(len(seconds)) * (seconds % 0.5 < 0.05)
    file = io.BytesIO()
    soundfile.write(file, 0.1 * chord + 0.1 * noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def notebook(samples: np.ndarray, *, one_separation: bool = False) -> None:
    """Call librosa as notebooks do: each function with the samples, for harmony and for percussion too."""
    sr = SAMPLE_RATE
    if one_separation:
        parts = librosa.effects.hpss(samples)
    else:
        parts = librosa.effects.harmonic(samples), librosa.effects.percussive(samples)
    calls = [
        librosa.feature.chroma_stft(y=samples, sr=sr),
        librosa.feature.rms(y=samples),
        librosa.feature.spectral_centroid(y=samples, sr=sr),
        librosa.feature.spectral_bandwidth(y=samples, sr=sr),
        librosa.feature.spectral_rolloff(y=samples, sr=sr),
        librosa.feature.zero_crossing_rate(samples),
        *parts,
        *librosa.feature.mfcc(y=samples, sr=sr),
    ]
    for values in calls:
        np.mean(values)
        np.var(values)
    librosa.beat.beat_track(y=samples, sr=sr)


def shared_spectra(samples: np.ndarray) -> None:
    """Go as far as one gets without compiled code: one transform, one separation with SciPy's faster median."""
    sr = SAMPLE_RATE
    spectrum = librosa.stft(samples, pad_mode="reflect")
    magnitude = np.abs(spectrum)
    harmonic, percussive = line_medians(magnitude), line_medians(magnitude.T).T
    mask = librosa.util.softmask(harmonic, percussive, power=2.0, split_zeros=True)
    harmony = librosa.util.fix_length(librosa.istft(spectrum * mask), size=len(samples))
    power = magnitude**2
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=power, sr=sr))
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=sr)
    calls = [
        librosa.feature.chroma_stft(S=power, sr=sr),
        librosa.feature.rms(y=samples, pad_mode="reflect"),
        centroid,
        librosa.feature.spectral_bandwidth(S=magnitude, sr=sr, centroid=centroid),
        librosa.feature.spectral_rolloff(S=magnitude, sr=sr),
        librosa.feature.zero_crossing_rate(samples),
        harmony,
        samples - harmony,
        *librosa.feature.mfcc(S=decibels, sr=sr),
    ]
    for values in calls:
        np.mean(values)
        np.var(values)
    librosa.feature.tempo(onset_envelope=librosa.onset.onset_strength(S=decibels, sr=sr, aggregate=np.median), sr=sr)


def line_medians(magnitude: np.ndarray) -> np.ndarray:
    """``median_filter(magnitude, size=(1, 31))`` of lines laid end to end: SciPy slides in one dimension only."""
    padded = np.pad(magnitude, ((0, 0), (15, 15)), mode="symmetric")
    return median_filter(padded.ravel(), size=31).reshape(padded.shape)[:, 15:-15]


def floor(samples: np.ndarray) -> None:
    """Do what no kernel with a separation can leave out, in single precision and in blocks that fit in the cache."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    padded = np.pad(samples, N_FFT // 2, mode="reflect")
    cut = sliding_window_view(padded, N_FFT)[::HOP]
    frames = np.empty((analysis.BLOCK, N_FFT), np.float32)
    wave = np.zeros((len(cut) + 3, HOP), np.float32)
    for first in range(0, len(cut), analysis.BLOCK):
        count = min(analysis.BLOCK, len(cut) - first)
        np.multiply(cut[first : first + count], window, out=frames[:count])
        spectra = scipy.fft.rfft(frames[:count], axis=1, overwrite_x=True)
        waves = scipy.fft.irfft(spectra, n=N_FFT, axis=1, overwrite_x=True)
        waves *= window
        for quarter in range(4):
            wave[first + quarter : first + quarter + count] += waves[:, quarter * HOP : (quarter + 1) * HOP]


def kernel_steps(clip: bytes) -> dict[str, float]:
    """Time the kernel's steps inside it: milliseconds of each in the mean of `ROUNDS` runs."""
    took: dict[str, float] = {}

    def timed(name: str, step: Callable) -> Callable:
        def run(*args: object, **named: object) -> object:
            start = time.process_time()
            result = step(*args, **named)
            took[name] = took.get(name, 0) + 1e3 * (time.process_time() - start) / ROUNDS
            return result

        return run

    steps = [
        *((loops, name) for name in dir(loops) if hasattr(getattr(loops, name), "py_func")),
        *((scipy.fft, name) for name in ("rfft", "irfft", "dct")),
        *((analysis, name) for name in ("_chroma", "power_decibels", "_median_onsets", "_tempogram_sum")),
        (librosa96_kernel, "features_of"),
    ]
    originals = [(module, name, getattr(module, name)) for module, name in steps]
    for module, name, step in originals:
        setattr(module, name, timed(name.strip("_").replace("_", " "), step))
    total = 0.0
    for _ in range(ROUNDS):
        samples = decode(clip, sample_rate=SAMPLE_RATE)
        start = time.process_time()
        librosa96(samples)
        total += 1e3 * (time.process_time() - start) / ROUNDS
    for module, name, step in originals:
        setattr(module, name, step)
    return took | {"everything else": total - sum(took.values())}


if __name__ == "__main__":
    main()

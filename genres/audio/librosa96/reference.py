"""The 96 features by plain librosa calls, and by plain NumPy and SciPy where librosa has none.

What the kernel has to return; nothing is shared with it. The tests and the benchmark compare with it, and nothing that
runs in production may import it.
"""

import librosa
import numpy as np
import scipy.stats
from librosa.onset import onset_strength

from genres.audio.gtzan57.reference import reference_gtzan57, tempogram_of


def reference_librosa96(samples: np.ndarray, sr: float = 22_050, window: slice | None = None) -> dict[str, float]:
    """Compute the 96 features; parameters and result are those of the kernel, and of `reference_gtzan57`."""
    frames = slice(0, None) if window is None else window
    # Of what is measured between two frames, the window's is that which ends in it.
    changes = slice(0, None) if window is None else slice(max(window.start - 1, 0), window.stop - 1)
    magnitude = np.abs(librosa.stft(samples, pad_mode="reflect"))
    decibels = librosa.power_to_db(librosa.feature.melspectrogram(S=magnitude**2, sr=sr))
    values = reference_gtzan57(samples, sr, window)

    contrasts = librosa.feature.spectral_contrast(S=magnitude, sr=sr)[:, frames]
    for band, contrast in enumerate(contrasts, start=1):
        values |= {f"spectral_contrast{band}_mean": contrast.mean(), f"spectral_contrast{band}_std": contrast.std()}
    onsets = onset_strength(S=decibels.astype(np.float64), sr=sr, center=False)[1:][changes]
    flatness = librosa.feature.spectral_flatness(S=magnitude.astype(np.float64))[0][frames]
    values |= _shape("onset_strength", onsets, still=1e-3)
    values |= _shape("spectral_flatness", flatness, still=1e-3 * flatness.mean())

    rms = librosa.feature.rms(y=samples, pad_mode="reflect")[0][frames].astype(np.float64)
    values["low_energy_rate"] = np.count_nonzero(rms < 0.9999 * rms.mean()) / len(rms)
    unit = librosa.util.normalize(magnitude.astype(np.float64), norm=2, axis=0, threshold=1e-300)
    flux = np.sum(np.diff(unit, axis=1) ** 2, axis=0)[changes]
    values |= {"spectral_flux_mean": flux.mean(), "spectral_flux_std": flux.std()}
    values |= _beat(decibels, sr, window)
    chroma = librosa.feature.chroma_stft(y=samples, sr=sr, pad_mode="reflect")[:, frames]
    values |= _chroma(chroma.mean(axis=1, dtype=np.float64))
    return {name: float(value) for name, value in values.items()}


def _shape(name: str, values: np.ndarray, *, still: float) -> dict[str, float]:
    moving = values.std() > still
    return {
        f"{name}_max": values.max(),
        f"{name}_min": values.min(),
        f"{name}_mean": values.mean(),
        f"{name}_std": values.std(),
        f"{name}_skew": scipy.stats.skew(values) if moving else 0.0,
        f"{name}_kurtosis": scipy.stats.kurtosis(values) if moving else 0.0,
    }


def _beat(decibels: np.ndarray, sr: float, window: slice | None) -> dict[str, float]:
    onsets = onset_strength(S=decibels, sr=sr, aggregate=np.median)
    histogram = tempogram_of(onsets, sr, window).mean(axis=1)
    tempi = librosa.tempo_frequencies(len(histogram), sr=sr)
    lags = [lag for lag in range(1, len(histogram)) if 40 <= tempi[lag] <= 200]
    maxima = [lag for lag in lags if histogram[lag] > max(histogram[lag - 1], histogram[lag + 1]) + 1e-5]
    ordered = sorted(maxima, key=lambda lag: -histogram[lag])
    heights = [*(histogram[lag] for lag in ordered), 0.0, 0.0]
    at = [*(tempi[lag] for lag in ordered), 0.0, 0.0]
    total, found = histogram[lags].sum(), bool(ordered)
    return {
        "beat_peak1": heights[0] / total if found else 0.0,
        "beat_peak2": heights[1] / total if found else 0.0,
        "beat_peak_ratio": heights[1] / heights[0] if found else 0.0,
        "beat_tempo1": at[0],
        "beat_tempo2": at[1],
        "beat_sum": total,
        "beat_salience": (heights[0] - histogram[lags].mean()) / histogram[lags].std() if found else 0.0,
    }


def _chroma(chroma: np.ndarray) -> dict[str, float]:
    circle_of_fifths = [0, 7, 2, 9, 4, 11, 6, 1, 8, 3, 10, 5]
    first = int(np.argmax(chroma))
    maxima = [c for c in range(12) if chroma[c] > max(chroma[c - 1], chroma[(c + 1) % 12]) and c != first]
    interval = 0
    if maxima:
        second = max(maxima, key=lambda place: chroma[place])
        steps = abs(circle_of_fifths.index(second) - circle_of_fifths.index(first))
        interval = min(steps, 12 - steps)
    return {
        "chroma_peak_amplitude": chroma[first] / chroma.sum() if chroma.any() else 0.0,
        "chroma_peak_class": first,
        "chroma_peak_interval": interval,
    }

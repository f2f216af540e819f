"""The feature kernel: what each column of the published GTZAN table is, computed from the samples of one clip.

Only the maths of one clip belongs here; reading audio is `genres.audio.decode`, running over many clips is
`genres.audio.clip_features` and `spark.extraction`, and the loops that are compiled are the module `loops` beside
this one. This module loads numba: import it where a feature is computed and nowhere else. `reference`, beside it,
computes the same features by plain librosa calls, and the tests hold the two together.

Definitions
-----------
The published table (``features_30_sec.csv``) was computed with a librosa older than 0.9 at its defaults. Two
of those defaults have changed since; with them put back, all 57 columns agree with the table (without them 10
are off by more than 0.1 % in the median over 25 clips, ``harmony_mean`` by 17 %):

1. Frames at both ends of the clip are padded by reflection. 0.9.0 made zeros the default of ``stft`` and
   ``rms`` [1]_; the zero-crossing rate pads with the edge value, then as now.
2. ``librosa.effects.hpss`` inverted both spectrograms without a length and filled up with zeros
   (``util.fix_length(core.istft(stft_harm, dtype=y.dtype), len(y))``), so that the samples after the last whole
   hop are zero in ``harmony`` and ``perceptr``; later it passes ``length=`` to ``istft``.

``tempo`` is the estimate that ``librosa.beat.beat_track`` starts from: the tempogram's peak under a log-normal
prior around 120 bpm [2]_, on the median onset strength over mel bands. ``harmony`` and ``perceptr`` are the
waveforms of harmonic-percussive separation by median filtering [3]_. Everything else is librosa 0.11 as it is.

Order of work
-------------
A clip goes through in blocks of 32 frames. Each block is transformed once and described; the block before it, whose
medians along time now have all their neighbours, is separated, inverted and summed up. What needs the whole clip
(chroma its tuning, decibels their maximum, the tempo) comes at the end, from the magnitudes and mel bands kept. So a
clip takes the memory of its magnitudes, 180 kB a second, and a fixed amount besides.

References
----------
.. [1] librosa 0.9.0 changelog, "The default padding mode for most functions (including STFT) is now
   zero-padding", https://github.com/librosa/librosa/pull/1382
.. [2] D. P. W. Ellis, "Beat tracking by dynamic programming", Journal of New Music Research 36(1), 2007.
.. [3] D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFX10, 2010.
"""

import functools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from genres.audio.filter_banks import chroma_filter_bank, hann_window, mel_filter_bank
from genres.audio.gtzan57 import loops
from genres.audio.gtzan57.loops import BINS, HOP, LANES, LINES, N_FFT, REACH

BLOCK = LANES
"""Frames that are worked on together."""
MEL_BANDS = 128
TEMPOGRAM_S = 8.0
"""Longest period that the tempogram looks for, in seconds."""
TEMPO_PRIOR, FASTEST_TEMPO = 120, 320
"""Centre of the tempo's prior, which is an octave wide, and the tempo that no clip reaches, in beats per minute."""
KEPT_FRAMES = 4_096
"""A thread keeps the buffers of its last clip if it had no more frames: 95 s, 19 MB."""


def gtzan57(samples: np.ndarray, sr: float = 22_050) -> dict[str, float]:
    """Compute the 57 features of the published GTZAN table.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1]; at least 2,048 of them.
    sr : float
        Samples per second, in Hz. The published table holds features at 22,050 Hz.

    Returns
    -------
    dict[str, float]
        Mean and variance over frames (over samples for harmony and perceptr) of each feature, and the tempo in
        beats per minute. Frequencies are in Hz, MFCCs in dB. Finite for finite samples of audible size, and
        for silence, whose features are zeros but for the first MFCC.
    """
    sr = float(sr)
    filters = _filters(sr)
    padded = np.pad(samples.astype(np.float32, copy=False), N_FFT // 2, mode="reflect")
    n_frames = 1 + len(samples) // HOP
    buffers = _buffers(n_frames)

    peaks, sums = [], np.zeros(4)
    for first in range(0, n_frames + BLOCK, BLOCK):
        if first < n_frames:
            peaks.append(_analyse(padded, first, n_frames, buffers, filters, sr))
        if first > 0:
            _separate(padded, first - BLOCK, n_frames, buffers, filters, sums)

    decibels = _decibels(buffers.mel[:, :n_frames])
    level, crossings = loops.level_and_crossings(padded, n_frames)
    centroid, bandwidth, rolloff = buffers.shapes[:3, :n_frames] * (sr / N_FFT)
    frames = {
        "chroma_stft": _chroma(buffers.magnitude[REACH : REACH + n_frames], _tuning(np.concatenate(peaks, axis=1)), sr),
        "rms": level,
        "spectral_centroid": centroid,
        "spectral_bandwidth": bandwidth,
        "rolloff": rolloff,
        "zero_crossing_rate": crossings,
    }
    features = dict(_summary(frames))
    for name, (total, squares) in {"harmony": sums[:2], "perceptr": sums[2:]}.items():
        mean = total / len(samples)
        features |= {f"{name}_mean": float(mean), f"{name}_var": float(max(squares / len(samples) - mean**2, 0))}
    features["tempo"] = _tempo(_onset_strength(decibels), sr)
    mfcc = scipy.fft.dct(decibels, axis=0, norm="ortho")[:20]
    features.update(_summary({f"mfcc{number}": row for number, row in enumerate(mfcc, start=1)}))
    return features


class _Filters(NamedTuple):
    """What depends on the sample rate only."""

    window: np.ndarray
    overlap_windows: np.ndarray
    """See `feature_loops.add_overlaps`."""
    band_of_bin: np.ndarray
    """Mel band, counted from 1, on whose falling slope a bin lies; on the rising slope of the next one it lies too."""
    mel_slopes: np.ndarray
    """The bin's weights in these two bands."""
    pitch_bins: tuple[int, int]
    """First bin, and the one after the last, whose peaks count for the tuning: 150 to 4,000 Hz."""


@functools.lru_cache(maxsize=4)
def _filters(sr: float) -> _Filters:
    window = hann_window(N_FFT)
    quarters = (window**2).reshape(4, HOP)
    overlaps = np.stack([quarters[:3].sum(axis=0), quarters.sum(axis=0), quarters[1:].sum(axis=0)])
    overlap_windows = window / np.tile(overlaps, (1, 4))

    weights, corners = mel_filter_bank(sr, N_FFT, MEL_BANDS)
    hertz, bins = np.arange(BINS) * sr / N_FFT, np.arange(BINS)
    band_of_bin = np.clip(np.searchsorted(corners, hertz, side="right") - 1, 0, MEL_BANDS)
    weights = np.pad(weights, ((1, 1), (0, 0)))
    mel_slopes = np.stack([weights[band_of_bin, bins], weights[band_of_bin + 1, bins]])

    pitched = np.flatnonzero((hertz >= 150) & (hertz < min(4_000, sr / 2)))
    return _Filters(window, overlap_windows, band_of_bin, mel_slopes, (int(pitched[0]), int(pitched[-1]) + 1))


class _Buffers:
    """The arrays that a thread works in: fresh ones for every clip would be a tenth of its time."""

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames
        self.magnitude = np.empty((n_frames + BLOCK + 2 * REACH, BINS), np.float32)
        """Of all frames, with `REACH` reflected ones at both ends."""
        self.mel = np.empty((MEL_BANDS, n_frames + BLOCK), np.float32)
        self.shapes = np.empty((4, n_frames + BLOCK))
        """See `feature_loops.describe_spectra`."""
        self.frames = np.empty((BLOCK, N_FFT))
        self.lines = np.zeros((LINES + 2 * REACH, BLOCK), np.float32)
        self.harmonic = np.zeros((BLOCK, BINS), np.complex64)
        # A block is separated after the next one has been analysed: even and odd ones by turns.
        self.spectra = np.zeros((2, BLOCK, BINS), np.complex64)
        self.percussive = np.empty((2, LINES, BLOCK), np.float32)
        self.waves = [np.empty((0, N_FFT), np.float32)] * 2


_kept = threading.local()


def _buffers(n_frames: int) -> _Buffers:
    buffers: _Buffers | None = getattr(_kept, "buffers", None)
    if buffers is None or buffers.n_frames < n_frames:
        buffers = _Buffers(n_frames)
        if n_frames <= KEPT_FRAMES:
            _kept.buffers = buffers
    return buffers


def _analyse(
    padded: np.ndarray, first: int, n_frames: int, buffers: _Buffers, filters: _Filters, sr: float
) -> np.ndarray:
    """Transform the block that begins at frame `first`, describe its spectra, and return their peaks."""
    count = min(BLOCK, n_frames - first)
    odd = first // BLOCK % 2
    frames, spectra = buffers.frames[:count], buffers.spectra[odd, :count]
    loops.window_frames(padded, filters.window, first, frames)
    spectra[:] = scipy.fft.rfft(frames, axis=1, overwrite_x=True)
    rows = buffers.magnitude[REACH + first : REACH + first + BLOCK]
    np.abs(spectra, out=rows[:count])
    rows[count:] = 0

    loops.lay_lines(rows, buffers.lines)
    loops.running_medians(buffers.lines, buffers.percussive[odd])
    block = slice(first, first + BLOCK)
    loops.describe_spectra(buffers.lines, buffers.shapes[:, block])
    loops.mel_bands(buffers.lines, filters.band_of_bin, filters.mel_slopes, buffers.mel[:, block])
    if first == 0:
        _reflect(buffers.magnitude, range(-REACH, 0), n_frames)
    if first + count == n_frames:
        _reflect(buffers.magnitude, range(n_frames, n_frames + REACH), n_frames)
    return loops.spectral_peaks(rows[:count], buffers.shapes[3, block], *filters.pitch_bins, sr)


def _reflect(magnitude: np.ndarray, frames: range, n_frames: int) -> None:
    """Fill in `frames` beyond the clip's ends, in mirror image; over and over if the clip is that short."""
    for frame in frames:
        source = frame % (2 * n_frames)
        magnitude[REACH + frame] = magnitude[REACH + min(source, 2 * n_frames - 1 - source)]


def _separate(
    padded: np.ndarray, first: int, n_frames: int, buffers: _Buffers, filters: _Filters, sums: np.ndarray
) -> None:
    """Invert the harmonic part of the block that begins at frame `first`, and add its waveform's sums to `sums`."""
    count = min(BLOCK, n_frames - first)
    odd = first // BLOCK % 2
    rows = buffers.magnitude[first : first + BLOCK + 2 * REACH]
    spectra, harmonic = buffers.spectra[odd].view(np.float32), buffers.harmonic.view(np.float32)
    loops.keep_harmonic(rows, buffers.percussive[odd], spectra, harmonic)
    waves = scipy.fft.irfft(buffers.harmonic[:count], n=N_FFT, axis=1, overwrite_x=True)
    loops.add_overlaps(buffers.waves[1 - odd], waves, filters.overlap_windows, padded, first, n_frames, sums)
    buffers.waves[odd] = waves


def _chroma(magnitude: np.ndarray, tuning: float, sr: float) -> np.ndarray:
    """``librosa.feature.chroma_stft``: power in the twelve pitch classes, relative to each frame's strongest."""
    weights = _chroma_weights(sr, tuning)
    chroma = np.concatenate(
        [magnitude[first : first + BLOCK] ** 2 @ weights for first in range(0, len(magnitude), BLOCK)]
    )
    strongest = chroma.max(axis=1, keepdims=True)
    return np.asarray(chroma / np.where(strongest < np.finfo(np.float32).tiny, np.float32(1), strongest))


@functools.lru_cache(maxsize=100)
def _chroma_weights(sr: float, tuning: float) -> np.ndarray:
    return np.ascontiguousarray(chroma_filter_bank(sr, N_FFT, tuning).T)


def _tuning(peaks: np.ndarray) -> float:
    """``librosa.estimate_tuning``: how far most pitches are from the piano's, in hundredths of a semitone."""
    pitches, strengths = peaks
    if not len(pitches):
        return 0.0
    pitches = pitches[strengths >= np.median(strengths)]
    residual = np.mod(12 * np.log2(pitches / (440.0 / 16)), 1.0)
    residual[residual >= 0.5] -= 1.0
    counts, steps = np.histogram(residual, np.linspace(-0.5, 0.5, 101))
    return float(steps[np.argmax(counts)])


def _decibels(power: np.ndarray) -> np.ndarray:
    """``librosa.power_to_db``: never below 1e-10, nor more than 80 dB below the clip's maximum."""
    decibels = np.float32(10) * np.log10(np.maximum(np.float32(1e-10), power))
    return np.maximum(decibels, decibels.max() - np.float32(80))


def _onset_strength(decibels: np.ndarray) -> np.ndarray:
    """``librosa.onset.onset_strength(..., aggregate=np.median)``: how much the bands rise, in the median band.

    Sorted because that is vector code in NumPy, and ``np.median`` is not.
    """
    rises = np.sort(np.maximum(0, np.diff(decibels)).T.copy(), axis=1)
    onsets = np.zeros(decibels.shape[1], np.float32)
    # A rise belongs to the frame after it, and that frame is centred 2 hops after its first sample.
    delay = 1 + N_FFT // (2 * HOP)
    middle = MEL_BANDS // 2
    onsets[delay:] = ((rises[:, middle - 1] + rises[:, middle]) / 2)[: len(onsets) - delay]
    return onsets


def _tempo(onsets: np.ndarray, sr: float) -> float:
    """``librosa.feature.tempo``: the lag at which the onsets repeat best, in beats per minute.

    The autocorrelations of all frames are wanted only in their mean. That is, by lag, the sum of a diagonal of the
    frames' Gram matrix, which takes one matrix product instead of two Fourier transforms a frame.
    """
    # Without an onset there is no tempo; `beat_track` says 0 then, `feature.tempo` the middle of its prior.
    if not onsets.any():
        return 0.0
    n, width = len(onsets), int(TEMPOGRAM_S * sr / HOP)
    window = hann_window(width).astype(np.float32)
    padded = np.pad(onsets, width // 2, mode="linear_ramp")
    gram = np.zeros((width + 1, 2 * width), np.float32)
    for first in range(0, n, 1_024):
        frames = sliding_window_view(padded, width)[first : min(first + 1_024, n)] * window
        norms = np.sqrt(np.einsum("ij,ij->i", frames, frames))
        frames /= np.where(norms > 0, norms, 1)[:, np.newaxis]
        gram[:width, :width] += frames.T @ frames
    # Read as rows that are one longer, each begins one further on: diagonals become columns.
    shifted = gram.reshape(-1)[: width * (2 * width + 1)].reshape(width, 2 * width + 1)
    autocorrelation = shifted[:, :width].sum(axis=0)
    lags = np.arange(1, width)
    bpm = 60 * sr / (HOP * lags)
    score = np.log1p(1e6 * autocorrelation[lags].astype(np.float64) / n) - 0.5 * np.log2(bpm / TEMPO_PRIOR) ** 2
    return float(bpm[np.argmax(np.where(bpm < FASTEST_TEMPO, score, -np.inf))])


def _summary(frames: dict[str, np.ndarray]) -> Iterator[tuple[str, float]]:
    for name, values in frames.items():
        yield f"{name}_mean", float(np.mean(values, dtype=np.float64))
        yield f"{name}_var", float(np.var(values, dtype=np.float64))

"""One pass over a clip: its spectra, in blocks of frames, and what feature sets read from them.

Only what is measured of a clip, frame by frame, belongs here; which statistics of it are features is in the kernels of
the sets (`genres.audio.gtzan57.kernel`, `genres.audio.librosa96.kernel`), and the loops that are compiled are the
module `loops`, beside this one. This module loads numba: import it where a feature is computed and nowhere else.

Order of work
-------------
A clip goes through in blocks of 32 frames. Each block is transformed once and described; the block before it, whose
medians along time now have all their neighbours, is separated, inverted and summed up. What needs the whole clip
(chroma its tuning, decibels their maximum, the tempogram) comes at the end, from the magnitudes and mel bands kept. So
a clip takes the memory of its magnitudes, 180 kB a second, and a fixed amount besides.
"""

import functools
import itertools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from genres.audio.feature_set import window_starts
from genres.audio.filter_banks import chroma_filter_bank, hann_window, mel_filter_bank
from genres.audio.spectral import loops
from genres.audio.spectral.loops import BINS, HOP, LANES, LINES, N_FFT, REACH

BLOCK = LANES
"""Frames that are worked on together."""
MEL_BANDS, MFCCS = 128, 20
TEMPOGRAM_S = 8.0
"""Longest period that the tempogram looks for, in seconds."""
TEMPOGRAM_STEP = 8
"""Of so many frames of the tempogram one counts for a window: .2 s of 8 s go by from one to the next."""
CONTRAST_BANDS = 7
KEPT_FRAMES = 4_096
"""A thread keeps the buffers of its last clip if it had no more frames: 95 s, 19 MB."""


class Analysis(NamedTuple):
    """What a pass measures. Arrays have a value for each frame, unless they say otherwise."""

    sr: float
    n_samples: int
    n_frames: int
    chroma: np.ndarray
    """A row for each frame, of twelve pitch classes from C on; the strongest of a frame is 1."""
    rms: np.ndarray
    centroid: np.ndarray
    """In Hz; bandwidth and roll-off too."""
    bandwidth: np.ndarray
    rolloff: np.ndarray
    zero_crossing_rate: np.ndarray
    """Crossings a sample."""
    hop_sums: np.ndarray
    """A row for each whole hop: sum of the samples of the harmonic waveform, of their squares, and the same of the
    percussive one."""
    mfcc: np.ndarray
    """A row for each of the first 20 coefficients."""
    onsets: np.ndarray
    """How much the median mel band rises, in dB, at the place that librosa puts it."""
    tempogram_sum: np.ndarray
    """Local autocorrelation of `onsets` by lag, in hops: librosa's tempogram, summed over frames."""
    textures: "Textures | None"


class Textures(NamedTuple):
    """What a pass measures only if it is asked for."""

    contrast: np.ndarray
    """A row for each octave band (see `octave_bands`): how far the mean of its largest magnitudes, a fiftieth of them,
    is above that of its smallest ones, in dB."""
    flatness: np.ndarray
    """Geometric mean of the power spectrum, relative to its arithmetic mean."""
    flux: np.ndarray
    """Of each frame but the first: squared distance to the spectrum before, both of unit length."""
    onset_strength: np.ndarray
    """Of each frame but the first: how much the mel bands rise from the one before, in dB, in their mean."""


def analyse(samples: np.ndarray, sr: float, *, textures: bool = False) -> Analysis:
    """Go through a clip once.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,)]
        Mono float32 samples in [-1, 1]; at least 2,048 of them.
    sr : float
        Samples per second, in Hz.
    textures : bool
        Whether `Textures` are measured, too.
    """
    sr = float(sr)
    filters = _filters(sr)
    padded = np.pad(samples.astype(np.float32, copy=False), N_FFT // 2, mode="reflect")
    n_frames = 1 + len(samples) // HOP
    buffers = _buffers(n_frames)

    peaks, hop_sums = [], np.zeros((n_frames - 1, 4))
    for first in range(0, n_frames + BLOCK, BLOCK):
        if first < n_frames:
            peaks.append(_analyse(padded, first, n_frames, buffers, filters, sr))
            if textures:
                _measure_textures(first, n_frames, buffers, octave_bands(sr))
        if first > 0:
            _separate(padded, first - BLOCK, n_frames, buffers, filters, hop_sums)

    decibels = power_decibels(buffers.mel[:, :n_frames])
    rms, zero_crossing_rate = loops.level_and_crossings(padded, n_frames)
    centroid, bandwidth, rolloff = buffers.shapes[:3, :n_frames] * (sr / N_FFT)
    rises = np.maximum(0, np.diff(decibels)).T.copy()
    onsets = _median_onsets(rises, n_frames)
    return Analysis(
        sr=sr,
        n_samples=len(samples),
        n_frames=n_frames,
        chroma=_chroma(buffers.magnitude[REACH : REACH + n_frames], _tuning(np.concatenate(peaks, axis=1)), sr),
        rms=rms,
        centroid=centroid,
        bandwidth=bandwidth,
        rolloff=rolloff,
        zero_crossing_rate=zero_crossing_rate,
        hop_sums=hop_sums,
        mfcc=scipy.fft.dct(decibels, axis=0, norm="ortho")[:MFCCS],
        onsets=onsets,
        tempogram_sum=_tempogram_sum(onsets, sr),
        textures=_textures(buffers, rises, n_frames) if textures else None,
    )


def windows(analysis: Analysis) -> Iterator[Analysis]:
    """Cut what was measured of a clip into windows, one after the other.

    Nothing is measured again, so a window is not what the same samples would be as a clip of their own. Its frames see
    the samples beyond its ends, by half a frame; the medians of the separation see 15 frames, flux and onsets one.
    Tuning and loudest decibel are the clip's. The tempogram's frames see the onsets of 4 s on either side, and their
    sum is that of every `TEMPOGRAM_STEP`-th, times `TEMPOGRAM_STEP`.

    Yields
    ------
    Analysis
        Of each window of `genres.audio.feature_set.window_starts`; of a clip that is shorter than a window, the clip's.
    """
    starts = window_starts(analysis.n_samples, analysis.sr)
    if len(starts) < 2:
        yield analysis
        return
    spectra = _tempogram_spectra(analysis.onsets, analysis.sr)
    for first, end in itertools.pairwise(int(start) // HOP for start in starts):
        frames, changes = slice(first, end), slice(max(first - 1, 0), end - 1)
        seen = slice(-(-first // TEMPOGRAM_STEP), -(-end // TEMPOGRAM_STEP))
        yield analysis._replace(
            n_samples=(end - first) * HOP,
            n_frames=end - first,
            chroma=analysis.chroma[frames],
            rms=analysis.rms[frames],
            centroid=analysis.centroid[frames],
            bandwidth=analysis.bandwidth[frames],
            rolloff=analysis.rolloff[frames],
            zero_crossing_rate=analysis.zero_crossing_rate[frames],
            hop_sums=analysis.hop_sums[frames],
            mfcc=analysis.mfcc[:, frames],
            onsets=analysis.onsets[frames],
            tempogram_sum=_mean_autocorrelation(spectra[seen], len(analysis.tempogram_sum)) * (end - first),
            textures=analysis.textures
            and Textures(
                contrast=analysis.textures.contrast[:, frames],
                flatness=analysis.textures.flatness[frames],
                flux=analysis.textures.flux[changes],
                onset_strength=analysis.textures.onset_strength[changes],
            ),
        )


class _Filters(NamedTuple):
    """What depends on the sample rate only."""

    window: np.ndarray
    overlap_windows: np.ndarray
    """See `loops.add_overlaps`."""
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
    pitch_bins = (int(pitched[0]), int(pitched[-1]) + 1)
    return _Filters(window, overlap_windows, band_of_bin, mel_slopes, pitch_bins)


@functools.lru_cache(maxsize=4)
def octave_bands(sr: float) -> np.ndarray:
    """Return the bands of ``librosa.feature.spectral_contrast``: up to 200 Hz, and six octaves from there on.

    Each but the first begins one bin below its octave, and the last one goes on to half the sample rate.

    Returns
    -------
    np.ndarray [shape=(7, 3), dtype=int]
        Of each band the first bin, the bin after the last, and how many bins its peak is the mean of, and its valley.
    """
    hertz = np.arange(BINS) * sr / N_FFT
    corners = np.concatenate([[0], 200 * 2.0 ** np.arange(CONTRAST_BANDS)])
    bands = []
    for number, (low, high) in enumerate(itertools.pairwise(corners)):
        inside = np.flatnonzero((hertz >= low) & (hertz <= high))
        first, last = max(0, int(inside[0]) - (number > 0)), int(inside[-1])
        is_highest = number == CONTRAST_BANDS - 1
        end = BINS if is_highest else last
        # librosa counts the last bin of a band before it leaves it to the next band.
        extremes = max(1, int(np.rint(0.02 * (end - first + (not is_highest)))))
        bands.append((first, end, extremes))
    return np.array(bands)


class _Buffers:
    """The arrays that a thread works in: fresh ones for every clip would be a tenth of its time."""

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames
        self.magnitude = np.empty((n_frames + BLOCK + 2 * REACH, BINS), np.float32)
        """Of all frames, with `REACH` reflected ones at both ends."""
        self.mel = np.empty((MEL_BANDS, n_frames + BLOCK), np.float32)
        self.shapes = np.empty((4, n_frames + BLOCK))
        """See `loops.describe_spectra`."""
        self.extremes = np.empty((2, CONTRAST_BANDS, n_frames + BLOCK), np.float32)
        """Peaks and valleys, see `loops.octave_extremes`."""
        self.textures = np.empty((2, n_frames + BLOCK))
        """Flatness and flux, see `loops.spectral_flatness` and `loops.spectral_flux`."""
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


def _measure_textures(first: int, n_frames: int, buffers: _Buffers, bands: np.ndarray) -> None:
    """Measure the textures of the block that begins at frame `first`, and was the last to be analysed."""
    block = slice(first, first + BLOCK)
    loops.octave_extremes(buffers.lines, bands, *buffers.extremes[:, :, block])
    flatness, flux = buffers.textures
    loops.spectral_flatness(buffers.lines, flatness[block])
    # The first frame of all is compared with one that was reflected, and not counted.
    end = min(first + BLOCK, n_frames)
    loops.spectral_flux(buffers.magnitude[REACH + first - 1 : REACH + end], flux[first:end])


def _textures(buffers: _Buffers, rises: np.ndarray, n_frames: int) -> Textures:
    flatness, flux = buffers.textures[:, :n_frames]
    peaks, valleys = buffers.extremes[:, :, :n_frames]
    contrast = power_decibels(peaks) - power_decibels(valleys)
    return Textures(contrast, flatness, flux[1:], rises.mean(axis=1, dtype=np.float64))


def _reflect(magnitude: np.ndarray, frames: range, n_frames: int) -> None:
    """Fill in `frames` beyond the clip's ends, in mirror image; over and over if the clip is that short."""
    for frame in frames:
        source = frame % (2 * n_frames)
        magnitude[REACH + frame] = magnitude[REACH + min(source, 2 * n_frames - 1 - source)]


def _separate(
    padded: np.ndarray, first: int, n_frames: int, buffers: _Buffers, filters: _Filters, hop_sums: np.ndarray
) -> None:
    """Invert the harmonic part of the block that begins at frame `first`, and write its waveform's `hop_sums`."""
    count = min(BLOCK, n_frames - first)
    odd = first // BLOCK % 2
    rows = buffers.magnitude[first : first + BLOCK + 2 * REACH]
    spectra, harmonic = buffers.spectra[odd].view(np.float32), buffers.harmonic.view(np.float32)
    loops.keep_harmonic(rows, buffers.percussive[odd], spectra, harmonic)
    waves = scipy.fft.irfft(buffers.harmonic[:count], n=N_FFT, axis=1, overwrite_x=True)
    loops.add_overlaps(buffers.waves[1 - odd], waves, filters.overlap_windows, padded, first, n_frames, hop_sums)
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


def power_decibels(power: np.ndarray) -> np.ndarray:
    """``librosa.power_to_db``: never below 1e-10, nor more than 80 dB below the clip's maximum."""
    decibels = np.float32(10) * np.log10(np.maximum(np.float32(1e-10), power))
    return np.maximum(decibels, decibels.max() - np.float32(80))


def _median_onsets(rises: np.ndarray, n_frames: int) -> np.ndarray:
    """``librosa.onset.onset_strength(..., aggregate=np.median)``: how much the bands rise, in the median band.

    Sorted because that is vector code in NumPy, and ``np.median`` is not.

    Parameters
    ----------
    rises : np.ndarray [shape=(n_frames - 1, 128), dtype=float32]
        How much each mel band rises from the frame before, in dB.
    """
    rises = np.sort(rises, axis=1)
    onsets = np.zeros(n_frames, np.float32)
    # A rise belongs to the frame after it, and that frame is centred 2 hops after its first sample.
    delay = 1 + N_FFT // (2 * HOP)
    middle = MEL_BANDS // 2
    onsets[delay:] = ((rises[:, middle - 1] + rises[:, middle]) / 2)[: len(onsets) - delay]
    return onsets


def _tempogram_sum(onsets: np.ndarray, sr: float) -> np.ndarray:
    """``librosa.feature.tempogram``, summed over frames: how well the onsets repeat after each lag.

    The autocorrelations of all frames are wanted only in their sum. That is, by lag, the sum of a diagonal of the
    frames' Gram matrix, which takes one matrix product instead of two Fourier transforms a frame.
    """
    n, width = len(onsets), int(TEMPOGRAM_S * sr / HOP)
    if not onsets.any():
        return np.zeros(width, np.float32)
    gram = np.zeros((width + 1, 2 * width), np.float32)
    for first in range(0, n, 1_024):
        frames = _onset_frames(onsets, range(first, min(first + 1_024, n)), width)
        gram[:width, :width] += frames.T @ frames
    # Read as rows that are one longer, each begins one further on: diagonals become columns.
    shifted = gram.reshape(-1)[: width * (2 * width + 1)].reshape(width, 2 * width + 1)
    return np.asarray(shifted[:, :width].sum(axis=0))


def _tempogram_spectra(onsets: np.ndarray, sr: float) -> np.ndarray:
    """Return the power spectra of every `TEMPOGRAM_STEP`-th frame of onsets: their inverse transform is the tempogram.

    For that, the frames are padded to twice their length.
    """
    width = int(TEMPOGRAM_S * sr / HOP)
    frames = _onset_frames(onsets, range(0, len(onsets), TEMPOGRAM_STEP), width)
    spectra = scipy.fft.rfft(frames, n=scipy.fft.next_fast_len(2 * width, real=True), axis=1)
    return np.asarray(spectra.real**2 + spectra.imag**2)


def _mean_autocorrelation(spectra: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of tempogram frames by lag, from their `_tempogram_spectra`."""
    return np.asarray(scipy.fft.irfft(spectra.mean(axis=0))[:width])


def _onset_frames(onsets: np.ndarray, centres: range, width: int) -> np.ndarray:
    """Cut the frames of a tempogram, windowed and of unit length, or nothing if they are."""
    padded = np.pad(onsets, width // 2, mode="linear_ramp")
    views = sliding_window_view(padded, width)[centres.start : centres.stop : centres.step]
    frames = views * hann_window(width).astype(np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", frames, frames))
    frames /= np.where(norms > 0, norms, 1)[:, np.newaxis]
    return np.asarray(frames)

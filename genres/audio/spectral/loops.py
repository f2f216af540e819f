"""The compiled loops of the analysis: what would take several passes over memory if NumPy did it.

The module `analysis` says what is measured and calls these; here it says how. Each loop takes one block of `LANES`
frames, whose arrays fit in the processor's second-level cache. A block's magnitudes come in two layouts: as *rows*, a
row for each frame, and as *lines*, a row for each frequency bin with a column for each frame. Along lines, whatever
runs from bin to bin (sums, medians, filter slopes) is done for all frames of the block side by side, without a branch,
and the compiler makes vector instructions of it.

Three rules keep the inner loops vector code and the compiler quick: they run over slices that begin at 0, not over
shifted indices; where there are several lines to write, these lie in one flat array; and no row is assigned to a row,
because numba then compiles the error messages for rows that do not fit. No function allocates more than a few rows,
starts a thread, or holds Python's lock. **All of them stand in this one file**: numba renews what it has cached for a
function when that function's file changes, but not when another file does whose functions it calls.

References
----------
.. [1] K. E. Batcher, "Sorting networks and their applications", AFIPS Spring Joint Computer Conference 32, 1968.
.. [2] A. Adams, "Fast median filters using separable sorting networks", ACM Transactions on Graphics 40(4), 2021.
"""

import numba
import numpy as np

N_FFT = 2_048
"""Samples of a frame."""
HOP = 512
"""Samples from one frame to the next."""
BINS = N_FFT // 2 + 1
"""Frequency bins of a frame."""
LANES = 32
"""Frames of a block: a few vector registers wide, and so few that the block stays in the cache."""
MEDIAN_WIDTH = 31
"""Width of both median filters of the separation: frames along time, bins along frequency."""
REACH = MEDIAN_WIDTH // 2
"""Values on either side of the one whose median is taken."""
TILE = 8
"""Medians that are found together."""
LINES = -(-BINS // TILE) * TILE
"""Bins, and as many more as fill a tile of medians."""

EXTREMES = 9
"""Largest and smallest values that are found in a band of the spectrum: a fiftieth of the bins of the widest one."""

_List = tuple[float, ...]

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
# For sums only: lets the compiler add in the order that suits its registers.
_compiled_sums = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
_inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


@_compiled
def window_frames(padded: np.ndarray, window: np.ndarray, first_frame: int, frames: np.ndarray) -> None:
    """Cut the frames from `first_frame` on and multiply them with the window, in double precision like librosa.

    Single precision would do for real music, but not for a pure tone, whose bandwidth is then that of the rounding
    errors, 1 to 6 % too much; nor for single clicks, whose spectra are flat, so that the last digit decides what is a
    peak, and the peaks the tuning, and the tuning chroma.
    """
    for row in range(len(frames)):
        first = (first_frame + row) * HOP
        samples = padded[first : first + N_FFT]
        for i in range(N_FFT):
            frames[row, i] = window[i] * samples[i]


@_compiled
def lay_lines(rows: np.ndarray, lines: np.ndarray) -> None:
    """Turn a block's rows into lines, and reflect `REACH` bins at both ends, which the medians need.

    In squares of 8 by 8, so that no line of the cache is fetched twice.
    """
    for frame in range(0, LANES, 8):
        for k in range(0, BINS - 1, 8):
            for i in range(8):
                for j in range(8):
                    lines[REACH + k + i, frame + j] = rows[frame + j, k + i]
    for frame in range(LANES):
        lines[REACH + BINS - 1, frame] = rows[frame, BINS - 1]
    for k in range(REACH):
        for frame in range(LANES):
            lines[REACH - 1 - k, frame] = lines[REACH + k, frame]
            lines[REACH + BINS + k, frame] = lines[REACH + BINS - 1 - k, frame]


@_compiled
def describe_spectra(lines: np.ndarray, shapes: np.ndarray) -> None:
    """Measure the spectra of a block: rows centroid, bandwidth, roll-off (all in bins), and largest magnitude.

    The roll-off adds in single precision from the lowest bin up, as NumPy's ``cumsum`` does for librosa, so that both
    stop at the same bin.
    """
    lines = lines.reshape(-1)[REACH * LANES :]
    sums = np.zeros(3 * LANES)
    running = np.zeros(3 * LANES, np.float32)
    for k in range(BINS):
        line = lines[k * LANES : (k + 1) * LANES]
        for frame in range(LANES):
            running[frame] += line[frame]
            running[LANES + frame] = max(running[LANES + frame], line[frame])
        for frame in range(LANES):
            value = np.float64(line[frame])
            sums[frame] += value
            sums[LANES + frame] += k * value
            sums[2 * LANES + frame] += k * k * value
    for frame in range(LANES):
        total, first, second = sums[frame], sums[LANES + frame], sums[2 * LANES + frame]
        # As `librosa.util.normalize` does, a spectrum of nothing is left as it is.
        weight = total if total >= np.finfo(np.float32).tiny else 1.0
        centroid = first / weight
        shapes[0, frame] = centroid
        shapes[1, frame] = np.sqrt(max(second - centroid * (2 * first - centroid * total), 0.0) / weight)
        shapes[3, frame] = running[LANES + frame]
    for frame in range(LANES):
        running[2 * LANES + frame] = np.float32(0.85) * running[frame]
        running[frame] = 0
        running[LANES + frame] = 0
    for k in range(BINS):
        line = lines[k * LANES : (k + 1) * LANES]
        for frame in range(LANES):
            running[frame] += line[frame]
            below = running[frame] < running[2 * LANES + frame]
            running[LANES + frame] += np.float32(1) if below else np.float32(0)
    for frame in range(LANES):
        shapes[2, frame] = running[LANES + frame]


@_compiled
def mel_bands(lines: np.ndarray, band_of_bin: np.ndarray, slopes: np.ndarray, mel: np.ndarray) -> None:
    """Sum the power in each mel band for the frames of a block.

    The bands are triangles that overlap by half: each bin lies on the falling slope of one and on the rising slope
    of the next, so that two products a bin do what a matrix product does with 128.
    """
    lines = lines.reshape(-1)[REACH * LANES :]
    bands = np.zeros((len(mel) + 2) * LANES, np.float32)
    for k in range(BINS):
        line = lines[k * LANES : (k + 1) * LANES]
        two_bands = bands[band_of_bin[k] * LANES : (band_of_bin[k] + 2) * LANES]
        falling, rising = slopes[0, k], slopes[1, k]
        for frame in range(LANES):
            power = line[frame] * line[frame]
            two_bands[frame] += falling * power
            two_bands[LANES + frame] += rising * power
    for band in range(len(mel)):
        for frame in range(LANES):
            mel[band, frame] = bands[(band + 1) * LANES + frame]


@_compiled
def octave_extremes(lines: np.ndarray, bands: np.ndarray, peaks: np.ndarray, valleys: np.ndarray) -> None:
    """Take the mean of the largest magnitudes of each band, and of the smallest ones, for the frames of a block.

    Parameters
    ----------
    lines : np.ndarray [shape=(LINES + 2 * REACH, LANES), dtype=float32]
    bands : np.ndarray [shape=(n, 3), dtype=int]
        Of each band the first bin, the bin after the last, and how many values are taken, at most `EXTREMES`; see
        `analysis.octave_bands`.
    peaks, valleys : np.ndarray [shape=(n, LANES), dtype=float32]
        Are overwritten.
    """
    lines = lines.reshape(-1)[REACH * LANES :]
    extremes, carried = np.empty(2 * EXTREMES * LANES, np.float32), np.empty(2 * LANES, np.float32)
    for band in range(len(bands)):
        first, end, count = bands[band]
        extremes[: EXTREMES * LANES] = -np.inf
        extremes[EXTREMES * LANES :] = np.inf
        odd = first + (end - first) % 8
        for k in range(first, odd):
            _insert_one(lines[k * LANES : (k + 1) * LANES], carried, extremes)
        for k in range(odd, end, 8):
            _insert_eight(lines[k * LANES : (k + 8) * LANES], extremes)
        for frame in range(LANES):
            high, low = np.float32(0), np.float32(0)
            for place in range(count):
                high += extremes[place * LANES + frame]
                low += extremes[(EXTREMES + place) * LANES + frame]
            peaks[band, frame] = high / np.float32(count)
            valleys[band, frame] = low / np.float32(count)


@_compiled
def spectral_flatness(lines: np.ndarray, flatness: np.ndarray) -> None:
    """Divide the geometric mean of each power spectrum by its arithmetic mean, no power counting as less than 1e-10.

    One logarithm does for the product of 16 powers, which double precision holds: they lie between 1e-10 and 1e9.
    """
    lines = lines.reshape(-1)[REACH * LANES :]
    sums, logarithms, products = np.zeros(LANES), np.zeros(LANES), np.ones(LANES)
    for group in range(0, BINS, 16):
        for k in range(group, min(group + 16, BINS)):
            line = lines[k * LANES : (k + 1) * LANES]
            for frame in range(LANES):
                power = np.float64(max(line[frame] * line[frame], np.float32(1e-10)))
                sums[frame] += power
                products[frame] *= power
        for frame in range(LANES):
            logarithms[frame] += np.log(products[frame])
            products[frame] = 1.0
    for frame in range(LANES):
        flatness[frame] = np.exp(logarithms[frame] / BINS) / (sums[frame] / BINS)


@_compiled_sums
def spectral_flux(rows: np.ndarray, flux: np.ndarray) -> None:
    """Measure the squared distance of each spectrum to the one before, both of unit length, or nothing if they are.

    Of two vectors of unit length, that is 2 less twice their product; double precision leaves ten digits of it.

    Parameters
    ----------
    rows : np.ndarray [shape=(n + 1, BINS), dtype=float32]
        Magnitudes of the frames and of the one before them.
    flux : np.ndarray [shape=(n,)]
        Is overwritten.
    """
    square_before = 0.0
    for frame in range(len(rows)):
        row = rows[frame]
        square = 0.0
        for k in range(BINS):
            square += np.float64(row[k]) * np.float64(row[k])
        if frame > 0:
            before = rows[frame - 1]
            product = 0.0
            for k in range(BINS):
                product += np.float64(row[k]) * np.float64(before[k])
            if square > 0 and square_before > 0:
                flux[frame - 1] = max(2.0 - 2.0 * product / np.sqrt(square * square_before), 0.0)
            else:
                flux[frame - 1] = 0.0 if square == square_before else 1.0
        square_before = square


@_compiled
def spectral_peaks(rows: np.ndarray, largest: np.ndarray, first_bin: int, last_bin: int, sr: float) -> np.ndarray:
    """Find what `librosa.piptrack` finds in the power spectra: frequencies in Hz and strengths of their peaks.

    A peak is a local maximum of more than a tenth of its frame's largest power, between two bins; its place is
    interpolated by a parabola. All types and roundings are librosa's, see `window_frames`.
    """
    peaks = np.empty((2, len(rows) * (last_bin - first_bin)), np.float32)
    n = 0
    for frame in range(len(rows)):
        row = rows[frame]
        top = np.float32(largest[frame])
        threshold = np.float32(0.1) * (top * top)
        for k in range(first_bin, last_bin):
            here = row[k] * row[k]
            if here > threshold:
                below = row[k - 1] * row[k - 1]
                above = row[k + 1] * row[k + 1]
                if here > below and here >= above:
                    curve = above + below - 2 * here
                    slope = (above - below) / 2
                    shift = np.float32(-slope / curve) if abs(slope) < abs(curve) else np.float32(0)
                    peaks[0, n] = (k + np.float64(shift)) * sr / N_FFT
                    peaks[1, n] = here + np.float32(slope / 2) * shift
                    n += 1
    return peaks[:, :n].copy()


@_compiled
def keep_harmonic(rows: np.ndarray, percussive: np.ndarray, spectra: np.ndarray, harmonic: np.ndarray) -> None:
    """Multiply the spectra of a block with the mask of its harmonic part.

    The mask is h² / (h² + p²) of the medians h along time and p along frequency, and a half where both are nothing.

    Parameters
    ----------
    rows : np.ndarray [shape=(LANES + 2 * REACH, BINS), dtype=float32]
        Magnitudes of the block's frames and their neighbours.
    percussive : np.ndarray [shape=(LINES, LANES), dtype=float32]
        The medians along frequency, as lines.
    spectra, harmonic : np.ndarray [shape=(LANES, 2 * BINS), dtype=float32]
        Real and imaginary parts by turns; `harmonic` is overwritten.
    """
    near = np.empty((LANES + 2 * REACH, LANES), np.float32)
    medians = np.empty((LANES, LANES), np.float32)
    mask = np.empty((LANES, LANES), np.float32)
    for strip in range(0, BINS, LANES):
        # The last strip takes bins of the one before once more, to be as wide.
        left = min(strip, BINS - LANES)
        for frame in range(LANES + 2 * REACH):
            source, target = rows[frame, left : left + LANES], near[frame]
            for k in range(LANES):
                target[k] = source[k]
        running_medians(near, medians)
        for frame in range(LANES):
            for k in range(LANES):
                mask[frame, k] = percussive[left + k, frame]
        flat_mask, flat_medians = mask.reshape(-1), medians.reshape(-1)
        for i in range(LANES * LANES):
            power = flat_medians[i] * flat_medians[i]
            both = power + flat_mask[i] * flat_mask[i]
            flat_mask[i] = power / both if both > 0 else np.float32(0.5)
        for frame in range(LANES):
            source = spectra[frame, 2 * left : 2 * (left + LANES)]
            target = harmonic[frame, 2 * left : 2 * (left + LANES)]
            factor = mask[frame]
            for k in range(LANES):
                target[2 * k] = source[2 * k] * factor[k]
                target[2 * k + 1] = source[2 * k + 1] * factor[k]


@_compiled_sums
def add_overlaps(
    before: np.ndarray,
    waves: np.ndarray,
    windows: np.ndarray,
    padded: np.ndarray,
    first_frame: int,
    n_frames: int,
    sums: np.ndarray,
) -> None:
    """Add up the harmonic waveform where this block completes it, and sum each hop, its squares, and those of the rest.

    Only the sums are wanted, so the waveform is never stored. The percussive waveform is what the harmonic one
    leaves of the samples: the two masks add up to one, and the inverse transform is linear.

    Parameters
    ----------
    before, waves : np.ndarray [shape=(frames, N_FFT), dtype=float32]
        Inverse transforms of the frames of the preceding block, and of this one.
    windows : np.ndarray [shape=(3, N_FFT)]
        The window divided by the sum of all squared windows that overlap: at the clip's first hop, inside, and at
        its last hop; at the ends one of the four is missing.
    padded : np.ndarray [shape=(samples + N_FFT,), dtype=float32]
        The clip, with half a frame before and after it.
    first_frame, n_frames : int
        First frame of this block, and frames of the clip.
    sums : np.ndarray [shape=(n_frames - 1, 4)]
        A row for each whole hop of the clip: harmonic, its squares, percussive, its squares. Those of the hops that
        this block completes are overwritten.
    """
    wave = np.empty(HOP)
    end = first_frame + len(waves)
    # The clip itself begins at the padding's third hop and ends after a whole one.
    for hop in range(max(first_frame, 2), end + 1 if end == n_frames else end):
        window = windows[0 if hop == 2 else 2 if hop == n_frames else 1]
        wave[:] = 0
        for quarter in range(4):
            frame = hop - quarter
            if 0 <= frame < n_frames:
                row = waves[frame - first_frame] if frame >= first_frame else before[len(before) + frame - first_frame]
                part = row[quarter * HOP : (quarter + 1) * HOP]
                weight = window[quarter * HOP : (quarter + 1) * HOP]
                for i in range(HOP):
                    wave[i] += weight[i] * part[i]
        samples = padded[hop * HOP : (hop + 1) * HOP]
        harmonic = harmonic_squares = percussive = percussive_squares = 0.0
        for i in range(HOP):
            rest = samples[i] - wave[i]
            harmonic += wave[i]
            harmonic_squares += wave[i] * wave[i]
            percussive += rest
            percussive_squares += rest * rest
        sums[hop - 2, 0] = harmonic
        sums[hop - 2, 1] = harmonic_squares
        sums[hop - 2, 2] = percussive
        sums[hop - 2, 3] = percussive_squares


@_compiled_sums
def level_and_crossings(padded: np.ndarray, n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the root mean square and the zero-crossing rate of every frame; each hop is looked at once.

    The first sample of a frame has no sample before it that it could differ from. The rate is that of a clip padded
    with its edge values, so there are no crossings in the padding. Zero, and whatever is no farther from it than
    1e-10, counts as positive.
    """
    hops = n_frames + 3
    begin, end = N_FFT // 2, len(padded) - N_FFT // 2
    squares, crossings, at_start = np.zeros(hops), np.zeros(hops), np.zeros(hops)
    for hop in range(hops):
        samples = padded[hop * HOP : (hop + 1) * HOP]
        total = 0.0
        for i in range(HOP):
            total += np.float64(samples[i]) * np.float64(samples[i])
        squares[hop] = total
        first = max(hop * HOP, begin + 1)
        samples = padded[first : min((hop + 1) * HOP, end)]
        ones_before = padded[first - 1 : end]
        count = 0
        for i in range(len(samples)):
            count += (samples[i] < np.float32(-1e-10)) != (ones_before[i] < np.float32(-1e-10))
        crossings[hop] = count
        if len(samples) and first == hop * HOP:
            at_start[hop] = (samples[0] < np.float32(-1e-10)) != (ones_before[0] < np.float32(-1e-10))
    level, rate = np.empty(n_frames), np.empty(n_frames)
    for frame in range(n_frames):
        energy, changes = 0.0, -at_start[frame]
        for hop in range(frame, frame + 4):
            energy += squares[hop]
            changes += crossings[hop]
        level[frame] = np.sqrt(energy / N_FFT)
        rate[frame] = changes / N_FFT
    return level, rate


@_compiled
def running_medians(values: np.ndarray, medians: np.ndarray) -> None:
    """Set ``medians[i]`` to the medians of the columns of ``values[i : i + 31]``, as SciPy's ``median_filter`` would.

    Parameters
    ----------
    values : np.ndarray [shape=(n + 30, LANES), dtype=float32]
        None of them NaN.
    medians : np.ndarray [shape=(n, LANES), dtype=float32]
        Is overwritten; n is a multiple of `TILE`.
    """
    values, medians = values.reshape(-1), medians.reshape(-1)
    for first in range(0, len(medians), TILE * LANES):
        inputs = values[first : first + (TILE + MEDIAN_WIDTH - 1) * LANES]
        _eight_medians(inputs, medians[first : first + TILE * LANES])


# The networks. A list is a tuple here, because its values then stay in registers. It is *bitonic* if it rises and then
# falls, or is a rotation of one that does; three rounds of exchanges sort a bitonic list of 8 [1]_.


@_inlined
def _eight_medians(values: np.ndarray, medians: np.ndarray) -> None:
    """Find the medians of eight windows that begin in neighbouring rows: 0-30, 1-31, ..., 7-37.

    They have rows 7-30 in common. Of these 24 only the middle 8 can be any window's median: a window has 7 more
    values, which shift its median by no more than 7 places. Half of the windows have four more rows in common, of
    these 12 values again the middle 4 are left, and so on [2]_. It takes 49 minima and maxima for a median; a
    network that sorts each window out by itself takes some 280.
    """
    for lane in range(LANES):
        kept = _middle8(_eight(values, 7, lane), _eight(values, 15, lane), _eight(values, 23, lane))
        left = _middle4(kept, _four(values, 3, lane))
        pair = _middle2(left, _two(values, 1, lane))
        medians[lane] = _middle1(pair, values[lane])
        medians[LANES + lane] = _middle1(pair, values[31 * LANES + lane])
        pair = _middle2(left, _two(values, 31, lane))
        medians[2 * LANES + lane] = _middle1(pair, values[2 * LANES + lane])
        medians[3 * LANES + lane] = _middle1(pair, values[33 * LANES + lane])
        right = _middle4(kept, _four(values, 31, lane))
        pair = _middle2(right, _two(values, 5, lane))
        medians[4 * LANES + lane] = _middle1(pair, values[4 * LANES + lane])
        medians[5 * LANES + lane] = _middle1(pair, values[35 * LANES + lane])
        pair = _middle2(right, _two(values, 35, lane))
        medians[6 * LANES + lane] = _middle1(pair, values[6 * LANES + lane])
        medians[7 * LANES + lane] = _middle1(pair, values[37 * LANES + lane])


# `extremes` holds, for each column of a block, the nine largest values so far in falling order, and then the nine
# smallest ones in rising order: a line of the block for each place.


@_inlined
def _insert_one(line: np.ndarray, carried: np.ndarray, extremes: np.ndarray) -> None:
    """Let a line take the place of the extreme that it exceeds, that one the place of the next, and so on."""
    for lane in range(LANES):
        carried[lane] = line[lane]
        carried[LANES + lane] = line[lane]
    for place in range(EXTREMES):
        largest = extremes[place * LANES : (place + 1) * LANES]
        smallest = extremes[(EXTREMES + place) * LANES : (EXTREMES + place + 1) * LANES]
        for lane in range(LANES):
            largest[lane], carried[lane] = max(largest[lane], carried[lane]), min(largest[lane], carried[lane])
        for lane in range(LANES):
            other = carried[LANES + lane]
            smallest[lane], carried[LANES + lane] = min(smallest[lane], other), max(smallest[lane], other)


@_inlined
def _insert_eight(values: np.ndarray, extremes: np.ndarray) -> None:
    """Merge eight lines with the eight first extremes of either kind; the best of what is left may be the ninth."""
    for lane in range(LANES):
        new = _eight(values, 0, lane)
        h, g, f, e, d, c, b, a = _column8(extremes, 0, lane)
        old = (a, b, c, d, e, f, g, h)
        a, b, c, d, e, f, g, h = _merge8(_upper8(old, new))
        _set_column8(extremes, 0, lane, (h, g, f, e, d, c, b, a))
        extremes[8 * LANES + lane] = max(extremes[8 * LANES + lane], _highest8(_lower8(old, new)))
        old = _column8(extremes, EXTREMES, lane)
        _set_column8(extremes, EXTREMES, lane, _merge8(_lower8(old, new)))
        ninth = (EXTREMES + 8) * LANES + lane
        extremes[ninth] = min(extremes[ninth], _lowest8(_upper8(old, new)))


@_inlined
def _column8(values: np.ndarray, row: int, lane: int) -> _List:
    a, b = values[row * LANES + lane], values[(row + 1) * LANES + lane]
    c, d = values[(row + 2) * LANES + lane], values[(row + 3) * LANES + lane]
    e, f = values[(row + 4) * LANES + lane], values[(row + 5) * LANES + lane]
    return a, b, c, d, e, f, values[(row + 6) * LANES + lane], values[(row + 7) * LANES + lane]


@_inlined
def _set_column8(values: np.ndarray, row: int, lane: int, column: _List) -> None:
    values[row * LANES + lane], values[(row + 1) * LANES + lane] = column[0], column[1]
    values[(row + 2) * LANES + lane], values[(row + 3) * LANES + lane] = column[2], column[3]
    values[(row + 4) * LANES + lane], values[(row + 5) * LANES + lane] = column[4], column[5]
    values[(row + 6) * LANES + lane], values[(row + 7) * LANES + lane] = column[6], column[7]


@_inlined
def _highest8(values: _List) -> float:
    a, b, c, d, e, f, g, h = values
    return max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)))


@_inlined
def _lowest8(values: _List) -> float:
    a, b, c, d, e, f, g, h = values
    return min(min(min(a, b), min(c, d)), min(min(e, f), min(g, h)))


# `_middleN(kept, new)`: the middle N of 2 N sorted values and N more sorted ones.


@_inlined
def _middle8(a: _List, b: _List, c: _List) -> _List:
    """Of three sorted lists of 8, give the middle 8: without the lowest 8 and the highest 8 of all."""
    upper = _merge8(_upper8(_merge8(_lower8(a, b)), c))
    return _merge8(_lower8(upper, _merge8(_upper8(a, b))))


@_inlined
def _middle4(kept: _List, new: _List) -> _List:
    return _merge4(_lower4(_merge4(_upper4(kept[:4], new)), kept[4:]))


@_inlined
def _middle2(kept: _List, new: _List) -> _List:
    return _pair(*_lower2(_pair(*_upper2(kept[:2], new)), kept[2:]))


@_inlined
def _middle1(kept: _List, new: float) -> float:
    return min(max(kept[0], new), kept[1])


# `_lowerN(a, b)`, `_upperN(a, b)`: the N lowest, the N highest of two sorted lists of N, as a bitonic list.


@_inlined
def _lower2(a: _List, b: _List) -> _List:
    return min(a[0], b[1]), min(a[1], b[0])


@_inlined
def _lower4(a: _List, b: _List) -> _List:
    return _lower2(a[:2], b[2:]) + _lower2(a[2:], b[:2])


@_inlined
def _lower8(a: _List, b: _List) -> _List:
    return _lower4(a[:4], b[4:]) + _lower4(a[4:], b[:4])


@_inlined
def _upper2(a: _List, b: _List) -> _List:
    return max(a[0], b[1]), max(a[1], b[0])


@_inlined
def _upper4(a: _List, b: _List) -> _List:
    return _upper2(a[:2], b[2:]) + _upper2(a[2:], b[:2])


@_inlined
def _upper8(a: _List, b: _List) -> _List:
    return _upper4(a[:4], b[4:]) + _upper4(a[4:], b[:4])


# `_mergeN(values)`: a bitonic list of N, sorted.


@_inlined
def _merge8(values: _List) -> _List:
    a, b, c, d, e, f, g, h = values
    a, e = _pair(a, e)
    b, f = _pair(b, f)
    c, g = _pair(c, g)
    d, h = _pair(d, h)
    return _merge4((a, b, c, d)) + _merge4((e, f, g, h))


@_inlined
def _merge4(values: _List) -> _List:
    a, b, c, d = values
    a, c = _pair(a, c)
    b, d = _pair(b, d)
    return _pair(a, b) + _pair(c, d)


@_inlined
def _pair(a: float, b: float) -> _List:
    return min(a, b), max(a, b)


# `_two`, `_four`, `_eight`: that many values of a column from row `row` on, sorted.


@_inlined
def _two(values: np.ndarray, row: int, lane: int) -> _List:
    return _pair(values[row * LANES + lane], values[(row + 1) * LANES + lane])


@_inlined
def _four(values: np.ndarray, row: int, lane: int) -> _List:
    a, b = _two(values, row, lane)
    c, d = _two(values, row + 2, lane)
    return _merge4((a, b, d, c))


@_inlined
def _eight(values: np.ndarray, row: int, lane: int) -> _List:
    a, b, c, d = _four(values, row, lane)
    e, f, g, h = _four(values, row + 4, lane)
    return _merge8((a, b, c, d, h, g, f, e))

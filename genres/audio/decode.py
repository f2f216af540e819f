"""From the bytes of a clip that passed the gate to mono samples: what ``librosa.load`` gives for a path.

Only decoding belongs here; whether the bytes may be decoded at all is `genres.audio.gate`'s to say. It is done in
blocks, so that a clip takes no more memory than its mono samples at the rates that are wanted.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

from genres.audio.clip_header import ClipHeader
from genres.audio.ffmpeg import FORMATS, decoding
from genres.audio.rejections import Reason, RejectedAudio, truncated
from genres.audio.sound_file import container_of, read_header

if TYPE_CHECKING:
    import numpy as np
    import soundfile

MAX_PEAK = 10.0
"""Largest sample that is let in, in full scales. Float files may exceed 1 a little; those that exceed it by far
hold integers or garbage, and their squares overflow."""
BLOCK_SAMPLES = 2**18
"""Samples, over all channels, that are decoded at once."""


def decode(data: bytes, *, sample_rate: int, header: ClipHeader | None = None) -> "np.ndarray":
    """Decode one clip to mono samples.

    Equal to ``librosa.load(path, sr=sample_rate)``: libsndfile decodes, or ffmpeg what it does not read, channels are
    averaged, and another rate is resampled by soxr in high quality.

    Parameters
    ----------
    data : bytes
        A whole file that `genres.audio.gate.inspect` let in.
    sample_rate : int
        Samples per second of what is returned, in Hz.
    header : ClipHeader, optional
        What `genres.audio.gate.inspect` said about it; it is read again if it is not known.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
        The samples; silence is allowed.

    Raises
    ------
    RejectedAudio
        If libsndfile or ffmpeg cannot decode the bytes, the stream is not as long as its header says, or a sample is
        NaN, infinite or above `MAX_PEAK`.
    """
    return decode_at(data, sample_rates=[sample_rate], header=header)[sample_rate]


def decode_at(data: bytes, *, sample_rates: Iterable[int], header: ClipHeader | None = None) -> "dict[int, np.ndarray]":
    """Decode one clip once, to mono samples at each of several rates.

    Parameters and raised errors are those of `decode`.

    Returns
    -------
    dict of int to np.ndarray
        By sample rate, what `decode` returns.
    """
    if header is None:
        container = container_of(data)
        if container is None:
            raise RejectedAudio(Reason.NOT_AUDIO, expected="sound", beginning=data[:8])
        header = read_header(data, container)
    if header.container in FORMATS:
        return _by_ffmpeg(data, header, sample_rates)
    rates = list(sample_rates)
    mono = _by_libsndfile(data, header, rates)
    if not mono.is_whole and header.plain_source is not None:
        del mono  # or both take their memory
        mono = _by_libsndfile(data, replace(header, source=header.plain_source), rates)
    return mono.samples()


def _by_libsndfile(data: bytes, header: ClipHeader, sample_rates: Iterable[int]) -> "_Mono":
    import numpy as np
    import soundfile

    mono = _Mono(header, sample_rates)
    try:
        with _stream(header.source.open(data)) as file:
            if (file.samplerate, file.channels) != (header.sample_rate, header.channels):
                found = f"{file.samplerate:,} Hz, {file.channels} channels"
                raise RejectedAudio(Reason.OTHER_FORMAT, container=header.container, found=found)
            longest = max(1, BLOCK_SAMPLES // file.channels)
            block = np.empty((min(longest, header.frames + 1), file.channels), np.float32)
            while left := header.frames - mono.read:
                count = file.buffer_read_into(block[:left], "float32")
                if count == 0:
                    break
                mono.add(block[:count])
            if left == 0 and header.slack == 0 and _goes_on(file, block):
                raise RejectedAudio(Reason.LONGER_THAN_HEADER, promised=f"{header.duration_s:.1f}")
    except soundfile.LibsndfileError as error:
        raise RejectedAudio(Reason.CANNOT_DECODE, error=error.error_string.strip()) from None
    return mono


def _by_ffmpeg(data: bytes, header: ClipHeader, sample_rates: Iterable[int]) -> "dict[int, np.ndarray]":
    with decoding(data, header, block_samples=BLOCK_SAMPLES) as (found, blocks):
        mono, beyond = _Mono(found, sample_rates), 0
        for block in blocks:
            wanted = block[: found.frames - mono.read]
            if len(wanted):
                mono.add(wanted)
            beyond += len(block) - len(wanted)
            if beyond > found.slack:
                raise RejectedAudio(Reason.LONGER_THAN_HEADER, promised=f"{found.duration_s:.1f}")
    return mono.samples()


class _Mono:
    """The mean of the channels at the rates that are wanted, as it comes out of blocks of samples."""

    def __init__(self, header: ClipHeader, sample_rates: Iterable[int]) -> None:
        import numpy as np

        self._header = header
        self._at = {sample_rate: _Resampled(header, sample_rate) for sample_rate in sample_rates}
        self.read = 0
        """Samples per channel that were taken."""
        self._peak = np.float32(0)

    def add(self, block: "np.ndarray") -> None:
        """Take the next block of samples, of shape (frames, channels)."""
        import numpy as np

        mono = _mix(block)
        self.read += len(mono)
        # NaN if one of them is.
        self._peak = np.maximum(self._peak, np.maximum(mono.max(), -mono.min()))
        for resampled in self._at.values():
            resampled.add(mono)

    @property
    def is_whole(self) -> bool:
        """Whether as many samples were taken as the header promises."""
        return self.read >= self._header.frames - self._header.slack

    def samples(self) -> "dict[int, np.ndarray]":
        """Return all samples, by sample rate, after the last block."""
        import numpy as np

        if not self.is_whole:
            raise truncated(self._header.duration_s, self.read / self._header.sample_rate)
        if self.read == 0:
            raise RejectedAudio(Reason.NO_SAMPLES)
        if not np.isfinite(self._peak):
            raise RejectedAudio(Reason.NOT_FINITE)
        if self._peak > MAX_PEAK:
            raise RejectedAudio(Reason.TOO_LOUD, peak=self._peak)
        return {sample_rate: resampled.samples(self.read) for sample_rate, resampled in self._at.items()}


class _Resampled:
    """Mono samples at one rate."""

    def __init__(self, header: ClipHeader, sample_rate: int) -> None:
        import numpy as np

        self._ratio = sample_rate / header.sample_rate
        self._resampler: Any = None
        if sample_rate != header.sample_rate:
            # By itself rather than through librosa, which takes seconds to load, and to compile.
            import soxr

            self._resampler = soxr.ResampleStream(header.sample_rate, sample_rate, 1, dtype="float32", quality="HQ")
        self._samples = np.empty(math.ceil(header.frames * self._ratio), np.float32)
        self._written = 0

    def add(self, mono: "np.ndarray") -> None:
        """Take the next samples at the clip's own rate."""
        self._write(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def samples(self, read: int) -> "np.ndarray":
        """Return all samples, after the last of `read` ones."""
        import numpy as np

        if self._resampler is not None:
            self._write(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
        self._samples[self._written :] = 0
        return self._samples[: math.ceil(read * self._ratio)]

    def _write(self, samples: "np.ndarray") -> None:
        end = min(self._written + len(samples), len(self._samples))
        self._samples[self._written : end] = samples[: end - self._written]
        self._written = end


def _mix(block: "np.ndarray") -> "np.ndarray":
    """Return the mean of the channels, to the bit what ``block.mean(axis=1)`` is, many times as fast."""
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    if channels >= 8:  # numpy no longer adds one after the other
        return block.mean(axis=1)
    mono = block[:, 0] + block[:, 1]
    for channel in range(2, channels):
        mono += block[:, channel]
    mono /= channels
    return mono


def _goes_on(file: "soundfile.SoundFile", block: "np.ndarray") -> bool:
    """Return whether there is more sound in a file. What follows it may be anything."""
    import soundfile

    try:
        return bool(file.buffer_read_into(block, "float32"))
    except soundfile.LibsndfileError:
        return False


def _stream(file: BinaryIO) -> "soundfile.SoundFile":
    """Open a file to be read once, from begin to end."""
    return _stream_class()(file)


@functools.cache
def _stream_class() -> type["soundfile.SoundFile"]:
    import soundfile

    class Stream(soundfile.SoundFile):
        """A file that cannot seek: soundfile seeks after each block if it can, and lossy codecs then start again."""

        def seekable(self) -> bool:
            return False

    return Stream

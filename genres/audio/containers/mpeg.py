"""MPEG audio, layers I to III (ISO/IEC 11172-3 and 13818-3): frames without a file around them.

How long a stream is, only its frames know. The first one of layer III may be silent and carry a count of the others
(Xing's, LAME's and Fraunhofer's headers); without it, decoders guess from the size of the file and the first frames. So
the frames are walked over here, and the decoder is made to take all of them.
"""

import re
import struct
from dataclasses import dataclass, replace

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio, truncated

_VERSION_1, _VERSION_2, _VERSION_25 = 3, 2, 0
_LAYER_1, _LAYER_2, _LAYER_3 = 3, 2, 1
_RATES = {
    _VERSION_1: (44_100, 48_000, 32_000),
    _VERSION_2: (22_050, 24_000, 16_000),
    _VERSION_25: (11_025, 12_000, 8_000),
}
_BITRATES = {
    (True, _LAYER_1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, _LAYER_2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER_3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER_1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, _LAYER_2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, _LAYER_3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits a second by whether the version is 1, and layer."""
_SAMPLES = {(True, _LAYER_1): 384, (False, _LAYER_1): 384, (True, _LAYER_2): 1152, (False, _LAYER_2): 1152}
_SAMPLES |= {(True, _LAYER_3): 1152, (False, _LAYER_3): 576}

_LAYER_BYTES = b"\xe2-\xe7\xf2-\xf7\xfa-\xff"
_RATE_BYTES = b"".join(b"\\x%x0-\\x%xb" % (high, high) for high in range(15))
_HEADER = re.compile(rb"\xff[" + _LAYER_BYTES + b"][" + _RATE_BYTES + b"]", re.DOTALL)
"""The first three bytes of a frame's header: no reserved values."""
_SEARCHED = 1 << 20
"""How far behind the tags the first frame is looked for, in bytes."""
_SPARE = 8
"""Frames more than there are, for which the file seems to have room: so that one that was not counted is noticed."""
_SHORTEST, _LONGEST = 24, 8_192
"""Bytes of a frame of free bit rate."""
_RESYNC = 1_000
"""Bytes of garbage that libsndfile's decoder is left to find its way over, as librosa's is; it may stop there."""
_ALL_ONES = 2**32 - 1
"""The count of a program that could not know it."""
_TRIED = 100_000
"""How often a frame may seem to begin and not be there, before the search is given up."""
_CHAIN = 3
"""Frames in a row, each where the one before it ends, that are no accident."""


def _frame_sizes() -> dict[int, int]:
    """Return a frame's bytes by the second and third byte of its header."""
    sizes = {}
    for version, rates in _RATES.items():
        for layer in (_LAYER_1, _LAYER_2, _LAYER_3):
            kind = (version == _VERSION_1, layer)
            for index, kilobits in enumerate(_BITRATES[kind], 1):
                for rate_index, rate in enumerate(rates):
                    for padding in (0, 1):
                        if layer == _LAYER_1:
                            size = (12_000 * kilobits // rate + padding) * 4
                        else:
                            size = _SAMPLES[kind] * 125 * kilobits // rate + padding
                        second = 0xE0 | version << 3 | layer << 1
                        third = index << 4 | rate_index << 2 | padding << 1
                        for protection in (0, 1):
                            for private in (0, 1):
                                sizes[(second | protection) << 8 | third | private] = size
    return sizes


_SIZES = _frame_sizes()


@dataclass(frozen=True)
class _Kind:
    """What all frames of a stream have in common."""

    second: int
    """The second byte of their headers without the bit that says whether there is a checksum."""
    rate_index: int
    is_mono: bool

    @property
    def is_version_1(self) -> bool:
        return self.second >> 3 & 3 == _VERSION_1

    @property
    def layer(self) -> int:
        return self.second >> 1 & 3

    @property
    def rate(self) -> int:
        return _RATES[self.second >> 3 & 3][self.rate_index]

    @property
    def samples(self) -> int:
        """Samples per channel of a frame."""
        return _SAMPLES[self.is_version_1, self.layer]

    @property
    def side_bytes(self) -> int:
        """Bytes of side information in a frame of layer III."""
        if self.is_version_1:
            return 17 if self.is_mono else 32
        return 9 if self.is_mono else 17

    def __str__(self) -> str:
        channels = "mono" if self.is_mono else "stereo"
        return f"layer {'I' * (4 - self.layer)}, {self.rate:,} Hz, {channels}"


@dataclass(frozen=True)
class _Walk:
    """The frames of a stream."""

    kind: _Kind
    runs: tuple[tuple[int, int], ...]
    """Where runs of frames begin and end; between them is something else."""
    frames: int
    first: int
    """Bytes of the first frame."""
    largest: int
    """Bytes of the largest frame."""
    is_cut: bool
    """Whether the file ends within a frame."""

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The runs with what little stands between them."""
        spans = [self.runs[0]]
        for start, end in self.runs[1:]:
            if start - spans[-1][1] > _RESYNC:
                spans.append((start, end))
            else:
                spans[-1] = (spans[-1][0], end)
        return tuple(spans)

    def sources(self, apparent_size: int = 0) -> tuple[Source, Source | None]:
        """Return what a decoder gets, and the frames alone, if something stands between them."""
        plain = Source(spans=self.runs, apparent_size=apparent_size) if len(self.runs) > 1 else None
        return Source(spans=self.spans, apparent_size=apparent_size), plain


def find_mpeg(data: bytes, at: int) -> int | None:
    """Return where the first frame is, in what follows byte `at`, or None if it is not MPEG audio."""
    return _find(data, at, at + _SEARCHED)


def mpeg_header(data: bytes, at: int) -> ClipHeader:
    """Read a stream whose first frame is at byte `at`.

    Parameters
    ----------
    data
        The file.
    at
        From `find_mpeg`.

    Raises
    ------
    RejectedAudio
        If there are fewer frames than the first one says, or the format changes on the way.
    """
    kind = _kind(data, at)
    check_layout(kind.rate, 1 if kind.is_mono else 2)
    walk = _walk(data, at, kind)
    is_silent, promised = _promised_frames(data, at, kind)
    counted = walk.frames - is_silent
    if counted == 0:
        raise RejectedAudio(Reason.NO_SAMPLES)
    # Some programs count the silent frame as well, some forget the last one.
    if promised is not None and counted < promised - (not walk.is_cut):
        whole = promised * kind.samples
        if (header := _trimmed(data, walk, counted, whole)) is not None:
            whole = header.frames
        missing = (promised - counted) * kind.samples
        raise truncated(whole / kind.rate, max(whole - missing, 0) / kind.rate)
    if promised is not None and abs(counted - promised) <= 1:
        header = _trimmed(data, walk, counted, promised * kind.samples)
        if header is not None:
            _, plain = walk.sources()
            return replace(header, slack=kind.samples, plain_source=plain)

    # The decoder gets the frames without a count. It then takes the size of the file for a hint to its length, as of
    # a stream of constant bit rate: so the file has to seem large enough.
    heard = replace(walk, runs=((at + walk.first * is_silent, walk.runs[0][1]), *walk.runs[1:]))
    source, plain = heard.sources((counted + _SPARE) * walk.largest)
    channels = 1 if kind.is_mono else 2
    if counted == 1:
        # libsndfile opens no stream of a single frame: it gets that one again behind it, which is not asked for.
        twice = replace(source, spans=heard.spans * 2)
        return ClipHeader("MP3", kind.rate, channels, kind.samples, twice, slack=kind.samples)
    return ClipHeader("MP3", kind.rate, channels, counted * kind.samples, source, plain)


def _trimmed(data: bytes, walk: _Walk, counted: int, samples: int) -> ClipHeader | None:
    """Return what the decoder makes of the stream, if it counts those samples but for what LAME says to leave out.

    LAME says it in twelve bits for each end. A stream of a single frame the decoder does not open.
    """
    if counted == 1:
        return None
    header = sndfile_header(data, "MP3", Source(spans=walk.spans))
    return header if 0 <= samples - header.frames < 2 * 4_096 + walk.kind.samples else None


def _kind(data: bytes, at: int) -> _Kind:
    return _Kind(data[at + 1] & 0xFE, data[at + 2] >> 2 & 3, data[at + 3] >> 6 == 3)


def _sizes(data: bytes, at: int) -> dict[int, int]:
    """Return the sizes of the frames of the stream that begins at byte `at`, by the second and third byte of a header.

    Where the header says "free", all frames are as long as the first one, give or take the padding.
    """
    if data[at + 2] >> 4:
        return _SIZES
    second, third = data[at + 1], data[at + 2] & ~0x02
    slot = 4 if second >> 1 & 3 == _LAYER_1 else 1
    headers = [bytes((0xFF, second, third | padding)) for padding in (0, 2)]
    ends = [found for header in headers if (found := data.find(header, at + _SHORTEST, at + _LONGEST)) >= 0]
    if not ends:
        return _SIZES
    size = min(ends) - at - (slot if data[at + 2] & 0x02 else 0)
    return {second << 8 | third | padding: size + slot * bool(padding) for padding in (0, 2)}


def _is_chain(data: bytes, at: int) -> bool:
    """Return whether some frames of one kind follow each other from byte `at` on, or all up to the end of the file."""
    kind, sizes = None, _SIZES
    for _ in range(_CHAIN):
        if at + 4 > len(data) or _HEADER.match(data, at) is None:
            return False
        if kind is None:
            kind = _kind(data, at)
            sizes = _sizes(data, at)
        elif kind != _kind(data, at):
            return False
        size = sizes.get(data[at + 1] << 8 | data[at + 2])
        if size is None:
            return False
        at += size
        if at >= len(data):
            return at == len(data)
    return True


def _find(data: bytes, at: int, stop: int) -> int | None:
    """Return where a run of frames begins, at or behind byte `at`."""
    for tried, found in enumerate(_HEADER.finditer(data, at, min(stop, len(data)))):
        if _is_chain(data, found.start()):
            return found.start()
        if tried == _TRIED:
            raise RejectedAudio(Reason.NO_FRAMES, tried=tried)
    return None


def _walk(data: bytes, at: int, kind: _Kind) -> _Walk:
    """Walk over the frames from byte `at` on."""
    second, rate, mono = kind.second, kind.rate_index << 2, kind.is_mono
    sizes, end = _sizes(data, at), len(data) - 3
    runs, start, frames, first, largest, is_cut = [], at, 0, 0, 0, False
    while True:
        size = 0
        if at < end and data[at] == 0xFF and data[at + 1] & 0xFE == second:
            third = data[at + 2]
            if third & 0x0C == rate and (data[at + 3] >= 0xC0) == mono:
                size = sizes.get(data[at + 1] << 8 | third, 0)
        if size and at + size <= len(data):
            frames += 1
            at += size
            first = first or size
            if size > largest:
                largest = size
            continue
        # No frame here, or not the whole of it: a tag, garbage, the end of the file.
        is_cut = size > 0
        found = _find(data, at + 1, len(data))
        if found is None:
            runs.append((start, at))
            break
        if (other := _kind(data, found)) != kind:
            raise RejectedAudio(Reason.FORMAT_CHANGES, before=kind, after=other, offset=found)
        runs.append((start, at))
        at = start = found
    return _Walk(kind, tuple(runs), frames, first, largest, is_cut)


def _promised_frames(data: bytes, at: int, kind: _Kind) -> tuple[bool, int | None]:
    """Return whether the first frame is a silent one that tells of the others, and how many follow if it says so."""
    if kind.layer != _LAYER_3:
        return False, None
    xing = at + 4 + kind.side_bytes
    if data[xing : xing + 4] in (b"Xing", b"Info") and xing + 12 <= len(data):
        flags, frames = struct.unpack_from(">II", data, xing + 4)
        return True, int(frames) if flags & 1 and frames != _ALL_ONES else None
    vbri = at + 4 + 32
    if data[vbri : vbri + 4] == b"VBRI" and vbri + 18 <= len(data):
        return True, int(struct.unpack_from(">I", data, vbri + 14)[0])
    return False, None

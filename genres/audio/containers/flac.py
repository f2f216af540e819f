"""FLAC (RFC 9639): a header that may not know how long the stream is, and frames that say where they stand in it."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio, truncated

MAGIC = b"fLaC"
_BLOCK_SIZES = {1: 192, **{2 + n: 576 << n for n in range(4)}, **{8 + n: 256 << n for n in range(8)}}
_ONLY_STREAM_INFO = b"\x80\0\0\x22"
"""What stands in front of the block that describes the stream if no other one follows it."""
_ALL_ONES = 0xF_FFFF_FFFF
"""The length of a stream whose writer could not know it, like 0."""
_SEARCHED = 4 << 20
"""How far from the end of the file a last frame is looked for, in bytes."""


class _Frame(NamedTuple):
    at: int
    """Where its header is in the file."""
    begins: int
    """Its first sample in the stream."""
    ends: int
    """The sample after its last one."""


def flac_header(data: bytes, at: int) -> ClipHeader:
    """Read a FLAC file that begins at byte `at`; it is as long as its first and its last frame say.

    A file that begins with a later frame was cut out of a longer one without encoding it again, whose length and
    numbers it keeps.

    Raises
    ------
    RejectedAudio
        If libsndfile cannot open it, it is not known how long it is, or the end is missing.
    """
    stream_info = data[at + 8 : at + 42]
    first = _first_frame(data, at)
    if first is None or len(stream_info) < 34 or data[at + 4] & 0x7F:
        return sndfile_header(data, "FLAC", Source(spans=((at, len(data)),)))
    (packed,) = struct.unpack_from(">Q", stream_info, 10)
    rate, promised = packed >> 44, packed & _ALL_ONES
    if promised == _ALL_ONES:
        promised = 0
    opening = _opening(data, first)
    last = _last_frame(data, opening, promised) if opening is not None else None
    if opening is None or last is None:
        if promised == 0:
            raise RejectedAudio(Reason.UNKNOWN_LENGTH)
    else:
        frames = max(last.ends - opening.begins, 0)
        if frames < promised and opening.begins == 0:
            raise truncated(promised / max(rate, 1), frames / max(rate, 1))
        packed = packed & ~_ALL_ONES | frames
    # Of the blocks in front of the frames only the first one matters. libsndfile opens no file in which another one, of
    # tags or pictures, is damaged.
    head = MAGIC + _ONLY_STREAM_INFO + stream_info[:10] + struct.pack(">Q", packed) + stream_info[18:]
    return sndfile_header(data, "FLAC", Source(head, ((first, len(data)),)))


def _first_frame(data: bytes, at: int) -> int | None:
    """Return where the frames begin, behind the blocks of metadata."""
    at += 4
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 4])
        is_last = data[at] & 0x80
        at += 4 + size
        if is_last:
            return at if data[at : at + 2] in (b"\xff\xf8", b"\xff\xf9") else None
    return None


def _opening(data: bytes, first: int) -> _Frame | None:
    """Return the first frame."""
    is_variable = bool(data[first + 1] & 1)
    # All blocks of a stream that numbers its frames are as long as the first one, but for the last.
    frame = _frame(data, first, 0, is_variable=is_variable)
    return frame and _frame(data, first, frame.ends - frame.begins, is_variable=is_variable)


def _last_frame(data: bytes, opening: _Frame, promised: int) -> _Frame | None:
    """Return the last frame.

    The bytes inside a frame may look like a frame's header. So the last header is believed only if it says what the
    file's header says, if the frame before it is there as well, or if there is no other.
    """
    later: list[_Frame] = []
    for frame in _frames_backwards(data, opening):
        if frame.ends == promised:
            return frame
        for follower in later:
            if follower.begins == frame.ends:
                return follower
        if frame.at == opening.at:
            return frame
        later.append(frame)
    return None


def _frames_backwards(data: bytes, opening: _Frame) -> Iterator[_Frame]:
    """Yield what looks like a frame, from the end of the file."""
    sync = data[opening.at : opening.at + 2]
    lowest = max(opening.at, len(data) - _SEARCHED)
    at = data.rfind(sync, lowest)
    while at >= 0:
        frame = _frame(data, at, opening.ends - opening.begins, is_variable=bool(sync[1] & 1))
        if frame is not None:
            yield frame
        at = data.rfind(sync, lowest, at + 1)


def _frame(data: bytes, place: int, block_size: int, *, is_variable: bool) -> _Frame | None:
    """Read the header of a frame at byte `place`, if it is one (RFC 9639, 9.1)."""
    header = data[place : place + 16]
    if len(header) < 6 or header[3] & 1:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 0xF
    if size_code == 0 or rate_code == 15 or header[3] >> 4 > 10 or header[3] >> 1 & 7 == 3:
        return None
    # The number of the frame, or of its first sample, in the manner of UTF-8.
    ones = 8 - (header[4] ^ 0xFF).bit_length()
    if ones == 1 or ones == 8:
        return None
    rest = header[5 : 4 + max(ones, 1)]
    number = header[4] & (0x7F >> ones)
    for byte in rest:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
    at = 5 + len(rest)
    if size_code in (6, 7):
        size = int.from_bytes(header[at : at + size_code - 5]) + 1
        at += size_code - 5
    else:
        size = _BLOCK_SIZES[size_code]
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    begins = number if is_variable else number * block_size
    return _Frame(place, begins, begins + size)


def _crc8(data: bytes) -> int:
    """Return the checksum of a frame's header: polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value << 1 ^ (0x107 if value & 0x80 else 0)
    return value & 0xFF

"""MP4 and its like (ISO/IEC 14496-12): boxes in boxes, with tables of the lengths and places of all samples.

Only ffmpeg decodes what is inside. It is told the format, so what matters here is that the tables agree with each
other and with the bytes that are there: they say how long the sound is, and nothing else does.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import MAX_CHUNKS
from genres.audio.rejections import Reason, RejectedAudio

_SLACK = 4_096
"""Units of a track's clock, mostly samples, that encoders put around the sound and not every edit list leaves out."""
_AAC = (0x40, 0x66, 0x67, 0x68)
"""Object types of AAC: of MPEG-4, and the three profiles of MPEG-2."""
_READ = "AAC and ALAC"
_DESCRIPTORS = 16


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    end: int


@dataclass(frozen=True)
class _Track:
    """The one track of sound."""

    rate: int
    channels: int
    clock: int
    """Units a second of its times."""
    units: int
    """Its length."""


def is_mp4(data: bytes, at: int) -> bool:
    """Return whether the bytes begin with the box that names the file's type."""
    return data[at + 4 : at + 8] == b"ftyp"


def mp4_header(data: bytes, start: int) -> ClipHeader:
    """Read a file's boxes.

    Parameters
    ----------
    data
        The file.
    start
        Where it begins.

    Raises
    ------
    RejectedAudio
        If the end is missing, the tables contradict each other or the data, or it is other than one track of AAC or
        ALAC.
    """
    boxes = list(_boxes(data, start, len(data)))
    movie = next((box for box in boxes if box.kind == b"moov"), None)
    media_bytes = sum(box.end - box.start for box in boxes if box.kind == b"mdat")
    if movie is None:
        raise RejectedAudio(Reason.NO_FORMAT)
    if any(box.kind == b"moof" for box in boxes) or _child(data, movie, b"mvex"):
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding="MP4 in fragments", read=f"{_READ} in one piece")
    sounds = [
        track
        for track in _boxes(data, movie.start, movie.end)
        if track.kind == b"trak" and (handler := _child(data, track, b"mdia", b"hdlr"))
        if data[handler.start + 8 : handler.start + 12] == b"soun"
    ]
    if len(sounds) > 1:
        raise RejectedAudio(Reason.SEVERAL_STREAMS, streams=len(sounds), container="MP4")
    if not sounds:
        raise RejectedAudio(Reason.NO_DATA)
    track = _track(data, movie, sounds[0], media_bytes)
    check_layout(track.rate, track.channels)
    frames = track.units * track.rate // track.clock
    slack = -(-_SLACK * track.rate // track.clock)
    return ClipHeader("MP4", track.rate, track.channels, frames, Source(spans=((start, len(data)),)), slack=slack)


def _track(data: bytes, movie: _Box, track: _Box, media_bytes: int) -> _Track:
    clock, _ = _times(data, _required(data, track, b"mdia", b"mdhd"))
    table = _required(data, track, b"mdia", b"minf", b"stbl")
    rate, channels = _format(data, _required(data, table, b"stsd"))
    if not clock:
        raise RejectedAudio(Reason.NO_FORMAT)
    rate = rate or clock  # it has 16 bits there, too few for 88.2 and 96 kHz
    samples, units = _durations(data, _required(data, table, b"stts"))
    sized, size = _sizes(data, _required(data, table, b"stsz"))
    # No sample is empty; so there are no more of them than bytes.
    if sized != samples or size > media_bytes or size < samples:
        raise RejectedAudio(Reason.TABLES)
    _check_places(data, table)
    edits = _child(data, track, b"edts", b"elst")
    if edits is not None:
        movie_clock, _ = _times(data, _required(data, movie, b"mvhd"))
        heard = _edited(data, edits)
        if heard and movie_clock:
            units = min(units, heard * clock // movie_clock)
    return _Track(rate, channels, clock, units)


def _format(data: bytes, box: _Box) -> tuple[int, int]:
    """Return sample rate and channels."""
    (count,) = struct.unpack_from(">I", data, box.start + 4)
    if count != 1:
        raise RejectedAudio(Reason.SEVERAL_STREAMS, streams=count, container="MP4")
    entry = next(_boxes(data, box.start + 8, box.end), None)
    if entry is None or entry.end - entry.start < 28:
        raise RejectedAudio(Reason.NO_FORMAT)
    version, channels, rate = struct.unpack_from(">H6xH6xI", data, entry.start + 8)
    rate >>= 16
    if entry.kind not in (b"mp4a", b"alac"):
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=f"MP4 with {entry.kind!r}", read=_READ)
    # QuickTime's two later versions of this box have more before its children.
    inner = _Box(entry.kind, entry.start + {1: 44, 2: 64}.get(version, 28), entry.end)
    wave = _child(data, inner, b"wave") or inner
    if entry.kind == b"alac":
        # "ALACSpecificConfig": rates above 65,535 Hz do not fit the box around it.
        own = _required(data, wave, b"alac")
        channels, rate = struct.unpack_from(">9xB10xI", data, own.start + 4)
    else:
        kind = _object_type(data, _required(data, wave, b"esds"))
        if kind not in _AAC:
            raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=f"MP4 with object type {kind:#x}", read=_READ)
        if version == 2:
            rate = int(min(max(struct.unpack_from(">d", data, entry.start + 32)[0], 0), 2**31))
            (channels,) = struct.unpack_from(">I", data, entry.start + 40)
    return rate, channels


def _object_type(data: bytes, box: _Box) -> int:
    """Return what the elementary stream is (ISO/IEC 14496-1, 7.2.6): a descriptor, and one inside it, say so."""
    at = box.start + 4
    for _ in range(_DESCRIPTORS):
        if at + 2 > box.end:
            break
        tag, at = data[at], at + 1
        while at < box.end and data[at] & 0x80:  # a size of seven bits a byte
            at += 1
        at += 1
        if tag == 0x04:
            return data[at] if at < box.end else 0
        if tag != 0x03:
            break
        (flags,) = struct.unpack_from(">2xB", data, at)
        at += 3 + 2 * bool(flags & 0x80) + 2 * bool(flags & 0x20)
        if flags & 0x40:
            at += 1 + data[at]
    raise RejectedAudio(Reason.NO_FORMAT)


def _times(data: bytes, box: _Box) -> tuple[int, int]:
    """Return the clock and the length of a movie's or a track's header."""
    if data[box.start] == 1:
        return struct.unpack_from(">20xIQ", data, box.start)
    return struct.unpack_from(">12xII", data, box.start)


def _durations(data: bytes, box: _Box) -> tuple[int, int]:
    """Return how many samples (of the container: packets) there are, and how long all of them."""
    runs = _table(data, box, "II", box.start + 4)
    return sum(count for count, _ in runs), sum(count * units for count, units in runs)


def _sizes(data: bytes, box: _Box) -> tuple[int, int]:
    """Return how many samples there are, and the bytes of all of them."""
    size, count = struct.unpack_from(">4xII", data, box.start)
    if size:
        return count, count * size
    return count, sum(found for (found,) in _table(data, box, "I", box.start + 8))


def _check_places(data: bytes, table: _Box) -> None:
    """Refuse a file that looks for its sound outside of itself."""
    box = _child(data, table, b"stco")
    places = (
        _table(data, box, "I", box.start + 4)
        if box
        else _table(data, wide := _required(data, table, b"co64"), "Q", wide.start + 4)
    )
    for (offset,) in places:
        if offset >= len(data):
            raise RejectedAudio(Reason.DATA_OUTSIDE, container="MP4", offset=offset, size=len(data))


def _edited(data: bytes, box: _Box) -> int:
    """Return how long what is heard is, on the movie's clock; 0 if the list leaves nothing out."""
    parts = _table(data, box, "Qq4x" if data[box.start] == 1 else "Ii4x", box.start + 4)
    return sum(length for length, begin in parts if begin >= 0)


def _table(data: bytes, box: _Box, row: str, at: int) -> list[tuple[int, ...]]:
    """Return a table's rows, whose number stands at byte `at`."""
    (count,) = struct.unpack_from(">I", data, at)
    size = struct.calcsize(f">{row}")
    if at + 4 + count * size > box.end:
        raise RejectedAudio(Reason.TABLES)
    return list(struct.iter_unpack(f">{row}", data[at + 4 : at + 4 + count * size]))


def _child(data: bytes, parent: _Box, *path: bytes) -> _Box | None:
    """Return the first box of each kind inside the one before it."""
    found: _Box | None = parent
    for kind in path:
        if found is None:
            return None
        found = next((box for box in _boxes(data, found.start, found.end) if box.kind == kind), None)
    return found


def _required(data: bytes, parent: _Box, *path: bytes) -> _Box:
    found = _child(data, parent, *path)
    if found is None:
        raise RejectedAudio(Reason.NO_FORMAT)
    return found


def _boxes(data: bytes, at: int, end: int) -> Iterator[_Box]:
    """Walk over the boxes between two places; what is too short for one is passed over, as players do."""
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else at + size
        if stop > end:
            if end == len(data) and kind in (b"mdat", b"moov"):
                raise RejectedAudio(Reason.CUT_SHORT, container="MP4", promised=stop, present=end)
            return
        if stop < start:
            return
        yield _Box(kind, start, stop)
        at = stop

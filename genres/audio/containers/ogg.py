"""Ogg (RFC 3533) with one stream of Vorbis, Opus or FLAC in it.

Pages say where their last sample stands in the stream. libsndfile believes the last one, so they must not contradict
each other. Of FLAC it cannot open all that ffmpeg writes, so the decoder gets what is in the pages, a plain FLAC file.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.flac import flac_header
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = b"OggS"
_CONTINUES, _BEGINS, _ENDS = 1, 2, 4
_CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC"}
_NO_POSITION = -1
_NOT_COUNTED = 6
"""Packets whose samples no position need count: three headers, the one after them, which only gets the decoder going,
and two for what is cut off at both ends."""
_FLAC_MAPPING = 9
"""Bytes in front of the FLAC file in the first page (xiph.org, "Ogg mapping for FLAC")."""


class _Page(NamedTuple):
    flags: int
    position: int
    serial: int
    start: int
    end: int
    packets: int
    """How many packets end in it."""


def ogg_header(data: bytes, at: int) -> ClipHeader:
    """Read an Ogg file that begins at byte `at`.

    Raises
    ------
    RejectedAudio
        If there is not exactly one stream that is read, the end is missing, or its length cannot be believed.
    """
    streams: set[tuple[int, int]] = set()
    pages: list[_Page] = []
    end, position, packets = at, 0, 0
    has_end = is_backwards = False
    for page in _pages(data, at):
        pages.append(page)
        if page.flags & _BEGINS:
            streams.add((page.serial, page.start))
        has_end |= bool(page.flags & _ENDS)
        packets += page.packets
        end = page.end
        if page.position != _NO_POSITION:
            if page.position < position:
                is_backwards = True
            position = page.position
    if not pages:
        raise RejectedAudio(Reason.ENDS_IN_A_PAGE)
    if len(streams) > 1:
        raise RejectedAudio(Reason.SEVERAL_STREAMS, streams=len(streams), container="Ogg")
    head = data[pages[0].start : pages[0].end]
    codec = next((name for mark, name in _CODECS.items() if head.startswith(mark)), None)
    if codec is None:
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=f"Ogg stream {head[:8]!r}", read="Vorbis, Opus and FLAC")
    if not has_end and len(data) > end:
        raise RejectedAudio(Reason.ENDS_IN_A_PAGE)
    if codec == "FLAC":
        return _flac_header(data, [(page.start, page.end) for page in pages])
    if is_backwards or position < (packets - _NOT_COUNTED) * _shortest_packet(codec, head):
        raise RejectedAudio(Reason.POSITIONS)
    # Mapping family 255 is "no meaning", 2 and 3 are Ambisonics (RFC 7845, 5.1.1; RFC 8486).
    is_known = codec != "Opus" or head[18:19] in (b"\0", b"\1")
    spans = None if (at, end) == (0, len(data)) else ((at, end),)
    return sndfile_header(data, "OGG", Source(spans=spans), is_layout_known=is_known)


def _flac_header(data: bytes, bodies: Sequence[tuple[int, int]]) -> ClipHeader:
    """Read the FLAC file that the pages' contents are, one behind the other."""
    bodies = [(bodies[0][0] + _FLAC_MAPPING, bodies[0][1]), *bodies[1:]]
    header = flac_header(b"".join(data[start:end] for start, end in bodies), 0)
    spans: list[tuple[int, int]] = []
    for begin, stop in header.source.spans or ():
        at = 0  # of the body in the FLAC file
        for start, end in bodies:
            part = (start + max(begin - at, 0), min(end, start + stop - at))
            if part[0] < part[1]:
                spans.append(part)
            at += end - start
    return replace(header, container="OGG", source=Source(header.source.head, tuple(spans)))


def _pages(data: bytes, at: int) -> Iterator[_Page]:
    """Walk over the whole pages from byte `at` on; garbage between them is passed over."""
    while (at := data.find(MAGIC, at)) >= 0 and at + 27 <= len(data):
        version, flags, position, serial, _, _, count = struct.unpack_from("<BBqIIIB", data, at + 4)
        lacing = data[at + 27 : at + 27 + count]
        start = at + 27 + count
        end = start + sum(lacing)
        if end > len(data) or len(lacing) < count:
            return
        if version == 0:
            yield _Page(flags, position, serial, start, end, count - lacing.count(255))
            at = end
        else:
            at += 4


def _shortest_packet(codec: str, head: bytes) -> int:
    """Return the fewest samples that a packet can hold."""
    if codec == "Vorbis" and len(head) >= 29:
        return (1 << (head[28] & 0xF)) // 2
    return 120 if codec == "Opus" else 1  # 2.5 ms at 48 kHz

"""Ogg (RFC 3533) with one stream of Vorbis, Opus or FLAC in it.

Pages say where their last sample stands in the stream. libsndfile believes the last one, so they must not contradict
each other. Of FLAC it cannot open all that ffmpeg writes, so the decoder gets what is in the pages, a plain FLAC file.
"""

import struct
import zlib
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
_NO_POSITION, _LAST_POSITION = -1, 2**63 - 1
_NOT_COUNTED = 6
"""Packets whose samples no position need count: three headers, the one after them, which only gets the decoder going,
and two for what is cut off at both ends."""
_FLAC_MAPPING = 9
"""Bytes in front of the FLAC file in the first page (xiph.org, "Ogg mapping for FLAC")."""
_OPUS_HEADERS = 2
"""Packets of Opus in front of the sound: what it is, and tags."""


class _Page(NamedTuple):
    begin: int
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
    source = Source(spans=spans)
    if codec == "Opus" and (late := _late_start(data, pages)):
        source = Source(_moved(data, pages, late), ())
    return sndfile_header(data, "OGG", source, is_layout_known=is_known)


def _late_start(data: bytes, pages: Sequence[_Page]) -> int:
    """Return by how many samples the positions of an Opus stream begin before its sound does.

    A stream that was cut out of another one keeps packets from before the cut. libsndfile opens none whose first page
    has more samples than its position says, unless it is the last one as well.
    """
    packets = samples = 0
    is_whole = True
    for page in pages:
        place = page.start
        for size in data[page.begin + 27 : page.start]:
            if is_whole and packets >= _OPUS_HEADERS:
                samples += _opus_samples(data[place : place + 2])
            is_whole = size < 255
            packets += is_whole
            place += size
        if samples and page.position != _NO_POSITION:
            return 0 if page.flags & _ENDS else max(samples - page.position, 0)
    return 0


def _opus_samples(packet: bytes) -> int:
    """Return the samples of a packet, at 48 kHz, from its first two bytes (RFC 6716, 3.1)."""
    if not packet:
        return 0
    kind = packet[0] >> 3
    if kind < 12:
        samples = (480, 960, 1_920, 2_880)[kind & 3]
    elif kind < 16:
        samples = (480, 960)[kind & 1]
    else:
        samples = 120 << (kind & 3)
    frames = packet[0] & 3
    return samples * ((1, 2, 2)[frames] if frames < 3 else (packet[1] & 63 if len(packet) > 1 else 0))


def _moved(data: bytes, pages: Sequence[_Page], samples: int) -> bytes:
    """Return the stream with later positions."""
    moved = []
    for page in pages:
        position = min(page.position + samples, _LAST_POSITION) if page.position > 0 else page.position
        head = data[page.begin : page.begin + 6] + struct.pack("<q", position) + data[page.begin + 14 : page.begin + 22]
        rest = data[page.begin + 26 : page.end]
        moved += [head, struct.pack("<I", _checksum(head + bytes(4) + rest)), rest]
    return b"".join(moved)


_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _checksum(page: bytes) -> int:
    """Return a page's checksum (RFC 3533, 6): the polynomial of zlib's with the bits of each byte the other way."""
    reverse = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reverse:032b}"[::-1], 2)


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
            yield _Page(at, flags, position, serial, start, end, count - lacing.count(255))
            at = end
        else:
            at += 4


def _shortest_packet(codec: str, head: bytes) -> int:
    """Return the fewest samples that a packet can hold."""
    if codec == "Vorbis" and len(head) >= 29:
        return (1 << (head[28] & 0xF)) // 2
    return 120 if codec == "Opus" else 1  # 2.5 ms at 48 kHz

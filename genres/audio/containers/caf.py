"""Apple's Core Audio Format ("Apple Core Audio Format Specification 1.0"): big-endian chunks with sizes of 64 bits."""

import struct
from collections.abc import Iterator

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import MAX_CHUNKS, Chunk, check_rest, data_size
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = b"caff"
_READ = "PCM, float, A-law, mu-law and ALAC"
_ALAC_FLAGS = {16: 1, 20: 2, 24: 3, 32: 4}
"""By the bits of a sample, what the description says of ALAC."""


def caf_header(data: bytes, at: int) -> ClipHeader:
    """Read a CAF file that begins at byte `at`.

    Raises
    ------
    RejectedAudio
        If the format is unsound or not read, or the end of the data is missing.
    """
    description = b""
    for chunk in _chunks(data, at + 8):
        if chunk.name == b"desc" and not description:
            description = data[chunk.start : chunk.start + min(max(chunk.size, 0), 32)]
            if len(description) < 32:
                raise RejectedAudio(Reason.SHORT_FORMAT, size=len(description), expected=32)
        elif chunk.name == b"data":
            if not description:
                raise RejectedAudio(Reason.NO_FORMAT)
            return _measured(data, at, description, chunk)
    raise RejectedAudio(Reason.NO_DATA)


def _chunks(data: bytes, at: int) -> Iterator[Chunk]:
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            return
        name, size = struct.unpack_from(">4sq", data, at)
        yield Chunk(name, at + 12, size)
        at += 12 + max(size, 0)


def _with_alac_flags(data: bytes, at: int) -> Source:
    """Return an ALAC file with the flags that say how many bits its samples had, which ffmpeg leaves out.

    libsndfile needs them. The decoder's own description has the bits as well, behind the names of atoms or bare.
    """
    begin = 0
    for chunk in _chunks(data, at + 8):
        if chunk.name == b"desc" and not begin:
            begin = chunk.start + 12
        elif chunk.name == b"kuki":
            cookie = data[chunk.start : chunk.start + max(chunk.size, 0)]
            for name in (b"frma", b"alac"):
                if cookie[4:8] == name:
                    cookie = cookie[12:]
            flags = _ALAC_FLAGS.get(cookie[5] if len(cookie) > 5 else 0, 0)
            if data[begin : begin + 4] == bytes(4) and flags:
                return Source(data[at:begin] + struct.pack(">I", flags), ((begin + 4, len(data)),))
    return Source(spans=((at, len(data)),))


def _measured(data: bytes, at: int, description: bytes, chunk: Chunk) -> ClipHeader:
    hertz, kind, _, packet_bytes, packet_frames, channels, bits = struct.unpack(">d4sIIIII", description)
    encoding = f"CAF format {kind.decode('latin-1')!r}"
    if kind == b"alac":
        if (promised := chunk.start + chunk.size) > len(data):
            raise RejectedAudio(Reason.CUT_SHORT, container="CAF", promised=promised, present=len(data))
        # A chunk of its own, which may stand behind the data, says how long its packets are.
        return sndfile_header(data, "CAF", _with_alac_flags(data, at))
    if kind not in (b"lpcm", b"ulaw", b"alaw"):
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=encoding, read=_READ)
    if bits not in ((8, 16, 24, 32, 64) if kind == b"lpcm" else (8,)):
        raise RejectedAudio(Reason.UNREAD_BITS, bits=bits, encoding=encoding)
    rate = round(hertz) if 0 <= hertz < 2**32 else 0  # false for NaN, too
    check_layout(rate, channels)
    frame_bytes = channels * bits // 8
    if packet_frames != 1 or packet_bytes != frame_bytes:
        raise RejectedAudio(Reason.BLOCK_ALIGN, block_align=packet_bytes, channels=channels, bits=bits)

    start = chunk.start + 4  # behind the number of the edit
    bytes_per_s = rate * frame_bytes
    # -1 is the format's own word for a length that is not known.
    size = data_size(data, start, chunk.size - 4, container="CAF", total=0, bytes_per_s=bytes_per_s)
    is_length_sure = size == chunk.size - 4
    behind = start + size
    check_rest(data, behind, _chunks(data, behind), size=size, bytes_per_s=bytes_per_s)
    size -= size % frame_bytes
    head = data[at : at + 8] + b"desc" + struct.pack(">q", 32) + description + b"data" + struct.pack(">qI", size + 4, 0)
    source = Source(head, ((start, start + size),))
    return ClipHeader("CAF", rate, channels, size // frame_bytes, source, is_length_sure=is_length_sure)

"""Sun's AU (``audio_filehdr.h``): a fixed header, big-endian by rule, little-endian as DEC wrote it."""

import struct

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import check_rest, data_size
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = (b".snd", b"dns.")
_HEADER_BYTES = 24
_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes per sample of each encoding: mu-law, 8 to 32 bit PCM, float, double, A-law."""
_BLOCKS = {23: 60, 25: 45, 26: 75}
"""Bytes of the blocks of 120 samples in which libsndfile reads G.721 (32 kbit/s) and G.723 (24 and 40 kbit/s)."""
_READ = "PCM, float, mu-law, A-law and G.72x"


def au_header(data: bytes, at: int) -> ClipHeader:
    """Read an AU file that begins at byte `at`.

    Raises
    ------
    RejectedAudio
        If the encoding is not read, or the end of the data is missing.
    """
    if len(data) - at < _HEADER_BYTES:
        raise RejectedAudio(Reason.SHORT_HEADER, container="AU", size=len(data) - at, expected=_HEADER_BYTES)
    order = ">" if data[at : at + 4] == b".snd" else "<"
    offset, promised, encoding, rate, channels = struct.unpack_from(order + "5I", data, at + 4)
    if encoding not in _BYTES and encoding not in _BLOCKS:
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=f"AU encoding {encoding}", read=_READ)
    offset = max(offset, _HEADER_BYTES)  # whoever writes less has not filled it in
    if offset > len(data) - at:
        raise RejectedAudio(Reason.DATA_OUTSIDE, container="AU", offset=offset, size=len(data))
    check_layout(rate, channels)

    if promised == len(data) - at:
        promised -= offset  # its writer counted the header as well
    start = at + offset
    block = _BLOCKS.get(encoding)
    frame_bytes = block * channels if block else channels * _BYTES[encoding]
    bytes_per_s = rate * frame_bytes / (120 if block else 1)
    # Unlike RIFF, the format has no second length to compare with; 0xFFFFFFFF stands for one that is not known.
    size = data_size(data, start, promised, container="AU", total=0, bytes_per_s=bytes_per_s)
    is_length_sure = size == promised
    check_rest(data, start + size, iter(()), size=size, bytes_per_s=bytes_per_s)
    if size < frame_bytes and block:
        raise RejectedAudio(Reason.LESS_THAN_A_BLOCK, encoding=f"AU encoding {encoding}", size=size, block=frame_bytes)
    if not block:
        size -= size % frame_bytes
    if at == 0 and data[4:12] == struct.pack(order + "II", offset, size):
        source = Source()
    else:
        head = data[at : at + 4] + struct.pack(order + "5I", _HEADER_BYTES, size, encoding, rate, channels)
        source = Source(head, ((start, start + size),))
    if block:
        return sndfile_header(data, "AU", source, is_length_sure=is_length_sure)
    return ClipHeader("AU", rate, channels, size // frame_bytes, source, is_length_sure=is_length_sure)

"""AIFF and AIFF-C (Apple, "Audio Interchange File Format", 1989; "AIFF-C", 1991): big-endian chunks, like RIFF."""

import math
import struct
from collections.abc import Iterator

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import MAX_CHUNKS, Chunk, check_rest, data_size, is_chunk_run, is_placeholder
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = b"FORM"
FORMS = (b"AIFF", b"AIFC")
_PCM = (b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"42n1", b"23ni")
"""The last two are libsndfile's own: little-endian samples of 24 and 32 bits."""
_BYTES = {b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8, b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1}
"""Bytes a sample of the encodings that are no PCM, by compression type."""
_BLOCKS = {b"ima4": (34, 64), b"GSM ": (33, 160)}
"""Bytes and samples of the blocks of the encodings that have some, by compression type."""
_PLAIN_FORMAT = 18
"""Bytes of a format chunk that says nothing of compression."""
_READ = "PCM, float, A-law, mu-law, IMA ADPCM and GSM 6.10"


def aiff_header(data: bytes, at: int) -> ClipHeader:
    """Read an AIFF or AIFF-C file that begins at byte `at`.

    Raises
    ------
    RejectedAudio
        If the format is unsound or not read, or the end of the data is missing.
    """
    (total,) = struct.unpack_from(">I", data, at + 4)
    total = 0 if is_placeholder(total) else at + total + 8
    common = b""
    sound: Chunk | None = None
    # The sound may stand before its format.
    for chunk in _chunks(data, at + 12):
        if chunk.name == b"COMM" and not common:
            common = data[chunk.start : chunk.start + min(chunk.size, 22)]
        elif chunk.name == b"SSND" and sound is None:
            sound = chunk
        if common and sound is not None:
            break
    if not common:
        raise RejectedAudio(Reason.NO_FORMAT)
    if sound is None or sound.start + 8 > len(data):
        raise RejectedAudio(Reason.NO_DATA)
    return _measured(data, at, common, sound, total)


def _chunks(data: bytes, at: int) -> Iterator[Chunk]:
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = struct.unpack_from(">4sI", data, at)
        yield Chunk(name, at + 8, size)
        at += 8 + size + size % 2


def _measured(data: bytes, at: int, common: bytes, sound: Chunk, total: int) -> ClipHeader:
    is_compressed = data[at + 8 : at + 12] == b"AIFC"
    if len(common) < _PLAIN_FORMAT:
        raise RejectedAudio(Reason.SHORT_FORMAT, size=len(common), expected=_PLAIN_FORMAT)
    if not is_compressed:
        common = common[:_PLAIN_FORMAT]  # in an AIFF, more than that means nothing
    elif len(common) < _PLAIN_FORMAT + 4:
        common = common[:_PLAIN_FORMAT] + b"NONE"  # its writer had nothing to say of compression
    channels, counted, bits = struct.unpack_from(">HIH", common)
    rate = _extended(common[8:18])
    kind = common[_PLAIN_FORMAT:] or b"NONE"
    encoding = f"AIFF-C compression {kind.decode('latin-1')!r}"
    if kind not in _PCM and kind not in _BYTES and kind not in _BLOCKS:
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=encoding, read=_READ)
    if kind in _PCM and not 1 <= bits <= 32:
        raise RejectedAudio(Reason.UNREAD_BITS, bits=bits, encoding=encoding)
    check_layout(rate, channels)

    (offset,) = struct.unpack_from(">I", data, sound.start)
    start = sound.start + 8 + offset
    if start > len(data):
        raise RejectedAudio(Reason.DATA_OUTSIDE, container="AIFF", offset=start, size=len(data))
    one_bytes, samples = _BLOCKS.get(kind, (_BYTES.get(kind, (bits + 7) // 8), 1))
    frame_bytes = one_bytes * channels
    bytes_per_s = rate * frame_bytes / samples
    behind = sound.start + sound.size
    if sound.size <= 8 + offset and not is_placeholder(sound.size) and is_chunk_run(data, _chunks(data, behind)):
        raise RejectedAudio(Reason.NO_SAMPLES)
    # Zero sound is a placeholder here too, though its chunk has eight bytes.
    promised = sound.size if is_placeholder(sound.size) else max(sound.size - 8 - offset, 0)
    size = data_size(data, start, promised, container="AIFF", total=total, bytes_per_s=bytes_per_s)
    is_length_sure = size == promised and abs(total - len(data)) <= 1
    if size == promised:
        check_rest(data, behind, _chunks(data, behind + sound.size % 2), size=size, bytes_per_s=bytes_per_s)
    if kind in _BLOCKS and size < frame_bytes:
        raise RejectedAudio(Reason.LESS_THAN_A_BLOCK, encoding=encoding, size=size, block=frame_bytes)
    size -= size % frame_bytes

    frames = size // frame_bytes * samples
    if frames - samples < counted < frames:  # the last block is not all sound
        frames = counted
    common = common[:2] + struct.pack(">I", frames) + common[6:]
    chunks = b"COMM" + struct.pack(">I", len(common)) + common
    if is_compressed:
        # The type has a name: a string with its length in front, here an empty one.
        chunks = b"FVER" + struct.pack(">II", 4, 0xA2805140)
        chunks += b"COMM" + struct.pack(">I", len(common) + 2) + common + b"\0\0"
    chunks += b"SSND" + struct.pack(">III", 8 + size, 0, 0)
    head = MAGIC + struct.pack(">I", 4 + len(chunks) + size) + data[at + 8 : at + 12] + chunks
    source = Source(head, ((start, start + size),))
    if kind in _BLOCKS:
        return sndfile_header(data, "AIFF", source, is_length_sure=is_length_sure)
    return ClipHeader("AIFF", rate, channels, frames, source, is_length_sure=is_length_sure)


def _extended(number: bytes) -> int:
    """Read a sample rate, a float of 80 bits, in whole Hz (Apple, "Apple Numerics Manual").

    What is behind the point is left out, as by libsndfile: old Macintoshes recorded at 22,254.545 Hz.
    """
    exponent, mantissa = struct.unpack(">HQ", number)
    if exponent >= 16_383 + 32:  # negative, or no 32 bits can hold it
        return 0
    return int(math.ldexp(mantissa, exponent - 16_383 - 63))

"""WAV in all its frames: RIFF, big-endian RIFX, RF64 for more than 4 GiB, and Sony's Wave64.

The frames differ in how they write names and sizes of chunks; format and data are the same (Microsoft and IBM,
"Multimedia Programming Interface", 1991; "New Multimedia Data Types", 1994; EBU Tech 3306; Sony, "Sony Wave64 Format").
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import MAX_CHUNKS, Chunk, check_rest, data_size, is_chunk_run, is_placeholder
from genres.audio.containers.sndfile import sndfile_header
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = (b"RIFF", b"RIFX", b"RF64")
W64_MAGIC = bytes.fromhex("726966662e91cf11a5d628db04c10000")

_PCM, _MS_ADPCM, _FLOAT, _ALAW, _MULAW, _IMA_ADPCM, _GSM610, _EXTENSIBLE = 1, 2, 3, 6, 7, 0x11, 0x31, 0xFFFE
_NMS_ADPCM, _G721 = 0x38, 0x40
_READ = "PCM, float, A-law, mu-law, MS, IMA and NMS ADPCM, G.721 and GSM 6.10"
_BITS = {_PCM: range(1, 33), _FLOAT: (32, 64), _ALAW: (8,), _MULAW: (8,)}
"""Bits a sample of the encodings whose samples stand one by one. PCM is left-justified in whole bytes."""
_BLOCK_BITS = {_MS_ADPCM: (4,), _IMA_ADPCM: (4,), _GSM610: (0,), _NMS_ADPCM: (2, 3, 4), _G721: (4,)}
"""Bits a sample, as the format chunk says, of the encodings that are read in blocks."""
_WIDTH_UNREAD = {_ALAW, _MULAW, _GSM610, _G721}
"""Encodings that have one width: what the format chunk says of it is often the width of the samples before they were
encoded, and nobody reads it, libsndfile neither."""
_BLOCK_BYTES = {_MS_ADPCM: 7, _IMA_ADPCM: 4, _GSM610: 65, _NMS_ADPCM: 42, _G721: 64}
"""Least bytes of their blocks: the head, for each channel."""
_GSM610_SAMPLES = 320
"""Samples in a block of GSM 6.10."""
# The rest of a sub-format GUID whose first two bytes are an ordinary format tag, and the one of Ambisonics in B-format.
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_AMBISONIC_TAIL = bytes.fromhex("00002107d3118644c8c1ca000000")
_KNOWN_CHUNKS = (b"data", b"fmt ", b"fact", b"LIST", b"bext", b"JUNK", b"cue ", b"smpl", b"id3 ", b"PEAK")


@dataclass(frozen=True)
class _Format:
    """A format chunk that has been checked."""

    chunk: bytes
    """As a decoder should see it."""
    tag: int
    rate: int
    channels: int
    frame_bytes: int
    """Bytes of one sample of all channels; of a block for encodings in blocks."""
    byte_rate: int
    """Bytes of a second."""
    is_layout_known: bool

    @property
    def is_in_blocks(self) -> bool:
        return self.tag in _BLOCK_BITS

    def __str__(self) -> str:
        return f"format tag {self.tag:#06x}, {self.rate:,} Hz, {self.channels} channels, {self.frame_bytes} bytes"


def riff_header(data: bytes, at: int) -> ClipHeader:
    """Read a WAV file that begins at byte `at`.

    Raises
    ------
    RejectedAudio
        If the format is unsound or not read, or the end of the data is missing.
    """
    magic = data[at : at + 4]
    order = ">" if magic == b"RIFX" else "<"
    (total,) = struct.unpack_from(order + "I", data, at + 4)
    ds64: tuple[int, ...] = ()
    form: _Format | None = None
    fact = b""
    for chunk in _chunks(data, at + 12, order):
        contents = data[chunk.start : chunk.start + chunk.size] if chunk.name in (b"ds64", b"fmt ", b"fact") else b""
        if chunk.name == b"ds64" and len(contents) >= 16:
            ds64 = struct.unpack_from("<QQ", contents)
        elif chunk.name == b"fmt ":
            form = _only_format(form, _format(contents, order), chunk)
        elif chunk.name == b"fact" and not fact:
            fact = contents if len(contents) == 4 else b""
        elif chunk.name == b"data":
            if form is None:
                raise RejectedAudio(Reason.NO_FORMAT)
            promised = chunk.size
            if ds64 and promised == 0xFFFFFFFF:
                total, promised = ds64
            # Some writers count the padding byte of an odd last chunk, some forget it: that is in the tolerance.
            total = 0 if is_placeholder(total) else at + total + 8
            return _measured(data, "RIFF", form, fact, order, Chunk(b"data", chunk.start, promised), total)
    raise RejectedAudio(Reason.NO_DATA)


def wave64_header(data: bytes, at: int) -> ClipHeader:
    """Read a Wave64 file that begins at byte `at`; otherwise as `riff_header`."""
    (total,) = struct.unpack_from("<Q", data.ljust(at + 24, b"\0"), at + 16)
    total = 0 if is_placeholder(total) else at + total
    form: _Format | None = None
    for chunk in _wave64_chunks(data, at + 40):
        if chunk.name == b"fmt ":
            form = _only_format(form, _format(data[chunk.start : chunk.start + chunk.size], "<"), chunk)
        elif chunk.name == b"data":
            if form is None:
                raise RejectedAudio(Reason.NO_FORMAT)
            return _measured(data, "Wave64", form, b"", "<", chunk, total)
    raise RejectedAudio(Reason.NO_DATA)


def _chunks(data: bytes, at: int, order: str) -> Iterator[Chunk]:
    """Walk over the chunks of a RIFF file from byte `at` on."""
    header = struct.Struct(order + "4sI")
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            return
        name, size = header.unpack_from(data, at)
        yield Chunk(name, at + 8, size)
        at += 8 + size
        # A chunk of odd size is padded by a byte. Some writers forget it.
        if size % 2 and data[at : at + 4] not in _KNOWN_CHUNKS:
            at += 1


def _wave64_chunks(data: bytes, at: int) -> Iterator[Chunk]:
    """Walk over the chunks of a Wave64 file: a GUID, a size that counts the header, contents padded to eight bytes."""
    for _ in range(MAX_CHUNKS):
        if at + 24 > len(data):
            return
        name, size = struct.unpack_from("<4s12xQ", data, at)
        yield Chunk(name, at + 24, max(size - 24, 0))
        at += max(24, size + -size % 8)


def _format(chunk: bytes, order: str) -> _Format:
    """Check a format chunk."""
    if len(chunk) < 16:
        raise RejectedAudio(Reason.SHORT_FORMAT, size=len(chunk), expected=16)
    tag, channels, rate, byte_rate, block_align, bits = struct.unpack_from(order + "HHIIHH", chunk)
    is_layout_known = True
    if tag == _EXTENSIBLE:
        if len(chunk) < 40 or chunk[26:40] not in (_SUBFORMAT_TAIL, _AMBISONIC_TAIL):
            raise RejectedAudio(Reason.UNREAD_SUBFORMAT)
        mask, tag = struct.unpack_from(order + "IH", chunk, 20)
        is_layout_known = chunk[26:40] == _SUBFORMAT_TAIL and mask.bit_count() >= channels
    encoding = f"format tag {tag:#06x}"
    allowed = _BITS.get(tag) or _BLOCK_BITS.get(tag)
    if allowed is None:
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=encoding, read=_READ)
    if tag in _WIDTH_UNREAD:
        (bits,) = allowed
    if bits not in allowed:
        raise RejectedAudio(Reason.UNREAD_BITS, bits=bits, encoding=encoding)
    check_layout(rate, channels, is_known=is_layout_known)

    if tag in _BLOCK_BITS:
        heads = _BLOCK_BYTES[tag] * channels
        has_extension = len(chunk) >= 20 or tag == _NMS_ADPCM
        if block_align < heads or not has_extension or byte_rate == 0:
            raise RejectedAudio(Reason.BLOCK_ALIGN, block_align=block_align, channels=channels, bits=bits)
        return _Format(chunk, tag, rate, channels, block_align, byte_rate, is_layout_known)
    sample_bytes = (bits + 7) // 8
    frame_bytes = channels * sample_bytes
    # None and a multiple are slips of the writer about the channels; anything else puts the width of a sample in doubt,
    # unless the bytes of a second confirm it.
    if block_align % frame_bytes and byte_rate != rate * frame_bytes:
        raise RejectedAudio(Reason.BLOCK_ALIGN, block_align=block_align, channels=channels, bits=bits)
    fixed = struct.pack(order + "HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits)
    return _Format(fixed, tag, rate, channels, frame_bytes, rate * frame_bytes, is_layout_known)


def _only_format(first: _Format | None, form: _Format, chunk: Chunk) -> _Format:
    """Return the format of a file, or refuse it if it has two different ones."""
    if first is not None and replace(first, chunk=b"") != replace(form, chunk=b""):
        raise RejectedAudio(Reason.FORMAT_CHANGES, before=first, after=form, offset=chunk.start - 8)
    return first or form


def _measured(
    data: bytes, container: str, form: _Format, fact: bytes, order: str, chunk: Chunk, total: int
) -> ClipHeader:
    """Return how long the data are and how a decoder gets at them."""
    behind = chunk.start + chunk.size
    if chunk.size == 0 and is_chunk_run(data, _chunks(data, behind, order)):
        check_rest(data, behind, _chunks(data, behind, order), size=0, bytes_per_s=form.byte_rate)
        raise RejectedAudio(Reason.NO_SAMPLES)
    size = data_size(data, chunk.start, chunk.size, container=container, total=total, bytes_per_s=form.byte_rate)
    if size == chunk.size:
        following = _chunks(data, behind + size % 2, order)
        check_rest(data, behind, following, size=size, bytes_per_s=form.byte_rate)
    is_length_sure = size == chunk.size and abs(total - len(data)) <= 1

    # The decoder gets format and data alone. libsndfile parses many other chunks, and fails, or finds other samples, if
    # one of them is shorter than its kind, damaged or in an unusual place.
    if form.is_in_blocks and size < form.frame_bytes:
        raise RejectedAudio(
            Reason.LESS_THAN_A_BLOCK, encoding=f"format tag {form.tag:#06x}", size=size, block=form.frame_bytes
        )
    if not form.is_in_blocks:
        size -= size % form.frame_bytes
    chunks = b"fmt " + struct.pack(order + "I", len(form.chunk)) + form.chunk + b"\0" * (len(form.chunk) % 2)
    if fact and form.is_in_blocks:
        chunks += b"fact" + struct.pack(order + "I", len(fact)) + fact
    chunks += b"data" + struct.pack(order + "I", size)
    magic = b"RIFX" if order == ">" else b"RIFF"
    head = magic + struct.pack(order + "I", 4 + len(chunks) + size) + b"WAVE" + chunks
    source = Source(head, ((chunk.start, chunk.start + size),))
    if form.is_in_blocks:
        header = sndfile_header(
            data, "WAV", source, is_layout_known=form.is_layout_known, is_length_sure=is_length_sure
        )
        if form.tag == _GSM610:  # libsndfile makes up one more block
            frames = size // form.frame_bytes * _GSM610_SAMPLES
            return replace(header, frames=min(header.frames, frames), slack=_GSM610_SAMPLES)
        return header
    frames = size // form.frame_bytes
    return ClipHeader("WAV", form.rate, form.channels, frames, source, is_length_sure=is_length_sure)

"""How long the data of an uncompressed container are: what its header says, against what is there."""

from collections.abc import Iterator
from dataclasses import dataclass

from genres.audio.containers.tags import ID3V1_BYTES
from genres.audio.rejections import Reason, RejectedAudio, truncated

HEADER_BYTES = 8
"""Writers often forget to count a container's first eight bytes, or count them twice: that much is no contradiction."""
MAX_CHUNKS = 10_000
"""Chunks that are looked at in one file."""
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_SOUND = (b"data", b"SSND", b"fmt ", b"COMM", b"RIFF", b"FORM")
"""Chunks that tell of more sound: data, their format, and the beginning of a file that was joined to this one."""


@dataclass(frozen=True)
class Chunk:
    """A chunk of a container, as its header describes it."""

    name: bytes
    start: int
    """Where its contents begin in the file."""
    size: int
    """Bytes that it promises; there may be fewer."""


def is_placeholder(size: int) -> bool:
    """Return whether a size was written by a program that could not know it: none, or near 2 or 4 GiB.

    Programs that write into a pipe fill in 0, 0xFFFFFFFF (ffmpeg), 0x7FFFF000 (SoX) or 0x80000000 (arecord), some of
    them less a header.
    """
    return size <= 0 or abs(size - 2**31) <= 2**16 or 2**32 - 2**16 <= size <= 2**32 or size >= 2**63 - 2**16


def data_size(data: bytes, start: int, promised: int, *, container: str, total: int, bytes_per_s: float) -> int:
    """Return how many bytes of data to read.

    Parameters
    ----------
    data
        The file.
    start
        Where its data begin.
    promised
        Bytes of data, after the header.
    container
        Its name, for the reason.
    total
        Bytes of the file, after the header; 0 if the container has no such length or it is a placeholder.
    bytes_per_s
        Bytes in a second of sound.

    Raises
    ------
    RejectedAudio
        If the end of the file is missing: it holds less than promised, by more than `HEADER_BYTES`, and nothing
        contradicts the promise.
    """
    present = max(len(data) - start, 0)
    if is_placeholder(promised):
        return present - (ID3V1_BYTES if present > ID3V1_BYTES and data[-ID3V1_BYTES:].startswith(b"TAG") else 0)
    if promised <= present:
        return promised
    if total == 0:
        if promised <= present + HEADER_BYTES:
            return present
        raise truncated(promised / bytes_per_s, present / bytes_per_s)
    if total > len(data) + HEADER_BYTES:
        raise RejectedAudio(Reason.CUT_SHORT, container=container, promised=total, present=len(data))
    return present


def check_rest(data: bytes, end: int, chunks: Iterator[Chunk], *, size: int, bytes_per_s: float) -> None:
    """Check what follows the data: it must not be the greater part of the sound.

    Tags, zeros and what a download left behind are ignored, as every decoder does.

    Parameters
    ----------
    data
        The file.
    end
        Where the data end.
    chunks
        The chunks from there on.
    size
        Bytes of data.
    bytes_per_s
        Bytes in a second of sound.

    Raises
    ------
    RejectedAudio
        If more bytes that are no chunks, or chunks of data, follow than were read.
    """
    more = 0
    for chunk in chunks:
        if not _is_name(chunk.name) or chunk.start + chunk.size > len(data) + 1:
            break
        if chunk.name in _SOUND:
            more += chunk.size
        end = chunk.start + chunk.size + chunk.size % 2
    rest = max(len(data) - end, 0)
    if data.startswith(_TAGS, end) or data.count(0, end) == rest:
        rest = 0
    if more + rest > size:
        raise RejectedAudio(Reason.MORE_BEHIND, promised=f"{size / bytes_per_s:.1f}", more=more + rest)


def is_chunk_run(data: bytes, chunks: Iterator[Chunk]) -> bool:
    """Return whether the file goes on with whole chunks up to its end."""
    end = None
    for chunk in chunks:
        if not _is_name(chunk.name):
            return False
        end = chunk.start + chunk.size
    return end is not None and end <= len(data) + 1


def _is_name(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable() and not name.isspace()

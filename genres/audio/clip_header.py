"""What a clip's header says once it has been checked, and where in the file a decoder finds the sound."""

import bisect
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, BinaryIO

from genres.audio.containers.tags import ID3V1_BYTES


@dataclass(frozen=True)
class Source:
    """The file as a decoder should see it: parts of its bytes, behind a header with right lengths if need be.

    A decoder believes the lengths in a header, or guesses them. Where they are wrong or missing, it is handed a
    corrected header and the sound that is there. Nothing is copied.
    """

    head: bytes = b""
    """Header that stands in front."""
    spans: tuple[tuple[int, int], ...] | None = None
    """Where the parts that are read begin and end; None is the whole file."""
    apparent_size: int = 0
    """Size that the file seems to have, for a decoder that guesses a length from it; the reading ends where the parts
    do."""

    def open(self, data: bytes) -> BinaryIO:
        """Return a file object over the bytes of the file."""
        spans = ((0, len(data)),) if self.spans is None else self.spans
        if not self.head and spans == ((0, len(data)),) and not self.apparent_size:
            return io.BytesIO(data)
        view = memoryview(data)
        parts = [memoryview(self.head), *(view[start:end] for start, end in spans)]
        return io.BufferedReader(_Spliced(parts, self.apparent_size), 2**16)


@dataclass(frozen=True)
class ClipHeader:
    """What a clip's header says, once it is known to be consistent."""

    container: str
    """``WAV``, ``AIFF``, ``AU``, ``CAF``, ``FLAC``, ``MP3``, ``OGG``, ``MP4``, ``AAC`` or ``WMA``."""
    sample_rate: int
    """Samples per second, in Hz."""
    channels: int
    frames: int
    """Samples per channel."""
    source: Source = field(default=Source(), repr=False, compare=False)
    """Where a decoder finds the sound."""
    plain_source: Source | None = field(default=None, repr=False, compare=False)
    """Where a decoder finds it that stops on its way through `source`: without what stands between the sound."""
    is_length_sure: bool = field(default=True, repr=False, compare=False)
    """Whether the container's own lengths say where the file ends. Recorders write them at the very end; what is there
    until then reads like a shorter clip."""
    slack: int = field(default=0, repr=False, compare=False)
    """Samples per channel that a decoder may leave out at the ends, or make up behind them, as some do."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class _Spliced(io.RawIOBase):
    """A readable, seekable file: views of bytes, one behind the other."""

    def __init__(self, parts: Sequence[memoryview], apparent_size: int) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self._size = max(apparent_size, self._ends[-1])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        index = bisect.bisect_right(self._ends, self._at)
        if index < len(self._parts):
            part = self._parts[index][self._at - self._ends[index] :]
        elif self._at >= self._size - ID3V1_BYTES:  # where a decoder looks for a tag, and takes offence if it cannot
            part = memoryview(bytes(max(0, self._size - self._at)))
        else:
            return 0
        count = min(len(part), len(wanted))
        wanted[:count] = part[:count]
        self._at += count
        return count

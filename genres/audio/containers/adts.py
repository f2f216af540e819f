"""AAC without a file around it: ADTS frames (ISO/IEC 13818-7, 6.2). How long a stream is, only its frames know."""

import re

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import check_rest
from genres.audio.rejections import Reason, RejectedAudio

_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_CHANNELS = (0, 1, 2, 3, 4, 5, 6, 8)
_BLOCK = 1_024
"""Samples of a block; a frame has one to four."""
_SLACK = 4 * _BLOCK
_HEADER = 7
_CHAIN = 3
"""Frames in a row, each where the one before it ends, that are no accident."""
_LONGEST = 8_191
"""Bytes of a frame: how far behind the tags the first whole one of a recording is looked for."""
_SYNC = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")
_TRIED = 100_000
"""How often a frame may seem to begin and not be there, before the search is given up."""


def find_adts(data: bytes, at: int) -> int | None:
    """Return where the first frame is, in what follows byte `at`, or None if it is not ADTS."""
    return _find(data, at, at + _LONGEST)


def _find(data: bytes, at: int, stop: int) -> int | None:
    """Return where frames begin that follow each other, at or behind byte `at`."""
    for tried, found in enumerate(_SYNC.finditer(data, at, min(stop, len(data)))):
        if tried == _TRIED:
            break
        if _is_chain(data, found.start()):
            return found.start()
    return None


def _is_chain(data: bytes, at: int) -> bool:
    """Return whether frames of one kind follow each other from byte `at` on, or one is all there is."""
    kind = None
    for _ in range(_CHAIN):
        size = _size(data, at)
        if not size or kind not in (None, _kind(data, at)):
            return False
        kind = _kind(data, at)
        at += size
        if at >= len(data):
            return at == len(data)
    return True


def adts_header(data: bytes, start: int) -> ClipHeader:
    """Walk over a stream's frames.

    Parameters
    ----------
    data
        The file.
    start
        Where the first frame begins.

    Raises
    ------
    RejectedAudio
        If more than the frames follows them, or the format changes on the way.
    """
    at, blocks, first = start, 0, _kind(data, start)
    spans = []
    rate, channels = _layout(first)
    if not channels:
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding="AAC whose channels are described inside", read="others")
    check_layout(rate, channels)
    while True:
        size = _size(data, at)
        if size == 0 or at + size > len(data):
            found_at = _find(data, at + 1, len(data))
            if found_at is None:
                break
            # Something else stands between frames, as where a connection broke.
            spans.append((start, at))
            at = start = found_at
            continue
        if (found := _kind(data, at)) != first:
            before, after = (f"{_layout(one)[0]:,} Hz, {_layout(one)[1]} channels" for one in (first, found))
            raise RejectedAudio(Reason.FORMAT_CHANGES, before=before, after=after, offset=at)
        blocks += (data[at + 6] & 3) + 1
        at += size
    spans.append((start, at))
    read = sum(end - begin for begin, end in spans)
    # A frame that is cut off is the end of any recording of a broadcast.
    check_rest(data, at, iter(()), size=read, bytes_per_s=read * rate / max(blocks * _BLOCK, 1))
    return ClipHeader("AAC", rate, channels, blocks * _BLOCK, Source(spans=tuple(spans)), slack=_SLACK)


def _size(data: bytes, at: int) -> int:
    """Return the bytes of the frame at byte `at`, or 0 if none begins there."""
    if at + _HEADER > len(data) or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return 0
    size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    is_sound = (data[at + 2] >> 2 & 0xF) < len(_RATES) and size > _HEADER
    return size if is_sound else 0


def _kind(data: bytes, at: int) -> tuple[int, int]:
    """Return what all frames of a stream have in common: profile and rate, and channels."""
    return data[at + 2] & 0xFD, data[at + 3] & 0xC0


def _layout(kind: tuple[int, int]) -> tuple[int, int]:
    profile_and_rate, rest = kind
    channels = (profile_and_rate & 1) << 2 | rest >> 6
    return _RATES[profile_and_rate >> 2 & 0xF], _CHANNELS[channels]

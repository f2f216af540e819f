"""Windows Media Audio: ASF ("Advanced Systems Format Specification", 01.20.03), objects that are named by GUIDs."""

import struct
from collections.abc import Iterator

from genres.audio.clip_header import ClipHeader, Source
from genres.audio.containers.layout import check_layout
from genres.audio.containers.lengths import MAX_CHUNKS
from genres.audio.rejections import Reason, RejectedAudio

MAGIC = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_STREAM = bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365")
_SOUND = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_PROTECTED = (
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
)
"""Content Encryption, and its extended form."""
_CODECS = {0x160: "WMA 1", 0x161: "WMA 2", 0x162: "WMA Professional", 0x163: "WMA Lossless"}
_BROADCAST = 1
_SLACK_S = 0.25
"""Times are those of packets: the last one is shown as whole, and encoders put a block of silence in front."""


def asf_header(data: bytes, start: int) -> ClipHeader:
    """Read a file's header objects.

    Parameters
    ----------
    data
        The file.
    start
        Where it begins.

    Raises
    ------
    RejectedAudio
        If the end is missing, the header contradicts the data or knows no length, or it is other than one stream of
        Windows Media Audio without protection.
    """
    (header_size,) = struct.unpack_from("<Q", data, start + 16)
    end = start + header_size
    if end + 50 > len(data) or header_size < 30:
        raise RejectedAudio(Reason.CUT_SHORT, container="ASF", promised=end + 50, present=len(data))
    objects = list(_objects(data, start + 30, end))
    if any(name in _PROTECTED for name, _ in objects):
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding="protected WMA", read="WMA without protection")
    about = next((at for name, at in objects if name == _FILE), None)
    streams = [at for name, at in objects if name == _STREAM]
    sounds = [at for at in streams if data[at + 24 : at + 40] == _SOUND]
    if about is None or not sounds:
        raise RejectedAudio(Reason.NO_FORMAT)
    if len(streams) > 1:
        raise RejectedAudio(Reason.SEVERAL_STREAMS, streams=len(streams), container="ASF")
    codec, channels, rate = struct.unpack_from("<HHI", data, sounds[0] + 78)
    if codec not in _CODECS:
        known = ", ".join(_CODECS.values())
        raise RejectedAudio(Reason.UNREAD_ENCODING, encoding=f"ASF with format {codec:#06x}", read=known)
    check_layout(rate, channels)

    packets, duration, _, preroll_ms, flags, shortest, longest = struct.unpack_from("<QQQQIII", data, about + 56)
    if flags & _BROADCAST or not packets:
        raise RejectedAudio(Reason.UNKNOWN_LENGTH)
    if not data.startswith(_DATA, end):
        raise RejectedAudio(Reason.NO_DATA)
    if shortest != longest or not shortest:
        raise RejectedAudio(Reason.NO_FORMAT)
    promised = end + 50 + packets * shortest
    if promised > len(data):
        raise RejectedAudio(Reason.CUT_SHORT, container="ASF", promised=promised, present=len(data))
    duration_s = duration / 1e7 - preroll_ms / 1e3
    source = Source(spans=((start, len(data)),))
    return ClipHeader("WMA", rate, channels, max(0, round(duration_s * rate)), source, slack=round(_SLACK_S * rate))


def _objects(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int]]:
    """Walk over the objects between two places; a GUID and a place each."""
    for _ in range(MAX_CHUNKS):
        if at + 24 > end:
            return
        (size,) = struct.unpack_from("<Q", data, at + 16)
        if size < 24 or at + size > end:
            return
        yield data[at : at + 16], at
        at += size

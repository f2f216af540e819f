"""The gate in front of every decoder: which bytes are audio that this pipeline reads, judged by their header.

Only headers are read here; no sample is decoded. A decoder given hostile bytes may return plausible nonsense or take
gigabytes for it, so what a header says has to be consistent with itself and with the bytes that are there. What is
known about each container is in `genres.audio.containers`; here are the limits that hold for all of them.
"""

from genres.audio.clip_header import ClipHeader as ClipHeader
from genres.audio.containers.layout import MAX_CHANNELS as MAX_CHANNELS
from genres.audio.containers.layout import SAMPLE_RATES as SAMPLE_RATES
from genres.audio.ffmpeg import FORMATS, require_ffmpeg
from genres.audio.rejections import Reason, told_apart
from genres.audio.rejections import RejectedAudio as RejectedAudio
from genres.audio.sound_file import container_of, read_header

VERSION = "gate7"
"""Raised when files are let in that were refused before, or the other way round: verdicts carry it."""

SUFFIXES = {
    ".wav": "WAV", ".wave": "WAV", ".bwf": "WAV", ".rf64": "WAV", ".w64": "WAV",
    ".aif": "AIFF", ".aiff": "AIFF", ".aifc": "AIFF",
    ".au": "AU", ".snd": "AU",
    ".caf": "CAF",
    ".flac": "FLAC",
    ".mp3": "MP3", ".mp2": "MP3", ".mpga": "MP3",
    ".m4a": "MP4",
    ".aac": "AAC",
    ".wma": "WMA",
    ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG",
}  # fmt: skip
"""File name suffixes that are read, and the container that they announce."""
_ALSO_NAMED_WAV = ("AIFF", "AU", "CAF")
"""Containers that may be inside a file named like a WAV: recorders and converters use that name for all uncompressed
sound. Any other container than the name says is a mistake that somebody should see."""

_LARGEST_RATE, _LARGEST_FRAME = 96_000, 16
"""Of the largest ordinary files: stereo samples of 64 bits."""


def max_clip_bytes(max_clip_s: float) -> int:
    """Return the size, in bytes, above which no file is read, whatever its format.

    Parameters
    ----------
    max_clip_s : float
        Longest clip that is let in, in seconds.
    """
    return int(max_clip_s * _LARGEST_RATE * _LARGEST_FRAME) + 2**20


def check_size(size: int, *, max_clip_s: float) -> None:
    """Refuse a file by its size alone, before anybody reads it into memory.

    Parameters
    ----------
    size : int
        In bytes.
    max_clip_s : float
        Longest clip that is let in, in seconds.

    Raises
    ------
    RejectedAudio
        If no clip of that length has so many bytes.
    """
    most = max_clip_bytes(max_clip_s)
    if size > most:
        raise RejectedAudio(Reason.TOO_MANY_BYTES, size=size, limit_s=max_clip_s, limit=most)


def inspect(data: bytes, *, suffix: str, max_clip_s: float) -> ClipHeader:
    """Let a clip in, or say why not.

    Parameters
    ----------
    data : bytes
        The whole file.
    suffix : str
        The file name's suffix with its dot, in any case; it must agree with the container inside.
    max_clip_s : float
        Longest clip that is let in, in seconds.

    Returns
    -------
    ClipHeader
        The header. All the bytes that it promises are present.

    Raises
    ------
    RejectedAudio
        With the reason, for everything else; no other exception, whatever the bytes.
    """
    expected = SUFFIXES.get(suffix.lower())
    if expected is None:
        raise RejectedAudio(Reason.UNREAD_SUFFIX, suffix=suffix, read=", ".join(SUFFIXES))
    if not data:
        raise RejectedAudio(Reason.EMPTY_FILE)
    check_size(len(data), max_clip_s=max_clip_s)
    found = container_of(data)
    if found is None:
        raise RejectedAudio(Reason.NOT_AUDIO, expected=expected, beginning=data[:8])
    if found.name != expected and not (expected == "WAV" and found.name in _ALSO_NAMED_WAV):
        raise RejectedAudio(Reason.OTHER_CONTAINER, found=found.name, suffix=suffix)

    header = read_header(data, found)
    if header.frames == 0:
        raise RejectedAudio(Reason.NO_SAMPLES)
    if header.duration_s > max_clip_s:
        length, _ = told_apart(header.duration_s, max_clip_s)
        raise RejectedAudio(Reason.TOO_LONG, length=length, limit=max_clip_s)
    if header.container in FORMATS:
        require_ffmpeg(suffix.lower())
    return header

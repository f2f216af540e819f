"""From bytes to a `ClipHeader`: which container they are, and who reads its header.

The readers are imported when there is a clip: code locations import the gate to know suffixes and limits.
"""

import struct
from typing import NamedTuple

from genres.audio.clip_header import ClipHeader
from genres.audio.rejections import Reason, RejectedAudio


class Container(NamedTuple):
    """A container that was recognised."""

    name: str
    """As in `ClipHeader.container`."""
    start: int
    """Where it begins in the file, behind the tags in front of it."""


def container_of(data: bytes) -> Container | None:
    """Return the container that the bytes announce, or None."""
    from genres.audio.containers import adts, aiff, asf, au, caf, flac, mp4, mpeg, ogg, riff
    from genres.audio.containers.tags import skip_id3v2

    at = skip_id3v2(data)
    magic, form = data[at : at + 4], data[at + 8 : at + 12]
    name = None
    if (magic in riff.MAGIC and form == b"WAVE") or data.startswith(riff.W64_MAGIC, at):
        name = "WAV"
    elif magic in au.MAGIC:
        name = "AU"
    elif magic == flac.MAGIC:
        name = "FLAC"
    elif magic == ogg.MAGIC:
        name = "OGG"
    elif magic == aiff.MAGIC and form in aiff.FORMS:
        name = "AIFF"
    elif magic == caf.MAGIC:
        name = "CAF"
    elif mp4.is_mp4(data, at):
        name = "MP4"
    elif data.startswith(asf.MAGIC, at):
        name = "WMA"
    if name is not None:
        return Container(name, at)
    # Recordings of a broadcast begin within a frame.
    found = adts.find_adts(data, at)
    if found is not None:
        return Container("AAC", found)
    # MPEG audio has no magic number, and any amount of tags and garbage in front. A tag's size may be wrong.
    found = mpeg.find_mpeg(data, at)
    if found is None and at > 0:
        found = mpeg.find_mpeg(data, 0)
    return None if found is None else Container("MP3", found)


def read_header(data: bytes, container: Container) -> ClipHeader:
    """Read the header of a file.

    Parameters
    ----------
    data
        The whole file.
    container
        From `container_of`.

    Raises
    ------
    RejectedAudio
        If the header is unsound, contradicts the data, or tells of something that is not read.
    """
    from genres.audio.containers import adts, aiff, asf, au, caf, flac, mp4, mpeg, ogg, riff

    name, start = container
    if name == "WAV":
        is_wave64 = data.startswith(riff.W64_MAGIC, start)
        return riff.wave64_header(data, start) if is_wave64 else riff.riff_header(data, start)
    readers = {
        "AAC": adts.adts_header,
        "AIFF": aiff.aiff_header,
        "AU": au.au_header,
        "CAF": caf.caf_header,
        "FLAC": flac.flac_header,
        "MP3": mpeg.mpeg_header,
        "MP4": mp4.mp4_header,
        "OGG": ogg.ogg_header,
        "WMA": asf.asf_header,
    }
    try:
        return readers[name](data, start)
    except (struct.error, IndexError):  # a part of it is shorter than what it should hold
        raise RejectedAudio(Reason.NO_FORMAT) from None

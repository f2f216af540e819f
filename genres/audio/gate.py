"""The gate in front of every decoder: which bytes are audio that this pipeline reads, judged by their header.

Only the header is read here; no sample is decoded. A decoder given hostile bytes may return plausible nonsense
or take gigabytes for it, so the header has to be consistent with itself and with the bytes that are there.
"""

import io
import struct
from dataclasses import dataclass

SUFFIXES = {".wav": "WAV", ".au": "AU", ".flac": "FLAC", ".mp3": "MP3"}
"""File name suffixes that are read, and the container that must be inside."""

MAX_CHANNELS = 2
SAMPLE_RATES = (8_000, 96_000)
"""Lowest and highest sample rate that is read, in Hz."""


class RejectedAudio(Exception):  # noqa: N818  (a verdict on a clip, not a fault of the program)
    """These bytes are not audio that the pipeline reads. The text is the reason, short enough for a table."""

    @property
    def reason(self) -> str:
        """The reason, as it stands in the quarantine."""
        return str(self)


@dataclass(frozen=True)
class ClipHeader:
    """What a clip's header says, once it is known to be consistent."""

    container: str
    """``WAV``, ``AU``, ``FLAC`` or ``MP3``."""
    sample_rate: int
    """Samples per second, in Hz."""
    channels: int
    frames: int
    """Samples per channel."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


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
    container = SUFFIXES.get(suffix.lower())
    if container is None:
        raise RejectedAudio(f"suffix {suffix!r}; read are {', '.join(SUFFIXES)}")
    if not data:
        raise RejectedAudio("the file is empty")
    found = _container(data)
    if found is None:
        raise RejectedAudio(f"not a {container} file: it begins with {data[:8]!r}")
    if found != container:
        raise RejectedAudio(f"a {found} file named {suffix}")

    header = {"WAV": _wav_header, "AU": _au_header}.get(found, _libsndfile_header)(data, found)
    if header.frames == 0:
        raise RejectedAudio("no samples in it")
    if header.duration_s > max_clip_s:
        raise RejectedAudio(f"{header.duration_s:.1f} s long; at most {max_clip_s:g} s are read")
    return header


def _container(data: bytes) -> str | None:
    """Name the container that the first bytes announce."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b".snd":
        return "AU"
    if data[:4] == b"fLaC":
        return "FLAC"
    # An ID3v2 tag, or the sync word of an MPEG frame of layer III (ISO/IEC 11172-3, 2.4.2.3).
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return "MP3"
    return None


_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
# The rest of a sub-format GUID whose first two bytes are an ordinary format tag.
_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def _wav_header(data: bytes, container: str) -> ClipHeader:
    """Read RIFF/WAVE chunk by chunk (Microsoft and IBM, "Multimedia Programming Interface", 1991)."""
    (riff_size,) = struct.unpack_from("<I", data, 4)
    # Some writers count the padding byte of an odd last chunk, some forget it: one byte is no fault.
    if abs(riff_size + 8 - len(data)) > 1:
        raise RejectedAudio(f"RIFF header says {riff_size + 8:,} bytes, the file has {len(data):,}")

    at, layout = 12, None
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt " and layout is None:
            layout = _wav_layout(data[at : at + size])
        elif name == b"data":
            if layout is None:
                raise RejectedAudio("no format chunk before the data")
            return _measured(container, *layout, promised=size, present=len(data) - at)
        at += size + size % 2
    raise RejectedAudio("no data chunk")


def _wav_layout(chunk: bytes) -> tuple[int, int, int]:
    """Sample rate, channels and bytes per frame from a format chunk."""
    if len(chunk) < 16:
        raise RejectedAudio(f"format chunk of {len(chunk)} bytes; the shortest is 16")
    tag, channels, rate, _, block_align, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE:
        if len(chunk) < 40 or chunk[26:40] != _SUBFORMAT_TAIL:
            raise RejectedAudio("unknown sub-format in an extensible format chunk")
        (tag,) = struct.unpack_from("<H", chunk, 24)
    if tag not in _BITS:
        raise RejectedAudio(f"format tag {tag:#06x}; PCM and float are read")
    if bits not in _BITS[tag]:
        raise RejectedAudio(f"{bits} bits a sample in format {tag:#06x}")
    if block_align != channels * bits // 8:
        raise RejectedAudio(f"block align {block_align} for {channels} channels of {bits} bits")
    return rate, channels, block_align


_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes per sample of each AU encoding: mu-law, 8 to 32 bit PCM, float, double, A-law."""
_AU_UNKNOWN_LENGTH = 0xFFFFFFFF


def _au_header(data: bytes, container: str) -> ClipHeader:
    """Read the fixed header of Sun's AU, big-endian (``audio_filehdr.h``)."""
    if len(data) < 24:
        raise RejectedAudio(f"AU header of {len(data)} bytes; it has 24")
    offset, size, encoding, rate, channels = struct.unpack_from(">5I", data, 4)
    if encoding not in _AU_BYTES:
        raise RejectedAudio(f"AU encoding {encoding}; PCM, float, mu-law and A-law are read")
    if not 24 <= offset <= len(data):
        raise RejectedAudio(f"AU data begin at byte {offset:,} of {len(data):,}")
    present = len(data) - offset
    # The format has a value of its own for a length that the writer did not know. Unlike RIFF, it has no
    # second length to compare with: bytes after the promised ones are left alone, as libsndfile leaves them.
    promised = present if size == _AU_UNKNOWN_LENGTH else size
    return _measured(container, rate, channels, channels * _AU_BYTES[encoding], promised=promised, present=present)


def _libsndfile_header(data: bytes, container: str) -> ClipHeader:
    """Let libsndfile read the header of a compressed container; its length is checked again when decoding."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise RejectedAudio(f"libsndfile cannot open it: {error.error_string.strip()}") from None
    if info.format != container and (info.format, info.subtype) != ("MP3", "MPEG_LAYER_III"):
        raise RejectedAudio(f"begins like {container}, libsndfile finds {info.format}")
    _check_layout(info.samplerate, info.channels)
    return ClipHeader(container, info.samplerate, info.channels, info.frames)


def _measured(container: str, rate: int, channels: int, frame_bytes: int, *, promised: int, present: int) -> ClipHeader:
    """Check the layout, and the promised length of the data against what is there, in bytes."""
    _check_layout(rate, channels)
    if promised > present:
        per_s = rate * frame_bytes
        raise RejectedAudio(f"header promises {promised / per_s:.1f} s, the file holds {present / per_s:.1f} s")
    if promised % frame_bytes:
        raise RejectedAudio(f"{promised:,} bytes of data are no whole number of {frame_bytes}-byte frames")
    return ClipHeader(container, rate, channels, promised // frame_bytes)


def _check_layout(rate: int, channels: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise RejectedAudio(f"{channels:,} channels; 1 to {MAX_CHANNELS} are read")
    lowest, highest = SAMPLE_RATES
    if not lowest <= rate <= highest:
        raise RejectedAudio(f"{rate:,} Hz; {lowest:,} to {highest:,} Hz are read")

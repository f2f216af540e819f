"""Formats that libsndfile does not read: ffmpeg decodes them, in a process that can do little else.

The gate has read their headers before, as everybody's; ffmpeg gets a file that it is told the format and the codecs of,
no network, one thread, and limits on time, memory and what it writes. What comes out is taken block by block, and no
more of it than the header promised.
"""

import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

from genres.audio.clip_header import ClipHeader
from genres.audio.containers.layout import check_layout
from genres.audio.rejections import ClipOrMachineError, Reason, RejectedAudio

if TYPE_CHECKING:
    import numpy as np

FORMATS = {"MP4": ("mov", "aac,alac"), "AAC": ("aac", "aac"), "WMA": ("asf", "wmav1,wmav2,wmapro,wmalossless")}
"""ffmpeg's names of the demuxer and the decoders, by container: it tries no others."""
_MEMORY = 1 << 30
"""Bytes of address space that ffmpeg may take; some 300 MB of it are its libraries."""
_LARGEST_BLOCK = 1 << 26
"""Bytes that it may ask for at once."""
_MESSAGES = 1 << 20
"""Bytes of messages, and of any other file, that it may write."""
_LEAST_S = 60
"""Seconds that it may take for the shortest clip; a clip's own length is added."""
_AU = struct.Struct(">4s5I")
_AU_FLOAT = 6


def require_ffmpeg(suffix: str) -> str:
    """Return where ffmpeg is.

    Parameters
    ----------
    suffix
        Of the file that needs it.

    Raises
    ------
    RejectedAudio
        If it is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise RejectedAudio(Reason.NO_FFMPEG, suffix=suffix)
    return program


@contextmanager
def decoding(data: bytes, header: ClipHeader, *, block_samples: int) -> "Iterator[tuple[ClipHeader, Blocks]]":
    """Decode a clip.

    Parameters
    ----------
    data
        The whole file.
    header
        What the gate said about it.
    block_samples
        Samples, over all channels, of a block.

    Yields
    ------
    ClipHeader, Blocks
        The header with the sample rate and the channels that the decoder finds (AAC may hide a doubled rate and a
        second channel from its container), and the samples.

    Raises
    ------
    RejectedAudio
        If ffmpeg is not installed, or gives no sound.
    ClipOrMachineError
        If a signal ends it.
    """
    program = require_ffmpeg(f".{header.container.lower()}")
    demuxer, codecs = FORMATS[header.container]
    with tempfile.NamedTemporaryFile(prefix="genres-clip-") as file, tempfile.TemporaryFile() as messages:
        shutil.copyfileobj(header.source.open(data), file)
        file.flush()
        command = [
            *(program, "-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-threads", "1"),
            *("-max_alloc", str(_LARGEST_BLOCK), "-protocol_whitelist", "file,pipe", "-codec_whitelist", codecs),
            *("-f", demuxer, "-i", f"file:{file.name}", "-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1"),
            *("-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages, env={"LC_ALL": "C"}
        ) as process:
            limit_s = _LEAST_S + round(header.duration_s)
            _limit(process.pid, limit_s)
            clock = threading.Timer(2 * limit_s, process.kill)
            clock.daemon = True
            clock.start()
            try:
                found = _found(process, header, messages)
                yield found, Blocks(process, found.channels, block_samples, messages)
            finally:
                clock.cancel()
                process.kill()


class Blocks:
    """The samples that ffmpeg writes, in blocks of shape (frames, channels); an iterator.

    Raises
    ------
    RejectedAudio
        While iterating, if ffmpeg ends with an error.
    ClipOrMachineError
        If a signal ends it.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", channels: int, block_samples: int, messages: IO[bytes]
    ) -> None:
        self._process, self._channels, self._messages = process, channels, messages
        self._bytes = max(1, block_samples // channels) * channels * 4

    def __iter__(self) -> "Iterator[np.ndarray]":
        import numpy as np

        output = cast("IO[bytes]", self._process.stdout)
        while block := output.read(self._bytes):
            whole = len(block) - len(block) % (4 * self._channels)
            yield np.frombuffer(block[:whole], ">f4").astype(np.float32).reshape(-1, self._channels)
        if self._process.wait() != 0:
            raise _error(self._process, self._messages)


def _found(process: "subprocess.Popen[bytes]", header: ClipHeader, messages: IO[bytes]) -> ClipHeader:
    """Read what stands in front of the samples; return the header with the decoder's rate and channels."""
    output = cast("IO[bytes]", process.stdout)
    head = output.read(_AU.size)
    if len(head) < _AU.size:
        process.wait()
        raise _error(process, messages)
    magic, begin, _, encoding, rate, channels = _AU.unpack(head)
    if magic != b".snd" or encoding != _AU_FLOAT or begin < _AU.size:
        raise RejectedAudio(Reason.FFMPEG, error="it writes another format than it was asked for")
    output.read(begin - _AU.size)
    check_layout(rate, channels)
    ratio = rate / header.sample_rate
    return replace(
        header,
        sample_rate=rate,
        channels=channels,
        frames=round(header.frames * ratio),
        slack=round(header.slack * ratio),
    )


def _error(process: "subprocess.Popen[bytes]", messages: IO[bytes]) -> RejectedAudio | ClipOrMachineError:
    if process.returncode < 0:
        # By a limit of ours, of which a clip may take too much and a stalled machine too; or by the system, which ends
        # what is largest when memory runs out.
        return ClipOrMachineError(f"ffmpeg was ended by signal {-process.returncode}")
    messages.seek(0)
    said = messages.read(_MESSAGES).decode(errors="replace").strip().splitlines()
    # Each begins with the part of ffmpeg that speaks, and where it lies in memory.
    last = said[0].split("] ")[-1].replace("\0", "") if said else f"it ended with {process.returncode}"
    return RejectedAudio(Reason.FFMPEG, error=last[:120])


def _limit(pid: int, seconds: int) -> None:
    """Limit what a process may take, where the system can do that to another one."""
    import resource

    if not hasattr(resource, "prlimit"):
        return  # macOS: the clock and the largest block remain
    for what, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, _MESSAGES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.prlimit(pid, what, (most, most))

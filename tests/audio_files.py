"""Audio files as people have them, made in memory for the tests."""

import io
import struct
from typing import Any

import numpy as np
import soundfile

RATE = 22_050


def music(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Tones and noise that codecs cannot leave out, of shape (frames, channels)."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(7).uniform(-0.1, 0.1, (len(t), channels))
    tones = [0.3 * np.sin(2 * np.pi * (220 + 110 * n) * t * (1 + 0.1 * t)) for n in range(channels)]
    return (np.stack(tones, axis=1) * (0.6 + 0.4 * np.sin(2 * np.pi * t))[:, None] + noise).astype(np.float32)


def written(container: str, samples: np.ndarray, rate: int = RATE, **how: Any) -> bytes:
    """A file as libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, **how)
    return file.getvalue()


def chunk(name: bytes, body: bytes, *, size: int | None = None, pad: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (pad and len(body) % 2)


def riff(*chunks: bytes, size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def pcm_format(channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    width = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, bits))


def with_flac_length(data: bytes, samples: int) -> bytes:
    """A FLAC file whose header says another length; 0 is "unknown"."""
    (packed,) = struct.unpack_from(">Q", data, 18)
    return data[:18] + struct.pack(">Q", packed & ~0xF_FFFF_FFFF | samples) + data[26:]


def without_count(mp3: bytes) -> bytes:
    """An MPEG stream of libsndfile's without its first frame, which counts the others."""
    where = mp3.find(b"\xff", 100)
    while mp3[where + 1] != mp3[1] or mp3[where + 2] & 0x0C != mp3[2] & 0x0C:
        where = mp3.find(b"\xff", where + 1)
    return mp3[where:]


def with_count(mp3: bytes, frames: int) -> bytes:
    """An MPEG stream of libsndfile's whose first frame counts otherwise."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    return mp3[: at + 8] + struct.pack(">I", frames) + mp3[at + 12 :]


ID3V2 = b"ID3\x04\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0"
ID3V1 = b"TAG" + b"Song".ljust(125, b"\0")

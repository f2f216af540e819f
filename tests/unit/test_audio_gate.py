"""The gate lets in what it can vouch for and gives a reason for everything else, whatever the bytes."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from genres.audio.containers.riff import W64_MAGIC
from genres.audio.gate import ClipHeader, RejectedAudio, inspect
from genres.settings import PROJECT_DIR

SAMPLE_AUDIO = PROJECT_DIR.parent / "shared/data/gtzan/sample_audio"
PCM, FLOAT, ADPCM, EXTENSIBLE = 1, 3, 2, 0xFFFE
FRAMES = 22_050


def wav(
    *,
    frames: int = FRAMES,
    channels: int = 1,
    rate: int = 22_050,
    bits: int = 16,
    tag: int = PCM,
    block_align: int | None = None,
    data_size: int | None = None,
    riff_size: int | None = None,
    before_data: bytes = b"",
    after_data: bytes = b"",
    sub_format: bytes = b"",
) -> bytes:
    """A RIFF/WAVE file, with whatever lies in its header."""
    align = channels * bits // 8 if block_align is None else block_align
    data = bytes(frames * channels * bits // 8)
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * align & 0xFFFFFFFF, align, bits) + sub_format
    body = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + before_data
    body += b"data" + struct.pack("<I", len(data) if data_size is None else data_size) + data + after_data
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def written(container: str, *, frames: int = FRAMES, channels: int = 1, subtype: str | None = None) -> bytes:
    """A file as libsndfile writes it."""
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, (frames, channels))
    soundfile.write(file, samples, 22_050, format=container, subtype=subtype)
    return file.getvalue()


def extensible(tag: int, tail: str = "000000001000800000aa00389b71") -> bytes:
    return struct.pack("<HHIH", 22, 16, 0, tag) + bytes.fromhex(tail)


def let_in(data: bytes, suffix: str = ".wav") -> ClipHeader:
    return inspect(data, suffix=suffix, max_clip_s=60)


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (wav(), 1),
        (wav(channels=2), 2),
        (wav(bits=8), 1),
        (wav(bits=24, channels=2), 2),
        (wav(bits=32), 1),
        (wav(bits=32, tag=FLOAT), 1),
        (wav(bits=64, tag=FLOAT), 1),
        (wav(tag=EXTENSIBLE, sub_format=extensible(PCM)), 1),
        (wav(before_data=b"LIST\x04\x00\x00\x00INFO"), 1),
        (wav(before_data=b"LIST\x05\x00\x00\x00INFOx\x00"), 1),
        (wav(after_data=b"id3 \x02\x00\x00\x00ab"), 1),
        (wav(bits=8, frames=22_051)[:-1] + b"\x80\x00", 1),
        (wav(riff_size=136), 1),
        (wav(data_size=4 * FRAMES), 1),
        (wav(data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF), 1),
        (wav(data_size=0), 1),
        (wav(data_size=2 * FRAMES - 1), 1),
        (written("WAV", subtype="FLOAT"), 1),
        (written("WAVEX", channels=2), 2),
    ],
)
def test_sound_wav_headers_pass(data: bytes, channels: int) -> None:
    header = let_in(data)
    assert (header.container, header.sample_rate, header.channels) == ("WAV", 22_050, channels)
    assert header.duration_s == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("container", "suffix", "subtype"),
    [("AU", ".au", "PCM_16"), ("AU", ".au", "ULAW"), ("FLAC", ".flac", None), ("MP3", ".MP3", None)],
)
def test_other_containers_pass_under_their_own_suffix(container: str, suffix: str, subtype: str | None) -> None:
    header = let_in(written(container, subtype=subtype), suffix)
    assert header == ClipHeader(container, 22_050, 1, FRAMES)


def test_au_of_unknown_length_is_measured() -> None:
    data = bytearray(written("AU"))
    data[8:12] = b"\xff\xff\xff\xff"
    assert let_in(bytes(data), ".au").frames == FRAMES


HOSTILE = {
    "empty": (b"", ".wav", "the file is empty"),
    "text": (b"these are not the samples you are looking for", ".wav", "not a WAV file"),
    "garbage": (bytes(range(256)) * 4, ".wav", "not a WAV file"),
    "four bytes": (b"RIFF", ".wav", "not a WAV file"),
    "no format chunk": (b"RIFF" + struct.pack("<I", 14) + b"WAVEdata\x02\x00\x00\x00ab", ".wav", "no format chunk"),
    "short format chunk": (
        b"RIFF" + struct.pack("<I", 24) + b"WAVEfmt \x04\x00\x00\x00abcddata\x00\x00\x00\x00",
        ".wav",
        "format chunk of 4 bytes",
    ),
    "no data chunk": (wav(frames=0)[:36].replace(struct.pack("<I", 36), struct.pack("<I", 28), 1), ".wav", "no data"),
    "zero frames": (wav(frames=0), ".wav", "no samples"),
    "truncated": (wav()[:20_000], ".wav", "RIFF header says 44,144 bytes, the file has 20,000"),
    "longer than the bytes": (
        wav(data_size=4 * FRAMES, riff_size=0),
        ".wav",
        "header promises 2.0 s, the file holds 1.0 s",
    ),
    "a little longer than the bytes": (
        wav(data_size=2 * FRAMES + 200, riff_size=0),
        ".wav",
        "header promises 1.005 s, the file holds 1.000 s",
    ),
    "32 channels": (wav(channels=32), ".wav", "32 channels; 1 to 8 are read"),
    "channels without places": (
        wav(channels=4, tag=EXTENSIBLE, sub_format=extensible(PCM)),
        ".wav",
        "4 channels whose",
    ),
    "1,024 channels": (wav(channels=1024, frames=100), ".wav", "1,024 channels"),
    "no channels": (wav(channels=0), ".wav", "0 channels"),
    "1 Hz": (wav(rate=1), ".wav", "1 Hz; 8,000 to 192,000 Hz are read"),
    "4 GHz": (wav(rate=4_000_000_000), ".wav", "4,000,000,000 Hz"),
    "block align": (wav(block_align=3), ".wav", "block align 3 for 1 channels of 16 bits"),
    "33 bits": (wav(bits=33, block_align=5), ".wav", "33 bits"),
    "ADPCM": (wav(tag=ADPCM), ".wav", "format tag 0x0002"),
    "unknown sub-format": (wav(tag=EXTENSIBLE, sub_format=extensible(PCM, "00" * 14)), ".wav", "unknown sub-format"),
    "too long": (wav(frames=61 * 8_000, rate=8_000), ".wav", "61.0 s long; at most 60 s are read"),
    "FLAC named .wav": (written("FLAC"), ".wav", "a FLAC file named .wav"),
    "MP3 named .wav": (written("MP3"), ".wav", "a MP3 file named .wav"),
    "WAV named .mp3": (wav(), ".mp3", "a WAV file named .mp3"),
    "text named .mp3": (b"hello, hello", ".mp3", "not a MP3 file"),
    "FLAC of nothing": (b"fLaC" + bytes(40), ".flac", "libsndfile cannot open it"),
    "ID3 before a WAV": (b"ID3\x04\x00\x00\x00\x00\x00\x02ab" + wav(), ".mp3", "a WAV file named .mp3"),
    "cut AU header": (written("AU")[:20], ".au", "AU header of 20 bytes"),
    "truncated AU": (written("AU")[:20_000], ".au", "header promises 1.0 s, the file holds 0.5 s"),
    "AU data outside": (b".snd" + struct.pack(">5I", 9_999, 4, 3, 22_050, 1) + bytes(4), ".au", "begin at byte 9,999"),
    "AU ADPCM": (b".snd" + struct.pack(">5I", 24, 4, 23, 22_050, 1) + bytes(4), ".au", "AU encoding 23"),
    "unread suffix": (written("OGG"), ".ape", "suffix '.ape'; read are .wav"),
    "MP3 in a WAV": (wav(tag=0x55, bits=16), ".wav", "format tag 0x0055"),
    "a WAV of more bytes than a clip may have": (wav() + bytes(61 * 96_000 * 16), ".wav", "60 s of audio may have"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_are_rejected_with_their_reason(kind: str) -> None:
    data, suffix, reason = HOSTILE[kind]
    with pytest.raises(RejectedAudio) as rejection:
        let_in(data, suffix)
    assert reason in rejection.value.reason


MUTABLE = {".wav": wav(frames=64), ".au": written("AU", frames=64), ".flac": written("FLAC", frames=64)}
MAGIC = [
    b"",
    b"RIFF....WAVE",
    b"RF64....WAVE",
    W64_MAGIC,
    b"FORM....AIFC",
    b"caff",
    b".snd",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\xff\xfb",
]


@given(
    suffix=st.sampled_from(sorted(MUTABLE)),
    cut=st.integers(0, 200),
    changes=st.lists(st.tuples(st.integers(0, 199), st.integers(0, 255)), max_size=6),
)
def test_damaged_headers_are_judged_and_never_crash(suffix: str, cut: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(MUTABLE[suffix])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    data = data[: len(data) - cut] if cut < len(data) else data[:0]
    try:
        header = let_in(bytes(data), suffix)
    except RejectedAudio as rejection:
        assert 0 < len(rejection.reason) < 200
    else:
        assert header.frames > 0
        assert 1 <= header.channels <= 8
        assert 8_000 <= header.sample_rate <= 192_000
        if suffix != ".flac":  # encodings in blocks hold up to five samples in a byte
            assert header.frames * header.channels <= 5 * len(data)


@given(data=st.binary(max_size=300), magic=st.sampled_from(MAGIC))
def test_any_bytes_are_judged(data: bytes, magic: bytes) -> None:
    for suffix in (".wav", ".au", ".flac", ".mp3", ".ogg", ".aiff", ".caf", ".txt", ""):
        try:
            assert let_in(magic + data, suffix).frames > 0
        except RejectedAudio as rejection:
            assert rejection.reason


@pytest.mark.skipif(not SAMPLE_AUDIO.is_dir(), reason="the real GTZAN clips are not beside the project")
def test_real_gtzan_clips_pass() -> None:
    paths = sorted(SAMPLE_AUDIO.rglob("*.wav"))
    assert len(paths) == 30
    for path in paths:
        header = inspect(Path(path).read_bytes(), suffix=path.suffix, max_clip_s=31)
        assert (header.container, header.sample_rate, header.channels) == ("WAV", 22_050, 1)
        assert header.duration_s == pytest.approx(30, abs=0.3)

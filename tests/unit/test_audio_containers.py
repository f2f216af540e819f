"""Odd but sound files are read as librosa reads them, or to their end where librosa is misled; damaged ones are not."""

import io
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from genres.audio.clip_features import clip_features
from genres.audio.decode import decode
from genres.audio.gate import ClipHeader, inspect
from genres.audio.rejections import Reason, RejectedAudio
from genres.settings import PROJECT_DIR
from genres.store import schemas
from tests.audio_files import ID3V1, ID3V2, RATE, chunk, music, pcm_format, riff, with_flac_length, written
from tests.tiny_features import TINY
from tests.tools import needs_ffmpeg

CASES = PROJECT_DIR.parent / "shared/cases"
CLIP = PROJECT_DIR.parent / "shared/data/gtzan/sample_audio/rock/rock.00001.wav"
MONO, STEREO = music(1), music(1, channels=2)
D = (MONO * 32_767).astype("<i2").tobytes()
DATA = chunk(b"data", D)
FMT = pcm_format()
LIST = chunk(b"LIST", b"INFOISFT\x05\0\0\0abcde", pad=False)
DS64 = chunk(b"ds64", struct.pack("<QQQI", 4 + 36 + 24 + 8 + len(D), len(D), len(MONO), 0))
WAV, FLAC, AU = riff(FMT, DATA), written("FLAC", MONO), written("AU", MONO)
AIFF, CAF, OGG = written("AIFF", MONO), written("CAF", MONO), written("OGG", MONO)
OPUS = written("OGG", music(1, 48_000), 48_000, subtype="OPUS")
AU_UNKNOWN = AU[:8] + b"\xff" * 4 + AU[12:]
# A block of tags that promises more than it holds, between the description of the stream and the frames.
FLAC_TAGS = FLAC[:42] + b"\x04" + (20).to_bytes(3, "big") + b"\xff" * 20 + FLAC[42:]
# 22,254.545 Hz as a float of 80 bits.
OLD_RATE = struct.pack(">HQ", 16_383 + 14, round(22_254.545 * 2**49))
COMMON = AIFF[AIFF.index(b"COMM") + 8 :][:18]


def aiff(common: bytes, form: bytes = b"AIFF") -> bytes:
    """The sound of `AIFF` behind another format chunk."""
    sound = (MONO * 32_767).astype(">i2").tobytes()
    body = form + b"COMM" + struct.pack(">I", len(common)) + common + b"SSND"
    return b"FORM" + struct.pack(">I", len(body) + 12 + len(sound)) + body + struct.pack(">I8x", 8 + len(sound)) + sound


def without_alac_flags(caf: bytes) -> bytes:
    """A CAF file in ALAC whose description does not say how many bits its samples had, as ffmpeg writes it."""
    at = caf.index(b"alac") + 4
    return caf[:at] + bytes(4) + caf[at + 4 :]


def samples_of(data: bytes, suffix: str) -> tuple[ClipHeader, np.ndarray]:
    header = inspect(data, suffix=suffix, max_clip_s=600)
    return header, decode(data, sample_rate=RATE, header=header)


def of_bits(data: bytes, bits: int) -> bytes:
    """A WAV file whose format chunk says that its samples have so many bits."""
    at = data.index(b"fmt ") + 8 + 14
    return data[:at] + struct.pack("<H", bits) + data[at + 2 :]


def refusal(data: bytes, suffix: str) -> RejectedAudio:
    with pytest.raises(RejectedAudio) as refused:
        samples_of(data, suffix)
    return refused.value


AS_LIBROSA = {
    "RIFF size short by 4": (riff(FMT, DATA, size=32 + len(D)), ".wav"),
    "RIFF size long by 8": (riff(FMT, DATA, size=44 + len(D)), ".wav"),
    "RIFF size is that of the data": (riff(FMT, DATA, size=len(D)), ".wav"),
    "RIFF size 0": (riff(FMT, DATA, size=0), ".wav"),
    "ffmpeg into a pipe": (riff(FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF), ".wav"),
    "SoX into a pipe": (riff(FMT, chunk(b"data", D, size=0x7FFFF000), size=0x7FFFF024), ".wav"),
    "arecord into a pipe": (riff(FMT, chunk(b"data", D, size=0x80000000), size=0x80000024), ".wav"),
    "data size a little long": (riff(FMT, chunk(b"data", D, size=len(D) + 16)), ".wav"),
    "data size doubled": (riff(FMT, chunk(b"data", D, size=2 * len(D))), ".wav"),
    "data size odd": (riff(FMT, chunk(b"data", D + b"\1")), ".wav"),
    "ID3v1 behind RIFF": (WAV + ID3V1, ".wav"),
    "zeros behind RIFF": (WAV + bytes(2_048), ".wav"),
    "HTML behind RIFF": (WAV + b"\r\n<html><body>404</body></html>\r\n", ".wav"),
    "RF64": (riff(DS64, FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF, magic=b"RF64"), ".wav"),
    "big-endian RIFX": (written("WAV", MONO, endian="BIG"), ".wav"),
    "named .wave": (WAV, ".wave"),
    "Wave64": (written("W64", MONO), ".w64"),
    "Wave64 named .wav": (written("W64", MONO), ".wav"),
    "WAVE_FORMAT_EXTENSIBLE": (written("WAVEX", STEREO, subtype="PCM_24"), ".wav"),
    "12 bits in 16": (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 12)), DATA), ".wav"),
    "20 bits in 24": (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE * 3, 3, 20)), DATA), ".wav"),
    "a byte rate that is wrong": (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 7, 2, 16)), DATA), ".wav"),
    "no block align": (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 0, 16)), DATA), ".wav"),
    "a block align that is wrong": (
        riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 3, 16)), DATA),
        ".wav",
    ),
    "named .bwf": (WAV, ".bwf"),
    "176.4 kHz": (written("WAV", music(1, 176_400), 176_400), ".wav"),
    "192 kHz": (written("WAV", music(1, 192_000), 192_000), ".wav"),
    **{f"WAV in {kind}": (written("WAV", STEREO, subtype=kind), ".wav") for kind in ("ULAW", "ALAW")},
    **{
        f"WAV in {kind} that says {bits} bits": (of_bits(written("WAV", STEREO, subtype=kind), bits), ".wav")
        for kind in ("ULAW", "ALAW")
        for bits in (0, 16)
    },
    **{f"WAV in {kind}": (written("WAV", STEREO, subtype=kind), ".wav") for kind in ("IMA_ADPCM", "MS_ADPCM")},
    **{f"{n} channels in WAV": (written("WAV", music(1, channels=n)), ".wav") for n in range(3, 9)},
    **{f"{n} channels in FLAC": (written("FLAC", music(1, channels=n)), ".flac") for n in range(3, 9)},
    "6 channels in Vorbis": (written("OGG", music(1, channels=6)), ".ogg"),
    "AIFF": (AIFF, ".aiff"),
    "AIFF of an old Macintosh": (AIFF.replace(b"\x40\x0d\xac\x44" + bytes(6), OLD_RATE), ".aiff"),
    "AIFF named .wav": (AIFF, ".wav"),
    "AIFF-C in float": (written("AIFF", STEREO, subtype="FLOAT"), ".aifc"),
    "AIFF in IMA ADPCM": (written("AIFF", MONO, subtype="IMA_ADPCM"), ".aifc"),
    "little-endian AIFF-C": (written("AIFF", MONO, endian="LITTLE"), ".aif"),
    **{
        f"little-endian AIFF-C in {kind}": (written("AIFF", STEREO, subtype=kind, endian="LITTLE"), ".aifc")
        for kind in ("PCM_24", "PCM_32")
    },
    "AIFF-C with a short format chunk": (aiff(COMMON, b"AIFC"), ".aifc"),
    "CAF": (CAF, ".caf"),
    "little-endian CAF": (written("CAF", STEREO, endian="LITTLE", subtype="PCM_24"), ".caf"),
    **{f"CAF in {kind}": (written("CAF", STEREO, subtype=kind), ".caf") for kind in ("ALAC_16", "ALAC_24")},
    "AU of unknown length": (AU_UNKNOWN, ".au"),
    "AU whose data begin nowhere": (AU[:4] + bytes(4) + AU[8:], ".au"),
    "AU whose size counts two samples too many": (AU[:8] + struct.pack(">I", len(D) + 4) + AU[12:], ".au"),
    "little-endian AU": (written("AU", MONO, endian="LITTLE"), ".au"),
    "zeros behind AU": (AU + bytes(100), ".au"),
    "ID3v1 behind FLAC": (FLAC + ID3V1, ".flac"),
    "zeros behind FLAC": (FLAC + bytes(5_000), ".flac"),
    "Vorbis": (OGG, ".ogg"),
    "Vorbis named .oga": (OGG, ".oga"),
    "ID3v1 behind Vorbis": (OGG + ID3V1, ".ogg"),
    "Opus": (OPUS, ".opus"),
    "Opus named .ogg": (OPUS, ".ogg"),
}


@pytest.mark.parametrize("kind", AS_LIBROSA)
def test_read_as_librosa_reads_it(kind: str) -> None:
    data, suffix = AS_LIBROSA[kind]
    header, samples = samples_of(data, suffix)
    expected, _ = librosa.load(io.BytesIO(data), sr=RATE)
    assert len(expected) > 0.6 * RATE
    np.testing.assert_array_equal(samples, expected)
    assert header.frames == soundfile.info(io.BytesIO(data)).frames


UNREADABLE_TO_LIBROSA = {
    "sizes 0": (riff(FMT, chunk(b"data", D, size=0), size=0), ".wav", WAV),
    "data size 0": (riff(FMT, chunk(b"data", D, size=0)), ".wav", WAV),
    "no byte after an odd chunk": (riff(FMT, LIST, DATA), ".wav", WAV),
    "ID3v1 behind a pipe": (riff(FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF) + ID3V1, ".wav", WAV),
    "RF64 into a pipe": (riff(FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF, magic=b"RF64"), ".wav", WAV),
    "FLAC of unknown length": (with_flac_length(FLAC, 0), ".flac", FLAC),
    "FLAC of one frame, of unknown length": (
        with_flac_length(written("FLAC", MONO[:3_000]), 0),
        ".flac",
        written("FLAC", MONO[:3_000]),
    ),
    "AIFF with a long format chunk": (aiff(COMMON + bytes(6)), ".aiff", aiff(COMMON)),
    "FLAC of the longest length there is": (with_flac_length(FLAC, 2**36 - 1), ".flac", FLAC),
    "ALAC of 16 bits in CAF without flags": (
        without_alac_flags(written("CAF", MONO, subtype="ALAC_16")),
        ".caf",
        written("CAF", MONO, subtype="ALAC_16"),
    ),
    "ALAC of 24 bits in CAF without flags": (
        without_alac_flags(written("CAF", STEREO, subtype="ALAC_24")),
        ".caf",
        written("CAF", STEREO, subtype="ALAC_24"),
    ),
    "FLAC that is longer than its header says": (with_flac_length(FLAC, 9_000), ".flac", FLAC),
    "ID3v2 in front of FLAC, of unknown length, ID3v1 behind": (
        ID3V2 + ID3V2 + with_flac_length(FLAC, 0) + ID3V1,
        ".flac",
        FLAC,
    ),
    "ID3v2 in front of RIFF": (ID3V2 + WAV, ".wav", WAV),
    "ID3v2 in front of Ogg": (ID3V2 + OGG, ".ogg", OGG),
    "ID3v2 in front of CAF": (ID3V2 + CAF, ".caf", CAF),
    "ID3v2 in front of AU": (ID3V2 + AU_UNKNOWN, ".au", AU),
    "AU whose size counts the header": (AU[:8] + struct.pack(">I", len(AU)) + AU[12:], ".au", AU),
    "two format chunks": (riff(FMT, FMT, DATA), ".wav", WAV),
    "peaks before the format": (riff(chunk(b"PEAK", bytes(16)), FMT, DATA), ".wav", WAV),
    "peaks of other channels": (riff(FMT, DATA, chunk(b"PEAK", bytes(3))), ".wav", WAV),
    "a short sampler chunk": (riff(FMT, chunk(b"smpl", bytes(16)), DATA), ".wav", WAV),
    "a short loop chunk": (riff(FMT, chunk(b"acid", bytes(8)), DATA), ".wav", WAV),
    "a damaged list": (riff(FMT, chunk(b"LIST", b"\xff" * 12), DATA), ".wav", WAV),
    "a chunk with another alphabet's name": (riff(FMT, chunk(b"\xa9nam", b"Song"), DATA), ".wav", WAV),
    "zeros between the chunks": (riff(FMT, bytes(16), DATA), ".wav", WAV),
    "damaged tags in FLAC": (FLAC_TAGS, ".flac", FLAC),
}


@pytest.mark.parametrize("kind", UNREADABLE_TO_LIBROSA)
def test_read_to_the_end_where_libsndfile_is_misled(kind: str) -> None:
    data, suffix, sound = UNREADABLE_TO_LIBROSA[kind]
    expected, _ = librosa.load(io.BytesIO(sound), sr=RATE)
    np.testing.assert_array_equal(samples_of(data, suffix)[1], expected)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (written("WAV", music(1, 8_000), 8_000, subtype="GSM610"), ".wav"),
        (of_bits(written("WAV", music(1, 8_000), 8_000, subtype="GSM610"), 16), ".wav"),
        (written("AU", MONO, subtype="G721_32"), ".au"),
        (written("WAV", MONO, subtype="G721_32"), ".wav"),
        (of_bits(written("WAV", MONO, subtype="G721_32"), 16), ".wav"),
        *((written("WAV", MONO, subtype=f"NMS_ADPCM_{bits}"), ".wav") for bits in (16, 24, 32)),
        (written("AIFF", MONO, subtype="GSM610"), ".aifc"),
    ],
)
def test_codecs_that_cannot_seek_are_read(data: bytes, suffix: str) -> None:
    """Librosa asks for all frames at once, which soundfile refuses for these."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        expected, rate = file.read(file.frames, dtype="float32"), file.samplerate
    header = inspect(data, suffix=suffix, max_clip_s=600)
    if rate == 8_000:  # libsndfile makes up one more block of GSM 6.10
        expected = expected[:rate]
    np.testing.assert_array_equal(decode(data, sample_rate=rate, header=header), expected)


SURE = {
    "WAV": (WAV, ".wav"),
    "WAV with a list in front and behind": (riff(chunk(b"LIST", b"INFO"), FMT, DATA, chunk(b"LIST", b"INFO")), ".wav"),
    "ADPCM": (written("WAV", MONO, subtype="IMA_ADPCM"), ".wav"),
    "RF64": (riff(DS64, FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF, magic=b"RF64"), ".wav"),
    "Wave64": (written("W64", MONO), ".w64"),
    "AIFF": (AIFF, ".aiff"),
    "CAF": (CAF, ".caf"),
    "AU": (AU, ".au"),
}
UNSURE = {
    "sizes 0": (riff(FMT, chunk(b"data", D, size=0), size=0), ".wav"),
    "a RIFF size that was not filled in": (riff(FMT, DATA, size=0), ".wav"),
    "a size of an earlier moment": (riff(FMT, chunk(b"data", D, size=len(D) - 4_000), size=len(D) - 3_964), ".wav"),
    "RF64 into a pipe": (riff(FMT, chunk(b"data", D, size=0xFFFFFFFF), size=0xFFFFFFFF, magic=b"RF64"), ".wav"),
    "AIFF": (AIFF[:4] + bytes(4) + AIFF[8:], ".aiff"),
    "CAF": (CAF.replace(b"data" + struct.pack(">q", len(D) + 4), b"data" + struct.pack(">q", -1)), ".caf"),
    "AU": (AU_UNKNOWN, ".au"),
}


@pytest.mark.parametrize("kind", SURE)
def test_a_whole_file_is_known_to_be_whole(kind: str) -> None:
    assert inspect(SURE[kind][0], suffix=SURE[kind][1], max_clip_s=600).is_length_sure


@pytest.mark.parametrize("kind", UNSURE)
def test_a_file_that_may_still_be_written_is_known_to_be(kind: str) -> None:
    header = inspect(UNSURE[kind][0], suffix=UNSURE[kind][1], max_clip_s=600)
    assert header.duration_s > 0.9 and not header.is_length_sure


MACE = (
    b"FORM" + struct.pack(">I", 50) + b"AIFCCOMM" + struct.pack(">IHIH", 22, 1, 9, 8) + b"\x40\x0d\xac\x44" + bytes(6)
)
MACE += b"MAC6SSND" + struct.pack(">III", 8, 0, 0)
TWICE = written("OGG", music(0.5)) * 2
REFUSED = {
    "truncated WAV": (WAV[:20_000], ".wav", Reason.CUT_SHORT, "RIFF header says 44,144 bytes, the file has 20,000"),
    "truncated WAV behind a tag": (ID3V2 + WAV[:20_000], ".wav", Reason.CUT_SHORT, "RIFF header says"),
    "truncated µ-law": (written("WAV", MONO, subtype="ULAW")[:9_000], ".wav", Reason.CUT_SHORT, "RIFF header"),
    "truncated ADPCM": (written("WAV", MONO, subtype="IMA_ADPCM")[:9_000], ".wav", Reason.CUT_SHORT, "RIFF header"),
    "truncated Wave64": (written("W64", MONO)[:20_000], ".w64", Reason.CUT_SHORT, "Wave64 header says"),
    "truncated AIFF": (AIFF[:20_000], ".aiff", Reason.CUT_SHORT, "AIFF header says"),
    "truncated CAF": (CAF[:20_000], ".caf", Reason.TRUNCATED, "header promises 1.0 s, the file holds 0.4 s"),
    "truncated AU": (AU[:20_000], ".au", Reason.TRUNCATED, "header promises 1.0 s, the file holds 0.5 s"),
    "truncated Vorbis": (OGG[: len(OGG) // 2], ".ogg", Reason.ENDS_IN_A_PAGE, "the last Ogg page is cut off"),
    "truncated Opus": (OPUS[:-100], ".opus", Reason.ENDS_IN_A_PAGE, "the last Ogg page is cut off"),
    "truncated FLAC": (FLAC[: len(FLAC) // 2], ".flac", Reason.TRUNCATED, "header promises 1.0 s, the file holds"),
    "FLAC that says more": (
        with_flac_length(FLAC, 30 * RATE),
        ".flac",
        Reason.TRUNCATED,
        "promises 30.0 s, the file h",
    ),
    "FLAC cut within the last frame": (FLAC[:-50], ".flac", Reason.CANNOT_DECODE, "libsndfile cannot decode it"),
    "two Vorbis streams": (TWICE, ".ogg", Reason.SEVERAL_STREAMS, "2 streams in one Ogg file"),
    "three minutes behind a header of one": (WAV + 3 * D, ".wav", Reason.MORE_BEHIND, "1.0 s of data, but 132,300 by"),
    "a longer second data chunk": (
        riff(FMT, chunk(b"data", D[:1_000]), chunk(b"data", D[1_000:])),
        ".wav",
        Reason.MORE_BEHIND,
        "header promises 0.0 s of data, but 43,100 bytes follow",
    ),
    "a longer second data chunk, and a tag": (
        riff(FMT, chunk(b"data", D[:1_000]), chunk(b"data", D[1_000:])) + ID3V1,
        ".wav",
        Reason.MORE_BEHIND,
        "header promises 0.0 s of data, but 43,100 bytes follow",
    ),
    "two joined WAV files": (WAV + WAV, ".wav", Reason.MORE_BEHIND, "header promises 1.0 s of data, but 44,136 bytes"),
    "two joined AIFF files": (AIFF + AIFF, ".aiff", Reason.MORE_BEHIND, "header promises 1.0 s of data, but 44,1"),
    "two different format chunks": (
        riff(FMT, pcm_format(rate=44_100), DATA),
        ".wav",
        Reason.FORMAT_CHANGES,
        "changes from format tag 0x0001, 22,050 Hz, 1 channels, 2 bytes to format tag 0x0001, 44,100 Hz",
    ),
    "truncated ALAC in CAF": (written("CAF", MONO, subtype="ALAC_16")[:20_000], ".caf", Reason.CUT_SHORT, "CAF header"),
    "AU that holds much more": (AU + 3 * D, ".au", Reason.MORE_BEHIND, "header promises 1.0 s of data, but"),
    "an empty data chunk and others": (
        riff(FMT, chunk(b"data", b""), LIST + b"\0"),
        ".wav",
        Reason.NO_SAMPLES,
        "no sa",
    ),
    "an empty data chunk and a full one": (
        riff(FMT, chunk(b"data", b""), DATA),
        ".wav",
        Reason.MORE_BEHIND,
        "header promises 0.0 s of data, but 44,100 bytes follow",
    ),
    "format behind the data": (riff(DATA, FMT), ".wav", Reason.NO_FORMAT, "no format chunk before the data"),
    "IMA ADPCM without a whole block": (
        riff(
            chunk(b"fmt ", struct.pack("<HHIIHHHH", 0x11, 1, RATE, 11_100, 512, 4, 2, 1_017)), chunk(b"data", bytes(99))
        ),
        ".wav",
        Reason.LESS_THAN_A_BLOCK,
        "format tag 0x0011: 99 bytes of data are less than one block of 512",
    ),
    "AIFF-C in MACE": (MACE, ".aifc", Reason.UNREAD_ENCODING, "AIFF-C compression 'MAC6'; read are PCM"),
    "FLAC named .ogg": (FLAC, ".ogg", Reason.OTHER_CONTAINER, "a FLAC file named .ogg"),
    "WAV named .aiff": (WAV, ".aiff", Reason.OTHER_CONTAINER, "a WAV file named .aiff"),
    "ID3v2 and nothing else": (ID3V2, ".mp3", Reason.NOT_AUDIO, "not a MP3 file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_and_foreign_files_are_refused(kind: str) -> None:
    data, suffix, code, text = REFUSED[kind]
    refused = refusal(data, suffix)
    assert (refused.code, text in refused.reason) == (code, True), refused.reason


@pytest.mark.parametrize("last", [b"mdhd", b"esds"])
def test_an_mp4_whose_last_box_lacks_what_it_should_hold_is_refused(last: bytes) -> None:
    """The box is the file's last: what lies behind it in other files, its reader does not find."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)

    header = box(b"mdhd", struct.pack(">12xII", RATE, RATE)) if last == b"esds" else box(b"mdhd")
    descriptor = struct.pack(">4xBBHB", 3, 0, 0, 0x40)  # says that an address follows
    sound = box(b"mp4a", struct.pack(">8x8xH6xI", 2, RATE << 16), box(b"esds", descriptor))
    tables = box(b"minf", box(b"stbl", box(b"stsd", struct.pack(">4xI", 1), sound)))
    media = box(b"mdia", box(b"hdlr", bytes(8), b"soun"), header, tables if last == b"esds" else b"")
    data = box(b"ftyp", b"M4A ") + box(b"moov", box(b"trak", media))
    assert refusal(data, ".m4a").code is Reason.NO_FORMAT


def test_flac_that_is_much_longer_than_its_header_says_is_refused_by_its_true_length() -> None:
    hours = written("FLAC", np.tile(MONO, (800, 1)))
    refused = refusal(with_flac_length(hours, 60 * RATE), ".flac")
    assert refused.reason == "800.0 s long; at most 600 s are read (GENRES_MAX_CLIP_S)"


def test_vorbis_whose_last_page_says_less_is_refused() -> None:
    long = written("OGG", music(20))
    last = long.rindex(b"OggS")
    assert refusal(long[: last + 6] + struct.pack("<q", RATE) + long[last + 14 :], ".ogg").code is Reason.POSITIONS


@needs_ffmpeg
@pytest.mark.parametrize("how", ["-c:a flac", "-c:a flac -frame_size 192", "-c:a vorbis -strict -2 -ac 2"])
def test_ogg_as_ffmpeg_writes_it_is_read_whole(tmp_path: Path, how: str) -> None:
    """Its FLAC is none that libsndfile opens; its own Vorbis encoder cuts off much of the last packet."""
    (tmp_path / "in.wav").write_bytes(WAV)
    for command in (["-i", "in.wav", *how.split(), "out.ogg"], ["-i", "out.ogg", "-ac", "1", "-f", "f32le", "out.raw"]):
        subprocess.run(["ffmpeg", "-loglevel", "error", *command], cwd=tmp_path, check=True)
    header, samples = samples_of((tmp_path / "out.ogg").read_bytes(), ".ogg")
    expected = np.fromfile(tmp_path / "out.raw", np.float32)
    assert header.frames == len(samples) == len(expected)
    assert np.corrcoef(samples, expected)[0, 1] > 0.999


@needs_ffmpeg
@pytest.mark.parametrize("begin", [0.5, 1.0, 1.013])
def test_opus_that_was_cut_without_encoding_it_again_is_read_whole(tmp_path: Path, begin: float) -> None:
    (tmp_path / "whole.opus").write_bytes(written("OGG", music(3, 48_000), 48_000, subtype="OPUS"))
    cut = ["ffmpeg", "-nostdin", "-loglevel", "error", "-ss", str(begin), "-i", "whole.opus", "-c", "copy", "cut.opus"]
    subprocess.run(cut, check=True, cwd=tmp_path)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(tmp_path / "cut.opus")
    whole, part = (samples_of((tmp_path / name).read_bytes(), ".opus")[1] for name in ("whole.opus", "cut.opus"))
    assert len(part) / RATE == pytest.approx(3 - begin, abs=0.53)  # ffmpeg cuts between pages
    np.testing.assert_allclose(part[-RATE:], whole[-RATE:], atol=1e-3)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".flac", ".oga"])
def test_flac_that_was_cut_out_of_a_longer_one_is_read_from_its_first_frame_on(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.wav").write_bytes(written("WAV", music(9)))
    ffmpeg = ["ffmpeg", "-nostdin", "-loglevel", "error"]
    subprocess.run([*ffmpeg, "-i", "in.wav", "long.flac"], cwd=tmp_path, check=True)
    cut = [*ffmpeg, "-ss", "4", "-i", "long.flac", "-t", "2", "-c", "copy", f"cut{suffix}"]
    subprocess.run(cut, cwd=tmp_path, check=True)
    header, samples = samples_of((tmp_path / f"cut{suffix}").read_bytes(), suffix)
    command = [*ffmpeg, "-i", f"cut{suffix}", "-f", "f32le", "-"]
    expected = np.frombuffer(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout, np.float32)
    np.testing.assert_array_equal(samples, expected)
    assert 2 <= header.duration_s < 2.5


@needs_ffmpeg
@pytest.mark.parametrize("how", ["", "-sample_fmt s32p"])
def test_alac_in_caf_as_ffmpeg_writes_it(tmp_path: Path, how: str) -> None:
    (tmp_path / "in.wav").write_bytes(WAV)
    command = ["ffmpeg", "-loglevel", "error", "-i", "in.wav", "-c:a", "alac", *how.split(), "x.caf"]
    subprocess.run(command, cwd=tmp_path, check=True)
    np.testing.assert_array_equal(samples_of((tmp_path / "x.caf").read_bytes(), ".caf")[1], samples_of(WAV, ".wav")[1])


@needs_ffmpeg
def test_flac_in_ogg_is_judged_as_flac(tmp_path: Path) -> None:
    (tmp_path / "in.wav").write_bytes(WAV)
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", "in.wav", "-c:a", "flac", "x.oga"], cwd=tmp_path, check=True)
    data = (tmp_path / "x.oga").read_bytes()
    at = data.index(b"fLaC")
    unknown = data[:at] + with_flac_length(data[at:], 0)
    np.testing.assert_array_equal(samples_of(unknown, ".oga")[1], samples_of(WAV, ".wav")[1])
    assert refusal(data[: data.rindex(b"OggS") + 40], ".oga").code is Reason.ENDS_IN_A_PAGE
    longer = data[:at] + with_flac_length(data[at:], 30 * RATE)
    assert refusal(longer, ".oga").code is Reason.TRUNCATED


def test_ambisonics_are_not_averaged() -> None:
    guid = bytes.fromhex("0100000021 07d3118644c8c1ca000000")
    layout = struct.pack("<HHIIHHHHI", 0xFFFE, 4, RATE, RATE * 8, 8, 16, 22, 16, 0) + guid
    assert refusal(riff(chunk(b"fmt ", layout), DATA), ".wav").code is Reason.CHANNEL_LAYOUT


def test_a_reason_has_a_code_and_survives_pickling() -> None:
    import pickle

    refused = refusal(WAV[:20_000], ".wav")
    copied = pickle.loads(pickle.dumps(refused))  # noqa: S301
    assert (copied.code.code, copied.reason) == ("cut_short", refused.reason)
    assert copied.columns == {"reason": refused.reason, "reason_code": "cut_short"}


def test_every_code_fits_its_column() -> None:
    longest = max(len(reason.code) for reason in Reason)
    for table in (schemas.QUARANTINE, schemas.STREAM_QUARANTINE):
        (column,) = (column for column in table.columns if column.name == "reason_code")
        assert column.max_length and longest <= column.max_length


def test_each_reason_is_documented() -> None:
    page = (PROJECT_DIR / "docs/audio.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page.partition("## Reasons")[2], re.MULTILINE))
    assert rows == {reason.code: reason.value for reason in Reason}


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases and the clip that they are made from are not there")
def test_made_cases_end_as_expected(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CASES / "make_wavs.py", tmp_path, CLIP], check=True, capture_output=True)
    like_gtzan = replace(TINY, sample_rate=RATE, min_samples=2_048)
    wrong = {}
    for line in (tmp_path / "expect.tsv").read_text().splitlines():
        name, expected = line.split("\t")
        path = tmp_path / name
        try:
            clip_features(path.read_bytes(), file_suffix=path.suffix, feature_set=like_gtzan, max_clip_s=600)
            found = "ok"
        except RejectedAudio as refused:
            found = f"refuse: {refused.reason}"
        if expected != "either" and not found.startswith(expected):
            wrong[name] = found
    assert wrong == {}

"""What ffmpeg decodes: whole files are read to their end, others refused with a reason, and its means are limited."""

import errno
import functools
import pickle
import random
import signal
import struct
import subprocess
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genres.audio import ffmpeg
from genres.audio.clip_features import Clip, clip_features, clip_row, features_of_files
from genres.audio.decode import decode
from genres.audio.feature_set import Measured
from genres.audio.gate import inspect
from genres.audio.known_good import known_good_wav
from genres.audio.rejections import ClipOrMachineError, NotJudgedError, Reason, RejectedAudio
from spark.isolation import is_workers_death
from tests.audio_files import ID3V1, ID3V2, music, written
from tests.fuzz_audio import flipped
from tests.tiny_features import TINY, tiny
from tests.tools import needs_ffmpeg

SECONDS, RATE = 2.0, 44_100
FLIPS = 25
"""Of each format: a process for each that passes the gate."""


@functools.cache
def encoded(name: str, *how: str, rate: int = RATE, channels: int = 2) -> bytes:
    """Music as ffmpeg encodes it."""
    with tempfile.TemporaryDirectory() as folder:
        wav, file = Path(folder) / "in.wav", Path(folder) / name
        wav.write_bytes(written("WAV", music(SECONDS, rate, channels), rate))
        subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-i", wav, *how, file], check=True)
        return file.read_bytes()


GOOD = {
    "AAC in MP4": (".m4a", ("a.m4a",), {}),
    "AAC in MP4, its tables first": (".m4a", ("a.m4a", "-movflags", "+faststart"), {}),
    "AAC in MP4, mono": (".m4a", ("a.m4a",), {"channels": 1, "rate": 22_050}),
    "AAC in MP4, six channels": (".m4a", ("a.m4a",), {"channels": 6}),
    "AAC in QuickTime's MP4": (".m4a", ("a.mov", "-c:a", "aac"), {}),
    "ALAC": (".m4a", ("a.m4a", "-c:a", "alac"), {}),
    "ALAC at 96 kHz": (".m4a", ("a.m4a", "-c:a", "alac"), {"rate": 96_000}),
    "AAC at 96 kHz": (".m4a", ("a.m4a",), {"rate": 96_000}),
    "ADTS": (".aac", ("a.aac",), {}),
    "ADTS, mono": (".aac", ("a.aac",), {"channels": 1, "rate": 22_050}),
    "WMA 1": (".wma", ("a.wma", "-c:a", "wmav1"), {}),
    "WMA 2": (".wma", ("a.wma", "-c:a", "wmav2"), {}),
}


@needs_ffmpeg
@pytest.mark.parametrize(("suffix", "how", "layout"), GOOD.values(), ids=GOOD)
def test_the_sound_that_was_encoded_comes_out(suffix: str, how: tuple[str, ...], layout: dict[str, int]) -> None:
    rate, channels = layout.get("rate", RATE), layout.get("channels", 2)
    data = encoded(*how, **layout)
    header = inspect(data, suffix=suffix, max_clip_s=600)
    assert header.sample_rate == rate and header.duration_s == pytest.approx(SECONDS, abs=0.1)
    samples = decode(data, sample_rate=rate, header=header)
    assert samples.dtype == np.float32 and len(samples) / rate == pytest.approx(SECONDS, abs=0.1)
    before = music(SECONDS, rate, channels).mean(axis=1)
    # Encoders shift the sound by a block or two, and leave out much of its noise; that of something else correlates
    # by less than .3.
    part = slice(rate // 2, rate)
    shifts = range(-3_000, 3_001) if len(samples) != len(before) or "wma" in suffix else range(-1, 2)
    best = max(np.corrcoef(before[part], samples[part.start + shift : part.stop + shift])[0, 1] for shift in shifts)
    assert best > 0.7
    other = np.random.default_rng(1).permutation(before)[part]
    assert max(np.corrcoef(other, samples[part.start + n : part.stop + n])[0, 1] for n in shifts) < 0.3


FILES = {".m4a": ("a.m4a",), ".aac": ("a.aac",), ".wma": ("a.wma", "-c:a", "wmav2")}


@needs_ffmpeg
@pytest.mark.parametrize("suffix", FILES)
def test_features_and_tags_around_it(suffix: str) -> None:
    data = encoded(*FILES[suffix])
    found = clip_features(data, file_suffix=suffix.upper(), feature_set=TINY, max_clip_s=600)
    assert found.values and found.length > 0
    if suffix == ".aac":
        tagged = clip_features(ID3V2 + data + ID3V1, file_suffix=suffix, feature_set=TINY, max_clip_s=600)
        assert tagged.values == found.values


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".m4a", ".wma"])
def test_a_tag_in_front_changes_no_place_in_the_file(suffix: str) -> None:
    data = encoded(*FILES[suffix])
    np.testing.assert_array_equal(samples(ID3V2 + data, suffix), samples(data, suffix))


@needs_ffmpeg
def test_adts_may_begin_within_a_frame_and_have_gaps() -> None:
    data = encoded(*FILES[".aac"])
    frames = [found for found in range(len(data)) if data.startswith(data[:2], found) and is_frame(data, found)]
    whole = samples(data, ".aac")
    late = samples(data[100:], ".aac")
    assert len(whole) - len(late) == 1_024
    np.testing.assert_array_equal(late, samples(data[frames[1] :], ".aac"))
    middle = frames[len(frames) // 2]
    np.testing.assert_array_equal(samples(data[:middle] + b"HTTP/1.1 200 OK\r\n" + data[middle:], ".aac"), whole)
    for behind in (b"garbage" * 100, b"<html>", ID3V1, data[: frames[1] // 2], data[:3]):
        np.testing.assert_array_equal(samples(data + behind, ".aac"), whole)
    refused = refusal(data + b"garbage" * len(data), ".aac")
    assert refused.reason == f"header promises {len(whole) / RATE:.1f} s of data, but {7 * len(data):,} bytes follow"


def is_frame(data: bytes, at: int) -> bool:
    """Whether another frame, or the end of the file, is where this one says that it ends."""
    end = at + ((data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5)
    return end == len(data) or data.startswith(data[:2], end)


def samples(data: bytes, suffix: str) -> np.ndarray:
    return decode(data, sample_rate=RATE, header=inspect(data, suffix=suffix, max_clip_s=600))


def refusal(data: bytes, suffix: str, *, max_clip_s: float = 600) -> RejectedAudio:
    with pytest.raises(RejectedAudio) as refused:
        decode(data, sample_rate=22_050, header=inspect(data, suffix=suffix, max_clip_s=max_clip_s))
    return refused.value


def with_box(data: bytes, kind: bytes, offset: int, new: bytes) -> bytes:
    """The file with other bytes so far behind the name of a box."""
    at = data.index(kind) + 4 + offset
    return data[:at] + new + data[at + len(new) :]


def times(data: bytes, factor: float) -> bytes:
    """The file with all durations of its tables multiplied."""
    for kind, offset in ((b"stts", 12), (b"elst", 8)):
        (units,) = struct.unpack_from(">I", data, data.index(kind) + 4 + offset)
        data = with_box(data, kind, offset, struct.pack(">I", round(units * factor)))
    return data


@needs_ffmpeg
def test_what_is_refused() -> None:
    m4a, aac, wma = (encoded(*FILES[suffix]) for suffix in FILES)
    assert inspect(times(m4a, 1), suffix=".m4a", max_clip_s=600).duration_s == pytest.approx(SECONDS)
    for suffix, data in zip(FILES, (m4a, aac, wma), strict=True):
        for left in () if suffix == ".aac" else (0.3, 0.7, 0.99):  # a stream of frames may end anywhere
            assert refusal(data[: int(len(data) * left)], suffix).code in {Reason.CUT_SHORT, Reason.NO_FORMAT}
        assert refusal(data, suffix, max_clip_s=1).code == Reason.TOO_LONG
        assert refusal(data, ".wav").code == Reason.OTHER_CONTAINER
        assert refusal(data, ".mp3").code == Reason.OTHER_CONTAINER
    for playlist in (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"):
        for suffix in FILES:
            assert refusal(playlist, suffix).code == Reason.NOT_AUDIO
    assert refusal(encoded("f.m4a", "-movflags", "frag_keyframe+empty_moov"), ".m4a").code == Reason.UNREAD_ENCODING
    assert refusal(m4a.replace(b"mp4a", b"enca"), ".m4a").code == Reason.UNREAD_ENCODING
    # Lengths that lie: three hours in a second's bytes, more sound than is said, less than is said.
    assert refusal(times(m4a, 5_000), ".m4a").code == Reason.TOO_LONG
    assert refusal(times(m4a, 100), ".m4a").code == Reason.TRUNCATED
    assert refusal(with_box(m4a, b"stsz", 8, struct.pack(">I", 2**31)), ".m4a").code == Reason.TABLES
    assert refusal(with_box(m4a, b"stsz", 4, struct.pack(">I", 2**31)), ".m4a").code == Reason.TABLES
    assert refusal(with_box(m4a, b"stts", 4, struct.pack(">I", 2**31)), ".m4a").code == Reason.TABLES
    assert refusal(with_box(m4a, b"stts", 8, struct.pack(">I", 2**31)), ".m4a").code == Reason.TABLES
    assert refusal(with_box(m4a, b"stco", 8, struct.pack(">I", 2**31)), ".m4a").code == Reason.DATA_OUTSIDE
    assert refusal(with_box(m4a, b"mdhd", 12, bytes(4)), ".m4a").code == Reason.NO_FORMAT
    assert refusal(aac + encoded("b.aac", rate=22_050), ".aac").code == Reason.FORMAT_CHANGES
    at = wma.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    for play_s, reason in ((60, Reason.TRUNCATED), (0.5, Reason.LONGER_THAN_HEADER), (3 * 3600, Reason.TOO_LONG)):
        lying = wma[: at + 64] + struct.pack("<Q", round((play_s + 3.1) * 1e7)) + wma[at + 72 :]
        assert refusal(lying, ".wma").code == reason
    assert refusal(wma[: at + 88] + b"\1" + wma[at + 89 :], ".wma").code == Reason.UNKNOWN_LENGTH


@needs_ffmpeg
@pytest.mark.parametrize("suffix", FILES)
def test_flipped_bits_end_in_features_or_a_reason(suffix: str) -> None:
    data, ends = encoded(*FILES[suffix]), set()
    for number in range(FLIPS):
        case = flipped(data, random.Random(f"{suffix} {number}"))
        try:
            clip_features(case, file_suffix=suffix, feature_set=TINY, max_clip_s=600)
        except RejectedAudio as refused:
            assert 0 < len(refused.reason) < 250
            ends.add(refused.code)
        else:
            ends.add("features")
    assert len(ends) > 1  # neither a gate that is shut nor one that is open


def program(folder: Path, lines: str) -> None:
    """Put a program in the place of ffmpeg."""
    (folder / "ffmpeg").write_text(f"#!/bin/sh\n{lines}\n")
    (folder / "ffmpeg").chmod(0o755)


AU_HEAD = r"printf '.snd\0\0\0\030\377\377\377\377\0\0\0\006\0\0\254\104\0\0\0\002'"


ADTS = b"\xff\xf1\x50\x80\x06\x1f\xfc" + bytes(41)
"""A frame of AAC at 44.1 kHz, stereo, that the gate lets in."""


def test_ffmpeg_has_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ADTS * 40
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("FFREPORT", f"file={tmp_path}/report")
    # More than was promised is not taken, however much there is.
    program(tmp_path, f"{AU_HEAD}\nexec cat /dev/zero")
    assert refusal(data, ".aac").code == Reason.LONGER_THAN_HEADER
    # Nor are memory and messages without end.
    program(tmp_path, "sleep 0.2\nexec tail /dev/zero")
    assert refusal(data, ".aac").code == Reason.FFMPEG
    program(tmp_path, "sleep 0.2\nexec cat /dev/zero >&2")
    with pytest.raises(ClipOrMachineError, match=f"signal {signal.SIGXFSZ:d}:"):
        samples(data, ".aac")
    monkeypatch.setattr(ffmpeg, "_LEAST_S", 0)
    began = time.monotonic()
    program(tmp_path, f"{AU_HEAD}\nexec sleep 3600")
    with pytest.raises(ClipOrMachineError, match=f"signal {signal.SIGKILL:d}:"):
        samples(data, ".aac")
    assert time.monotonic() - began < 600  # far below the hour
    program(tmp_path, f'{AU_HEAD}\necho "$FFREPORT$*" > {tmp_path}/asked\nexec cat /dev/zero')
    assert refusal(data, ".aac").code == Reason.LONGER_THAN_HEADER
    asked = (tmp_path / "asked").read_text()
    assert "-nostdin" in asked and "-protocol_whitelist file,pipe" in asked and "report" not in asked
    # Its word, without the place in memory.
    program(tmp_path, 'echo "[aac @ 0x55d] Prediction is not allowed" >&2; exit 1')
    assert refusal(data, ".aac").reason == "ffmpeg cannot decode it: Prediction is not allowed"


def row_of(data: bytes) -> dict[str, Any]:
    return clip_row(Clip({}, ".aac", data), feature_set=TINY, max_clip_s=60)


@pytest.mark.parametrize("lines", ["kill -9 $$", f"{AU_HEAD}\nkill -9 $$"])
def test_a_signal_that_ends_ffmpeg_is_no_verdict(lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program(tmp_path, lines)
    with pytest.raises(ClipOrMachineError, match=r"^ffmpeg was ended by signal 9: the clip or the machine") as ended:
        row_of(ADTS * 40)
    assert str(pickle.loads(pickle.dumps(ended.value))) == str(ended.value)  # noqa: S301
    as_spark_says_it = RuntimeError("".join(traceback.format_exception(ended.value)))
    assert is_workers_death(as_spark_says_it), "so that the clip is computed alone"
    program(tmp_path, "echo 'it is garbage' >&2; exit 1")
    assert row_of(ADTS * 40)["reason"] == "ffmpeg cannot decode it: it is garbage"


def test_a_full_disk_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The known-good clip, which takes no file, would pass."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/genres-clip-1")

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program(tmp_path, f"{AU_HEAD}\nexec head -c 327680 /dev/zero")
    assert row_of(ADTS * 40)["reason"] is None
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(NotJudgedError, match="No space left on device: '/tmp/genres-clip-1'") as told:
        row_of(ADTS * 40)
    assert not is_workers_death(told.value), "an outage: computed alone, the clip would only be blamed"
    (tmp_path / "a.aac").write_bytes(ADTS * 40)
    (tmp_path / "b.wav").write_bytes(known_good_wav())
    paths = [tmp_path / "a.aac", tmp_path / "b.wav"]
    first, second = features_of_files(paths, feature_set=TINY, max_clip_s=60, workers=1)
    assert first["reason"] == str(told.value), "one file ends no folder"
    assert second["reason"] is None


def test_memory_that_runs_out_is_no_verdict() -> None:
    """The known-good clip, which is short, would pass."""

    def needs_memory(samples: np.ndarray) -> Measured:
        if len(samples) > 10 * TINY.sample_rate:
            raise MemoryError
        return tiny(samples)

    clip = Clip({}, ".wav", known_good_wav(30))
    with pytest.raises(ClipOrMachineError, match="not enough memory") as told:
        clip_row(clip, feature_set=replace(TINY, kernel=needs_memory), max_clip_s=60)
    assert is_workers_death(told.value)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", FILES)
def test_without_ffmpeg_one_line_says_what_is_missing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(*FILES[suffix])
    header = inspect(data, suffix=suffix, max_clip_s=600)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RejectedAudio) as refused:
        inspect(data, suffix=suffix, max_clip_s=600)
    assert refused.value.reason == (
        f"{suffix} files are read with ffmpeg, which is not installed here (apt install ffmpeg)"
    )
    with pytest.raises(RejectedAudio, match="not installed here"):
        decode(data, sample_rate=22_050, header=header)

"""MPEG audio is decoded to its last frame, whatever its first one says, or refused."""

import io
import shutil
import subprocess
from pathlib import Path

import librosa
import numpy as np
import pytest

from genres.audio.decode import decode
from genres.audio.gate import inspect
from genres.audio.rejections import Reason, RejectedAudio
from tests.audio_files import ID3V1, ID3V2, music, with_count, without_count, written
from tests.tools import needs_ffmpeg

SECONDS = 4
GARBAGE = np.random.default_rng(3).integers(0, 256, 5_000, np.uint8).tobytes()


def mp3(
    rate: int = 44_100, channels: int = 2, mode: str = "CONSTANT", level: float = 0.5, seconds: float = SECONDS
) -> bytes:
    samples = music(seconds, rate, channels)
    # Half of it almost silent, so that a variable bit rate varies.
    samples[len(samples) // 2 :] *= 0.001
    return written("MP3", samples, rate, bitrate_mode=mode, compression_level=level)


def read(data: bytes, sample_rate: int) -> np.ndarray:
    return decode(data, sample_rate=sample_rate, header=inspect(data, suffix=".mp3", max_clip_s=600))


def refusal(data: bytes) -> RejectedAudio:
    with pytest.raises(RejectedAudio) as refused:
        read(data, 44_100)
    return refused.value


CONSTANT, VARIABLE = mp3(), mp3(mode="VARIABLE", level=0.7)
TAG_OF_PICTURE = b"ID3\x03\0\0\0\x04\0\0" + bytes(65_536)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_without_a_count_every_frame_is_decoded(rate: int, channels: int, mode: str) -> None:
    counted = mp3(rate, channels, mode)
    bare = without_count(counted)
    samples, with_a_count = read(bare, rate), read(counted, rate)
    assert len(samples) % 576 == 0
    # The count's frame also says what the encoder put in front; without it, that is left in.
    lead = next(n for n in range(576, 3_000) if np.array_equal(samples[n : n + 999], with_a_count[:999]))
    together = min(len(samples) - lead, len(with_a_count))
    assert len(with_a_count) - together <= 0
    np.testing.assert_array_equal(samples[lead : lead + together], with_a_count[:together])


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(
    ("before", "behind"),
    [(b"", ID3V1), (ID3V2, b""), (TAG_OF_PICTURE, ID3V1), (bytes(1_000), bytes(5_000)), (b"", GARBAGE)],
)
def test_what_lies_around_the_frames_changes_nothing(mode: str, before: bytes, behind: bytes) -> None:
    counted = CONSTANT if mode == "CONSTANT" else VARIABLE
    for stream in (counted, without_count(counted)):
        np.testing.assert_array_equal(read(before + stream + behind, 44_100), read(stream, 44_100))


@pytest.mark.parametrize("data", [CONSTANT, VARIABLE, ID3V2 + VARIABLE + ID3V1], ids=["constant", "variable", "tags"])
def test_with_a_right_count_equal_to_librosa(data: bytes) -> None:
    for rate in (22_050, 44_100):
        np.testing.assert_array_equal(read(data, rate), librosa.load(io.BytesIO(data), sr=rate)[0])


def test_a_count_that_is_too_small_does_not_cut() -> None:
    bare = read(without_count(VARIABLE), 44_100)
    np.testing.assert_array_equal(read(with_count(VARIABLE, 40), 44_100), bare)


@pytest.mark.parametrize("counted", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_a_first_frame_that_does_not_say_how_many_follow_is_no_sound(counted: bytes) -> None:
    at = max(counted.find(b"Xing"), counted.find(b"Info")) + 4
    without_number = counted[:at] + bytes(4) + counted[at + 4 :]
    np.testing.assert_array_equal(read(without_number, 44_100), read(without_count(counted), 44_100))


@pytest.mark.parametrize("suffix", [".mp2", ".mpga", ".MP3"])
def test_other_names_of_mpeg_audio(suffix: str) -> None:
    assert inspect(CONSTANT, suffix=suffix, max_clip_s=600).container == "MP3"


def test_fraunhofers_count_that_is_too_large_means_that_the_end_is_missing() -> None:
    bare = without_count(VARIABLE)
    counted = 5 + len(read(bare, 44_100)) // 1_152
    lead = bytearray(417)
    lead[:4] = b"\xff\xfb\x90\x04"
    lead[36:54] = b"VBRI" + bytes(10) + counted.to_bytes(4)
    refused = refusal(bytes(lead) + bare)
    assert refused.code is Reason.TRUNCATED
    seconds = counted * 1_152 / 44_100
    assert f"promises {seconds:.1f} s, the file holds {seconds - 5 * 1_152 / 44_100:.1f} s" in refused.reason
    lead[50:54] = (counted - 5).to_bytes(4)
    np.testing.assert_array_equal(read(bytes(lead) + bare, 44_100), read(bare, 44_100))


def test_hours_behind_a_count_of_a_minute_are_refused_by_their_true_length() -> None:
    refused = refusal(with_count(VARIABLE, 2_297) + without_count(VARIABLE) * 200)
    assert refused.code is Reason.TOO_LONG
    assert 800 < float(refused.reason.split()[0]) < 820


def test_joined_files_are_read_whole() -> None:
    whole = read(CONSTANT + ID3V2 + VARIABLE, 44_100)
    assert len(whole) / 44_100 == pytest.approx(2 * SECONDS, abs=0.15)
    # So is what lies behind more garbage than a decoder passes over.
    assert len(read(without_count(CONSTANT) + GARBAGE + without_count(CONSTANT), 44_100)) == 2 * len(
        read(without_count(CONSTANT), 44_100)
    )


@pytest.mark.parametrize("counted", [CONSTANT, VARIABLE], ids=["constant", "variable"])
@pytest.mark.parametrize("with_count", [False, True])
@pytest.mark.parametrize("between", [b"\0\0", b"\x02StreamTitle='a - b';".ljust(33, b"\0"), GARBAGE[:999]], ids=len)
def test_garbage_between_frames_hides_no_sound(counted: bytes, with_count: bool, between: bytes) -> None:
    """Libsndfile's decoder finds its way over some of it, and stops at other. A radio's titles come every 8 KiB."""
    data = counted if with_count else without_count(counted)
    parts = [data[at : at + 8_192] for at in range(0, len(data), 8_192)]
    found, whole = read(between.join(parts), 44_100), read(data, 44_100)
    assert abs(len(found) - len(whole)) <= 1_152
    first = len(read(without_count(parts[0]), 44_100)) - 3 * 1_152
    np.testing.assert_array_equal(found[:first], whole[:first])


def test_what_a_decoder_finds_its_way_over_is_decoded_as_librosa_does() -> None:
    data = CONSTANT[:9_000] + GARBAGE[:300] + CONSTANT[9_000:]
    expected, _ = librosa.load(io.BytesIO(data), sr=44_100)
    assert len(expected) > 0.9 * SECONDS * 44_100
    np.testing.assert_array_equal(read(data, 44_100), expected)


def test_a_count_that_was_not_filled_in_is_none() -> None:
    np.testing.assert_array_equal(read(with_count(CONSTANT, 2**32 - 1), 44_100), read(without_count(CONSTANT), 44_100))


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_streams_are_read(frames: int) -> None:
    counted = mp3(48_000)
    bare = without_count(counted)
    size = bare.index(bare[:3], 4)
    samples = read(bare[: frames * size], 48_000)
    assert len(samples) == frames * 1_152
    one, behind_a_count = bare[:size], counted[: len(counted) - len(bare) + size]
    np.testing.assert_array_equal(read(with_count(behind_a_count, 1), 48_000), read(one, 48_000))
    assert refusal(behind_a_count).code is Reason.TRUNCATED
    np.testing.assert_array_equal(samples, read(bare, 48_000)[: len(samples)])


def test_a_stream_that_begins_within_a_frame_is_read() -> None:
    bare = without_count(CONSTANT)
    assert len(read(bare, 44_100)) - len(read(bare[100:], 44_100)) == 1_152


def test_a_stream_without_a_count_may_end_anywhere() -> None:
    bare = without_count(CONSTANT)
    samples = read(bare[:-1_000], 44_100)
    np.testing.assert_array_equal(samples, read(bare, 44_100)[: len(samples)])


@pytest.mark.parametrize("lost", [100, 1_000, 20_000])
def test_a_count_that_is_too_large_means_that_the_end_is_missing(lost: int) -> None:
    refused = refusal(CONSTANT[:-lost])
    assert refused.code is Reason.TRUNCATED
    promised, held = (word for word in refused.reason.split() if word.replace(".", "").isdigit())
    assert float(promised) == pytest.approx(SECONDS, abs=0.06) and float(held) < float(promised)


@pytest.mark.parametrize("other", [mp3(22_050), mp3(channels=1)], ids=["rate", "channels"])
def test_another_format_on_the_way_is_refused(other: bytes) -> None:
    refused = refusal(without_count(CONSTANT) + without_count(other))
    assert refused.code is Reason.FORMAT_CHANGES
    assert "changes from layer III, 44,100 Hz, stereo to layer III" in refused.reason


@needs_ffmpeg
@pytest.mark.parametrize("how", ["-b:a 128k", "-q:a 4", "-q:a 9", "-c:a mp2 -b:a 192k"])
def test_as_long_as_ffmpeg_says(tmp_path: Path, how: str) -> None:
    (tmp_path / "in.wav").write_bytes(written("WAV", music(SECONDS, 44_100, 2), 44_100))
    path = tmp_path / ("a.mp2" if "mp2" in how else "a.mp3")
    quiet = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i"]
    tags = [] if "mp2" in how else ["-write_xing", "0"]
    subprocess.run([*quiet, tmp_path / "in.wav", *how.split(), *tags, path], check=True)
    raw = subprocess.run([*quiet, path, "-f", "f32le", "-"], check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.float32).reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(read(path.read_bytes(), 44_100), expected, atol=1e-4)


@pytest.mark.skipif(shutil.which("mpg123") is None, reason="mpg123 is not installed")
@pytest.mark.parametrize("counted", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_the_same_samples_as_mpg123(tmp_path: Path, counted: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(without_count(counted))
    command = ["mpg123", "-q", "-e", "f32", "-s", tmp_path / "a.mp3"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    expected = np.frombuffer(raw, np.float32).reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(read(without_count(counted), 44_100), expected, atol=1e-6)


@pytest.mark.skipif(shutil.which("lame") is None, reason="lame is not installed")
@pytest.mark.parametrize("how", ["-V 5", "-V 5 -t", "--abr 90 -t", "-p -b 128 -t", "--freeformat -b 400", "-b 160 -t"])
def test_as_long_as_lame_made_it(tmp_path: Path, how: str) -> None:
    (tmp_path / "in.wav").write_bytes(written("WAV", music(SECONDS, 44_100, 2), 44_100))
    subprocess.run(["lame", "--quiet", *how.split(), tmp_path / "in.wav", tmp_path / "a.mp3"], check=True)
    data = (tmp_path / "a.mp3").read_bytes()
    assert len(read(data, 44_100)) == pytest.approx(SECONDS * 44_100, abs=0 if "-t" not in how else 3_000)

"""Bytes that are out to harm: whatever they are, a worker lives, and takes no more memory than its clip."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from genres.audio.gate import inspect
from genres.audio.rejections import RejectedAudio
from genres.settings import PROJECT_DIR
from tests.audio_files import music, with_count, with_flac_length, without_count, written

SEED = 20
FLIPS_A_KIND = 200
"""Of WAV, FLAC, MP3, AU, Ogg and three more: over 1,000 for the five that have been read from the beginning."""
ADDRESS_SPACE = 4 << 30
MB = 2**20
RATE = 22_050

DECODE = """
import json, sys
from pathlib import Path
from genres.audio.decode import decode
from genres.audio.gate import inspect
from tests.audio_files import music, written
from tests.fuzz_audio import peak_mb

data = written("FLAC", music(1, 96_000, 2), 96_000)
decode(data, sample_rate=22_050, header=inspect(data, suffix=".flac", max_clip_s=600))  # loads what is loaded once
path = Path(sys.argv[1])
data = path.read_bytes()
before = peak_mb()
header = inspect(data, suffix=path.suffix, max_clip_s=600)
samples = decode(data, sample_rate=22_050, header=header)
print(json.dumps({"took": peak_mb() - before, "samples": len(samples)}))
"""


FEATURES = """
import json, sys
from pathlib import Path
from genres.audio.clip_features import clip_features
from genres.audio.gtzan57 import GTZAN57
from tests.audio_files import music, written
from tests.fuzz_audio import peak_mb

def compute(data, suffix):
    return clip_features(data, file_suffix=suffix, feature_set=GTZAN57, max_clip_s=600)

compute(written("FLAC", music(1, 96_000, 2), 96_000), ".flac")  # loads what is loaded once
path = Path(sys.argv[1])
data = path.read_bytes()
before = peak_mb()
found = compute(data, path.suffix)
print(json.dumps({"before": before, "took": peak_mb() - before, "length": found.length}))
"""


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def in_a_process(*arguments: str) -> dict[str, Any]:
    """Run Python with a limit on time and memory; return what it prints as JSON."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=limit_memory,
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    return json.loads(ended.stdout)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a line that shows with tests that pass, too."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="")  # noqa: T201

    return say


def test_bit_flips_end_in_features_or_a_reason(say: Callable[[str], None]) -> None:
    found = in_a_process("-m", "tests.fuzz_audio", str(SEED), str(8 * FLIPS_A_KIND))
    say(
        f"{8 * FLIPS_A_KIND:,} files with flipped bits, seed {SEED}: peak memory {found['peak_mb']:.0f} MB, "
        f"{found['before_mb']:.0f} MB without them"
    )
    for kind, ends in found["ends"].items():
        say(f"  {kind}: {', '.join(f'{count} {end}' for end, count in sorted(ends.items()))}")
        assert sum(ends.values()) == FLIPS_A_KIND
        # Neither a gate that is shut nor one that is open passes.
        assert len(ends) > 1
    assert sum(ends.get("features", 0) for ends in found["ends"].values()) > FLIPS_A_KIND
    assert found["peak_mb"] - found["before_mb"] < 32


@pytest.mark.parametrize(("name", "rate", "channels"), [("small.flac", 96_000, 2), ("wide.flac", 48_000, 8)])
def test_a_small_file_of_ten_minutes_is_decoded_in_the_memory_of_its_samples(
    tmp_path: Path, say: Callable[[str], None], name: str, rate: int, channels: int
) -> None:
    seconds = 590
    with soundfile.SoundFile(tmp_path / name, "w", rate, channels, "PCM_16") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.int16))
    assert (tmp_path / name).stat().st_size < MB
    found = in_a_process("-c", DECODE, str(tmp_path / name))
    mono = 4 * seconds * RATE / MB
    whole = 4 * seconds * rate * channels / MB
    say(f"{name}: decoding took {found['took']:.0f} MB; mono {mono:.0f} MB, all at once {whole:.0f} MB")
    assert found["samples"] == seconds * RATE
    assert found["took"] < mono + 24


def test_the_longest_clip_takes_a_known_part_of_a_workers_memory(tmp_path: Path, say: Callable[[str], None]) -> None:
    """Not of a sound that is nothing but zeros: decoded, described and separated, as a worker does it."""
    seconds, rate, noise = 590, 96_000, np.random.default_rng(0)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", rate, 2, "PCM_16") as file:
        for _ in range(seconds):
            file.write(noise.integers(-1, 2, (rate, 2), np.int16))
    found = in_a_process("-c", FEATURES, str(tmp_path / "long.flac"))
    say(f"{seconds} s of stereo at 96 kHz: {found['took']:.0f} MB on top of a worker's {found['before']:.0f} MB")
    assert found["length"] == seconds * RATE
    assert found["took"] < 0.6 * seconds


def test_three_hours_behind_a_header_of_a_minute_are_refused_by_their_true_length(tmp_path: Path) -> None:
    minute, hours = 60, 10_800
    with soundfile.SoundFile(tmp_path / "hours.flac", "w", RATE, 1, "PCM_16") as file:
        for _ in range(hours // minute):
            file.write(np.zeros(minute * RATE, np.int16))
    flac = with_flac_length((tmp_path / "hours.flac").read_bytes(), minute * RATE)
    with pytest.raises(RejectedAudio, match=r"10,?800\.0 s long; at most 600 s are read"):
        inspect(flac, suffix=".flac", max_clip_s=600)

    seconds = 30
    mp3 = written("MP3", music(seconds, 44_100, 2), 44_100, bitrate_mode="VARIABLE")
    frames_a_minute = minute * 44_100 // 1_152
    with pytest.raises(RejectedAudio, match=r"s long; at most 600 s are read") as refused:
        inspect(
            with_count(mp3, frames_a_minute) + without_count(mp3) * (hours // seconds), suffix=".mp3", max_clip_s=600
        )
    assert float(refused.value.reason.split()[0].replace(",", "")) == pytest.approx(hours + seconds, rel=0.01)

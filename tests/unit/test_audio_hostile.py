"""Bytes that are out to harm: whatever they are, a worker lives, and takes no more memory than its clip."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from genres.settings import PROJECT_DIR

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


def test_bit_flips_end_in_features_or_a_reason() -> None:
    found = in_a_process("-m", "tests.fuzz_audio", str(SEED), str(8 * FLIPS_A_KIND))
    print(f"seed {SEED}, peak memory {found['peak_mb']:.0f} MB, {found['before_mb']:.0f} MB without clips")  # noqa: T201
    for kind, ends in found["ends"].items():
        print(kind, ends)  # noqa: T201
        assert sum(ends.values()) == FLIPS_A_KIND
        # Neither a gate that is shut nor one that is open passes.
        assert len(ends) > 1
    assert sum(ends.get("features", 0) for ends in found["ends"].values()) > FLIPS_A_KIND
    assert found["peak_mb"] - found["before_mb"] < 32


@pytest.mark.parametrize(("name", "rate", "channels"), [("small.flac", 96_000, 2), ("wide.flac", 48_000, 8)])
def test_a_small_file_of_ten_minutes_is_decoded_in_the_memory_of_its_samples(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    seconds = 590
    with soundfile.SoundFile(tmp_path / name, "w", rate, channels, "PCM_16") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.int16))
    assert (tmp_path / name).stat().st_size < MB
    found = in_a_process("-c", DECODE, str(tmp_path / name))
    mono = 4 * seconds * RATE / MB
    whole = 4 * seconds * rate * channels / MB
    print(f"{name}: took {found['took']:.0f} MB; mono {mono:.0f} MB, all at once {whole:.0f} MB")  # noqa: T201
    assert found["samples"] == seconds * RATE
    assert found["took"] < mono + 24

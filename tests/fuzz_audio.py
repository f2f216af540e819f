"""Flip bits in audio files and take each through the pipeline; a program, so that a crash is seen from outside.

Prints JSON: how the clips of each kind ended, and what the process took. What it is doing is on the standard error
stream, so that after a crash the last line names the case.
"""

import hashlib
import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path

from genres.audio.clip_features import clip_features
from genres.audio.rejections import RejectedAudio
from tests.audio_files import music, written
from tests.tiny_features import TINY

SECONDS = 0.5
HEADER_BYTES = 96
FILES = {
    "WAV": (".wav", written("WAV", music(SECONDS))),
    "FLAC": (".flac", written("FLAC", music(SECONDS, channels=2))),
    "MP3": (".mp3", written("MP3", music(SECONDS, 44_100, 2), 44_100, bitrate_mode="VARIABLE")),
    "AU": (".au", written("AU", music(SECONDS))),
    "OGG": (".ogg", written("OGG", music(SECONDS, channels=2))),
    "OPUS": (".opus", written("OGG", music(SECONDS, 48_000), 48_000, subtype="OPUS")),
    "AIFF": (".aiff", written("AIFF", music(SECONDS))),
    "ADPCM": (".wav", written("WAV", music(SECONDS), subtype="IMA_ADPCM")),
}


def flipped(data: bytes, chance: random.Random) -> bytes:
    """The file with one to eight bits of it flipped, half of them in its header."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(HEADER_BYTES if chance.random() < 0.5 else len(data))
        changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


def peak_mb() -> float:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with the parent's
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main(seed: int, count: int) -> None:
    # Code that is loaded once is no clip's memory.
    for suffix, data in FILES.values():
        clip_features(data, file_suffix=suffix, feature_set=TINY, max_clip_s=600)
    before = peak_mb()
    ends: dict[str, Counter[str]] = {name: Counter() for name in FILES}
    for number in range(count):
        name = list(FILES)[number % len(FILES)]
        suffix, data = FILES[name]
        sys.stderr.write(f"{number} {name}\n")
        case = flipped(data, random.Random(f"{seed} {number}"))
        try:
            found = clip_features(case, file_suffix=suffix, feature_set=TINY, max_clip_s=600)
        except RejectedAudio as refused:
            assert 0 < len(refused.reason) < 200, refused.reason
            ends[name][refused.code.code] += 1
        else:
            assert found.sha256 == hashlib.sha256(case).hexdigest()
            ends[name]["features"] += 1
    print(json.dumps({"ends": ends, "before_mb": before, "peak_mb": peak_mb()}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

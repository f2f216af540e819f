"""Clips of beating noise that the benchmarks share: no music, and no two alike unless the generator is seeded."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import numpy as np
import pandas as pd
import soundfile

from genres.settings import Settings
from store.lake import Lake

SAMPLE_RATE = 22_050


def noise_wav(length_s: float, random: np.random.Generator) -> bytes:
    """Make the bytes of a WAV file of this length."""
    seconds = np.arange(int(length_s * SAMPLE_RATE)) / SAMPLE_RATE
    beat = 0.1 + 0.2 * (seconds * random.uniform(1, 3) % 1 < 0.2)
    sound = io.BytesIO()
    noise = random.normal(0, 0.3, len(seconds))
    soundfile.write(sound, noise * beat, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return sound.getvalue()


@contextmanager
def clips_on_hdfs(settings: Settings, lengths_s: Sequence[float]) -> Iterator[pd.DataFrame]:
    """Put clips of these lengths in the lake meanwhile; give the rows that name them."""
    lake = Lake.of(settings)
    folder = lake.path("_tmp", f"noise_{uuid4().hex}")
    random = np.random.default_rng(0)
    rows = []
    for number, length_s in enumerate(lengths_s):
        path, data = f"{folder}/{number}.wav", noise_wav(length_s, random)
        lake.files.pipe_file(path, data)
        rows.append((str(number), "noise", path, hashlib.sha256(data).hexdigest()))
    yield pd.DataFrame(rows, columns=["track_id", "genre", "path", "sha256"])
    lake.files.rm(folder, recursive=True)

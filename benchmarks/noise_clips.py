"""What the benchmarks share: clips of beating noise, which is no music, and their extraction from the lake."""

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import soundfile

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store.hdfs_access import HdfsAccess
from genres.store.lake import Lake
from spark.clip_source import WebHdfsClips
from spark.extraction import extract_features, spread, tasks_for

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
    try:
        yield pd.DataFrame(rows, columns=["track_id", "genre", "path", "sha256"])
    finally:
        lake.files.rm(folder, recursive=True)


def extraction_s(spark: Any, clips: pd.DataFrame, settings: Settings) -> float:
    """Seconds that the project's extraction takes, from rows that name clips to a table of features."""
    began = time.perf_counter()
    table = extract_features(
        spread(spark, clips, tasks=tasks_for(len(clips))),
        source=WebHdfsClips(HdfsAccess.of(settings)),
        feature_set=GTZAN57,
        max_clip_s=settings.max_clip_s,
    ).toArrow()
    seconds = time.perf_counter() - began
    if table["reason"].null_count != len(clips):
        raise RuntimeError("a clip was refused")
    return seconds

"""Audio for every kind of test: short clips of synthetic sound, written where a test wants them."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import soundfile

from store.datasets.synthetic import SAMPLE_RATE, synthesise

WriteClips = Callable[[Path, Iterable[str], int], None]


@pytest.fixture(scope="session")
def write_clips() -> WriteClips:
    """Write ``<genre>/<genre>_<n>.wav`` of three seconds each; no two are the same, and none is named like GTZAN's."""

    def write(folder: Path, genres: Iterable[str], clips_per_genre: int) -> None:
        for genre in genres:
            (folder / genre).mkdir(parents=True)
            for index in range(clips_per_genre):
                samples = synthesise(genre, index, clip_s=3.0, seed=7)
                soundfile.write(folder / genre / f"{genre}_{index}.wav", samples, SAMPLE_RATE, subtype="PCM_16")

    return write

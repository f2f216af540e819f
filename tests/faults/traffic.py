"""The clips that flow while a fault is injected: made, dropped in the watched folder, and remembered by occasion."""

import io
import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from genres.datasets.synthetic import SAMPLE_RATE
from tests.stream_rig import sha256_of, short_clips, wav

_MADE, _SEED = 75, 100_000


class Traffic:
    """Drops clips that nobody has dropped before, good ones and now and then a bad one.

    Parameters
    ----------
    folder
        The watched folder.
    seed
        Of which clips are bad, and how.
    every_bad
        One of so many clips is bad.
    """

    def __init__(self, folder: Path, *, seed: int, every_bad: int = 9) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._every_bad = every_bad
        self._made = _clips()
        self._lock = threading.Lock()
        self._number = 0
        self.good: dict[str, str] = {}
        """For what each good clip was dropped, by its hash."""
        self.bad: dict[str, str] = {}

    def drop(self, occasion: str) -> str:
        """Drop one clip and return its hash."""
        with self._lock:
            self._number += 1
            name, data = next(self._made)
            is_bad = self._number % self._every_bad == 0
            if is_bad:
                name, data = f"bad/{self._number}.wav", self._spoiled()
            sha256 = sha256_of(data)
            (self.bad if is_bad else self.good)[sha256] = occasion
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return sha256

    def flow(self, occasion: str, *, clips: int, every_s: float) -> set[str]:
        """Drop clips one after the other and return their hashes."""
        hashes = set()
        for _ in range(clips):
            hashes.add(self.drop(occasion))
            time.sleep(every_s)
        return hashes

    def of(self, occasion: str) -> tuple[set[str], set[str]]:
        """The hashes of an occasion's clips, the good and the bad ones."""
        with self._lock:
            return (
                {sha256 for sha256, when in self.good.items() if when == occasion},
                {sha256 for sha256, when in self.bad.items() if when == occasion},
            )

    def _spoiled(self) -> bytes:
        """Sound that the producer's look at the header lets in and the stream has to refuse: one of three kinds."""
        noise = np.random.default_rng(self._random.randrange(2**32)).normal(0, 0.1, SAMPLE_RATE)
        match self._random.randrange(3):
            case 0:
                noise[self._random.randrange(len(noise))] = np.nan
                return wav(noise, subtype="FLOAT")
            case 1:
                noise[self._random.randrange(len(noise))] = np.inf
                return wav(noise, subtype="FLOAT")
            case _:
                return wav(noise[:100])


def _clips() -> Iterator[tuple[str, bytes]]:
    """Distinct good clips without end, by their paths below the folder; one of four is twice as long as the others."""
    # Synthesised once; four samples make each of their copies a clip of its own.
    sounds = {name: soundfile.read(io.BytesIO(data))[0] for name, data in short_clips(_MADE, seed=_SEED).items()}
    for number in itertools.count(random.SystemRandom().randrange(2**31)):
        name = list(sounds)[number % _MADE]
        sound = np.tile(sounds[name], 2 if number % 4 == 0 else 1)
        sound[:4] = [(number >> 8 * place & 0xFF) / 256 for place in range(4)]
        yield f"{name.removesuffix('.wav')}_{number}.wav", wav(sound)

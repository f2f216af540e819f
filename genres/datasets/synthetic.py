"""Synthetic sound in GTZAN's shape, for trying the pipeline where no audio is at hand.

**This is not music.** Every clip is made by the few lines below from a table of made-up genre traits, so an
accuracy measured on such clips says that the pipeline works and says nothing about music. A folder of them
carries the marker file ``synthetic.json``, and each file's name begins with ``synthetic_``, so that neither
the clips nor the figures can be mistaken for real ones.

What belongs here: the table of traits, the synthesiser and the writing of its clips to a folder.
"""

import json
import math
import multiprocessing
import os
import wave
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genres.datasets.folder import SYNTHETIC_MARKER, SYNTHETIC_PREFIX
from genres.errors import GenresError

SAMPLE_RATE = 22_050
"""Samples per second, as in GTZAN."""

GENERATOR = 1
"""Raised with every change to the sound, so that folders made before it are made again."""

Audio = npt.NDArray[np.float64]


def write_clips(
    folder: Path,
    *,
    clips_per_genre: int,
    clip_s: float,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Fill `folder` with ``<genre>/synthetic_<genre>.000NN.wav`` and the marker file.

    A clip that is there already is kept; clips made from another seed, length or number are replaced. Each
    file appears under its name only when it is whole, so that a re-run repairs a run that was killed.

    Parameters
    ----------
    folder
        New or empty, or filled by this function before.
    clips_per_genre
        Clips of each of the ten genres.
    clip_s
        Length of a clip in seconds.
    seed
        Same seed, same bytes.
    on_progress
        Called with (clips there, clips in all) at the start and after each clip.

    Raises
    ------
    GenresError
        If `folder` holds files but no marker, and so was not filled by this function.
    """
    spec = {
        "synthetic": True,
        "generator": GENERATOR,
        "seed": seed,
        "clip_s": clip_s,
        "clips_per_genre": clips_per_genre,
    }
    _claim(folder, spec)
    clips = [
        (folder / genre / f"{SYNTHETIC_PREFIX}{genre}.{index:05d}.wav", genre, index)
        for genre in GENRES
        for index in range(clips_per_genre)
    ]
    missing = [clip for clip in clips if not clip[0].exists()]
    done = len(clips) - len(missing)
    on_progress(done, len(clips))
    if not missing:
        return
    # Not fork: the caller may have the threads of a gRPC server or a JVM.
    context = multiprocessing.get_context("spawn")
    workers = min(os.cpu_count() or 1, len(missing))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        written = [pool.submit(_write_clip, *clip, clip_s, seed) for clip in missing]
        try:
            for future in as_completed(written):
                future.result()
                done += 1
                on_progress(done, len(clips))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def synthesise(genre: str, index: int, *, clip_s: float, seed: int) -> npt.NDArray[np.int16]:
    """Make one clip: drums, bass, chords and a lead line drawn from the genre's traits.

    Some clips (`CROSSOVER_SHARE`) are crossovers, which take some of their traits from another genre, and every trait
    varies around the genre's typical value, so that genres overlap.

    Parameters
    ----------
    genre
        A key of `GENRES`.
    index
        Number of the clip within its genre.
    clip_s
        Length in seconds.
    seed
        The dataset's seed. (seed, genre, index) decides every sample, in whichever process or order.

    Returns
    -------
    ndarray of int16, shape (round(clip_s * 22050),)
        Mono sound at 22,050 Hz.

    Notes
    -----
    Computed in float64 throughout: rounding to 16 bits then hides nearly every last-bit difference between
    the sine and FFT implementations of different machines. NumPy may change how it draws from a distribution in a new
    version; the bytes are the same for the same NumPy.
    """
    entropy = np.random.SeedSequence([seed, list(GENRES).index(genre), index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    style = _vary(_cross_over(genre, rng), rng)
    n_samples = round(clip_s * SAMPLE_RATE)

    score = _Score.compose(style, clip_s, rng)
    drums = _play_drums(style, score, n_samples, rng)
    instrument = _Instrument.draw(style.timbre, rng)
    bass = _play(score.bass, replace(instrument, rolloff=instrument.rolloff + 0.6), n_samples)
    chords = _play(score.chords, instrument, n_samples)
    lead = _play(score.lead, replace(instrument, decay_s=instrument.decay_s * 1.5), n_samples)

    mix = style.mix
    band = _distort(_level(chords) * mix.chords + _level(lead) * mix.lead, style.timbre.drive)
    sound = _lowpass(band + _level(bass) * mix.bass + _level(drums) * mix.drums, style.timbre.cutoff_hz)
    sound = _echo(sound, mix.echo, rng)
    sound *= _swell(n_samples, mix.swell, rng)
    sound = _level(sound) + mix.noise * rng.standard_normal(n_samples)
    # The soft limit keeps peaks within 16 bits whatever the mix.
    sound = np.tanh(_level(sound) * 10 ** (mix.loudness_db / 20))
    return np.rint(sound * 32_767).astype(np.int16)


# --- traits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rhythm:
    """Beat. A pattern is one bar of sixteenths; each digit is the chance of a stroke in tenths, 9 meaning sure."""

    tempo: float
    """Beats per minute."""
    swing: float
    """Delay of the beat's second half, in sixteenths."""
    kick: str
    snare: str
    hat: str


@dataclass(frozen=True)
class Harmony:
    """What the pitched instruments play; patterns as in `Rhythm`."""

    scales: tuple[str, ...]
    """One is picked per clip."""
    progressions: tuple[tuple[int, ...], ...]
    """A chord per bar, as steps of the scale from the tonic; one progression is picked per clip."""
    chord: tuple[int, ...]
    """The chord's notes, as steps of the scale from its root."""
    comping: str
    bass: str
    lead: float
    """Chance that the lead plays a note on an eighth."""


@dataclass(frozen=True)
class Timbre:
    """How the pitched instruments sound."""

    rolloff: float
    """The k-th harmonic has amplitude k to the power of minus this."""
    drive: float
    """Gain in front of the distortion."""
    cutoff_hz: float
    """Where the band's low-pass filter begins."""
    attack_s: float
    decay_s: float


@dataclass(frozen=True)
class Mix:
    """Levels (amplitudes relative to each other) and what happens to the sum."""

    drums: float
    bass: float
    chords: float
    lead: float
    noise: float
    """White noise, relative to the sum."""
    echo: float
    """Share of the sound that comes back after each delay."""
    loudness_db: float
    """RMS level relative to full scale."""
    swell: float
    """Depth of the slow rise and fall of loudness, 0 to 1."""


@dataclass(frozen=True)
class Style:
    """A genre's typical traits, or one clip's own."""

    rhythm: Rhythm
    harmony: Harmony
    timbre: Timbre
    mix: Mix


SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}

TRIAD, SEVENTH, FIFTH = (0, 2, 4), (0, 2, 4, 6), (0, 4)

GENRES: dict[str, Style] = {
    "blues": Style(
        Rhythm(98, 0.6, "9000100090001000", "0000900000009001", "9030903090309030"),
        Harmony(
            ("mixolydian",),
            ((0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4), (0, 3, 0, 0, 3, 3, 0, 4)),
            SEVENTH,
            "9000002090000020",
            "9000900090009000",
            0.45,
        ),
        Timbre(1.4, 1.6, 3000, 0.008, 0.45),
        Mix(0.7, 0.8, 0.8, 0.9, 0.02, 0.15, -18, 0.3),
    ),
    "classical": Style(
        Rhythm(92, 0.05, "1000000000000000", "0000000000000000", "0000000000000000"),
        Harmony(
            ("major", "minor"),
            ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 2, 3, 0, 3, 4)),
            TRIAD,
            "9000900090009000",
            "9000000090000000",
            0.75,
        ),
        Timbre(2.0, 0.5, 3200, 0.05, 0.9),
        Mix(0.02, 0.5, 0.9, 1.0, 0.004, 0.4, -23, 0.7),
    ),
    "country": Style(
        Rhythm(118, 0.2, "9000000090000000", "0000900000009000", "4040404040404040"),
        Harmony(
            ("major",),
            ((0, 3, 0, 4), (0, 0, 3, 4), (0, 4, 3, 0)),
            TRIAD,
            "0000900200009002",
            "9000000090000000",
            0.5,
        ),
        Timbre(1.1, 0.8, 4600, 0.004, 0.35),
        Mix(0.5, 0.8, 0.9, 0.9, 0.01, 0.15, -18, 0.3),
    ),
    "disco": Style(
        Rhythm(119, 0.05, "9000900090009000", "0000900000009000", "3090309030903090"),
        Harmony(
            ("minor", "dorian"),
            ((0, 3, 0, 3), (0, 5, 3, 4), (0, 6, 5, 4)),
            SEVENTH,
            "0020900300209030",
            "9090909090909090",
            0.35,
        ),
        Timbre(1.2, 1.0, 5200, 0.01, 0.3),
        Mix(1.0, 0.9, 0.7, 0.6, 0.015, 0.2, -16, 0.15),
    ),
    "hiphop": Style(
        Rhythm(94, 0.3, "9002003090200020", "0000900000009000", "9090909390909093"),
        Harmony(
            ("minor", "phrygian"),
            ((0, 0, 0, 0), (0, 5, 0, 5), (0, 0, 3, 3)),
            TRIAD,
            "9000000000000000",
            "9002003000200020",
            0.2,
        ),
        Timbre(1.5, 1.4, 4200, 0.012, 0.4),
        Mix(1.3, 1.1, 0.5, 0.4, 0.02, 0.1, -15, 0.15),
    ),
    "jazz": Style(
        Rhythm(128, 0.6, "3000100030001000", "0010003000200010", "9000903090009030"),
        Harmony(
            ("dorian", "major"),
            ((1, 4, 0, 0), (1, 4, 0, 5), (0, 5, 1, 4)),
            SEVENTH,
            "2003002000300200",
            "9000900090009000",
            0.7,
        ),
        Timbre(1.7, 0.7, 3600, 0.015, 0.45),
        Mix(0.45, 0.8, 0.7, 1.0, 0.012, 0.25, -20, 0.45),
    ),
    "metal": Style(
        Rhythm(138, 0.02, "9090909090909090", "0000900000009000", "9000900090009000"),
        Harmony(
            ("phrygian", "minor"),
            ((0, 0, 1, 0), (0, 5, 6, 0), (0, 0, 5, 6)),
            FIFTH,
            "9090959090909590",
            "9090909090909090",
            0.3,
        ),
        Timbre(0.8, 5.0, 5600, 0.003, 0.4),
        Mix(0.9, 0.8, 1.2, 0.6, 0.04, 0.12, -14, 0.1),
    ),
    "pop": Style(
        Rhythm(112, 0.08, "9000002090200000", "0000900000009000", "9050905090509050"),
        Harmony(
            ("major",),
            ((0, 4, 5, 3), (5, 3, 0, 4), (0, 5, 3, 4)),
            TRIAD,
            "9000003090000030",
            "9030903090309030",
            0.45,
        ),
        Timbre(1.2, 1.0, 6000, 0.014, 0.4),
        Mix(0.9, 0.8, 0.8, 0.9, 0.015, 0.25, -15.5, 0.2),
    ),
    "reggae": Style(
        Rhythm(78, 0.2, "0000000090000000", "0000000090000100", "0090009000900093"),
        Harmony(
            ("minor", "major"),
            ((0, 3, 0, 3), (0, 4, 5, 3), (0, 1, 0, 1)),
            TRIAD,
            "0000900000009000",
            "9003003090030030",
            0.25,
        ),
        Timbre(1.7, 0.9, 3000, 0.006, 0.22),
        Mix(0.8, 1.2, 0.7, 0.5, 0.012, 0.3, -17, 0.2),
    ),
    "rock": Style(
        Rhythm(124, 0.05, "9000002090900000", "0000900000009000", "9090909090909090"),
        Harmony(
            ("mixolydian", "minor"),
            ((0, 6, 3, 0), (0, 3, 4, 3), (0, 5, 6, 4)),
            FIFTH,
            "9090309090903090",
            "9090909090909090",
            0.35,
        ),
        Timbre(1.05, 2.3, 4600, 0.006, 0.4),
        Mix(0.9, 0.8, 1.0, 0.7, 0.025, 0.15, -15.5, 0.2),
    ),
}
"""Made-up traits under the names of GTZAN's genres."""

CROSSOVER_SHARE = 0.15
"""Share of the clips that borrow two of the four groups of traits from another genre."""

SPREAD = {
    "tempo": 0.1,
    "swing": 0.35,
    "lead": 0.25,
    "rolloff": 0.14,
    "drive": 0.35,
    "cutoff_hz": 0.22,
    "attack_s": 0.4,
    "decay_s": 0.25,
    "drums": 0.25,
    "bass": 0.25,
    "chords": 0.22,
    "lead_level": 0.22,
    "noise": 0.6,
    "echo": 0.35,
    "swell": 0.35,
}
"""How far a clip's trait lies from its genre's: the standard deviation of the logarithm of their ratio."""

LOUDNESS_SPREAD_DB = 2.5
"""Standard deviation of the loudness within a genre."""


def _cross_over(genre: str, rng: np.random.Generator) -> Style:
    """Return the genre's typical style, in some clips with two groups of traits of another genre."""
    other = GENRES[str(rng.choice([name for name in GENRES if name != genre]))]
    groups = rng.choice(["rhythm", "harmony", "timbre", "mix"], size=2, replace=False)
    if rng.random() >= CROSSOVER_SHARE:
        return GENRES[genre]
    borrowed: dict[str, Any] = {str(group): getattr(other, str(group)) for group in groups}
    return replace(GENRES[genre], **borrowed)


def _vary(style: Style, rng: np.random.Generator) -> Style:
    """Draw one clip's traits around `style`."""

    def factor(trait: str) -> float:
        return math.exp(rng.normal(0, SPREAD[trait]))

    rhythm, harmony, timbre, mix = style.rhythm, style.harmony, style.timbre, style.mix
    return Style(
        replace(rhythm, tempo=rhythm.tempo * factor("tempo"), swing=min(1.0, rhythm.swing * factor("swing"))),
        replace(harmony, lead=min(0.95, harmony.lead * factor("lead"))),
        Timbre(**{trait: value * factor(trait) for trait, value in asdict(timbre).items()}),
        Mix(
            drums=mix.drums * factor("drums"),
            bass=mix.bass * factor("bass"),
            chords=mix.chords * factor("chords"),
            lead=mix.lead * factor("lead_level"),
            noise=mix.noise * factor("noise"),
            echo=min(0.7, mix.echo * factor("echo")),
            loudness_db=min(-9.0, mix.loudness_db + rng.normal(0, LOUDNESS_SPREAD_DB)),
            swell=min(0.9, mix.swell * factor("swell")),
        ),
    )


# --- score --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Note:
    """One note: when, how long (seconds), how high (MIDI number), how loud (0 to 1)."""

    start_s: float
    length_s: float
    pitch: int
    velocity: float


@dataclass(frozen=True)
class _Score:
    """Everything that is played; drums as (start in seconds, velocity)."""

    drums: dict[str, list[tuple[float, float]]]
    bass: list[_Note]
    chords: list[_Note]
    lead: list[_Note]

    @classmethod
    def compose(cls, style: Style, clip_s: float, rng: np.random.Generator) -> "_Score":
        rhythm, harmony = style.rhythm, style.harmony
        step_s = 60 / rhythm.tempo / 4
        n_steps = math.ceil(clip_s / step_s)
        steps = np.arange(n_steps)
        times = (steps + rhythm.swing * (steps % 4 >= 2)) * step_s

        def strokes(pattern: str) -> tuple[npt.NDArray[np.intp], Audio]:
            """Where the pattern strikes, and how hard."""
            digits = np.array([int(digit) for digit in pattern])
            chance = np.where(digits == 9, 0.97, digits / 10)[steps % 16]
            at = np.flatnonzero(rng.random(n_steps) < chance)
            return at, rng.uniform(0.6, 1.0, at.size)

        def drum(pattern: str) -> list[tuple[float, float]]:
            at, velocity = strokes(pattern)
            return list(zip(times[at].tolist(), velocity.tolist(), strict=True))

        drums = {"kick": drum(rhythm.kick), "snare": drum(rhythm.snare), "hat": drum(rhythm.hat)}

        tonic = 48 + int(rng.integers(12))
        scale = SCALES[str(rng.choice(harmony.scales))]
        progression = harmony.progressions[int(rng.integers(len(harmony.progressions)))]

        def pitch(step: int) -> int:
            return tonic + 12 * (step // 7) + scale[step % 7]

        def root(at: int) -> int:
            return progression[at // 16 % len(progression)]

        def until_next(at: npt.NDArray[np.intp]) -> list[float]:
            """Seconds from each stroke to the next, at most to the end of its bar."""
            following = np.minimum(np.append(at[1:], n_steps), (at // 16 + 1) * 16)
            return ((following - at) * step_s).tolist()

        at, velocity = strokes(harmony.comping)
        chords = [
            _Note(times[i], length, pitch(root(i) + step), loud)
            for i, length, loud in zip(at.tolist(), until_next(at), velocity.tolist(), strict=True)
            for step in harmony.chord
        ]
        at, velocity = strokes(harmony.bass)
        above = rng.choice([0, 0, 0, 2, 4], size=at.size).tolist()
        bass = [
            _Note(times[i], length, pitch(root(i) + step) - 24, loud)
            for i, length, loud, step in zip(at.tolist(), until_next(at), velocity.tolist(), above, strict=True)
        ]
        at = np.flatnonzero((rng.random(n_steps) < harmony.lead) & (steps % 2 == 0))
        # A walk on the scale that turns back at the ends of two octaves.
        walk = np.cumsum(rng.integers(-2, 3, size=at.size)) + int(rng.integers(28))
        line = 7 + 14 - np.abs(walk % 28 - 14)
        lead = [
            _Note(times[i], length, pitch(step), loud)
            for i, length, loud, step in zip(
                at.tolist(),
                until_next(at),
                rng.uniform(0.6, 1.0, at.size).tolist(),
                line.tolist(),
                strict=True,
            )
        ]
        return cls(drums, bass, chords, lead)


# --- sound --------------------------------------------------------------------------------------------------

_TABLE_SIZE = 4096


@dataclass(frozen=True)
class _Instrument:
    """A wavetable instrument: harmonics under an envelope of attack and exponential decay."""

    rolloff: float
    attack_s: float
    decay_s: float
    phases: tuple[float, ...]
    """Phase of each harmonic, radians; as many as there are harmonics at most."""

    @classmethod
    def draw(cls, timbre: Timbre, rng: np.random.Generator) -> "_Instrument":
        phases = tuple(rng.uniform(0, 2 * math.pi, 32).tolist())
        return cls(timbre.rolloff, timbre.attack_s, timbre.decay_s, phases)

    def note(self, pitch: int, length_s: float) -> Audio:
        """Sound one note at full velocity, shape (samples,); it rings 50 ms past its length."""
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        n_harmonics = min(len(self.phases), int(0.45 * SAMPLE_RATE / hertz))
        k = np.arange(1, n_harmonics + 1)
        spectrum = np.zeros(_TABLE_SIZE // 2 + 1, dtype=np.complex128)
        spectrum[1 : n_harmonics + 1] = k**-self.rolloff * np.exp(1j * np.array(self.phases[:n_harmonics]))
        table = np.fft.irfft(spectrum) * _TABLE_SIZE / 2

        n = np.arange(int((length_s + 0.05) * SAMPLE_RATE))
        wave_form = table[(n * (hertz / SAMPLE_RATE * _TABLE_SIZE)).astype(np.int64) % _TABLE_SIZE]
        t = n / SAMPLE_RATE
        envelope = np.exp(-t / self.decay_s) * np.minimum(1, t / self.attack_s)
        return wave_form * envelope * np.minimum(1, (t[-1] - t) / 0.05)


def _play(notes: list[_Note], instrument: _Instrument, n_samples: int) -> Audio:
    """Add up the notes, shape (n_samples,)."""
    sound = np.zeros(n_samples)
    rendered: dict[tuple[int, float], Audio] = {}
    for note in notes:
        key = (note.pitch, note.length_s)
        if key not in rendered:
            rendered[key] = instrument.note(*key)
        _add(sound, rendered[key], note.start_s, note.velocity)
    return sound


def _play_drums(style: Style, score: _Score, n_samples: int, rng: np.random.Generator) -> Audio:
    """Add up the drum strokes, shape (n_samples,)."""
    t = np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal(t.size)
    low, decay, tone = rng.uniform(42, 62), rng.uniform(0.05, 0.12), rng.uniform(160, 230)
    bright = min(1.0, style.timbre.cutoff_hz / 6000)
    kit = {
        # The kick's pitch falls from five times `low`; the phase is the integral of the frequency.
        "kick": np.sin(2 * np.pi * low * (t + 4 * 0.03 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / decay),
        "snare": (0.5 * np.sin(2 * np.pi * tone * t) + 0.4 * noise) * np.exp(-t / (0.8 * decay)),
        # Differencing noise is the shortest high-pass filter.
        "hat": 0.25 * bright * np.diff(noise, append=0) * np.exp(-t / (0.25 * decay)),
    }
    sound = np.zeros(n_samples)
    for drum, strokes in score.drums.items():
        for start_s, velocity in strokes:
            _add(sound, kit[drum], start_s, velocity)
    return sound


def _add(sound: Audio, piece: Audio, start_s: float, gain: float) -> None:
    """Add `piece` to `sound` in place, from `start_s` on, cut off at the end."""
    start = round(start_s * SAMPLE_RATE)
    room = sound[start : start + piece.size]
    room += gain * piece[: room.size]


def _level(sound: Audio) -> Audio:
    """Scale to an RMS of 1; silence stays silence."""
    rms = math.sqrt(float(np.mean(np.square(sound))))
    return sound / rms if rms > 0 else sound


def _distort(sound: Audio, drive: float) -> Audio:
    """Saturate smoothly: clean far below a drive of 1, buzzing far above."""
    return np.tanh(drive * sound) / math.tanh(drive)


def _lowpass(sound: Audio, cutoff_hz: float) -> Audio:
    """Low-pass filter with the magnitude of a second-order Butterworth filter and no phase shift."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(sound.size, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.sqrt(1 + (hertz / cutoff_hz) ** 4), sound.size)


def _echo(sound: Audio, share: float, rng: np.random.Generator) -> Audio:
    """Feed the sound back after two delays (comb filters), a block of one delay at a time."""
    for delay_s in rng.uniform([0.05, 0.17], [0.11, 0.37]).tolist():
        delay = int(delay_s * SAMPLE_RATE)
        sound = sound.copy()
        for start in range(delay, sound.size, delay):
            block = sound[start : start + delay]
            block += share * sound[start - delay : start - delay + block.size]
    return sound


def _swell(n_samples: int, depth: float, rng: np.random.Generator) -> Audio:
    """Gain that rises and falls over 5 to 15 seconds, shape (n_samples,)."""
    t = np.arange(n_samples) / SAMPLE_RATE
    phase = rng.uniform(0, 2 * np.pi)
    return 1 - depth * (0.5 + 0.5 * np.cos(2 * np.pi * t / rng.uniform(5, 15) + phase))


# --- files --------------------------------------------------------------------------------------------------


def _claim(folder: Path, spec: dict[str, Any]) -> None:
    """Make `folder` one that holds synthetic clips of `spec` and nothing else, before any clip is written."""
    marker = folder / SYNTHETIC_MARKER
    folder.mkdir(parents=True, exist_ok=True)
    if not marker.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise GenresError(
            f"folder {folder} holds files that were not synthesised: name a new or empty folder for synthetic clips"
        )
    if marker.exists() and json.loads(marker.read_text()) == spec:
        return
    for clip in folder.glob(f"*/{SYNTHETIC_PREFIX}*.wav"):
        clip.unlink()
    _replace(marker, lambda path: path.write_text(json.dumps(spec, indent=2) + "\n"))


def _write_clip(path: Path, genre: str, index: int, clip_s: float, seed: int) -> None:
    """Synthesise one clip and write it as 16-bit mono WAV."""
    samples = synthesise(genre, index, clip_s=clip_s, seed=seed)

    def write(temporary: Path) -> None:
        with wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(samples.astype("<i2").tobytes())

    path.parent.mkdir(exist_ok=True)
    _replace(path, write)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a hidden temporary file, then give it its name in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    temporary.replace(path)

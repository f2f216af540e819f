"""Sounds that a feature kernel has to stand: music, noise, tones, clicks, silence and what lies between."""

import numpy as np

SR = 22_050
"""Samples per second of all of them, in Hz."""


def seconds(length: float) -> np.ndarray:
    """Return the time of each sample, with an odd number of them beyond whole hops."""
    return np.arange(int(length * SR) + 123) / SR


def music(length: float = 3.0, seed: int = 0) -> np.ndarray:
    """A chord, a click twice a second and some noise."""
    rng, at = np.random.default_rng(seed), seconds(length)
    chord = sum(np.sin(2 * np.pi * pitch * at) for pitch in rng.uniform(100, 2_000, 4))
    clicks = rng.standard_normal(len(at)) * (at % 0.5 < 0.03)
    return (0.1 * chord + 0.3 * clicks + 0.01 * rng.standard_normal(len(at))).astype(np.float32)


def noise(length: float, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(1).standard_normal(int(length * SR))).astype(np.float32)


def tone(hertz: float, length: float = 2.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * seconds(length))).astype(np.float32)


def clicks(every: int, length: float = 6.0) -> np.ndarray:
    """Single samples, so that spectra are flat and many a maximum is a tie."""
    return (np.arange(len(seconds(length))) % every == every // 2).astype(np.float32)


def coloured_noise(length: float, exponent: float, seed: int = 0) -> np.ndarray:
    """White, pink or brown noise: its power falls with the frequency to the power of 0, 1 or 2."""
    samples = int(length * SR)
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / SR), 20)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples)) * frequencies ** (-exponent / 2)
    sound = np.fft.irfft(spectrum, samples)
    return (0.9 * sound / np.abs(sound).max()).astype(np.float32)


def speech(length: float, pitch: float = 120.0, seed: int = 0) -> np.ndarray:
    """Synthetic speech: pulses of a falling pitch through moving formants, hisses between, and pauses after phrases."""
    from scipy.signal import butter, lfilter

    random, samples = np.random.default_rng(seed), int(length * SR)
    sound, at = 1e-4 * random.standard_normal(samples), 0
    vowels = np.array([[700, 1220, 2600], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])
    while at < samples:
        for syllable in range(random.integers(4, 12)):
            hiss = 0.15 * random.standard_normal(int(SR * random.uniform(0.03, 0.1)))
            low = random.uniform(1500, 4000)
            hiss = lfilter(*butter(2, [low, 2 * low], "band", fs=SR), hiss) * np.hanning(len(hiss))
            voiced = int(SR * random.uniform(0.12, 0.3))
            pitches = pitch * (1.15 - 0.03 * syllable) * random.uniform(0.93, 1.07) * np.linspace(1.03, 0.95, voiced)
            pulses = lfilter([1], [1, -0.97], np.diff(np.floor(np.cumsum(pitches) / SR), prepend=0))
            one, other = vowels[random.integers(5, size=2)]
            pieces, states = [], np.zeros((3, 2))
            for step, piece in enumerate(np.array_split(pulses, 8)):
                formants = one + (other - one) * step / 8
                for place, (hertz, width) in enumerate(zip(formants, (80, 100, 140), strict=True)):
                    radius, angle = np.exp(-np.pi * width / SR), 2 * np.pi * hertz / SR
                    poles = [1, -2 * radius * np.cos(angle), radius**2]
                    piece, states[place] = lfilter([sum(poles)], poles, piece, zi=states[place])
                pieces.append(piece)
            vowel = np.concatenate(pieces)
            fade = np.minimum(1, np.minimum(np.arange(voiced), np.arange(voiced)[::-1]) / (0.02 * SR))
            for piece in (hiss, fade * vowel / np.abs(vowel).max() * random.uniform(0.5, 1)):
                room = sound[at : at + len(piece)]
                room += piece[: len(room)]
                at += len(piece)
        at += int(SR * random.uniform(0.25, 1.0))
    return (0.9 * sound / np.abs(sound).max()).astype(np.float32)


CLIPS = {
    "chord and clicks": music(6.0),
    "another": music(3.3, seed=1),
    "one second": music(1.0)[:SR],
    "shortest": music(1.0)[:2_048],
    "one more": music(1.0)[:2_049],
    "tenth of a second": music(0.1, seed=2),
    "block of frames": music(1.0)[: 31 * 512],
    "block and one frame": music(1.0)[: 32 * 512],
    "noise": noise(3),
    "quiet noise": noise(2, 1e-4),
    "dither": np.round(noise(2, 0.7)) / np.float32(32_768),
    "low tone": tone(55),
    "tone": tone(440),
    "tone on a bin": tone(100 * SR / 2_048),
    "high tone": tone(10_000),
    "sweep": (0.5 * np.sin(2 * np.pi * 500 * seconds(3) ** 2)).astype(np.float32),
    "silence": np.zeros(2 * SR, np.float32),
    "silence, then tone": np.concatenate([np.zeros(SR, np.float32), tone(1_000)]),
    "noise, then silence": np.concatenate([noise(1), np.zeros(2 * SR, np.float32)]),
    "constant": np.full(SR, 0.5, np.float32),
    "square": np.sign(np.sin(2 * np.pi * 220 * seconds(2))).astype(np.float32),
    "clipped": np.clip(8 * music(3.0, seed=3), -1, 1),
    "too loud": 10 * np.clip(4 * music(2.0), -1, 1),
    "single click": clicks(SR),
    "clicks, 120 a minute": clicks(SR // 2),
    "clicks, 93 a minute": clicks(14_226),
}

"""A clip that every feature set can compute: if it fails, no other clip is to blame for failing."""

import functools
import io
import wave
from array import array
from math import sin


@functools.cache
def known_good_wav(seconds: int = 2) -> bytes:
    """Return a WAV file of 16 bits, mono, 22,050 Hz.

    Parameters
    ----------
    seconds
        Its length, an even number.
    """
    rate = 22_050
    samples = array("h", (int(6_000 * (sin(0.06 * n) + sin(0.19 * n) * sin(0.0007 * n))) for n in range(2 * rate)))
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes() * (seconds // 2))
    return sound.getvalue()

"""From the bytes of a clip that passed the gate to mono samples: what ``librosa.load`` gives for a path.

Only decoding belongs here; whether the bytes may be decoded at all is `genres.audio.gate`'s to say.
"""

import io
import math
from typing import TYPE_CHECKING

from genres.audio.gate import RejectedAudio

if TYPE_CHECKING:
    import numpy as np

MAX_PEAK = 10.0
"""Largest sample that is let in, in full scales. Float files may exceed 1 a little; those that exceed it by far
hold integers or garbage, and their squares overflow."""


def decode(data: bytes, *, sample_rate: int) -> "np.ndarray":
    """Decode one clip to mono samples.

    Equal to ``librosa.load(path, sr=sample_rate)``: libsndfile decodes, channels are averaged, and another rate is
    resampled by soxr in high quality.

    Parameters
    ----------
    data : bytes
        A whole file that `genres.audio.gate.inspect` let in.
    sample_rate : int
        Samples per second of what is returned, in Hz.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
        The samples; silence is allowed.

    Raises
    ------
    RejectedAudio
        If libsndfile cannot decode the bytes, the stream ends before the length its header promises, or a
        sample is NaN, infinite or above `MAX_PEAK`.
    """
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            promised, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.LibsndfileError as error:
        raise RejectedAudio(f"libsndfile cannot decode it: {error.error_string.strip()}") from None
    if len(samples) < promised:
        raise RejectedAudio(f"header promises {promised / rate:.1f} s, the file holds {len(samples) / rate:.1f} s")
    if not np.isfinite(samples).all():
        raise RejectedAudio("a sample is NaN or infinite")
    peak = np.abs(samples).max(initial=0)
    if peak > MAX_PEAK:
        raise RejectedAudio(f"samples as large as {peak:.3g}; full scale is 1")
    if rate == sample_rate:
        return samples

    # By itself rather than through librosa, which takes seconds to load, and to compile.
    import soxr

    length = math.ceil(len(samples) * (sample_rate / rate))
    resampled = soxr.resample(samples, rate, sample_rate, quality="HQ")[:length]
    return np.pad(resampled, (0, length - len(resampled)))

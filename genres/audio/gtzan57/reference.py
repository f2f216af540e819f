"""The 57 features by plain librosa calls: what the kernel has to return, and how a notebook would ask for it.

Every value comes from a public librosa function that is called with the samples, at the published table's
definitions (the module `kernel`, beside this one, says which they are). Some fifty times slower than the kernel; the
tests and the benchmark compare with it, and nothing that runs in production may import it.
"""

import librosa
import numpy as np
from librosa.beat import beat_track
from librosa.decompose import hpss
from librosa.onset import onset_strength


def reference_gtzan57(samples: np.ndarray, sr: float = 22_050) -> dict[str, float]:
    """Compute the 57 features of the published GTZAN table; parameters and result are those of the kernel."""
    reflect = {"pad_mode": "reflect"}
    mel = librosa.feature.melspectrogram(y=samples, sr=sr, **reflect)
    onsets = onset_strength(S=librosa.power_to_db(mel), sr=sr, aggregate=np.median)
    harmonic, percussive = (
        librosa.util.fix_length(librosa.istft(part), size=len(samples))
        for part in hpss(librosa.stft(samples, **reflect))
    )
    frames = {
        "chroma_stft": librosa.feature.chroma_stft(y=samples, sr=sr, **reflect),
        "rms": librosa.feature.rms(y=samples, **reflect),
        "spectral_centroid": librosa.feature.spectral_centroid(y=samples, sr=sr, **reflect),
        "spectral_bandwidth": librosa.feature.spectral_bandwidth(y=samples, sr=sr, **reflect),
        "rolloff": librosa.feature.spectral_rolloff(y=samples, sr=sr, **reflect),
        "zero_crossing_rate": librosa.feature.zero_crossing_rate(samples),
        "harmony": harmonic,
        "perceptr": percussive,
    }
    mfcc = librosa.feature.mfcc(y=samples, sr=sr, **reflect)
    frames |= {f"mfcc{number}": row for number, row in enumerate(mfcc, start=1)}
    # Single precision, over all samples of a clip, is a digit or two short of what the means of `harmony` need.
    values = {f"{name}_mean": float(np.mean(rows, dtype=np.float64)) for name, rows in frames.items()}
    values |= {f"{name}_var": float(np.var(rows, dtype=np.float64)) for name, rows in frames.items()}
    tempo, _ = beat_track(onset_envelope=onsets, sr=sr)
    return values | {"tempo": float(np.squeeze(tempo))}

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


def reference_gtzan57(samples: np.ndarray, sr: float = 22_050, window: slice | None = None) -> dict[str, float]:
    """Compute the 57 features of the published GTZAN table; parameters and result are those of the kernel.

    Parameters
    ----------
    window
        The frames of a window, if not the clip's but the window's features are wanted: what librosa says of the clip is
        cut to these frames.
    """
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
    if window is not None:
        hops = slice(512 * window.start, 512 * window.stop)
        frames = {name: rows[..., hops if name in ("harmony", "perceptr") else window] for name, rows in frames.items()}
    # Single precision, over all samples of a clip, is a digit or two short of what the means of `harmony` need.
    values = {f"{name}_mean": float(np.mean(rows, dtype=np.float64)) for name, rows in frames.items()}
    values |= {f"{name}_var": float(np.var(rows, dtype=np.float64)) for name, rows in frames.items()}
    if window is None:
        tempo, _ = beat_track(onset_envelope=onsets, sr=sr)
    elif onsets[window].any():
        tempo = librosa.feature.tempo(tg=tempogram_of(onsets, sr, window), sr=sr)
    else:
        tempo = 0.0
    return values | {"tempo": float(np.squeeze(tempo))}


def tempogram_of(onsets: np.ndarray, sr: float, window: slice | None) -> np.ndarray:
    """Return the frames of a tempogram that count: all of a clip, every eighth of a window."""
    tempogram = librosa.feature.tempogram(
        onset_envelope=onsets, sr=sr, win_length=int(librosa.time_to_frames(8.0, sr=sr))
    )
    if window is None:
        return tempogram
    return tempogram[:, [frame for frame in range(window.start, window.stop) if frame % 8 == 0]]

"""What the features of ``musicnn`` cost, and what would be lost by paying less.

Run it from the project's folder: ``python benchmarks/musicnn.py CLIPS ORACLE TAGGRAMS ARTISTS``: a folder of clips
(``<genre>/<track>.wav``), the original network's answers for them, mean taggrams of other tracks, and the artist group
of each track. All ways take turns, clip by clip, in one thread; the time is processor time from a file's bytes to its
features, the median over the clips. Prints Markdown.

The last column is the share of the clips whose genre is found by a logistic regression that was trained on the
taggrams of tracks by other artists. Thirty clips say little: its 95 % interval reaches some .15 to either side.
"""

import csv
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from genres.audio.thread_pools import single_threaded

single_threaded()

import numpy as np  # noqa: E402  (the pools read their size when they are imported)
import psutil  # noqa: E402
from numpy.lib.stride_tricks import sliding_window_view  # noqa: E402

from genres.audio.decode import decode  # noqa: E402
from genres.audio.musicnn import MUSICNN, network  # noqa: E402
from genres.audio.musicnn.checkpoint import float_variables  # noqa: E402
from genres.audio.musicnn.install import fetched_checkpoint  # noqa: E402
from genres.audio.musicnn.kernel import FRAMES, HOP, N_FFT, log_mel, musicnn, session_of  # noqa: E402

TAGS = 50
Kernel = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Print a row for each way, then the memory of the kernel's own."""
    if len(sys.argv) != 5 or (missing := [name for name in sys.argv[1:] if not Path(name).exists()]):
        lacks = f"there is no {missing[0]}" if len(sys.argv) == 5 else "four arguments are wanted"
        sys.exit(f"{lacks}: python benchmarks/musicnn.py CLIPS ORACLE TAGGRAMS ARTISTS")
    if why := MUSICNN.missing():
        sys.exit(f"musicnn cannot be computed: {why}")
    folder, oracle, taggrams, artists = map(Path, sys.argv[1:])
    clips = {path.stem: path.read_bytes() for path in sorted(folder.glob("*/*.wav"))}
    expected = {row["track_id"]: row for row in csv.DictReader(oracle.open(newline=""))}
    genre_of = classifier(taggrams, artists, set(clips))

    decoded = {name: decode(data, sample_rate=MUSICNN.sample_rate) for name, data in clips.items()}
    before = psutil.Process().memory_info().rss
    for samples in decoded.values():
        musicnn(samples)
    grown = psutil.Process().memory_info().rss - before
    ways = all_ways(list(decoded.values()))

    took: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    for data in clips.values():
        for way, kernel in ways.items():
            start = time.process_time()
            values = kernel(decode(data, sample_rate=MUSICNN.sample_rate))
            took[way].append(time.process_time() - start)
            found[way].append(values)

    truth = np.array([[float(expected[name][column]) for column in MUSICNN.columns] for name in clips])
    genres = [name.partition(".")[0] for name in clips]
    print(f"{len(clips)} clips, one thread\n")
    print("| way | ms a clip | difference of the tags, mean | largest of all 250 | genres found |")
    print("|---|---:|---:|---:|---:|")
    for way, values in found.items():
        difference = np.abs(np.array(values) - truth)
        right = np.mean(
            [genre == genre_of(tags) for genre, tags in zip(genres, np.array(values)[:, :TAGS], strict=True)]
        )
        print(
            f"| {way} | {1e3 * median(took[way]):.1f} | {difference[:, :TAGS].mean():.1g} | {difference.max():.1g} "
            f"| {right:.2f} |"
        )
    found_in_truth = np.mean([genre == genre_of(tags) for genre, tags in zip(genres, truth[:, :TAGS], strict=True)])
    print(f"\nOf the original's taggrams: {found_in_truth:.2f}.")
    print(
        f"Memory: the process had {before / 2**20:.0f} MiB; ONNX Runtime and the network took {grown / 2**20:.0f} more."
    )


def all_ways(clips: list[np.ndarray]) -> dict[str, Kernel]:
    """Return the kernel, and what else it could have been."""
    variables = float_variables(*fetched_checkpoint())
    own = network.onnx_network(variables)
    phases, dead = network._PHASES, network.DEAD
    network._PHASES = (1,) * len(phases)
    one_frame = network.onnx_network(variables)
    network.DEAD = -1.0
    whole = network.onnx_network(variables)
    network._PHASES, network.DEAD = phases, dead
    return {
        "every filter": patch_by_patch(whole),
        "live filters": patch_by_patch(one_frame),
        "live filters, several frames at once (this kernel)": lambda samples: np.array(list(musicnn(samples).values())),
        "the same in 8 bits": patch_by_patch(in_8_bits(own, clips)),
        "the same, patches overlapping by half": patch_by_patch(own, hop=FRAMES // 2),
        "the same, every second patch": patch_by_patch(own, hop=2 * FRAMES),
        "the same, every third patch": patch_by_patch(own, hop=3 * FRAMES),
        "the same, one patch in the middle": patch_by_patch(own, hop=10**9, first=4 * FRAMES),
    }


def patch_by_patch(model: bytes, *, hop: int = FRAMES, first: int = 0) -> Kernel:
    """Return a kernel that hears a patch every `hop` frames."""
    session = session_of(model)

    def run(samples: np.ndarray) -> np.ndarray:
        frames = sliding_window_view(np.pad(samples, N_FFT // 2), N_FFT)[::HOP]
        answers = []
        for begin in range(first, len(frames) - FRAMES + 1, hop):
            bands = log_mel(frames[begin : begin + FRAMES])
            answers.append(np.concatenate(session.run(None, {"mel": bands[np.newaxis, np.newaxis]}), axis=1)[0])
        return np.mean(answers, axis=0, dtype=np.float64)

    return run


def in_8_bits(model: bytes, clips: list[np.ndarray]) -> bytes:
    """Return the model with its convolutions in 8 bits, whose ranges are those of the clips' own first patches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Patches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            if not self.left:
                return None
            frames = sliding_window_view(np.pad(self.left.pop(), N_FFT // 2), N_FFT)[::HOP][:FRAMES]
            return {"mel": log_mel(frames)[np.newaxis, np.newaxis]}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(model)
        quantize_static(
            before,
            after,
            Patches(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return after.read_bytes()


def classifier(taggrams: Path, artists: Path, clips: set[str]) -> Callable[[np.ndarray], str]:
    """Train on the taggrams of tracks by other artists than the clips'."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    group_of = {row["track_id"]: row["artist_group"] for row in csv.DictReader(artists.open(newline=""))}
    theirs = {group_of[name] for name in clips}
    rows = {row["filename"].removesuffix(".wav"): row for row in csv.DictReader(taggrams.open(newline=""))}
    others = [name for name in rows if name not in clips and group_of.get(name) not in theirs]
    tags = np.array([[float(rows[name][column]) for column in MUSICNN.columns[:TAGS]] for name in others])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.05 * len(others)), max_iter=2000))
    model.fit(tags, [name.partition(".")[0] for name in others])
    print(f"Trained on {len(others)} tracks by other artists.\n")
    return lambda values: str(model.predict(values[np.newaxis])[0])


if __name__ == "__main__":
    main()

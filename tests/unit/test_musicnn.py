"""``musicnn``: the network, its weights' way into the cache, and what is there without them.

With the real weights it agrees with the original on the real clips. Everything else is shown on a network of random
weights, most of them dead as in the real one.
"""

import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import crc32c
import librosa
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from genres.audio import musicnn as package
from genres.audio.decode import decode
from genres.audio.musicnn import MUSICNN, NETWORK_SHA256, checkpoint, install, kernel, network_file
from genres.audio.musicnn.checkpoint import float_variables
from genres.audio.musicnn.kernel import log_mel
from genres.audio.musicnn.network import onnx_network
from genres.audio.musicnn.reference import reference_musicnn
from genres.errors import GenresError
from genres.settings import PROJECT_DIR, Settings

SHARED = PROJECT_DIR.parent / "shared/data"
ORACLE, CLIPS = SHARED / "musicnn/expected_sample_audio.csv", SHARED / "gtzan/sample_audio"
RATE = MUSICNN.sample_rate
FILTERS = {"conv2d": (7, 38, 204), "conv2d_1": (7, 67, 204)} | {
    f"conv2d_{number}": shape
    for number, shape in enumerate(
        [(128, 1, 51), (64, 1, 51), (32, 1, 51), (7, 561, 64), (7, 64, 64), (7, 64, 64)], start=2
    )
}
RUN_THE_KERNEL = """
import hashlib, sys
import numpy as np
from genres.audio import musicnn
from genres.audio.musicnn import kernel, network_file
musicnn.NETWORK_SHA256 = hashlib.sha256(network_file().read_bytes()).hexdigest()
kernel.musicnn(np.ones(48_000, np.float32))
"""

needs_weights = pytest.mark.skipif(MUSICNN.missing() is not None, reason=str(MUSICNN.missing()))
needs_clips = pytest.mark.skipif(not ORACLE.is_file(), reason="the real clips are not beside the project")


def music(seconds: float, level: float = 0.3) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(1).standard_normal(len(time)) * (time % 0.5 < 0.05)
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277.2, 329.6)) / 3
    return (level * (0.7 * chord * (1 + np.sin(time)) / 2 + 0.1 * noise)).astype(np.float32)


def musicnn(samples: np.ndarray) -> dict[str, float]:
    return kernel.musicnn(samples).clip


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    """Random ones; nine of ten filters in front are dead, and some of the others are turned round by their scale."""
    random = np.random.default_rng(7)
    found: dict[str, np.ndarray] = {}
    sizes = [1, *(shape[-1] for shape in FILTERS.values()), 2 * (561 + 3 * 64), 200]
    for number, size in enumerate(sizes):
        name = "batch_normalization" + (f"_{number}" if number else "")
        found |= {f"{name}/{part}": random.normal(0, 0.3, size) for part in ("beta", "moving_mean")}
        found[f"{name}/gamma"] = random.choice([-1, 1], size) * random.uniform(0.5, 1.5, size)
        found[f"{name}/moving_variance"] = random.uniform(0.5, 2, size)
    for number, (name, (frames, bands, filters)) in enumerate(FILTERS.items()):
        values = random.normal(0, (frames * bands) ** -0.5, (frames, bands, 1, filters))
        if number < 5:
            values[..., random.permutation(filters)[: filters * 9 // 10]] *= 1e-9
        found |= {f"{name}/kernel": values, f"{name}/bias": random.normal(0, 0.5, filters)}
    for name, shape in {"dense": (sizes[-2], 200), "dense_1": (200, 50)}.items():
        found |= {
            f"{name}/kernel": random.normal(0, shape[0] ** -0.5, shape),
            f"{name}/bias": random.normal(0, 0.3, shape[1]),
        }
    return {name: values.astype(np.float32) for name, values in found.items()}


@pytest.fixture
def installed(variables: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a network of these variables, which the kernel takes for the real one."""
    monkeypatch.setenv("GENRES_CACHE_DIR", str(tmp_path / "cache"))
    data = onnx_network(variables)
    install.write(network_file(), data)
    monkeypatch.setattr(package, "NETWORK_SHA256", hashlib.sha256(data).hexdigest())
    kernel._session.cache_clear()
    yield network_file()
    kernel._session.cache_clear()


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, cwd=PROJECT_DIR, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
    )


@needs_weights
@needs_clips
def test_it_agrees_with_the_original_on_the_real_clips() -> None:
    with ORACLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert tuple(rows[0])[1:] == MUSICNN.columns
    for row in rows:
        name = row["track_id"]
        samples = decode((CLIPS / name.partition(".")[0] / f"{name}.wav").read_bytes(), sample_rate=RATE)
        expected = {column: float(row[column]) for column in MUSICNN.columns}
        found = musicnn(samples)
        assert max(abs(found[column] - expected[column]) for column in expected) < 1e-4, name


def test_the_graph_is_the_network_without_its_dead_filters(installed: Path, variables: dict[str, np.ndarray]) -> None:
    samples = music(7.0)
    expected = reference_musicnn(samples, variables)
    assert np.std(list(expected.values())) > 0.1
    assert musicnn(samples) == pytest.approx(expected, abs=2e-4)
    assert installed.stat().st_size < 1.2e6, "all filters would take 3.1 MB"


def test_the_comparison_finds_a_single_filter(installed: Path, variables: dict[str, np.ndarray]) -> None:
    sums = np.abs(variables["conv2d/kernel"]).sum(axis=(0, 1, 2))
    one_more_dead = variables["conv2d/kernel"].copy()
    one_more_dead[..., sums.argmax()] = 0
    samples = music(3.0)
    other = reference_musicnn(samples, variables | {"conv2d/kernel": one_more_dead})
    assert musicnn(samples) != pytest.approx(other, abs=2e-4)


def test_a_loud_clip_stays_in_range() -> None:
    """The original's half precision does not: 10,000 times a loud band is infinite there."""
    loud = np.sin(2 * np.pi * 1_000 * np.arange(3 * RATE) / RATE).astype(np.float32)
    expected = librosa.feature.melspectrogram(y=loud, sr=RATE, n_fft=512, hop_length=256, n_mels=96).T
    with np.errstate(over="ignore"):
        assert np.isinf(10_000 * expected.astype(np.float16)).any()
    # The decoder lets samples of up to 10 in.
    frames = sliding_window_view(np.pad(10 * loud, 256), 512)[::256]
    np.testing.assert_allclose(log_mel(frames), np.log10(1e6 * expected + 1), atol=1e-3)


def test_every_clip_gets_finite_answers(installed: Path) -> None:
    for samples in (10 * np.sign(music(4.0)), np.zeros(MUSICNN.min_samples), music(MUSICNN.min_samples / RATE)):
        values = musicnn(samples.astype(np.float32))
        assert tuple(values) == MUSICNN.columns
        assert np.isfinite(list(values.values())).all()
        assert all(0 <= values[column] <= 1 for column in MUSICNN.columns[:50])


def test_a_short_clip_is_repeated_and_what_is_left_at_the_end_is_not_heard(installed: Path) -> None:
    second = music(1.0)
    assert musicnn(second) == musicnn(np.tile(second, 3)[: 186 * 256])
    clip = music(8.0)
    # A spectrum reaches 256 samples beyond the middle of its frame.
    assert musicnn(clip) == musicnn(clip[: (2 * 187 - 1) * 256 + 256])


def test_another_file_is_refused(installed: Path) -> None:
    installed.write_bytes(installed.read_bytes()[:-1])
    assert "has sha256" in str(MUSICNN.missing()), "other feature sets are not to suffer from it"
    with pytest.raises(GenresError, match=r"msd_musicnn_v1\.onnx has sha256 .* is expected: run `python"):
        musicnn(music(3.0))


def test_the_runtime_has_no_thread_survives_a_fork_and_leaves_nothing_in_the_home(
    installed: Path, tmp_path: Path
) -> None:
    """ONNX Runtime reports home from a thread, and keeps an id in the home, unless it is told not to."""
    home = tmp_path / "home"
    home.mkdir()
    program = RUN_THE_KERNEL + (
        "import os, threading\n"
        "print(len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1, flush=True)\n"
        "if os.fork() == 0:\n"
        "    kernel.musicnn(np.ones(48_000, np.float32))\n"
        "    sys.exit(0)\n"
        "print(os.wait()[1])\n"
    )
    done = run(program, HOME=str(home), OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    assert done.stdout.split() == ["1", "0"], done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_who_computes_other_features_does_not_load_the_runtime() -> None:
    program = (
        "import sys\n"
        "import numpy as np\n"
        "from genres.audio.feature_sets import feature_sets_named\n"
        "feature_sets_named(['gtzan57']).kernel(np.ones(22_050, np.float32))\n"
        "print([name for name in ('onnxruntime', 'onnx', 'google.protobuf') if name in sys.modules])\n"
    )
    assert run(program).stdout == "[]\n"


@pytest.mark.parametrize("asked", ["feature_sets_named(['musicnn'])", f"feature_set_of({MUSICNN.feature_version!r})"])
def test_where_it_is_not_installed_it_is_absent_and_one_line_says_so(asked: str, tmp_path: Path) -> None:
    program = (
        "from genres.audio.feature_sets import *\n"
        "from genres.errors import GenresError\n"
        "print(*installed_sets(), chosen_sets(''))\n"
        f"try:\n    {asked}\n"
        "except GenresError as error:\n    print(error)\n"
    )
    first, line = run(program, GENRES_CACHE_DIR=str(tmp_path)).stdout.splitlines()
    assert "gtzan57" in first
    assert "musicnn" not in first
    assert f"musicnn is not installed here: {tmp_path}/msd_musicnn_v1.onnx cannot be read (" in line


def test_offline_its_installation_says_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genres.audio.musicnn.install"]
    ours = os.environ | {"GENRES_CACHE_DIR": str(tmp_path), "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, cwd=PROJECT_DIR, env=ours, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "musicnn is not installed: pip cannot download its weights (" in line
    assert "everything else works" in line
    assert list(tmp_path.iterdir()) == []


def test_only_the_expected_network_is_installed(
    variables: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENRES_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(install, "fetched_checkpoint", lambda: (b"index", b"data"))
    monkeypatch.setattr(checkpoint, "float_variables", lambda index, data: variables)
    with pytest.raises(GenresError, match=f"but {NETWORK_SHA256} is expected"):
        install.install()
    assert list(tmp_path.iterdir()) == []
    for module in (package, install):
        monkeypatch.setattr(module, "NETWORK_SHA256", hashlib.sha256(onnx_network(variables)).hexdigest())
    assert install.install()
    assert not install.install(), "it is there"
    network_file().write_bytes(b"half a net")
    assert install.install()
    assert [path.name for path in tmp_path.iterdir()] == [network_file().name]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    with pytest.raises(GenresError, match=r"cannot write .*: set GENRES_CACHE_DIR to another folder"):
        install.write(in_the_way / "network", b"data")


def test_the_cache_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENRES_CACHE_DIR", "cache")
    assert network_file().parent == tmp_path / "cache"
    assert Settings().path_variables["GENRES_CACHE_DIR"] == str(tmp_path / "cache")


# The index of a checkpoint, as TensorFlow writes it.


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: dict[bytes, bytes]) -> bytes:
    """Each key with only what is new after the one before it, then the place where a search begins."""
    data, before = b"", b""
    for key, value in entries.items():
        shared = next((at for at, pair in enumerate(zip(key, before, strict=False)) if pair[0] != pair[1]), len(before))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return data + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def bundle(values: dict[str, np.ndarray], sum_of: Callable[[bytes], int] = crc32c.crc32c) -> tuple[bytes, bytes]:
    entries, data = {b"": field(1, 1)}, b""
    for name, array in sorted(values.items()):
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        checksum = sum_of(array.tobytes())
        masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32
        kind = {"float32": 1, "int32": 3}[str(array.dtype)]
        entry = field(1, kind) + field(2, shape) + (field(4, len(data)) if data else b"") + field(5, array.nbytes)
        entries[name.encode()] = entry + varint(6 << 3 | 5) + masked.to_bytes(4, "little")
        data += array.tobytes()
    table, index = b"", {}
    keys = list(entries)
    for part in (keys[:2], keys[2:]):
        written = block({key: entries[key] for key in part})
        index[part[-1]] = varint(len(table)) + varint(len(written))
        table += written + b"\0sum."
    written = block(index)
    handles = varint(0) + varint(0) + varint(len(table)) + varint(len(written))
    return table + written + b"\0sum." + handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"), data


def test_a_checkpoint_is_read() -> None:
    random = np.random.default_rng(3)
    values = {"conv2d/bias": random.random(3, np.float32), "conv2d/kernel": random.random((7, 38, 1, 3), np.float32)}
    values |= {"conv2d_1/bias": random.random(200, np.float32), "scalar": np.float32([0.5]).reshape(())}
    found = float_variables(*bundle(values | {"step": np.int32([5])}))
    assert found.keys() == values.keys()
    for name, array in values.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_checkpoint_is_refused() -> None:
    index, data = bundle({"a": np.ones(3, np.float32), "b": np.ones(4, np.float32)})
    with pytest.raises(ValueError, match="the variable b is not what"):
        float_variables(index, data[:-1])
    with pytest.raises(ValueError, match="the variable a is not what"):
        float_variables(index, b"x" + data[1:])
    with pytest.raises(ValueError, match="no table of LevelDB"):
        float_variables(index[:-1], data)

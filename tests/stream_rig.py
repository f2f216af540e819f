"""What the tests of the stream share: models to score it with, a producer and a daemon, clips to drop.

Run as a program it trains the models: a Connect session leaves its mark on the environment of its process.
"""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import soundfile
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from genres.datasets.synthetic import SAMPLE_RATE, synthesise
from genres.kafka_client import KafkaUnreachableError
from genres.settings import PROJECT_DIR, Settings
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset, registered_datasets
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import leases, ranges, results
from genres_dagster.launch import WORKSPACE, open_instance, register
from streaming_sensors import stream as streams
from streaming_sensors.topic import create_topic, topic_state

GENRES = ("blues", "disco", "metal")
DATASET = "stream_tests"
"""Its champions score the tests' streams; versions 1 and 2 are trained once for a stack."""
_PIECES = 25


class Stream:
    """A topic of the tests' own with its producer and its daemon."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database)
        self.lake = Lake.of(settings)
        self.names = streams.Stream(settings.streams[0])
        self.folder = settings.watch_folder
        self.instance = open_instance(settings)
        self.producer: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None

    def start_producer(self) -> None:
        self.producer = self._start("folder_producer", "-m", "genres_cli", "watch", str(self.folder))

    def start_daemon(self) -> None:
        """Start daemon and sensors, and wait until the sensor has ticked."""
        began = time.time()
        self.daemon = self._start("dagster_daemon", "-m", "dagster._daemon", "run", "-w", str(WORKSPACE))
        wait_until(lambda: self.ticked_since(began))

    @contextmanager
    def resident_drain(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``genres drain`` meanwhile; it holds the lease when the caller goes on."""
        with self._start("drain", "-m", "genres_cli", "drain") as drain:
            try:
                wait_until(lambda: self._resident_pid() == drain.pid)
                yield drain
            finally:
                drain.terminate()

    def is_at_rest(self) -> bool:
        """Whether no run of the stream is at work, or is going to be."""
        unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
        of_it = f"{self.settings.topic}:"
        return not any(
            run.tags.get("dagster/partition", "").startswith(of_it) for run in self.instance.get_runs(unfinished)
        ) and not leases.holders(self.database, self.settings.topic, self.settings.lease_s)

    def _resident_pid(self) -> int | None:
        held_by = leases.holders(self.database, self.settings.topic, self.settings.lease_s).values()
        return next((found.pid for found in map(leases.Resident.parse, held_by) if found), None)

    def stop(self) -> None:
        if self.producer is not None:
            self.producer.send_signal(signal.SIGINT)
            self.producer.wait(60)
        if self.daemon is not None:
            kill_tree(self.daemon.pid)  # it would wait for its sensors' long poll

    def drop(self, clips: dict[str, bytes], *, every_s: float = 0.0) -> set[str]:
        """Write clips into the watched folder, by their paths in it; give their hashes."""
        for name, data in clips.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            time.sleep(every_s)
        return set(map(sha256_of, clips.values()))

    def places(self, hashes: set[str]) -> tuple[set[str], set[str]]:
        """Those of the hashes that were predicted, and those that are in quarantine."""
        predicted = {row["sha256"] for row in results.predictions(self.database)}
        quarantined = {row["sha256"] for row in results.quarantine(self.database)}
        return predicted & hashes, quarantined & hashes

    def wait_for(self, hashes: set[str], *, patience_s: float = 300) -> None:
        wait_until(lambda: set.union(*self.places(hashes)) == hashes, patience_s=patience_s)

    def materialize(self, assets: str, partition: str) -> None:
        """Launch a partition as a person would, without the tags of the sensors."""
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "streaming_sensors.definitions"]
        done = subprocess.run(
            [*command, "--select", assets, "--partition", partition],
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def assert_no_overlaps_and_no_holes(self) -> None:
        """Every offset of the topic is in exactly one committed range."""
        state = topic_state(self.settings, self.settings.topic, timeout_s=30)
        live = [found for found in ranges.history(self.database, state.topic) if found.state != "split"]
        assert {found.state for found in live} == {"committed"}
        covered = sorted(
            (found.key.kafka_partition, offset)
            for found in live
            for offset in range(found.key.start_offset, found.key.end_offset)
        )
        assert covered == [(number, offset) for number in sorted(state.ends) for offset in range(state.ends[number])]

    def _start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = self.settings.state_dir / "logs" / f"{log}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as output:
            command = [sys.executable, *arguments]
            return subprocess.Popen(command, cwd=PROJECT_DIR, stdout=output, stderr=output, start_new_session=True)

    def ticked_since(self, began: float) -> bool:
        """Whether the sensor has ticked since then."""
        for state in self.instance.all_instigator_state():
            if state.name == "audio_clips_sensor":
                ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
                return bool(ticks) and ticks[0].timestamp > began
        return False


@contextmanager
def running_stream(stack: Settings, folder: Path, topic: str, **variables: str) -> Iterator[Stream]:
    """Run producer and daemon for a topic of its own meanwhile; there are models, but no champion."""
    with prepared_stream(stack, folder, topic, **variables) as stream:
        try:
            stream.start_producer()
            stream.start_daemon()
            yield stream
        finally:
            stream.stop()


@contextmanager
def prepared_stream(stack: Settings, folder: Path, topic: str, **variables: str) -> Iterator[Stream]:
    """Set the environment, make the topic and the folder, and have models but no champion; nothing is started."""
    mine = {
        "TOPIC": topic,
        "WATCH_FOLDER": str(folder),
        "STREAM_DATASET": DATASET,
        "SETTLE_S": "0.3",
        "RANGE_GRACE_S": "5",
        "LEASE_S": "6",
        "DRAIN_QUIET_S": "2",
        "MAX_CLIPS_PER_BATCH": "16",
        **variables,
    }
    before = dict(os.environ)
    os.environ.update({f"GENRES_{name}": value for name, value in mine.items()})
    try:
        settings = Settings()
        stream = Stream(settings)
        stream.database.migrate()
        create_topic(settings, settings.topic)
        _ensure_dataset(stream)
        _ensure_models_without_champion(settings)
        folder.mkdir(exist_ok=True)
        yield stream
    finally:
        os.environ.clear()
        os.environ.update(before)


def set_champion(settings: Settings, version: int) -> None:
    """Point the alias of the stream's dataset at a trained version."""
    ModelRegistry(settings.tracking_uri).set_alias(DATASET, "champion", version)


def short_clips(count: int, *, seed: int) -> dict[str, bytes]:
    """Make distinct clips of one second, by ``<genre>/<name>.wav``."""
    clips = {}
    for number in range(count):
        genre = GENRES[(number // _PIECES) % len(GENRES)]
        if number % _PIECES == 0:
            sound = synthesise(genre, number, clip_s=float(_PIECES), seed=seed)
        start = number % _PIECES * SAMPLE_RATE
        clips[f"{genre}/{seed}_{number:03}.wav"] = wav(sound[start : start + SAMPLE_RATE])
    assert len(set(clips.values())) == count
    return clips


def shuffled(clips: dict[str, bytes]) -> dict[str, bytes]:
    """Return the clips in a random order, the same each time."""
    names = list(clips)
    random.Random(0).shuffle(names)
    return {name: clips[name] for name in names}


def wav(samples: object, subtype: str = "PCM_16") -> bytes:
    sound = io.BytesIO()
    soundfile.write(sound, samples, SAMPLE_RATE, format="WAV", subtype=subtype)
    return sound.getvalue()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kill_tree(pid: int) -> None:
    """End a process and all that it started, the hard way."""
    root = psutil.Process(pid)
    found: set[psutil.Process] = set()
    # All are stopped before any is killed, so that none starts another one meanwhile, which would be nobody's child.
    while new := {root, *root.children(recursive=True)} - found:
        found |= new
        for process in new:
            with suppress(psutil.NoSuchProcess):  # it ended by itself just now
                process.suspend()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([root], timeout=30)


def wait_until(condition: Callable[[], object], *, patience_s: float = 240) -> None:
    """Ask again and again; a broker that was just started and has no leaders yet is asked again as well."""
    deadline = time.monotonic() + patience_s

    def holds() -> object:
        try:
            return condition()
        except KafkaUnreachableError:
            return False

    while not holds():
        assert time.monotonic() < deadline, f"it did not happen in {patience_s:g} s"
        time.sleep(0.25)


def _ensure_dataset(stream: Stream) -> None:
    """Make the models' dataset known to the stream's database, which may be a test's own."""
    import pandas as pd

    from genres.store.batch_tables import BatchTables
    from genres.store.schemas import RAW_AUDIO

    if DATASET not in {entry.dataset for entry in registered_datasets(stream.database)}:
        dataset = Dataset(DATASET, stream.folder, is_synthetic=True, feature_sets=("gtzan57",))
        register(stream.settings, stream.instance, dataset)
        tables = BatchTables(stream.lake, stream.database, DATASET)
        tables.publish_manifest(pd.DataFrame(columns=list(RAW_AUDIO.names)), run_id="tests")


def _ensure_models_without_champion(settings: Settings) -> None:
    registry = ModelRegistry(settings.tracking_uri)
    name = registry.name_for(DATASET)
    if not registry.client.search_model_versions(f"name = '{name}'"):
        subprocess.run([sys.executable, __file__], cwd=PROJECT_DIR, check=True, timeout=500)
    if registry.find_champion(DATASET) is not None:
        registry.client.delete_registered_model_alias(name, "champion")


def _train() -> None:
    """Register and publish two versions of a model, as genre_classifiers and champion_model do; set no alias."""
    import pandas as pd

    from genre_assets.champion_model import publish
    from genres.audio.clip_features import clip_features
    from genres.audio.gtzan57 import GTZAN57
    from genres.store.batch_tables import BatchTables
    from genres.store.model_facts import ModelFacts
    from spark.classifiers import choose, fit_pipeline, index_genres
    from spark.session import open_session, session_config

    settings = Settings()
    stream = Stream(settings)
    tables = BatchTables(stream.lake, stream.database, DATASET)
    feature_set = GTZAN57
    rows = []
    for name, data in short_clips(3 * _PIECES, seed=1).items():
        found = clip_features(data, file_suffix=".wav", feature_set=feature_set, max_clip_s=60)
        rows.append({"genre": name.split("/")[0], **found.values})
    registry = ModelRegistry(settings.tracking_uri)
    spark = open_session(session_config(settings, app_name="models of the tests"))
    labelled, genres = index_genres(spark.createDataFrame(pd.DataFrame(rows)))
    for candidate in choose(["LogisticRegression", "DecisionTree"]):
        with (
            registry.run(DATASET, run_name="models", stage="genre_classifiers", tags={}) as parent,
            registry.run(DATASET, run_name=candidate.name, stage="candidate", tags={}, parent=parent) as run,
        ):
            model = fit_pipeline(candidate, labelled, columns=feature_set.columns, genres=genres)
            candidate_path = tables.candidate_path(parent.info.run_id, run.info.run_id)
            model.write().save(stream.lake.uri(candidate_path))
            with tempfile.TemporaryDirectory() as scratch:
                stream.lake.fetch_directory(candidate_path, Path(scratch, "model"))
                registry.log_spark_model(Path(scratch, "model"), columns=feature_set.columns)
        version = registry.register(DATASET, run=run)
        path, digest = publish(run, version, tables)
        facts = ModelFacts(
            spark_model_path=path,
            spark_model_digest=digest,
            classifier=candidate.name,
            feature_version=feature_set.feature_version,
            is_calibrated=True,
            fingerprint=DATASET,
            valid_macro_f1=0,
        )
        registry.describe_version(DATASET, version, facts)
    del model  # held over a Connect session, it keeps the process from ending
    spark.stop()


def runs_of(instance: dg.DagsterInstance, partition: str) -> list[dg.DagsterRun]:
    """The runs of a partition, the newest first."""
    return list(instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition})))


if __name__ == "__main__":
    _train()

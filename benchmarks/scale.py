"""How far the stream scales beyond this machine's cores: real drains beside each other, on an engine that only sleeps.

``python benchmarks/scale.py [--drains 1 2 4] [--cores 1 4 16 64 256] [--url postgresql+psycopg://…] [--hdfs]``.
Extraction is a stub of known cost: it sleeps as long as an engine of so many cores takes, shared fairly by the drains,
and returns features of before; scores are made up. All else is the pipeline's own: planner, leases, and the drains, a
process each, which plan, overlap, grow their ranges and commit to the ledger, by default on SQLite in a temporary
folder; a URL names an empty database. With ``--hdfs`` each range's features are written to HDFS, of a stack of its own.
Dagster's records of each range go to an instance in a temporary folder. Not in it: the engine's own costs of a job, and
fetching from Kafka, which its workers do.

A row runs for ``--seconds``, or until ``--clips`` clips are done (a million, to see memory). It says what each drain
was at or waited for, as a share of its time. Stages overlap; the one that is nearly always at work is the limit.
"""

import argparse
import logging
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
from own_stack import own_stack, require_empty

from genres.audio.gtzan57 import GTZAN57
from genres.settings import Settings
from genres.store import ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import PartitionKey
from spark import scoring
from spark.extraction import feature_schema
from streaming_sensors import range_work, stream_run
from streaming_sensors.kafka_clips import KafkaClips
from streaming_sensors.offset_plan import Shard, plan
from streaming_sensors.range_work import RangeWork
from streaming_sensors.stream import Stream
from streaming_sensors.stream_run import StreamRun, limits
from streaming_sensors.topic import TopicState

PARTITIONS = 12
OFFSETS_PER_TASK = 8
STAGES = ("stub", "storing", "database", "Dagster")
GENRES = [f"genre {place}" for place in range(10)]
CURVE = {"window_s": 3.0, "hop_s": 3.0, "start_s": 0.0, "genres": GENRES, "probabilities": [[0.1] * 10] * 10}


class Row(NamedTuple):
    """What a row of the table is about."""

    drains: int
    cores: int
    cost_s: float
    refused_every: int
    state: TopicState
    seconds: float
    url: str
    folder: Path
    uses_hdfs: bool

    def settings(self) -> Settings:
        """Settings of a run that ends when its time is over."""
        return Settings(
            topic=self.state.topic,
            topic_partitions=PARTITIONS,
            stream_dataset="scale",
            drains=self.drains,
            max_run_s=self.seconds,
        )


class Drained(NamedTuple):
    """How a drain spent its time."""

    seconds: float
    spent: tuple[float, ...]
    """Seconds of each stage."""
    early_mib: float
    late_mib: float


def main() -> None:
    """Run each row and print it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--drains", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--cores", type=int, nargs="+", default=[1, 4, 16, 64, 256], help="cores of the stub")
    arguments.add_argument("--cost-ms", type=float, default=10.0, help="what a clip costs one of them")
    arguments.add_argument("--refused-every", type=int, default=100, help="one clip of so many is refused")
    arguments.add_argument("--seconds", type=float, default=10.0, help="how long a row runs")
    arguments.add_argument("--clips", type=int, default=0, help="how many clips a row has, instead")
    arguments.add_argument("--url", default="", help="an empty database")
    arguments.add_argument("--hdfs", action="store_true", help="write features to HDFS")
    wanted = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, own_stack() if wanted.hdfs else nullcontext():
        url = wanted.url or f"sqlite:///{Path(folder, 'ledger.db')}"
        database = Database(url)
        require_empty(database)
        database.migrate()
        where = f"{database.engine.dialect.name}, features {'on HDFS' if wanted.hdfs else 'in no file'}"
        print(f"\n{where}; a clip costs {wanted.cost_ms:g} ms of a stub core\n")
        columns = [
            "stub cores",
            "drains",
            "clips/s",
            "of the stub's",
            "clips a range",
            *STAGES,
            "CPU",
            "limit",
            "clips",
        ]
        print(f"| {' | '.join(columns)} | MiB a drain |\n|{'--:|' * (len(columns) + 1)}")
        for cores in wanted.cores:
            for drains in wanted.drains:
                clips = -(-wanted.clips // PARTITIONS) if wanted.clips else 10**12
                topic = f"scale_{uuid4().hex[:8]}"
                numbers = range(PARTITIONS)
                row = Row(
                    drains,
                    cores,
                    wanted.cost_ms / 1000,
                    wanted.refused_every,
                    TopicState(topic, "id", dict.fromkeys(numbers, 0), dict.fromkeys(numbers, clips)),
                    86_400.0 if wanted.clips else wanted.seconds,
                    url,
                    Path(folder, topic),
                    wanted.hdfs,
                )
                row.folder.mkdir()
                (row.folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
                dg.DagsterInstance.from_config(
                    str(row.folder)
                ).dispose()  # else drains make its tables at the same time
                print_row(row, *run(row, database))


def run(row: Row, database: Database) -> tuple[list[Drained], float]:
    """Plan each drain's first range as the sensor does, and run the drains; return also the machine's share of CPU."""
    shards = Shard.all(row.drains)
    first = plan([], row.state, limits(row.settings()), now=datetime.now(UTC), shards=shards)
    attempts = ranges.record_plan(database, first)
    database.engine.dispose()  # no connection is shared with what is forked
    with ProcessPoolExecutor(row.drains, multiprocessing.get_context("fork")) as pool:
        psutil.cpu_percent()
        drained = [
            pool.submit(drain, row, Shard.holding(attempt.key.kafka_partition, row.drains), attempt.key)
            for attempt in attempts
        ]
        found = [future.result() for future in drained]
        busy = psutil.cpu_percent()
    return found, busy / 100


def print_row(row: Row, drained: list[Drained], cpu: float) -> None:
    """Print what came of a row; the rate is between commits, of the later half of each drain's ranges."""
    by_drain: dict[str | None, list[tuple[datetime, int]]] = {}
    done = ranges.history(Database(row.url), row.state.topic, states={"committed"})
    for found in done:
        if found.committed_at is None or found.clip_count != len(found.key):
            raise SystemExit(f"{found.key} was committed with {found.clip_count} clips")
        by_drain.setdefault(found.run_id, []).append((found.committed_at, len(found.key)))
    rate, sizes = 0.0, []
    for commits in by_drain.values():
        commits.sort()
        late = commits[len(commits) // 2 - 1 :] if len(commits) > 3 else commits
        if len(late) > 1:
            rate += sum(clips for _, clips in late[1:]) / (late[-1][0] - late[0][0]).total_seconds()
        sizes += [clips for _, clips in late]
    whole = sum(entry.seconds for entry in drained)
    shares = {stage: sum(entry.spent[place] for entry in drained) / whole for place, stage in enumerate(STAGES)}
    limit = "CPU" if cpu > 0.9 else max(shares, key=lambda name: shares[name])
    early, late_mib = (max(getattr(entry, name) for entry in drained) for name in ("early_mib", "late_mib"))
    cells = [
        *(f"{row.cores}", f"{row.drains}", f"{rate:,.0f}", f"{rate * row.cost_s / row.cores:.0%}"),
        f"{np.median(sizes):,.0f}",
        *(f"{share:.0%}" for share in shares.values()),
        *(f"{cpu:.0%}", limit, f"{sum(len(found.key) for found in done):,}", f"{early:.0f}, then {late_mib:.0f}"),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def drain(row: Row, shard: Shard, key: PartitionKey) -> Drained:
    """Be a draining run, in a process of its own."""
    settings, times = row.settings(), Times()
    stub_engine(row, times)
    database = TimedDatabase(row.url, times)
    lake: Any = Lake.of(settings) if row.uses_hdfs else NoLake()
    lake.write_table = times.timed("storing", lake.write_table)
    mlflow: Any = SimpleNamespace(open=lambda: SimpleNamespace(find_champion=lambda dataset: Scorer.model))
    spark: Any = SimpleNamespace(spark_session=None)
    stream = Stream(settings.streams[0])
    with dg.DagsterInstance.from_config(str(row.folder)) as instance:
        add, report = instance.add_dynamic_partitions, instance.report_runless_asset_event
        running = SimpleNamespace(status=dg.DagsterRunStatus.STARTED)
        recorded = SimpleNamespace(add_dynamic_partitions=times.timed("Dagster", add), get_run_by_id=lambda _: running)
        context: Any = SimpleNamespace(run_id=f"run {shard}", log=logging.getLogger("drain"), instance=recorded)
        began = time.monotonic()
        work = StreamRun(context, stream, settings, lake, database, mlflow, spark)
        memory = [mib()]
        with work.lease(drains=shard), closing(work):
            for output in work.work(key, {stream.features, stream.predictions}, 1):
                event = dg.AssetMaterialization(
                    output.asset,
                    metadata=output.metadata,
                    partition=str(output.key),
                    tags={"dagster/data_version": output.data_version},
                )
                times.timed("Dagster", report)(event)
                memory.append(mib())
    spent = tuple(times.seconds.get(stage, 0.0) for stage in STAGES)
    return Drained(time.monotonic() - began, spent, memory[len(memory) // 4], memory[-1])


def stub_engine(row: Row, times: "Times") -> None:
    """Put stand-ins in the place of Kafka's answers, of extraction and of scoring, in a process of its own."""
    made = features_of_before(row.settings(), refused_every=row.refused_every)
    share = row.cores / row.drains

    def extract(work: RangeWork, key: PartitionKey, *_: Any, **__: Any) -> pa.Table:
        clips = len(key)
        # A task's clips come one after the other, however many cores there are.
        times.timed("stub", time.sleep)(row.cost_s * max(clips / share, min(clips, OFFSETS_PER_TASK)))
        return with_offsets(made.slice(0, clips), key)

    def score(work: RangeWork, key: PartitionKey, good: pa.Table, *_: Any) -> list[dict[str, Any]]:
        about = good.select(["kafka_offset", "sha256", "file_name", "genre", "created_at"]).to_pylist()
        return [{"event_time": clip.pop("created_at").astimezone(UTC), **clip, **ANSWER} for clip in about]

    stand_ins: list[tuple[Any, str, Any]] = [
        (stream_run, "topic_state", lambda *_: row.state),
        (stream_run, "wait_for_data", lambda *_, **__: False),
        (range_work, "topic_state", lambda *_: row.state),
        (ledger, "registered_dataset", lambda *_: Scorer.trained_on),
        (scoring, "Scorer", Scorer),
        (RangeWork, "_extract", extract),
        (RangeWork, "_predictions", score),
        (RangeWork, "_keep", lambda *_: None),
    ]
    for place, name, stand_in in stand_ins:
        setattr(place, name, stand_in)


def with_offsets(table: pa.Table, key: PartitionKey) -> pa.Table:
    """Let features be those of a range's clips."""
    offsets = range(key.start_offset, key.end_offset)
    columns: dict[str, pa.Array] = {
        "kafka_partition": pa.array([key.kafka_partition] * len(key), table.schema.field("kafka_partition").type),
        "kafka_offset": pa.array(offsets, table.schema.field("kafka_offset").type),
        "sha256": pa.array([f"{key.topic}{key.kafka_partition:04x}{offset:040x}" for offset in offsets]),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def features_of_before(settings: Settings, *, refused_every: int = 100) -> pa.Table:
    """Make features of as many clips as a range has at most, with ten windows each, some of them refused."""
    schema = feature_schema(KafkaClips.of(settings), GTZAN57)
    random, count = np.random.default_rng(0), settings.max_clips_per_batch
    refused = {"reason": "not audio", "reason_code": "not_audio"}
    columns = {}
    for field in schema:
        if field.name in GTZAN57.columns:
            values = pa.array(random.normal(size=count), field.type)
        elif field.name in GTZAN57.windows_columns:
            one = random.normal(size=(10, len(GTZAN57.columns))).astype(np.float32).tolist()
            values = pa.array([one] * count, field.type)
        elif field.name in refused:
            said = refused[field.name]
            values = pa.array([said if place % refused_every == 0 else None for place in range(count)])
        elif pa.types.is_timestamp(field.type):
            values = pa.array([datetime.now(UTC)] * count, field.type)
        elif pa.types.is_string(field.type):
            values = pa.array([f"{field.name}.wav"[:16]] * count, field.type)
        else:
            values = pa.array([1] * count, field.type)
        columns[field.name] = values
    return pa.table(columns, schema=schema)


class Scorer:
    """A champion that nobody loads."""

    model: Any = SimpleNamespace(name="genres-scale", version=1, feature_version=GTZAN57.feature_version)
    trained_on = Dataset("scale", Path(), is_synthetic=True, feature_sets=("gtzan57",))
    feature_set = GTZAN57

    def __init__(self, *_: Any, **__: Any) -> None:
        """Load nothing."""

    def close(self) -> None:
        """Nothing is held."""


ANSWER = {
    "predicted_genre": GENRES[0],
    "probability": 0.1,
    "probabilities": dict.fromkeys(GENRES, 0.1),
    "over_time": CURVE,
    "is_calibrated": True,
    "is_uncertain": True,
    "distance": 0.5,
    "is_unlike": False,
    "model_name": Scorer.model.name,
    "model_version": Scorer.model.version,
    "feature_version": GTZAN57.feature_version,
    "dataset": "scale",
    "is_synthetic": True,
}


class NoLake:
    """Makes Parquet files and keeps none."""

    def path(self, *parts: str) -> str:
        """Join the parts."""
        return "/".join(parts)

    def uri(self, path: str) -> str:
        """Return the path."""
        return path

    def write_table(self, table: pa.Table, folder: str, *, name: str) -> str:
        """Write into memory."""
        import pyarrow.parquet as pq

        pq.write_table(table, pa.BufferOutputStream())
        return f"{folder}/{name}"


class Times:
    """How long a drain was at each thing; heartbeats, which have a thread of their own, do not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def call(*given: Any, **named: Any) -> Any:
            with self.of(what):
                return function(*given, **named)

        return call

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Time the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            if threading.current_thread().name != "heartbeat":
                self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - began


class TimedDatabase(Database):
    """The ledger's database, where each transaction is timed from its beginning to its end, waiting included."""

    def __init__(self, url: str, times: Times) -> None:
        super().__init__(url)
        self._times = times

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Time what is read."""
        with self._times.of("database"), super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Time a transaction."""
        with self._times.of("database"), super().writing() as connection:
            yield connection


def mib() -> float:
    """Return this process's memory."""
    return float(psutil.Process().memory_info().rss / 2**20)


if __name__ == "__main__":
    main()

"""One streaming run: its lease, its champion, and the ranges that it works on, one after the other and overlapping."""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import dagster as dg

from genres.audio.feature_sets import DEFAULT_FEATURE_SET
from genres.errors import GenresError
from genres.settings import Settings
from genres.store import ledger, stream_ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_facts import RegisteredModel
from genres.store.stream_ledger import FencedError
from genres.store.stream_ranges import Attempt, PartitionKey, Plan
from genres_dagster.launch import choose_dataset
from genres_dagster.partitions import provenance
from genres_dagster.resources import MlflowResource, SparkResource
from streaming_sensors import range_work
from streaming_sensors.names import FEATURES, NO_CHAMPION, OFFSET_RANGES, PREDICTIONS
from streaming_sensors.offset_plan import Limits, next_range
from streaming_sensors.topic import TopicState, topic_state, wait_for_data


class Output(NamedTuple):
    """What a run made of one range for one asset."""

    key: PartitionKey
    asset: dg.AssetKey
    metadata: dict[str, Any]
    data_version: str


class _Begun(NamedTuple):
    """A range that the run works on, and its features, which another thread sees to."""

    key: PartitionKey
    selected: Collection[dg.AssetKey]
    features: Future[range_work.StoredFeatures]


class StreamRun:
    """One streaming run: its lease, its champion and the ranges that it works on.

    Parameters
    ----------
    context
        Of the run's step: its id, its log and Dagster's instance.
    settings, lake, database, mlflow
        Where clips, features, rows and models are.
    spark_stream
        The Connect session that streaming runs share.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        settings: Settings,
        lake: Lake,
        database: Database,
        mlflow: MlflowResource,
        spark_stream: SparkResource,
    ) -> None:
        self.context = context
        self.settings = settings
        self.lake = lake
        self.database = database
        self.token: int | None = None
        self._mlflow = mlflow
        self._spark = spark_stream
        self._champion: RegisteredModel | None = None
        self._dataset: Dataset | None = None
        self._scorer: range_work.Scorer | None = None
        # The model stays in the run's thread: Connect's MLlib knows the session by the thread that opened it.
        self._other = ThreadPoolExecutor(1)
        self._started = time.monotonic()

    @contextlib.contextmanager
    def lease(self, *, drains: bool) -> Iterator[None]:
        """Show signs of life, and hold the topic's lease if this run is to drain and nobody else does."""
        topic, lease_s, run_id = self.settings.topic, self.settings.lease_s, self.context.run_id
        if drains:
            self.token = stream_ledger.acquire_lease(self.database, topic, run_id, lease_s)
            if self.token is None:
                self.context.log.info("another run drains the topic: this one does its own range only")
        done = threading.Event()

        def beat() -> None:
            while not done.wait(lease_s / 3):
                # A lost lease shows at the next commit, a locked database at the next beat.
                with contextlib.suppress(GenresError):
                    stream_ledger.heartbeat(self.database, run_id)
                    if self.token is not None:
                        stream_ledger.renew_lease(self.database, topic, self.token, lease_s)

        beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            if self.token is not None:
                stream_ledger.release_lease(self.database, topic, self.token)

    def close(self) -> None:
        """Let go of the model, and wait for what Spark is still at."""
        # The model first: a second interrupt may end the waiting, and who holds a model cannot end.
        if self._scorer is not None:
            self._scorer.close()
        self._other.shutdown(cancel_futures=True)

    def work(self, key: PartitionKey, selected: Collection[dg.AssetKey], attempt: int | None) -> Iterator[Output]:
        """Do the run's own range and, with the lease, range after range until the topic is quiet or the run is old.

        While a range is scored and committed, the next one's features are computed already. Whatever goes wrong is
        written down with the range, so that the reconciler knows whose fault it was.

        Parameters
        ----------
        key
            The run's own range.
        selected
            Which of ``stream_features`` and ``stream_predictions`` are wanted of it; of further ranges both are made.
        attempt
            Number of the attempt, if a plan gave it one.

        Yields
        ------
        Output
            What is stored and, for predictions, committed.

        Raises
        ------
        FencedError
            If another run has taken the lease over; nothing more is committed.
        """
        begun = self._begin(key, selected, attempt)
        while begun is not None:
            stored = self._stored(begun)
            following = None
            try:
                with self._blaming(begun.key):
                    following = self._begin_ahead()
                yield from self._finish(begun, stored)
            except BaseException:
                if following is not None:
                    self._end_attempt(following.key, f"its run ended with {begun.key}", is_clips_fault=False)
                raise
            begun = following or self._wait_for_next()

    def _goes_on(self) -> bool:
        """Whether this run takes another range: it has the lease and is not old."""
        return self.token is not None and time.monotonic() - self._started < self.settings.max_run_s

    def _begin_ahead(self) -> _Begun | None:
        """Begin a range while another one waits for its commit, which nothing that happens here shall prevent."""
        try:
            return self._begin_next(topic_state(self.settings)) if self._goes_on() else None
        except Exception as error:
            self.context.log.warning(f"the next range is not begun yet: {error}")
            return None

    def _wait_for_next(self) -> _Begun | None:
        """Wait for clips; None if the topic stays quiet or the run has no more time."""
        if self.token is None:
            return None
        while self._goes_on():
            state = topic_state(self.settings)
            if (begun := self._begin_next(state)) is not None:
                return begun
            if not wait_for_data(self.settings, state.ends, self.settings.drain_quiet_s):
                self.context.log.info(f"the topic was quiet for {self.settings.drain_quiet_s:g} s: done")
                return None
        self.context.log.info(f"this run is {self.settings.max_run_s:g} s old: the next one goes on")
        return None

    def _begin_next(self, state: TopicState) -> _Begun | None:
        """Plan the next range and begin it; None if all of the topic is planned."""
        while True:
            known = stream_ledger.ranges(self.database, self.settings.topic)
            key = next_range(known, state, limits(self.settings))
            if key is None:
                return None
            # Whoever was overtaken plans nothing: its ranges would wait until they count as abandoned.
            if stream_ledger.record_plan(self.database, Plan(new=(Attempt(key),)), token=self.token):
                break  # else another planner was first, which the ledger shows by now
        self.context.instance.add_dynamic_partitions(str(OFFSET_RANGES.name), [str(key)])
        return self._begin(key, {FEATURES, PREDICTIONS}, 1)

    def _begin(self, key: PartitionKey, selected: Collection[dg.AssetKey], attempt: int | None) -> _Begun | None:
        """Take a range, and let its features be computed or read; None if it has to wait for a champion."""
        with self._blaming(key):
            found = stream_ledger.begin_attempt(self.database, key, self.context.run_id, attempt=attempt)
            if PREDICTIONS in selected and not self._has_champion(key):
                return None
            path = found.feature_path if found.feature_version == DEFAULT_FEATURE_SET.feature_version else None
            if FEATURES in selected or path is None:
                features = self._other.submit(
                    range_work.store_features, key, spark=self._session, lake=self.lake, settings=self.settings
                )
            else:
                features = self._other.submit(range_work.read_features, path, lake=self.lake)
            return _Begun(key, selected, features)

    def _stored(self, begun: _Begun) -> range_work.StoredFeatures:
        """Wait for a range's features, and load the run's model meanwhile."""
        with self._blaming(begun.key):
            if PREDICTIONS in begun.selected:
                self._load_scorer()
            return begun.features.result()

    def _finish(self, begun: _Begun, stored: range_work.StoredFeatures) -> Iterator[Output]:
        """Predict and commit, as far as that is selected; give what was made."""
        key, selected, _ = begun
        with self._blaming(key):
            if PREDICTIONS not in selected:
                stream_ledger.publish_features(self.database, key, stored.path, DEFAULT_FEATURE_SET.feature_version)
            if FEATURES in selected:
                metadata = {
                    "dagster/row_count": len(stored.table),
                    "clips_refused": len(stored.table) - stored.table["reason"].null_count,
                    "seconds": stored.seconds,
                    "parquet": self.lake.uri(stored.path),
                    "feature_version": DEFAULT_FEATURE_SET.feature_version,
                }
                yield Output(key, FEATURES, metadata, f"{key}-{DEFAULT_FEATURE_SET.feature_version}")
            if PREDICTIONS in selected:
                yield self._predict(key, stored)

    @contextlib.contextmanager
    def _blaming(self, key: PartitionKey) -> Iterator[None]:
        """Write down what ends an attempt, an interrupt too; a fenced run has nothing more to say."""
        try:
            yield
        except FencedError:
            raise
        except BaseException as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self._end_attempt(key, reason, is_clips_fault=isinstance(error, Exception) and _is_clips_fault(error))
            raise

    def _end_attempt(self, key: PartitionKey, reason: str, *, is_clips_fault: bool) -> None:
        run_id = self.context.run_id
        try:
            stream_ledger.end_attempt(self.database, key, run_id, reason=reason[:500], is_clips_fault=is_clips_fault)
        except GenresError as error:  # it must not hide why the attempt ended
            self.context.log.warning(f"{key}: the ledger does not take down why its attempt ended: {error}")

    def _predict(self, key: PartitionKey, features: range_work.StoredFeatures) -> Output:
        started = time.monotonic()
        scorer = self._load_scorer()
        result = range_work.predict_and_commit(
            key,
            features,
            scorer,
            spark=self._session,
            lake=self.lake,
            database=self.database,
            settings=self.settings,
            run_id=self.context.run_id,
            token=self.token,
        )
        champion = scorer.champion
        self.context.log.info(
            f"{key}: {result.new_predictions} predicted, {result.new_quarantine} quarantined, "
            f"{result.duplicates} known already"
        )
        metadata = {
            "data": provenance(scorer.trained_on),
            "dagster/row_count": result.new_predictions,
            "clips_quarantined": result.new_quarantine,
            "clips_known_already": result.duplicates,
            "model": f"{champion.name} version {champion.version}",
            "seconds": time.monotonic() - started,
        }
        return Output(key, PREDICTIONS, metadata, f"{key}-{champion.name}-{champion.version}")

    @cached_property
    def _session(self) -> Any:
        session = self._spark.spark_session
        self.context.log.info("the Spark session is open")
        return session

    def _has_champion(self, key: PartitionKey) -> bool:
        """Resolve the champion, once for the run; say that the range waits if there is none."""
        if self._champion is None:
            dataset = stream_dataset(self.settings)
            champion = self._mlflow.open().find_champion(dataset)
            if champion is None:
                reason = f"{NO_CHAMPION} for dataset '{dataset}' yet: the clips wait until there is one"
                self.context.log.warning(reason)
                stream_ledger.end_attempt(self.database, key, self.context.run_id, reason=reason, is_clips_fault=False)
                return False
            self._champion = champion
            self._dataset = ledger.registered_dataset(self.database, dataset)
        return True

    def _load_scorer(self) -> range_work.Scorer:
        """Load the run's champion, once."""
        if self._scorer is None:
            assert self._champion is not None and self._dataset is not None  # noqa: S101 - `_has_champion` came before
            _ = self._session  # the model is loaded into it
            self._scorer = range_work.Scorer(self._champion, trained_on=self._dataset, lake=self.lake)
            self.context.log.info(f"{self._champion.name} version {self._champion.version} is loaded")
        return self._scorer


def stream_dataset(settings: Settings) -> str:
    """Give the id of the dataset whose champion scores the stream."""
    return settings.stream_dataset or choose_dataset(settings).dataset


def limits(settings: Settings, *, max_in_flight: int = 1) -> Limits:
    """Build the planner's limits from the settings."""
    return Limits(settings.max_clips_per_batch, settings.max_attempts, settings.range_grace_s, max_in_flight)


def _is_clips_fault(error: Exception) -> bool:
    """Tell a clip that breaks its workers from an outage, which would stop any range."""
    outage = ("GenresError", "UNAVAILABLE", "Connection refused", "ConnectException", "SafeModeException")
    text = f"{type(error).__name__}: {error}"
    return not (isinstance(error, GenresError) or any(sign in text for sign in outage))

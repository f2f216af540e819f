"""One streaming run: its lease, its champion, and the ranges that it works on, one after the other and overlapping."""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from genres.audio.feature_set import AnyFeatureSet
from genres.audio.feature_sets import feature_set_of, feature_sets_named
from genres.errors import GenresError, last_words
from genres.settings import Settings
from genres.store import ledger
from genres.store.champions import newest_change
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.ledger import Dataset
from genres.store.model_facts import RegisteredModel
from genres.store.stream_ledger import leases, ranges
from genres.store.stream_ledger.leases import FencedError
from genres.store.stream_ledger.values import Attempt, PartitionKey, Plan
from genres_dagster.partitions import provenance
from genres_dagster.resources import MlflowResource, SparkResource
from spark.session import still_knows
from streaming_sensors.offset_plan import FEWEST_CLIPS, WHOLE_TOPIC, Limits, Pace, Shard, next_range, plan
from streaming_sensors.range_work import RangeWork, StoredFeatures
from streaming_sensors.run_tags import short_name
from streaming_sensors.stream import Stream
from streaming_sensors.topic import TopicState, topic_state, wait_for_data

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from spark.scoring import Scorer

NO_CHAMPION = "no champion model"
"""How the reason of a range begins that waits for a model."""
_TO_END = {dg.DagsterRunStatus.CANCELING, *FINISHED_STATUSES}


def is_to_end(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether a run has been asked to end, or is over or forgotten."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.status in _TO_END


class NoChampionError(GenresError):
    """The dataset has no champion: the range waits for one, and nothing went wrong that had better be left alone."""


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
    champion: RegisteredModel | None
    feature_set: AnyFeatureSet
    features: Future[StoredFeatures]


class StreamRun:
    """One streaming run: its lease, its champion and the ranges that it works on.

    Parameters
    ----------
    context
        Of the run's step: its id, its log and Dagster's instance.
    stream
        The stream that it works for.
    settings, lake, database, mlflow
        Where clips, features, rows and models are.
    spark_stream
        The Connect session that streaming runs share.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        stream: Stream,
        settings: Settings,
        lake: Lake,
        database: Database,
        mlflow: MlflowResource,
        spark_stream: SparkResource,
    ) -> None:
        self.context = context
        self.stream = stream
        self.settings = settings
        self.lake = lake
        self.database = database
        self.token: int | None = None
        self.shard = WHOLE_TOPIC
        self._is_residents = False
        self._mlflow = mlflow
        self._spark = spark_stream
        self._champion: RegisteredModel | None = None
        self._champion_change = 0
        self._scorer: Scorer | None = None
        self._work = RangeWork(settings, lake, database)
        self._pace = Pace(settings.batch_s, settings.max_clips_per_batch)
        # The model stays in the run's thread: Connect's MLlib knows the session by the thread that opened it.
        self._other = ThreadPoolExecutor(1)
        self._started = self._progress_at = time.monotonic()

    @contextlib.contextmanager
    def lease(self, *, drains: Shard | None, holder: str = "") -> Iterator[None]:
        """Show signs of life, and hold the lease of the shard that this run is to drain, if nobody else does.

        Parameters
        ----------
        drains
            The shard; None for a run that does exactly its range.
        holder
            Whose lease it is, if not the run's own: this one holds it before the run and goes on to hold it after.
        """
        topic, lease_s, run_id = self.stream.topic, self.settings.lease_s, self.context.run_id
        if drains is not None:
            self.shard, self._is_residents = drains, bool(holder)
            self.token = leases.acquire(self.database, topic, holder or run_id, lease_s, shard=drains.number)
            if self.token is None:
                self.context.log.info("somebody else drains these partitions: this run does its own range only")
        done = threading.Event()

        def beat() -> None:
            while not done.wait(lease_s / 3):
                if time.monotonic() - self._progress_at > self.settings.range_limit_s + lease_s:
                    # The thread is alive, the work is not: another run shall have the topic.
                    continue
                # A lost lease shows at the next commit, a locked database at the next beat. Whatever else it is, it
                # comes again in the work, if it matters there; without this thread, a run at work would count as dead.
                with contextlib.suppress(Exception):
                    ranges.heartbeat(self.database, topic, run_id)
                    if self.token is not None:
                        leases.renew(self.database, topic, self.token, lease_s, shard=self.shard.number)

        beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            if self.token is not None and not self._is_residents:
                leases.release(self.database, topic, self.token, shard=self.shard.number)

    def close(self) -> None:
        """Let go of the model, and wait for what Spark is still at."""
        # The model first: a second interrupt may end the waiting, and who holds a model cannot end.
        if self._scorer is not None:
            self._scorer.close()
        self._other.shutdown(cancel_futures=True)

    def work(self, key: PartitionKey, selected: Collection[dg.AssetKey], attempt: int | None) -> Iterator[Output]:
        """Work on the run's own range and, with the lease, on range after range until all is quiet or the run is old.

        While a range is scored and committed, the next one's features are computed already. Whatever goes wrong is
        written down with the range, so that the reconciler knows whose fault it was.

        Parameters
        ----------
        key
            The run's own range.
        selected
            Which of the stream's features and predictions are wanted of it; of further ranges both are made.
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
        begun: _Begun | None = self._begin(key, selected, attempt)
        while begun is not None:
            stored = self._stored(begun)
            following = None
            try:
                with self._ending(begun.key):
                    following = self._begin_ahead()
                yield from self._finish(begun, stored)
                self._made_progress()
            except BaseException:
                if following is not None:
                    self._end_attempt(following.key, f"its run ended with {begun.key}", is_outage=False)
                raise
            begun = following or self._wait_for_next()

    def _made_progress(self) -> None:
        self._progress_at = time.monotonic()

    def _goes_on(self) -> bool:
        """Whether this run takes another range: it has the lease, is not old, and nobody wants it to end."""
        is_young = time.monotonic() - self._started < self.settings.max_run_s
        return self.token is not None and is_young and not self._is_to_end()

    def _is_to_end(self) -> bool:
        """Whether a person, or its resident process, has asked for the end of this run.

        A run that is asked on its own host is interrupted; what is asked elsewhere, its state alone says.
        """
        return is_to_end(self.context.instance, self.context.run_id)

    def _begin_ahead(self) -> _Begun | None:
        """Begin a range while another one waits for its commit, which nothing that happens here shall prevent."""
        try:
            return self._begin_next(topic_state(self.settings, self.stream.topic)) if self._goes_on() else None
        except Exception as error:
            self.context.log.warning(f"the next range is not begun yet: {error}")
            return None

    def _wait_for_next(self) -> _Begun | None:
        """Wait for clips; None if its partitions stay quiet, for a run that is not a resident's, or it is to end."""
        if self.token is None:
            return None
        while self._goes_on():
            state = topic_state(self.settings, self.stream.topic)
            if (begun := self._begin_next(state)) is not None:
                return begun
            if self._is_residents:
                if not self._stays_for_clips(state):
                    return None
                continue
            quiet_s = self.settings.drain_quiet_s
            if not wait_for_data(self.settings, self.stream.topic, state.ends, quiet_s, concerns=self.shard.has):
                self.context.log.info(f"its partitions were quiet for {quiet_s:g} s (GENRES_DRAIN_QUIET_S): done")
                return None
        old = f"{self.settings.max_run_s:g} s old (GENRES_MAX_RUN_S)"
        self.context.log.info(f"asked to end, or {old}: the next run goes on")
        return None

    def _stays_for_clips(self, state: TopicState) -> bool:
        """Wait for clips as a resident's run, which keeps its model for the next ones; False if it had better end."""
        self._made_progress()
        try:
            # Not for longer than ranges that wait for another attempt may wait for somebody to look.
            wait_for_data(
                self.settings,
                self.stream.topic,
                state.ends,
                self.settings.lease_s / 3,
                concerns=self.shard.has,
                given_up=self._is_to_end,
            )
            if still_knows(self._session, remote=self.settings.remote):
                return True
            why = "Spark Connect was started again, or closed the session"
        except GenresError as error:  # an outage while nothing is at work: no range waits for it, and no run has failed
            why = str(error)
        self.context.log.info(f"{why}: the next run goes on")
        return False

    def _begin_next(self, state: TopicState) -> _Begun | None:
        """Begin a range that waits for another attempt, or plan the next one; None if there is neither."""
        while True:
            known = ranges.known(self.database, self.stream.topic)
            # What outages and kills left comes first: the reconciler asks for one range in each of its ticks.
            now = datetime.now(UTC)
            allowed = limits(self.settings, clips=self._pace.clips)
            waiting = plan(known, state, allowed, now=now, shards=[self.shard]).retry[:1]
            key = waiting[0].key if waiting else next_range(known, state, allowed, self.shard, now=now)
            if key is None:
                return None
            wanted = Plan(retry=waiting) if waiting else Plan(new=(Attempt(key),))
            # Whoever was overtaken plans nothing: its ranges would wait until they count as abandoned.
            if planned := ranges.record_plan(self.database, wanted, token=self.token, shard=self.shard.number):
                break  # else another planner was first, which the ledger shows by now
        self.context.instance.add_dynamic_partitions(str(self.stream.offset_ranges.name), [str(key)])
        return self._begin(key, {self.stream.features, self.stream.predictions}, planned[0].attempt)

    def _begin(self, key: PartitionKey, selected: Collection[dg.AssetKey], attempt: int | None) -> _Begun:
        """Take a range, and let its features be computed or read.

        Raises
        ------
        GenresError
            If it is to be predicted, and the champion is missing or of no use: the run fails, the range waits.
        """
        with self._ending(key):
            offset_range = ranges.begin_attempt(self.database, key, self.context.run_id, attempt=attempt)
            champion = self._find_champion()
            if self.stream.predictions in selected and champion is None:
                raise NoChampionError(
                    f"{NO_CHAMPION} for dataset '{self._dataset_id}' yet: the clips wait until there is one"
                )
            feature_set = self._feature_set(champion)
            is_stored = offset_range.feature_path and offset_range.feature_version == feature_set.feature_version
            if self.stream.features in selected or not is_stored:
                features = self._other.submit(
                    self._work.store_features, key, feature_set, spark=self._session, on_progress=self._made_progress
                )
            else:
                features = self._other.submit(self._work.read_features, offset_range)
            return _Begun(key, selected, champion, feature_set, features)

    def _stored(self, begun: _Begun) -> StoredFeatures:
        """Wait for a range's features, and load its champion meanwhile."""
        with self._ending(begun.key):
            if self.stream.predictions in begun.selected:
                self._load_scorer(begun.champion)
            return begun.features.result()

    def _finish(self, begun: _Begun, stored: StoredFeatures) -> Iterator[Output]:
        """Predict and commit, as far as that is selected; yield what was made."""
        key, selected, version = begun.key, begun.selected, begun.feature_set.feature_version
        with self._ending(key):
            if self.stream.predictions not in selected:
                ranges.publish_features(self.database, key, stored.path, version)
            if self.stream.features in selected:
                metadata = {
                    "range": short_name(key),
                    "dagster/row_count": len(stored.table),
                    "clips_refused": len(stored.table) - stored.table["reason"].null_count,
                    "seconds": stored.seconds,
                    "parquet": self.lake.uri(stored.path),
                    "feature_version": version,
                }
                yield Output(key, self.stream.features, metadata, f"{key}-{version}")
            if self.stream.predictions in selected:
                yield self._predict(begun, stored)

    @contextlib.contextmanager
    def _ending(self, key: PartitionKey) -> Iterator[None]:
        """Write down what ends an attempt, an interrupt too; a fenced run has nothing more to say.

        Whatever it is, it is no clip's fault: what is, has become a row of the range's features.
        """
        try:
            yield
        except FencedError:
            raise
        except BaseException as error:
            is_outage = isinstance(error, Exception) and not isinstance(error, NoChampionError)
            self._end_attempt(key, last_words(error), is_outage=is_outage)
            raise

    def _end_attempt(self, key: PartitionKey, reason: str, *, is_outage: bool) -> None:
        run_id = self.context.run_id
        try:
            ranges.end_attempt(self.database, key, run_id, reason=reason[:500], is_outage=is_outage)
        except GenresError as error:  # it must not hide why the attempt ended
            self.context.log.warning(f"{short_name(key)}: the ledger does not take down why its attempt ended: {error}")

    def _predict(self, begun: _Begun, features: StoredFeatures) -> Output:
        started = time.monotonic()
        key, scorer = begun.key, self._load_scorer(begun.champion)
        result = self._work.predict_and_commit(
            key,
            features,
            scorer,
            spark=self._session,
            run_id=self.context.run_id,
            token=self.token,
            shard=self.shard.number,
        )
        seconds = time.monotonic() - started
        self._pace.note(len(key), max(features.seconds, seconds))
        champion = scorer.model
        self.context.log.info(
            f"{short_name(key)}: {result.new_predictions} predicted, {result.new_quarantine} quarantined, "
            f"{result.duplicates} known already"
        )
        metadata = {
            "range": short_name(key),
            "data": provenance(scorer.trained_on),
            "dagster/row_count": result.new_predictions,
            "clips_quarantined": result.new_quarantine,
            "clips_known_already": result.duplicates,
            "model": f"{champion.name} version {champion.version}",
            "seconds": seconds,
        }
        return Output(key, self.stream.predictions, metadata, f"{key}-{champion.name}-{champion.version}")

    @cached_property
    def _session(self) -> "SparkSession":
        session = self._spark.spark_session
        self.context.log.info("the Spark session is open")
        return session

    def _find_champion(self) -> RegisteredModel | None:
        """Resolve the champion of the next range.

        MLflow is asked once for the run and after each recorded change, not for each range: the database, without
        which no range goes on anyway, says whether there was one.
        """
        change = newest_change(self.database, self._dataset_id)
        if self._champion is None or change != self._champion_change:
            self._champion = self._mlflow.open().find_champion(self._dataset_id)
            self._champion_change = change
        return self._champion

    def _feature_set(self, champion: RegisteredModel | None) -> AnyFeatureSet:
        """Return the features that the champion reads or, without one, the dataset's models are trained on."""
        return feature_set_of(champion.feature_version) if champion else feature_sets_named(self._dataset.feature_sets)

    def _load_scorer(self, champion: RegisteredModel | None) -> "Scorer":
        """Load a range's champion, unless the range before had the same."""
        assert champion is not None  # noqa: S101 - without one the range was not begun
        if self._scorer is None or self._scorer.model.version != champion.version:
            from spark.scoring import Scorer

            _ = self._session  # the model is loaded into it
            if self._scorer is not None:
                self._scorer.close()
                self._scorer = None
            self._scorer = Scorer(champion, trained_on=self._dataset, lake=self.lake)
            self.context.log.info(f"{champion.name} version {champion.version} is loaded")
        return self._scorer

    @cached_property
    def _dataset_id(self) -> str:
        return self.stream.dataset(self.settings, self.database)

    @cached_property
    def _dataset(self) -> Dataset:
        return ledger.registered_dataset(self.database, self._dataset_id)


def limits(settings: Settings, *, clips: int = FEWEST_CLIPS) -> Limits:
    """Build the planner's limits from the settings.

    Parameters
    ----------
    clips
        Most clips of a new range, by the run's `Pace`; by default those of a run that has not begun.
    """
    return Limits(min(clips, settings.max_clips_per_batch), settings.range_grace_s)

"""Metrics of the streams, computed from Kafka's offsets and the ledger each time they are asked for.

What is measured of a stream stands here, for Prometheus and for people.

Nothing is counted in this process, so that it may be restarted, and run beside another one, without a figure changing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.stream_ledger import losses, producers, ranges, results
from streaming_sensors.sensors import lag
from streaming_sensors.stream import Stream
from streaming_sensors.topic import TopicState, topic_state

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

NEWEST = 200
"""How many of the newest clips latency and refusals are of."""


class Latency(NamedTuple):
    """From the file to its row, of the newest predictions of a topic."""

    clips: int
    """How many there are; `NEWEST` at most."""
    newest_at: datetime
    """When the newest one was stored."""
    quantiles_s: dict[float, float]
    """Seconds by share of the clips that took no longer: 0.5, 0.95 and 0.99."""


def latency(database: Database, topic: str) -> Latency | None:
    """Measure the latency of a topic's newest clips; None if there is no prediction."""
    newest = results.arrivals(database, topic=topic, limit=NEWEST)
    if not newest:
        return None
    # One clip is its own quantile; the library wants two.
    taken = [arrival.latency_s for arrival in newest] * (2 if len(newest) == 1 else 1)
    cut = quantiles(taken, n=100, method="inclusive")
    return Latency(len(newest), newest[0].predicted_at, {share / 100: cut[share - 1] for share in (50, 95, 99)})


class _Family(NamedTuple):
    """A metric: its labels beside `topic`, and what it is."""

    labels: tuple[str, ...]
    description: str


STREAM_METRICS = {
    "genres_stream_readable": _Family((), "1 if Kafka and the database could be asked about the stream."),
    "genres_stream_lag_clips": _Family((), "Clips in the topic that are not committed, lost or given up."),
    "genres_stream_end_offset": _Family(("kafka_partition",), "Offset of the next message."),
    "genres_stream_waiting_clips": _Family((), "Clips of ranges whose last attempt ended with a reason."),
    "genres_stream_lost_ranges": _Family((), "Ranges that are lost and neither made good nor acknowledged."),
    "genres_stream_latency_seconds": _Family(
        ("quantile",), f"From the file to its row, of the newest {NEWEST} predictions."
    ),
    "genres_stream_newest_row_timestamp_seconds": _Family((), "When the newest prediction was stored."),
    "genres_stream_refused_ratio": _Family(
        (), f"Share of refused clips among the newest {NEWEST}, by the dataset and the features that judge them now."
    ),
    "genres_producer_up": _Family((), "1 if the producer gave a sign of life within the last minute."),
    "genres_producer_sent_files": _Family((), "Files that it has sent since it started."),
    "genres_producer_refused_files": _Family((), "Files that it has refused since it started."),
    "genres_producer_waiting_files": _Family((), "Files that it has seen and not sent yet."),
}
"""What there is of each stream, with the label `topic`."""

SERVICE_METRIC = "genres_service_up"


class Metrics:
    """A collector for `prometheus_client`: what it is asked for is looked up then.

    Parameters
    ----------
    settings, database
        Whose streams, and where their ledger is.
    services
        Returns for each service of the stack whether it is healthy.
    """

    def __init__(self, settings: Settings, database: Database, services: Callable[[], Mapping[str, bool]]) -> None:
        self._settings = settings
        self._database = database
        self._services = services

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """Yield each metric with its values of now."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily(SERVICE_METRIC, "1 if the service is healthy.", labels=["service"])
        for service, is_healthy in self._services().items():
            up.add_metric([service], is_healthy)
        yield up
        families = {
            name: GaugeMetricFamily(name, family.description, labels=["topic", *family.labels])
            for name, family in STREAM_METRICS.items()
        }
        for stream in self._settings.streams:
            for name, labels, value in self._values(Stream(stream)):
                families[name].add_metric([stream.topic, *labels], value)
        yield from families.values()

    def _values(self, stream: Stream) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Yield name, labels beside the topic, and value; what cannot be asked has none, and is not readable."""
        is_readable = True
        for source in (self._of_topic, self._of_rows, self._of_producer):
            try:
                # Whole or not at all: a family with half its values would look like one that has no others.
                yield from list(source(stream))
            except GenresError:
                is_readable = False
        yield "genres_stream_readable", (), is_readable

    def _of_topic(self, stream: Stream) -> Iterable[tuple[str, tuple[str, ...], float]]:
        state: TopicState = topic_state(self._settings, stream.topic)
        yield "genres_stream_lag_clips", (), lag(self._database, state)
        for number, end in state.ends.items():
            yield "genres_stream_end_offset", (str(number),), end
        lost = losses.of_topic(self._database, stream.topic, state.topic_id, state.beginnings)
        yield "genres_stream_lost_ranges", (), len(lost.ranges)

    def _of_rows(self, stream: Stream) -> Iterable[tuple[str, tuple[str, ...], float]]:
        waiting = ranges.waiting(ranges.known(self._database, stream.topic))
        yield "genres_stream_waiting_clips", (), sum(found.clips for found in waiting)
        if measured := latency(self._database, stream.topic):
            yield "genres_stream_newest_row_timestamp_seconds", (), measured.newest_at.timestamp()
            for share, seconds in measured.quantiles_s.items():
                yield "genres_stream_latency_seconds", (f"{share:g}",), seconds
        dataset = stream.dataset(self._settings, self._database)
        judged = results.judged_lately(self._database, topic=stream.topic, dataset=dataset, limit=NEWEST)
        if judged.clips:
            yield "genres_stream_refused_ratio", (), judged.refused / judged.clips

    def _of_producer(self, stream: Stream) -> Iterable[tuple[str, tuple[str, ...], float]]:
        producer = producers.newest(self._database, stream.topic)
        yield "genres_producer_up", (), producer is not None and producer.is_alive()
        if producer is not None:
            yield "genres_producer_sent_files", (), producer.sent
            yield "genres_producer_refused_files", (), producer.refused
            yield "genres_producer_waiting_files", (), producer.waiting


def serve(metrics: Metrics, port: int) -> None:
    """Answer on 127.0.0.1 until interrupted.

    Raises
    ------
    GenresError
        If the port is taken.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise GenresError(
            f"port {port} of 127.0.0.1 cannot be had ({error.strerror}): name another one by --port"
        ) from error
    try:
        thread.join()
    finally:
        server.shutdown()

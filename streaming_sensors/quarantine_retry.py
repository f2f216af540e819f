"""Taking a quarantine back: clips whose bytes were kept are sent to their topic again, to be judged again.

What the stream refused is kept on HDFS; what the producer refused, in ``error/`` in its folder, where it stays.
What becomes of them is the stream's to decide: a clip that is accepted now gets its prediction and closes its refusal;
one that is refused by the same version again changes nothing. Rows keep the history.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from genres.audio import gate
from genres.audio.feature_sets import feature_sets_named
from genres.errors import GenresError
from genres.file_names import display_name, display_path
from genres.kafka_client import KafkaAccess, open_client
from genres.settings import Settings
from genres.store import ledger
from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.model_registry import ModelRegistry
from genres.store.stream_ledger import sent_files
from genres.store.stream_ledger.sent_files import ConfirmedMessage
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.folder_producer.claim_check import checked_in
from streaming_sensors.folder_producer.folder import ERROR_FOLDER
from streaming_sensors.folder_producer.outlet import CONNECT_S, producer_config
from streaming_sensors.range_work import judged_by
from streaming_sensors.stream import Stream
from streaming_sensors.topic import topic_state

if TYPE_CHECKING:
    from kafka import KafkaProducer


class Retried(NamedTuple):
    """What became of refused clips that were to be sent again."""

    sent: int
    left: list[str]
    """A line for each clip that could not be sent: its name, why, and what to do."""


def judged_by_older(settings: Settings, database: Database, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the refused clips that another version of gate or features judged than the one which would judge them now.

    In a stream that is the version of the features that its champion reads; without one, of those that the dataset has.

    Parameters
    ----------
    rows
        Of ``stream_quarantine``.

    Raises
    ------
    GenresError
        If the dataset whose champion scores a stream was never loaded, or MLflow does not say which that is.
    """
    present = {("producer", stream.topic): gate.VERSION for stream in settings.streams}
    refused_in = {row["topic"] for row in rows if row["stage"] == "stream"}
    if streams := [stream for stream in settings.streams if stream.topic in refused_in]:
        registry = ModelRegistry(settings.tracking_uri)
        for stream in streams:
            dataset = ledger.registered_dataset(database, Stream(stream).dataset(settings, database))
            champion = registry.find_champion(dataset.dataset)
            source = champion or feature_sets_named(dataset.feature_sets)
            present["stream", stream.topic] = judged_by(source.feature_version)
    return [row for row in rows if row["judged_by"] != present.get((row["stage"], row["topic"]))]


def send_again(settings: Settings, rows: Sequence[dict[str, Any]]) -> Retried:
    """Send refused clips to the topic that they came from.

    Parameters
    ----------
    rows
        Of ``stream_quarantine``.

    Raises
    ------
    GenresError
        If HDFS does not return a clip's bytes, or Kafka does not take them.
    """
    # Nobody waits for longer than a person would.
    lake = Lake.of(settings, patience_s=CONNECT_S)
    aside = {stream.topic: stream.watch_folder / ERROR_FOLDER for stream in settings.streams}
    database = Database(settings.database)
    sent, left = 0, []
    producer, topic_ids = None, dict[str, str]()
    set_aside = _SetAside()
    with ExitStack() as opened:
        for row in rows:
            name = f"{display_name(row['file_name'])} ({row['sha256'][:12]})"
            if row["topic"] not in aside:
                left.append(f"{name}: no stream has its topic '{row['topic']}': add it to GENRES_MORE_STREAMS")
                continue
            is_producers = row["stage"] == "producer"
            data = set_aside.bytes_of(row, aside[row["topic"]]) if is_producers else _kept_bytes(row, lake)
            if data is None:
                where = f"in {display_path(aside[row['topic']])}" if is_producers else "on HDFS"
                left.append(f"{name}: its bytes are not {where}: drop the file again")
                continue
            if producer is None:  # there is something to send
                topics = {row["topic"] for row in rows} & aside.keys()
                topic_ids = {topic: topic_state(settings, topic).topic_id for topic in sorted(topics)}
                producer = opened.enter_context(_kafka(settings))
            key, value, headers = encode(_message(row, data, lake, settings))
            confirmed = producer.send(row["topic"], key=key, value=value, headers=headers).get(timeout=30)
            place = (row["topic"], topic_ids[row["topic"]], confirmed.partition, confirmed.offset)
            # Should Kafka lose it: which clip it was.
            sent_files.remember_message(database, ConfirmedMessage(*place, row["sha256"], row["file_name"]))
            sent += 1
    return Retried(sent, left)


@contextmanager
def _kafka(settings: Settings) -> "Iterator[KafkaProducer]":
    """Open a producer; turn what goes wrong with it into one line."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    try:
        producer = open_client(KafkaProducer, KafkaAccess.of(settings), **producer_config(settings))
        try:
            yield producer
        finally:
            producer.close(timeout=10)
    except KafkaError as error:
        raise GenresError(
            f"Kafka at {settings.bootstrap_servers} does not take the clips ({type(error).__name__}): is it up? "
            "See `genres status`"
        ) from error


class _SetAside:
    """The files that producers refused, in their folders; each is looked at once, however many rows there are."""

    def __init__(self) -> None:
        self._by_hash: dict[tuple[Path, str], dict[str, Path]] = {}
        """Of a folder and a suffix."""

    def bytes_of(self, row: dict[str, Any], folder: Path) -> bytes | None:
        """Return the bytes of a refused file, or None if it is not in the folder any more."""
        try:
            if (place := (folder, row["suffix"])) not in self._by_hash:
                self._by_hash[place] = {_sha256_of(path): path for path in _files(*place)}
            path = self._by_hash[place].get(row["sha256"])
            data = path.read_bytes() if path else b""
        except FileNotFoundError:
            return None
        except OSError as error:
            raise GenresError(f"{display_path(Path(error.filename))} cannot be read: {error.strerror}") from error
        # It may have changed since it was looked at.
        return data if data and hashlib.sha256(data).hexdigest() == row["sha256"] else None


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.suffix.lower() == suffix and path.is_file())


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept_bytes(row: dict[str, Any], lake: Lake) -> bytes | None:
    """Return a refused clip's bytes, or None if they were not kept, or are no longer those that were judged."""
    if not row["kept_path"]:
        return None
    try:
        data = lake.files.cat_file(row["kept_path"])
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise GenresError(f"HDFS at {lake.files.address} does not return {row['kept_path']} ({error})") from error
    return data if data and hashlib.sha256(data).hexdigest() == row["sha256"] else None


def _message(row: dict[str, Any], data: bytes, lake: Lake, settings: Settings) -> ClipMessage:
    suffix = row["suffix"] or PurePosixPath(row["file_name"]).suffix.lower() or ".wav"
    about = (row["sha256"], row["file_name"], suffix, len(data), datetime.now(UTC), row["genre"])
    message = ClipMessage(*about, data=data)
    if len(data) <= settings.inline_limit_bytes:
        return message
    try:
        return checked_in(message, lake)
    except (OSError, RuntimeError) as error:
        raise GenresError(f"HDFS at {lake.files.address} does not take {row['file_name']} ({error})") from error

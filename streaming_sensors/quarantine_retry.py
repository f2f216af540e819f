"""Taking a quarantine back: clips whose bytes were kept are sent to their topic again, to be judged again.

What becomes of them is the stream's to decide: a clip that is accepted now gets its prediction and closes its refusal;
one that is refused by the same version again changes nothing. Rows keep the history.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.lake import Lake
from streaming_sensors.envelope import ClipMessage, encode
from streaming_sensors.folder_producer.claim_check import checked_in
from streaming_sensors.folder_producer.outlet import producer_config


class Retried(NamedTuple):
    """What became of refused clips that were to be sent again."""

    sent: int
    not_kept: list[str]
    """Names of the files whose bytes are not on HDFS: what the producer refused lies in ``error/``."""


def send_again(settings: Settings, rows: Sequence[dict[str, Any]]) -> Retried:
    """Send refused clips to the topic that they came from.

    Parameters
    ----------
    rows
        Of ``stream_quarantine``.

    Raises
    ------
    GenresError
        If Kafka does not take a clip.
    """
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    lake = Lake.of(settings)
    kept = [row for row in rows if row["kept_path"] and lake.files.exists(row["kept_path"])]
    try:
        producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, **producer_config(settings))
        try:
            for row in kept:
                key, value, headers = encode(_message(row, lake, settings))
                producer.send(row["topic"], key=key, value=value, headers=headers).get(timeout=30)
        finally:
            producer.close(timeout=10)
    except KafkaError as error:
        raise GenresError(
            f"Kafka at {settings.bootstrap_servers} does not take the clips ({type(error).__name__}): is it up? "
            "See `genres status`"
        ) from error
    names = {row["sha256"] for row in kept}
    return Retried(len(kept), [row["file_name"] for row in rows if row["sha256"] not in names])


def _message(row: dict[str, Any], lake: Lake, settings: Settings) -> ClipMessage:
    data = lake.files.cat_file(row["kept_path"])
    suffix = row["suffix"] or PurePosixPath(row["file_name"]).suffix.lower() or ".wav"
    about = (row["sha256"], row["file_name"], suffix, len(data), datetime.now(UTC))
    message = ClipMessage(*about, data=data)
    return message if len(data) <= settings.inline_limit_bytes else checked_in(message, lake)

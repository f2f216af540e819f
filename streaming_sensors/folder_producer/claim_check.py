"""Claim checks: a clip too large for a message goes to HDFS, and the message carries its path there.

Each day has a folder. No message that is sent later names a file in it, so that the folder may go once every message
of its day is done with (``genres.store.retention``).
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from genres.settings import Settings
from streaming_sensors.envelope import ClipMessage
from streaming_sensors.folder_producer.outlet import CONNECT_S

if TYPE_CHECKING:
    from genres.store.lake import Lake


class ClaimChecks:
    """Where large clips are checked in; HDFS is not asked before the first one comes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _lake(self) -> "Lake":
        # Most folders never need it, and its libraries take as long to import as everything else here.
        from genres.store.lake import Lake

        # The producer's only thread asks: small clips wait as long as a frozen HDFS is waited for.
        return Lake.of(self._settings, patience_s=CONNECT_S, answer_s=CONNECT_S)

    def check_in(self, message: ClipMessage) -> ClipMessage:
        """Bring an inline message's bytes to HDFS, and return the message with its claim check instead.

        Raises
        ------
        GenresError, OSError, RuntimeError
            If HDFS does not answer or does not take the clip.
        """
        return checked_in(message, self._lake)


def checked_in(message: ClipMessage, lake: "Lake") -> ClipMessage:
    """Bring an inline message's bytes to today's folder, and return the message with its claim check instead."""
    from genres.store.retention import claims_folder

    data = message.data or b""
    place = f"{claims_folder(lake, datetime.now(UTC))}/{message.sha256}{message.suffix}"
    if not (lake.files.exists(place) and lake.files.info(place)["size"] == len(data)):
        lake.put_clip(place, data)
    return replace(message, data=None, claim_path=place)

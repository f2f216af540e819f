"""Claim checks: a clip too large for a message goes to HDFS, and the message carries its path there."""

from dataclasses import replace
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
        from genres.store.hdfs import Hdfs
        from genres.store.lake import Lake

        settings = self._settings
        files = Hdfs(settings.webhdfs, user=settings.hdfs_user, patience_s=CONNECT_S)
        return Lake(files, hdfs=settings.hdfs, root=settings.lake_path)

    def check_in(self, message: ClipMessage) -> ClipMessage:
        """Bring an inline message's bytes to HDFS, and return the message with its claim check instead.

        Raises
        ------
        GenresError, OSError, RuntimeError
            If HDFS does not answer or does not take the clip.
        """
        data = message.data or b""
        place = self._lake.path("stream", "claims", message.sha256 + message.suffix)
        if not (self._lake.files.exists(place) and self._lake.files.info(place)["size"] == len(data)):
            self._lake.put_clip(place, data)
        return replace(message, data=None, claim_path=place)

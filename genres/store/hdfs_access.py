"""Where HDFS is, and as whom it is asked: a small value that is pickled to Spark's workers and opened there.

Belongs here: what every client of HDFS needs to begin. How it talks to HDFS is `genres.store.hdfs`'s, which is imported
when a client is opened: code locations and workers that ask nothing of HDFS load none of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from genres.settings import Settings
    from genres.store.hdfs import Hdfs

PATIENCE_S = 30.0
"""How long a call is repeated while HDFS is unreachable or not ready, in seconds, where nothing else is asked for."""
ANSWER_S = 120.0
"""How long HDFS may be silent, in seconds, where nothing else is asked for: while a busy NameNode deletes a large
folder, or a DataNode that takes a file waits for another one."""


@dataclass(frozen=True)
class HdfsAccess:
    """Where HDFS is and how it lets a client in. Build it with `of`."""

    webhdfs_url: str
    """``http://host:port`` of the NameNode's WebHDFS."""
    user: str
    """User name sent to HDFS."""
    ca_file: Path | None = None
    """PEM file of the authorities that sign WebHDFS's certificate, at the same place on every worker."""

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Build it from the settings."""
        return cls(settings.webhdfs, settings.hdfs_user, settings.ca_file)

    def open(self, *, patience_s: float = PATIENCE_S, answer_s: float = ANSWER_S) -> "Hdfs":
        """Open a client; nothing is asked of HDFS yet."""
        from genres.store.hdfs import Hdfs

        return Hdfs(self.webhdfs_url, user=self.user, patience_s=patience_s, answer_s=answer_s, ca_file=self.ca_file)

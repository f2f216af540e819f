"""Where the Python workers get a clip's bytes from: the strategies that `spark.extraction` is given.

A strategy turns rows of a Spark DataFrame, which name clips, into clips with their bytes. It is pickled to the
workers and fetches there, so that audio never passes through the JVM. Reading or judging audio is not done here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from genres.audio.clip_features import Clip
from genres.errors import GenresError
from genres.store.schemas import GENRE, TRACK_ID, Column

if TYPE_CHECKING:
    import requests

_READ_BYTES = 2**20


class ClipSource(Protocol):
    """A picklable way from rows that name clips to the clips.

    One row may name one clip (a path) or many (a range of offsets); the source says which columns each clip
    carries into the output.
    """

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in `Clip.about`, in order."""
        ...

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Fetch the clips that `rows` name, one at a time.

        Raises whatever keeps the bytes from being fetched: an outage fails the task, it never turns clips
        into rejected ones.
        """
        ...


@dataclass(frozen=True)
class WebHdfsClips:
    """Clips of the lake by path: rows of ``track_id, genre, path, sha256``, fetched over WebHDFS."""

    webhdfs_url: str
    """``http://host:port`` of the NameNode's WebHDFS."""
    user: str
    """User name sent to HDFS."""
    give_up_after_s: float = 60.0
    """How long a clip's fetch is tried again while HDFS does not answer or answers with an error."""
    columns: tuple[Column, ...] = (TRACK_ID, GENRE)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Fetch each row's file, and see that it is the one that the manifest knows.

        Raises
        ------
        GenresError
            If HDFS does not give the file in time, or gives other bytes than the manifest's.
        """
        with hdfs_session() as session:
            for row in rows:
                path = row["path"]
                data = fetch_from_hdfs(
                    session,
                    path,
                    webhdfs_url=self.webhdfs_url,
                    user=self.user,
                    give_up_after_s=self.give_up_after_s,
                )
                if hashlib.sha256(data).hexdigest() != row["sha256"]:
                    raise GenresError(
                        f"{path} on HDFS is not the file in the manifest (sha256 {row['sha256'][:12]}…); "
                        "materialize raw_audio again"
                    )
                about = {"track_id": row["track_id"], "genre": row["genre"]}
                yield Clip(about, PurePosixPath(path).suffix, data)


def fetch_from_hdfs(
    session: "requests.Session", path: str, *, webhdfs_url: str, user: str, give_up_after_s: float
) -> bytes:
    """Read a whole file of HDFS over WebHDFS.

    Raises
    ------
    GenresError
        If HDFS does not give the file within `give_up_after_s` seconds, or has no such file.
    """
    import requests
    from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

    @retry(
        retry=retry_if_exception_type(requests.RequestException),
        stop=stop_after_delay(give_up_after_s),
        wait=wait_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    def fetch() -> bytes | None:
        # The NameNode answers with a redirect to a DataNode that has the block.
        with session.get(
            f"{webhdfs_url}/webhdfs/v1{quote(path)}",
            params={"op": "OPEN", "user.name": user},
            timeout=(5, 60),
            stream=True,
        ) as response:
            if response.status_code == requests.codes.not_found:
                return None
            response.raise_for_status()
            # Left to itself, requests reads ten kilobytes at a time.
            return b"".join(response.iter_content(_READ_BYTES))

    try:
        data = fetch()
    except requests.RequestException as error:
        raise GenresError(
            f"HDFS at {webhdfs_url} does not give {path}: {error}; is it up? See `genres status`"
        ) from error
    if data is None:
        raise GenresError(f"HDFS at {webhdfs_url} has no {path}, which the manifest or a message names")
    return data


def hdfs_session() -> "requests.Session":
    """Open a session for `fetch_from_hdfs`."""
    import requests

    session = requests.Session()
    # The user's proxy settings are not for the cluster's own nodes.
    session.trust_env = False
    return session

"""Where the Python workers get a clip's bytes from: the strategies that `spark.extraction` is given.

A strategy turns rows of a Spark DataFrame, which name clips, into clips with their bytes. It is pickled to the
workers and fetches there, so that audio never passes through the JVM. Reading or judging audio is not done here.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from genres.audio.clip_features import Clip
from genres.errors import GenresError
from genres.store.hdfs_access import HdfsAccess
from genres.store.schemas import GENRE, TRACK_ID, Column

if TYPE_CHECKING:
    from genres.store.hdfs import Hdfs


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

    hdfs: HdfsAccess
    give_up_after_s: float = 60.0
    """How long a clip's fetch is tried again while HDFS does not answer or is not ready."""
    columns: tuple[Column, ...] = (TRACK_ID, GENRE)

    def clips(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Clip]:
        """Fetch each row's file, and see that it is the one that the manifest knows.

        Raises
        ------
        GenresError
            If HDFS does not return the file in time, or returns other bytes than the manifest's.
        """
        with closing(self.hdfs.open(patience_s=self.give_up_after_s)) as hdfs:
            for row in rows:
                path = row["path"]
                try:
                    data = fetch_from_hdfs(hdfs, path)
                except FileNotFoundError as error:
                    raise GenresError(
                        f"HDFS at {hdfs.address} has no {path}, which the manifest names; materialize raw_audio again"
                    ) from error
                if hashlib.sha256(data).hexdigest() != row["sha256"]:
                    raise GenresError(
                        f"{path} on HDFS is not the file in the manifest (sha256 {row['sha256'][:12]}…); "
                        "materialize raw_audio again"
                    )
                about = {"track_id": row["track_id"], "genre": row["genre"]}
                yield Clip(about, PurePosixPath(path).suffix, data)


def fetch_from_hdfs(hdfs: "Hdfs", path: str) -> bytes:
    """Return the bytes of a clip on HDFS.

    Raises
    ------
    FileNotFoundError
        If HDFS has no such file.
    GenresError
        If it does not answer in time or refuses: no fault of the clip's.
    """
    with _outages_named(hdfs, path):
        return hdfs.cat_file(path)


def size_on_hdfs(hdfs: "Hdfs", path: str) -> int:
    """Return the size of a clip on HDFS, in bytes; raises what `fetch_from_hdfs` does."""
    with _outages_named(hdfs, path):
        return int(hdfs.info(path)["size"])


@contextmanager
def _outages_named(hdfs: "Hdfs", path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except GenresError as error:
        raise GenresError(f"HDFS at {hdfs.address} does not give {path}: {error}") from error
    except (OSError, RuntimeError, ValueError) as error:  # an answer that fsspec has no better word for
        raise GenresError(f"HDFS at {hdfs.address} does not give {path}: {error}; see `genres status`") from error

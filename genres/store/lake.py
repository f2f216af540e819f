"""The lake: where each thing lies on HDFS and how a table is committed there.

A table is written beside its place, under ``_tmp``, checked, renamed once and then published in the ledger
(``genres.store.ledger``); readers take paths from the ledger, so a half-written table is never seen. What a crash
leaves behind is swept later (``genres.store.retention``).
"""

import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import uuid4

from genres.store.hdfs_access import ANSWER_S, PATIENCE_S, HdfsAccess

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

    from genres.settings import Settings
    from genres.store.hdfs import Hdfs

STREAM = "stream"
"""The folder of what comes from the topics; no dataset can have this id."""
ATTEMPTS = "_tmp"
"""The folder of what is being written."""
_FILES_AT_A_TIME = 8


class Entry(NamedTuple):
    """A file or a folder of the lake."""

    path: str
    is_folder: bool
    size: int
    """Of a file, in bytes; 0 for a folder."""
    modified_at: datetime
    """Of a folder: when something was last put into it, or taken out."""


class Lake:
    """The folder of HDFS that the project owns.

    Parameters
    ----------
    files
        HDFS over WebHDFS.
    hdfs
        ``hdfs://host:port`` of the same NameNode, for Spark.
    root
        The lake's folder on HDFS.
    """

    def __init__(self, files: "Hdfs", *, hdfs: str, root: str) -> None:
        self.files = files
        self._hdfs = hdfs.rstrip("/")
        self.root = root.rstrip("/")

    @classmethod
    def of(cls, settings: "Settings", *, patience_s: float = PATIENCE_S, answer_s: float = ANSWER_S) -> Self:
        """Open the settings' lake with the limits of `genres.store.hdfs.Hdfs`; nothing is asked of HDFS yet."""
        files = HdfsAccess.of(settings).open(patience_s=patience_s, answer_s=answer_s)
        return cls(files, hdfs=settings.hdfs, root=settings.lake_path)

    def path(self, dataset: str, *parts: str) -> str:
        """Path on HDFS of something that belongs to a dataset."""
        return posixpath.join(self.root, dataset, *parts)

    def uri(self, path: str) -> str:
        """Full ``hdfs://`` URI of a path, as Spark wants it."""
        return self._hdfs + path

    def put_clip(self, path: str, data: bytes) -> None:
        """Upload a clip; it appears under its name only when it is whole, replacing an older one."""
        temporary = self.path(ATTEMPTS, "clips", uuid4().hex)
        self.files.pipe_file(temporary, data)
        if self.files.exists(path):
            self.files.rm(path)
        self.files.rename(temporary, path)

    def sizes(self, folder: str) -> dict[str, int]:
        """Size in bytes of every file in a folder and below, by path; empty if there is no such folder."""
        if not self.files.exists(folder):
            return {}
        return {path: info["size"] for path, info in self.files.find(folder, detail=True).items()}

    def attempt_path(self, place: str) -> str:
        """Return a fresh temporary path for one attempt to write what will lie at or in `place`."""
        return self.path(ATTEMPTS, place.removeprefix(self.root).strip("/").replace("/", "-"), uuid4().hex)

    def entries(self, folder: str, *, below: bool = False) -> list[Entry]:
        """List a folder, by name; empty if there is no such folder.

        Parameters
        ----------
        below
            Whether the files in it and in all folders below are wanted, instead of what lies in it directly.
        """
        if not self.files.exists(folder):
            return []
        if below:
            return [_entry(path, found) for path, found in sorted(self.files.find(folder, detail=True).items())]
        return [_entry(found["name"], found) for found in self.files.ls(folder, detail=True)]

    def bytes_of(self, entry: Entry) -> int:
        """Return the size of a file, or of all files below a folder, in bytes."""
        return int(self.files.content_summary(entry.path)["length"]) if entry.is_folder else entry.size

    def fetch_directory(self, path: str, folder: Path) -> None:
        """Copy a directory of small files into the new local `folder`.

        Raises
        ------
        FileNotFoundError
            If there is no such directory, or it is deleted meanwhile.
        """
        for name, data in self.read_directory(path).items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    def read_directory(self, path: str) -> dict[str, bytes]:
        """Read a directory of small files, by their paths in it.

        Raises
        ------
        FileNotFoundError
            If there is no such directory, or it is deleted meanwhile.
        """
        if not self.files.isdir(path):
            raise FileNotFoundError(path)
        files = self.files.find(path)
        with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
            contents = pool.map(self.files.cat_file, files)
            return {posixpath.relpath(file, path): data for file, data in zip(files, contents, strict=True)}

    def put_directory(self, folder: Path, path: str) -> None:
        """Upload a local folder of small files; it appears at `path`, where nothing may be, when it is whole."""
        attempt = self.attempt_path(posixpath.dirname(path))

        def put(file: Path) -> None:
            self.files.pipe_file(f"{attempt}/{file.relative_to(folder).as_posix()}", file.read_bytes())

        with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
            list(pool.map(put, (file for file in folder.rglob("*") if file.is_file())))
        self.files.rename(attempt, path)

    def write_table(self, table: "pa.Table", folder: str, *, name: str = "") -> str:
        """Write a small table as one new Parquet file in `folder`, complete or not at all, and return its path.

        The file's name is unique; it begins with `name`, if there is one.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        temporary = self.attempt_path(folder)
        self.files.pipe_file(temporary, sink.getvalue().to_pybytes())
        path = posixpath.join(folder, f"{name and name + '-'}{posixpath.basename(temporary)}.parquet")
        self.files.rename(temporary, path)
        return path

    def read_table(
        self,
        paths: Sequence[str],
        *,
        columns: list[str] | None = None,
        filter: "pc.Expression | None" = None,
        lists: bool = True,
    ) -> "pa.Table":
        """Read published Parquet files and folders (Hive-partitioned by genre) into one table.

        Parameters
        ----------
        columns
            Columns wanted; None for all.
        filter
            Which rows are wanted; None for all.
        lists
            Whether columns of lists are among all.

        Raises
        ------
        FileNotFoundError
            If a path isn't there.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        # Genre names such as "1980" are text; left to itself, Hive partitioning would make them numbers.
        by_genre = ds.partitioning(pa.schema([("genre", pa.string())]), flavor="hive")
        parts = []
        for path in paths:
            source = self.files.find(path) if self.files.isdir(path) else [path]
            files = [name for name in source if not posixpath.basename(name).startswith(("_", "."))]
            dataset = ds.dataset(files, filesystem=self.files, format="parquet", partitioning=by_genre)
            wanted = columns
            if columns is None and not lists:
                wanted = [field.name for field in dataset.schema if not pa.types.is_nested(field.type)]
            parts.append(dataset.to_table(columns=wanted, filter=filter))
        return pa.concat_tables(parts, promote_options="permissive")


def _entry(path: str, found: dict[str, Any]) -> Entry:
    modified_at = datetime.fromtimestamp(found["modificationTime"] / 1000, UTC)
    return Entry(path, found["type"] == "directory", found["size"], modified_at)

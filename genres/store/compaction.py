"""Compaction: the stream's features, one small file for each range, become a few large files for each day.

A drain makes tens of thousands of small files a day, and HDFS's NameNode holds each in memory. A merged file is written
beside, renamed once, and then the ledger's ranges are moved to it in one transaction, all of them or none. Killed at
any step, this leaves at most a file that no range names, which ``genres.store.retention`` sweeps as any other; it also
sweeps the small files, which no range names any more, once the merged one is older than the grace.
"""

import io
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date, datetime
from itertools import groupby
from operator import itemgetter
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

from genres.store.database import Database
from genres.store.lake import Lake
from genres.store.sql import sa, tables
from genres.store.stream_features import merged_folder_of
from genres.store.stream_ledger import ranges
from genres.store.stream_ledger.values import PartitionKey

if TYPE_CHECKING:
    import pyarrow as pa

FILE_BYTES = 128 * 2**20
"""Of small files that fill a merged one: HDFS's usual block."""
_FILES_AT_A_TIME = 8

_Part = TypeVar("_Part")


class SmallFile(NamedTuple):
    """A file of one committed range's features."""

    key: PartitionKey
    path: str
    feature_version: str
    rows: int
    """As the range's commit counted them."""
    day: date
    """On which the range was committed, UTC."""


class Compacted(NamedTuple):
    """What compaction did."""

    files: int = 0
    """Small files whose ranges have moved."""
    into: int = 0
    """Merged files that they have moved to."""
    bytes: int = 0
    """Of the merged files."""
    left: tuple[str, ...] = ()
    """A line for each small file that stays as it is: its path, and why."""


def small_files(database: Database, *, before: datetime, most: int) -> list[list[SmallFile]]:
    """List the small files of ranges that were committed before a moment, those that belong together side by side.

    Parameters
    ----------
    most
        So many at most, of the ranges that were committed first.

    Returns
    -------
    list[list[SmallFile]]
        Of each feature version, topic and day the files, by Kafka partition and offset, where there are several.
    """
    column = tables.STREAM_RANGES.c
    query = (
        sa.select(
            *(column[name] for name in PartitionKey.__dataclass_fields__),
            *(column.feature_path, column.feature_version, column.clip_count, column.committed_at),
        )
        .where(column.state == "committed", column.committed_at < before, column.feature_path.is_not(None))
        # Merged ones have the day in their names, as `_published` gives it to them.
        .where(column.feature_path.not_like("%/merged/____-__-__-%"))
        .order_by(column.committed_at)
        .limit(most)
    )
    found = []
    with database.reading() as connection:
        for *key, path, feature_version, rows, committed_at in connection.execute(query):
            found.append(SmallFile(PartitionKey(*key), path, feature_version, rows, committed_at.date()))

    def together(file: SmallFile) -> tuple[str, str, str, date]:
        return file.feature_version, file.key.topic, file.key.topic_id, file.day

    found.sort(key=lambda file: (*together(file), file.key.kafka_partition, file.key.start_offset))
    groups = [list(files) for _, files in groupby(found, together)]
    return [files for files in groups if len(files) > 1]


def compact(
    lake: Lake, database: Database, files: Sequence[SmallFile], *, memory_bytes: int, file_bytes: int = FILE_BYTES
) -> Compacted:
    """Merge small files that belong together, and move the ledger's ranges to the merged ones.

    A file that cannot be read, or does not hold what its range committed, stays as it is. If a range names another file
    meanwhile, those that were to be merged with it stay too, until the next time.

    Parameters
    ----------
    files
        Of one feature version, topic and day, as `small_files` returns them.
    memory_bytes
        How much of the features is held at a time, which becomes a row group; but a small file is read whole.
    file_bytes
        Of small files that fill a merged one.
    """
    return total(
        one
        for batch in _batches(_sized(lake, files), itemgetter(1), file_bytes)
        for one in _merge(lake, database, batch, memory_bytes=memory_bytes)
    )


def total(parts: Iterable[Compacted]) -> Compacted:
    """Sum up what was done."""
    done = list(parts)
    return Compacted(
        sum(one.files for one in done),
        sum(one.into for one in done),
        sum(one.bytes for one in done),
        tuple(line for one in done for line in one.left),
    )


def _sized(lake: Lake, files: Sequence[SmallFile]) -> list[tuple[SmallFile, int]]:
    """Return the files with their sizes; a missing one has none."""
    sizes: dict[str, int] = {}
    for folder in sorted({posixpath.dirname(file.path) for file in files}):
        sizes |= lake.sizes(folder)
    return [(file, sizes.get(file.path, 0)) for file in files]


def _batches(
    parts: Iterable[_Part], size_of: Callable[[_Part], int], most_bytes: int, most: int | None = None
) -> Iterator[list[_Part]]:
    """Yield parts, in their order, that have so many bytes together, or one that has more; and so many of them."""
    batch: list[_Part] = []
    held = 0
    for part in parts:
        if batch and (held + size_of(part) > most_bytes or len(batch) == most):
            yield batch
            batch, held = [], 0
        batch.append(part)
        held += size_of(part)
    if batch:
        yield batch


def _merge(
    lake: Lake, database: Database, batch: Sequence[tuple[SmallFile, int]], *, memory_bytes: int
) -> Iterator[Compacted]:
    """Merge the files of a batch into one, or into several if their columns differ; yield what came of each."""
    left: list[str] = []
    for _, readable in groupby(_readable(lake, batch, memory_bytes, left), lambda part: part[1].schema):
        # It has no name: nothing of it is left, however this process ends.
        with tempfile.TemporaryFile() as content:
            merged = _write(readable, content, memory_bytes)
            if len(merged) < 2:
                continue
            if _published(lake, database, merged, content):
                yield Compacted(len(merged), 1, content.seek(0, io.SEEK_END))
            else:
                left += [f"{file.path}: features of {merged[0].day} were computed again meanwhile" for file in merged]
    yield Compacted(left=tuple(left))


def _readable(
    lake: Lake, batch: Sequence[tuple[SmallFile, int]], memory_bytes: int, left: list[str]
) -> "Iterator[tuple[SmallFile, pa.Table]]":
    """Yield files and what they hold; add a line to `left` for each that does not hold what its range committed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def fetch(file: SmallFile) -> "pa.Table | str":
        try:
            table = pq.read_table(pa.BufferReader(lake.files.cat_file(file.path)))
        except FileNotFoundError:
            return "it is missing"
        except pa.ArrowInvalid as error:
            return f"it is no Parquet: {error}"
        return _what_is_wrong(file, table) or table

    with ThreadPoolExecutor(_FILES_AT_A_TIME) as pool:
        for some in _batches(batch, itemgetter(1), memory_bytes, _FILES_AT_A_TIME):
            files = [file for file, _ in some]
            for file, found in zip(files, pool.map(fetch, files), strict=True):
                if isinstance(found, str):
                    left.append(f"{file.path}: {found}")
                else:
                    yield file, found


def _what_is_wrong(file: SmallFile, table: "pa.Table") -> str:
    """Compare a file's rows with what the ledger has of its range; return a line, empty if they fit."""
    key = file.key
    if table.num_rows != file.rows:
        return f"it has {table.num_rows} rows, {file.rows} were committed"
    places = set(zip(table["kafka_partition"].to_pylist(), table["kafka_offset"].to_pylist(), strict=True))
    there = {(key.kafka_partition, offset) for offset in range(key.start_offset, key.end_offset)}
    return "" if len(places) == table.num_rows and places <= there else f"it has rows of other offsets than {key}"


def _write(parts: "Iterable[tuple[SmallFile, pa.Table]]", content: IO[bytes], memory_bytes: int) -> list[SmallFile]:
    """Write tables of one schema as one Parquet file, a row group for each `memory_bytes`; return the files of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files: list[SmallFile] = []
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for group in _batches(parts, lambda part: part[1].nbytes, memory_bytes):
            table = pa.concat_tables(table for _, table in group)
            writer = writer or stack.enter_context(pq.ParquetWriter(content, table.schema))
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
            files += [file for file, _ in group]
    return files


def _published(lake: Lake, database: Database, files: Sequence[SmallFile], content: IO[bytes]) -> bool:
    """Put a merged file into its place and move its ranges to it; False if one of them has moved elsewhere."""
    first = files[0]
    folder = merged_folder_of(lake, first.key, first.feature_version)
    attempt = lake.attempt_path(folder)
    lake.files.put_open_file(attempt, content)
    path = posixpath.join(folder, f"{first.day}-{posixpath.basename(attempt)}.parquet")
    lake.files.rename(attempt, path)
    if ranges.move_features(database, {file.key: file.path for file in files}, path):
        return True
    lake.files.rm(path)
    return False

"""The stream's features on HDFS: where they lie, and how the rows of a range are read.

A range's features are written as one small file, which holds nothing else. ``genres.store.compaction`` merges the files
of a day that is over into larger ones, in which many ranges lie one after the other. Which file a range's rows are in,
the ledger says alone: small files stay for a while beside the larger one that has their rows.
"""

import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING

from genres.store.lake import STREAM, Lake
from genres.store.schemas import REFUSED_CODE, arrow_schema
from genres.store.stream_ledger.values import PartitionKey, StreamRange

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

MERGED = "merged"
"""The folder of merged files, beside those of the Kafka partitions."""


def folder_of(lake: Lake, key: PartitionKey, feature_version: str) -> str:
    """Folder of the small files of a range's Kafka partition."""
    return posixpath.join(_topic_folder(lake, key, feature_version), str(key.kafka_partition))


def merged_folder_of(lake: Lake, key: PartitionKey, feature_version: str) -> str:
    """Folder of the merged files of a range's topic."""
    return posixpath.join(_topic_folder(lake, key, feature_version), MERGED)


def is_merged(path: str) -> bool:
    """Return whether a file holds the rows of many ranges."""
    return posixpath.basename(posixpath.dirname(path)) == MERGED


def range_of(path: str) -> str:
    """Return the partition key, as a text, of the range whose features a small file holds."""
    *_, topic, topic_id, kafka_partition, name = path.split("/")
    return f"{topic}:{topic_id}:{kafka_partition}:{name.rpartition('-')[0]}"


def read(lake: Lake, ranges: Iterable[StreamRange], *, lists: bool = True) -> "pa.Table":
    """Read the features of ranges, each row once, wherever they lie.

    Parameters
    ----------
    ranges
        As the ledger has them now, of one feature version; those without features are left out.
    lists
        Whether columns of lists are wanted.

    Raises
    ------
    FileNotFoundError
        If a file isn't there: the ranges were read from the ledger longer ago than `sweep_grace_h`.
    """
    import pyarrow as pa

    small: list[str] = []
    merged: dict[str, list[PartitionKey]] = {}
    for found in ranges:
        if found.feature_path and is_merged(found.feature_path):
            merged.setdefault(found.feature_path, []).append(found.key)
        elif found.feature_path:
            small.append(found.feature_path)
    tables = [lake.read_table(small, lists=lists)] if small else []
    tables += [lake.read_table([path], filter=_rows_of(keys), lists=lists) for path, keys in merged.items()]
    if not tables:
        return pa.table({})
    # Files from before there were codes have no column for them.
    tables.append(arrow_schema([REFUSED_CODE]).empty_table())
    return pa.concat_tables(tables, promote_options="permissive")


def _topic_folder(lake: Lake, key: PartitionKey, feature_version: str) -> str:
    return lake.path(STREAM, "features", feature_version, key.topic, key.topic_id)


def _rows_of(keys: Iterable[PartitionKey]) -> "pc.Expression":
    """Return the condition that rows of these ranges meet; a file is of one topic. Ranges side by side become one."""
    import pyarrow.compute as pc

    spans: list[list[int]] = []
    for number, start, end in sorted((key.kafka_partition, key.start_offset, key.end_offset) for key in keys):
        if spans and spans[-1][0] == number and spans[-1][2] == start:
            spans[-1][2] = end
        else:
            spans.append([number, start, end])
    partition, offset = pc.field("kafka_partition"), pc.field("kafka_offset")
    (first, *others) = [(partition == number) & (offset >= start) & (offset < end) for number, start, end in spans]
    for other in others:
        first |= other
    return first

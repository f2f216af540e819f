"""Reads the variables of a TensorFlow checkpoint, without TensorFlow.

A checkpoint is a *tensor bundle* [1]_: the numbers of all variables, one after the other, in a data file, and an index
that says where each one lies, which is a table of LevelDB [2]_ from a variable's name to a ``BundleEntryProto``.

References
----------
.. [1] https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto
.. [2] https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from collections import defaultdict
from collections.abc import Iterator
from math import prod

import crc32c
import numpy as np

_MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of every table."""
_FOOTER = 48
"""Bytes at a table's end that say where its index block is."""
_DTYPE, _SHAPE, _OFFSET, _SIZE, _CHECKSUM = 1, 2, 4, 5, 6
"""Fields of a ``BundleEntryProto``."""
_DIMENSION, _DIMENSION_SIZE = 2, 1
"""The field of a ``TensorShapeProto`` that repeats, and the one that is read in it."""
_FLOAT = 1
"""``DT_FLOAT``, which is the one type that is read."""


def float_variables(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Return the variables of single precision by their names.

    Parameters
    ----------
    index : bytes
        The ``.index`` file, uncompressed.
    data : bytes
        The ``.data-00000-of-00001`` file: the checkpoint's only one.

    Raises
    ------
    ValueError
        If the index is no such table, or a variable is not as long as its shape or not what its checksum is of.
    """
    found = {}
    for key, value in _table(index):
        entry = _message(value)
        # The empty key says what holds for all variables.
        if not key or entry[_DTYPE] != [_FLOAT]:
            continue
        name = key.decode()
        (offset,), (size,), (checksum,) = entry[_OFFSET] or [0], entry[_SIZE], entry[_CHECKSUM]
        shape = [_message(dimension)[_DIMENSION_SIZE][0] for dimension in _message(entry[_SHAPE][0])[_DIMENSION]]
        values = data[offset : offset + size]
        if len(values) != 4 * prod(shape) or _masked(crc32c.crc32c(values)) != checksum:
            raise ValueError(f"the variable {name} is not what the checkpoint's index says")
        found[name] = np.frombuffer(values, "<f4").reshape(shape)
    return found


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table of LevelDB."""
    if table[-len(_MAGIC) :] != _MAGIC:
        raise ValueError("the checkpoint's index is no table of LevelDB")
    footer = table[-_FOOTER:]
    _, at = _handle(footer, 0)
    index_block, _ = _handle(footer, at)
    for _, value in _block(table, *index_block):
        data_block, _ = _handle(value, 0)
        yield from _block(table, *data_block)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; each key begins like the one before it."""
    if table[offset + size] != 0:
        raise ValueError("the checkpoint's index is compressed")
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    key, at = b"", 0
    while at < len(block) - 4 - 4 * restarts:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Return a block's offset and size, and where they end."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _message(data: bytes) -> defaultdict[int, list]:
    """Return the values of a Protocol Buffers message by the numbers of their fields."""
    fields: defaultdict[int, list] = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(data, at)
        elif tag & 7 == 5:
            value, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"the checkpoint's index has a field of wire type {tag & 7}")
        fields[tag >> 3].append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, seven bits a byte, and where it ends."""
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        if data[at] < 128:
            return number, at + 1
        at, shift = at + 1, shift + 7


def _masked(checksum: int) -> int:
    """Return a CRC as LevelDB and TensorFlow store it, since a CRC of data that holds CRCs says little."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF

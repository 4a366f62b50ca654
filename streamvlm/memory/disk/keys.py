"""The keys of a record as bytes: those that are indexed as float16, the others as int8.

K keys of a record, E key width.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MemoryStoreError
from streamvlm.types import MemoryRecord

_LOUDEST = 127
# Rounding to float16 alone changes a length by up to 0.0005.
_UNIT = 0.002


def as_stored(records: Sequence[MemoryRecord]) -> list[NDArray[np.float16]]:
    """The keys (K, E) of each record as they are indexed.

    Args:
        records: at least one, with keys of the same width.

    Raises:
        MemoryStoreError: they are not unit vectors.
    """
    for record in records:
        if record.keys.ndim != 2 or not len(record.keys):
            raise _unfit(record)
    # All at once: of a few keys a call of numpy takes longer than its work.
    keys = np.concatenate([record.keys for record in records]).astype("<f2", copy=False)
    squares = np.einsum("ke,ke->k", keys, keys, dtype=np.float32)
    is_unit = np.abs(squares - 1) < 2 * _UNIT
    ends = list(accumulate((len(record.keys) for record in records), initial=0))
    if not is_unit.all():
        raise _unfit(records[bisect_right(ends, is_unit.argmin()) - 1])
    return [keys[first:last] for first, last in pairwise(ends)]


def _unfit(record: MemoryRecord) -> MemoryStoreError:
    lengths = np.linalg.norm(np.atleast_1d(record.keys).astype(np.float32), axis=-1)
    return MemoryStoreError(
        f"record {record.id}: keys must be (K, E) unit vectors with K ≥ 1, found shape "
        f"{record.keys.shape} and lengths {np.array2string(lengths, threshold=4)}; check the "
        "embedder"
    )


class PackedKeys(NamedTuple):
    """The keys of a record as they are written."""

    first: bytes
    """Those that are indexed."""
    others: bytes
    num_keys: int
    num_indexed: int
    width: int
    order: NDArray[np.int64] | None
    """(K,) which key of the record each one written is; None if they are in their own order."""


def pack_keys(keys: NDArray[np.float16], indexed: NDArray[np.bool_]) -> PackedKeys:
    """Turn the keys of a record into bytes.

    Args:
        keys: (K, E) from `as_stored`.
        indexed: (K,) which the index gets.
    """
    count = int(np.count_nonzero(indexed))
    counts = (len(keys), count, keys.shape[1])
    if count == len(keys):
        return PackedKeys(keys.tobytes(), b"", *counts, None)
    first, others = np.flatnonzero(indexed), np.flatnonzero(~indexed)
    order = np.concatenate([first, others]) if (first != np.arange(count)).any() else None
    return PackedKeys(keys[first].tobytes(), _pack_others(keys[others]), *counts, order)


def _pack_others(keys: NDArray[np.float16]) -> bytes:
    """Keys (n, E) that are only compared once a record is near: int8 with a scale each."""
    wide = keys.astype(np.float32)
    scales = (np.abs(wide).max(axis=1, initial=0) / _LOUDEST).astype("<f2")
    codes = np.rint(wide / scales[:, None].astype(np.float32))
    codes = codes.clip(-_LOUDEST, _LOUDEST).astype(np.int8)
    return b"".join((codes.tobytes(), scales.tobytes()))


def unpack_others(packed: memoryview, count: int, width: int) -> NDArray[np.float32]:
    """The keys that are not indexed.

    Args:
        packed: `PackedKeys.others`.
        count: how many keys.
        width: E.

    Returns:
        (count, E) of unit length.
    """
    codes = np.frombuffer(packed[: count * width], np.int8).reshape(count, width)
    scales = np.frombuffer(packed[count * width :], "<f2").astype(np.float32)
    keys = codes * scales[:, None]
    keys /= np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), _UNIT)
    return keys

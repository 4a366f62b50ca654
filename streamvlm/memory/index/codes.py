"""1-bit codes of the keys of one shard (RaBitQ, Gao and Long, SIGMOD 2024) in FAISS."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MissingDependency
from streamvlm.memory.index.cosines import HeldKeys

logger = logging.getLogger(__name__)

TRAINED_ON = 8_192
"""Keys of which the index takes the mean before it holds any: the first ones."""

_SAMPLED = 512
_ADDED = 65_536


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            'install the extra: pip install "streamvlm[cpu]" (or [gpu]); '
            "a memory of many keys is searched with FAISS"
        ) from error
    return faiss


class _Turns:
    """Many may read at once, and one write alone; who waits to write goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writers = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writers)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._changed:
            self._writers += 1
            try:
                self._changed.wait_for(lambda: not self._readers)
                yield
            finally:
                self._writers -= 1
                self._changed.notify_all()


class Codes:
    """The index of keys; made or read when it is first followed. Threads may share it.

    Args:
        serialized: the index as bytes, or None.
    """

    def __init__(self, serialized: bytes | None) -> None:
        self._serialized = serialized
        self._turns = _Turns()
        self._index: Any = None
        self.error = 0.0
        """The root mean square error of the estimates."""

    @property
    def is_ready(self) -> bool:
        """True once it followed keys."""
        return self._index is not None

    def follow(self, keys: HeldKeys) -> None:
        """Have a code of each of these keys at least; there are enough to train the index.

        Raises:
            MissingDependency: FAISS is not installed.
        """
        if self.is_ready and self._index.ntotal >= len(keys):
            return
        with self._turns.write():
            if self._index is None:
                index = self._read(keys) or _train(keys)
                self.error = _error(index, keys)
                self._index = index
            for start in range(self._index.ntotal, len(keys), _ADDED):
                rows = np.arange(start, min(start + _ADDED, len(keys)))
                self._index.add(keys.units(rows))

    def nearest(
        self, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The keys of the highest estimated cosines with each query.

        Args:
            queries: (Q, E) unit vectors.
            allowed: (n,) which keys may be found, or None for all.
            count: how many.

        Returns:
            (Q, count) estimates and rows, highest first; a row of -1 where there are no more.
        """
        faiss = _faiss()
        options = {"nprobe": 1}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(**options)
        with self._turns.read():
            distances, rows = self._index.search(queries, count, params=parameters)
        return _cosines(distances), rows

    def serialize(self) -> bytes | None:
        """The index as bytes, or what was given if it followed no keys yet."""
        if not self.is_ready:
            return self._serialized
        with self._turns.read():
            content: bytes = _faiss().serialize_index(self._index).tobytes()
        return content

    def _read(self, keys: HeldKeys) -> Any:
        if self._serialized is None:
            return None
        faiss = _faiss()
        content, self._serialized = np.frombuffer(self._serialized, np.uint8), None
        try:
            index = faiss.deserialize_index(content)
        except RuntimeError as error:
            logger.warning("an index that this FAISS cannot read is made again: %s", error)
            return None
        fits = index.d == keys.base.shape[1] and 0 < index.ntotal <= len(keys)
        if not fits or index.metric_type != faiss.METRIC_L2:
            logger.warning("an index that is not of these keys is made again")
            return None
        return index


def _cosines(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """From squared distances of unit vectors."""
    return 1 - distances * np.float32(0.5)


def _train(keys: HeldKeys) -> Any:
    """An index of the first keys.

    It estimates distances, whose error is what the paper gives: 0.067 for cosines at 128
    dimensions, 0.039 at 384. Estimates of inner products have 1.7 times as much in FAISS 1.15.1.
    """
    faiss = _faiss()
    index = faiss.index_factory(keys.base.shape[1], "IVF1,RaBitQfs", faiss.METRIC_L2)
    first = keys.units(np.arange(TRAINED_ON))
    index.train(first)
    index.add(first)
    return index


def _error(index: Any, keys: HeldKeys) -> float:
    """From random queries and some of the keys: those found by estimates are estimated too high."""
    faiss = _faiss()
    rows = np.linspace(0, index.ntotal - 1, _SAMPLED, dtype=np.int64)
    queries = np.random.default_rng(0).standard_normal((2, index.d), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    parameters = faiss.SearchParametersIVF(nprobe=1, sel=faiss.IDSelectorBatch(rows))
    distances, found = index.search(queries, _SAMPLED, params=parameters)
    by_row = np.take_along_axis(distances, np.argsort(found, axis=1), axis=1)
    return float(np.sqrt(np.mean((_cosines(by_row) - keys.cosines(queries, rows)) ** 2)))

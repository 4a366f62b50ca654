"""Codes of the keys of one shard, 2 bits a number, and the cosines they estimate, in FAISS.

A unit vector that is turned at random has coordinates that are close to normal, whatever it shows
and whatever came before. So each is rounded to the four levels that suit a normal variable best
(Max, "Quantizing for minimum distortion", IRE Trans. Inform. Theory 1960; Zandieh et al. 2025,
"TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate", arXiv:2504.19874), and
nothing is learned from keys. Two coordinates then have 16 values, which FAISS scans as a product
quantizer. Between what is inner and what is outer a border of its own is drawn for each key, so
that its product with its code is 1: what is near is then estimated best, as by RaBitQ (Gao and
Long, SIGMOD 2024), but without numbers to be read and multiplied beside each code.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MissingDependency
from streamvlm.memory.index.cosines import HeldKeys

logger = logging.getLogger(__name__)

_LOST = 0.1175
"""The share of a normal variable's variance that is lost by rounding it to four levels."""
_INNER, _OUTER = 0.4528 / (1 - _LOST), 1.510 / (1 - _LOST)
"""Those levels (0.4528 and 1.510), made longer by what rounding shortens."""

_ADDED = 8_192
_SAMPLED = 256


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

    @property
    def is_ready(self) -> bool:
        """True once it followed keys."""
        return self._index is not None

    def follow(self, keys: HeldKeys) -> None:
        """Have a code of each of these keys at least.

        Raises:
            MissingDependency: FAISS is not installed.
        """
        if self.is_ready and self._index.ntotal >= len(keys):
            return
        with self._turns.write():
            if self._index is None:
                self._index = self._read(keys) or _empty(keys.base.shape[1])
            for start in range(self._index.ntotal, len(keys), _ADDED):
                rows = np.arange(start, min(start + _ADDED, len(keys)))
                _add(self._index, keys.units(rows))

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
        options: dict[str, Any] = {"nprobe": 1}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(**options)
        turned = queries @ _turn(queries.shape[1])
        with self._turns.read():
            estimates, rows = self._index.search(turned, count, params=parameters)
        return estimates, rows

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
        if not _is_of(index, keys):
            logger.warning("an index that is not of these keys is made again")
            return None
        return index


def error(width: int) -> float:
    """The root mean square error of estimates for keys (·, E): 0.032 at 128, 0.019 at 384."""
    return float(np.sqrt(_LOST / (1 - _LOST) / width))


@lru_cache(2)
def _turn(width: int) -> NDArray[np.float32]:
    """(E, D) float32, D ≥ E and even: turns keys at random, always alike, as codes outlive us."""
    side = width + width % 2
    # Of all generators of numpy this one will never change.
    dice = np.random.RandomState(0)
    turn, upper = np.linalg.qr(dice.standard_normal((side, side)))
    # There is one such decomposition with positive numbers here, whatever library finds it.
    turn *= np.sign(upper.diagonal())
    found: NDArray[np.float32] = turn[:width].astype(np.float32)
    return found


def _empty(width: int) -> Any:
    """An index of no keys (·, E), with one list of codes."""
    faiss = _faiss()
    pairs = (width + 1) // 2
    index = faiss.index_factory(2 * pairs, f"IVF1,PQ{pairs}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.quantizer.add(np.zeros((1, 2 * pairs), np.float32))
    index.by_residual = False
    levels = np.array([-_OUTER, -_INNER, _INNER, _OUTER]) / np.sqrt(2 * pairs)
    values = np.array(list(product(levels, levels)), np.float32)
    faiss.copy_array_to_vector(np.tile(values.ravel(), pairs), index.pq.centroids)
    index.is_trained = True
    return index


def _is_of(index: Any, keys: HeldKeys) -> bool:
    """Whether an index has codes of these keys: some estimates are compared with what is true."""
    faiss = _faiss()
    turn = _turn(keys.base.shape[1])
    kind = (index.d, index.metric_type)
    if kind != (turn.shape[1], faiss.METRIC_INNER_PRODUCT) or not 0 < index.ntotal <= len(keys):
        return False
    rows = np.unique(np.linspace(0, index.ntotal - 1, _SAMPLED, dtype=np.int64))
    query = np.random.default_rng(0).standard_normal((1, len(turn)), np.float32)
    query /= np.linalg.norm(query)
    parameters = faiss.SearchParametersIVF(nprobe=1, sel=faiss.IDSelectorBatch(rows))
    estimates, found = index.search(query @ turn, len(rows), params=parameters)
    off = estimates[0, found[0].argsort()] - keys.cosines(query, rows)[0]
    return bool(np.sqrt(np.mean(off**2)) < 2 * error(len(turn)))


def _add(index: Any, units: NDArray[np.float32]) -> None:
    """Add unit vectors (m, E)."""
    index.add(_stretched(units @ _turn(units.shape[1])))


def _stretched(turned: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (m, D), each made so long that FAISS rounds it at a border of its own."""
    count, width = turned.shape
    size = np.sort(np.abs(turned), axis=1)[:, ::-1] * np.float32(np.sqrt(width))
    # So many of the largest are outer that the product of the key with its code is nearest to 1.
    wanted = (width - _INNER * size.sum(axis=1)) / (_OUTER - _INNER)
    outer = np.cumsum(size, axis=1) - size / 2 < wanted[:, None]
    last = np.count_nonzero(outer, axis=1).clip(1, width - 1)
    row = np.arange(count)
    border = (size[row, last - 1] + size[row, last]) / 2
    # A key of zeros has none.
    length = (_INNER + _OUTER) / 2 / np.maximum(border, 1e-6)
    stretched: NDArray[np.float32] = turned * length[:, None].astype(np.float32)
    return stretched

"""Scans over codes of all keys: those of the memory, or for other vectors 1-bit codes of FAISS.

Unlike the scan of the memory they take as many candidates as they are told, whatever these are
worth, and have codes of few keys too: so the ways of searching differ in nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.errors import MissingDependency
from streamvlm.memory.index import codes
from streamvlm.memory.index.cosines import HeldKeys
from streamvlm.memory.index.scan import Ranking

_TRAINED = 8_192
"""Keys that the index sees first, of which it only takes the mean."""


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            'install the extra: pip install "streamvlm[cpu]" (or [gpu]); 1-bit codes are of FAISS'
        ) from error
    return faiss


class Codes:
    """1-bit codes of vectors of any length (RaBitQ, Gao and Long, SIGMOD 2024).

    Args:
        keys: (n, E) float32.
    """

    def __init__(self, keys: NDArray[np.float32]) -> None:
        faiss = _faiss()
        # Of unit vectors distances are estimated with less error, and rank as products do.
        are_unit = np.allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-3)
        metric = faiss.METRIC_L2 if are_unit else faiss.METRIC_INNER_PRODUCT
        self._index: Any = faiss.index_factory(keys.shape[1], "IVF1,RaBitQfs", metric)
        self._index.train(np.ascontiguousarray(keys[:_TRAINED]))
        self._index.add(np.ascontiguousarray(keys))

    @property
    def size(self) -> int:
        """Bytes: each code, two numbers that correct it, and a row number of 8."""
        return len(_faiss().serialize_index(self._index))

    def nearest(self, queries: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
        """For each query the rows of the keys that are estimated to be nearest.

        Args:
            queries: (Q, E).
            count: how many rows each.
        """
        options = _faiss().SearchParametersIVF(nprobe=1)
        _, rows = self._index.search(queries, min(count, self._index.ntotal), params=options)
        return [found[found >= 0] for found in rows]


class TokenCodes:
    """The memory's codes of some of the keys of segments, rescored exactly.

    Args:
        segments: all of them.
        rows: which keys have a code, ascending; None for all.
    """

    def __init__(self, segments: Segments, rows: NDArray[np.int64] | None = None) -> None:
        self._rows = np.arange(len(segments.keys)) if rows is None else rows
        self._segments = segments
        self._codes = codes.Codes(None)
        self._codes.follow(HeldKeys.of(segments.keys[self._rows].astype(np.float16)))

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._codes.serialize() or b"")

    def search(self, queries: NDArray[np.float32], candidates: int, kept: int) -> list[Ranking]:
        """For each query key the segments of the nearest keys.

        Args:
            queries: (Q, E).
            candidates: keys that are found by their codes.
            kept: of these, the nearest ones that count.

        Returns:
            One ranking for each query key, by the best key of each segment.
        """
        _, found = self._codes.nearest(queries, None, min(candidates, len(self._rows)))
        return [
            self._ranking(self._rows[rows[rows >= 0]], query, kept)
            for rows, query in zip(found, queries, strict=True)
        ]

    def _ranking(self, rows: NDArray[np.int64], query: NDArray[np.float32], kept: int) -> Ranking:
        scores = self._segments.keys[rows] @ query
        order = np.lexsort((rows, -scores))[:kept]
        return per_segment(self._segments.owners[rows[order]], scores[order])


def per_segment(owners: NDArray[np.int64], scores: NDArray[np.float32]) -> Ranking:
    """Each segment with its best key's score.

    Args:
        owners: (m,) the segment of each key.
        scores: (m,) descending.
    """
    _, first = np.unique(owners, return_index=True)
    first.sort()
    return owners[first], scores[first]

"""Exact MaxSim, over all segments or over candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments

HALF = 2
"""Bytes of a number of a stored key."""


def maxsim(
    segments: Segments, candidates: NDArray[np.int64], queries: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(m,) for each candidate the sum over query keys of the best cosine with one of its keys.

    Args:
        segments: all of them.
        candidates: (m,) the ones to score.
        queries: (Q, E).
    """
    score: NDArray[np.float32] = best_cosines(segments, candidates, queries).sum(1)
    return score


def best_cosines(
    segments: Segments, candidates: NDArray[np.int64], queries: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(m, Q) for each candidate the best cosine of any of its keys with each query key."""
    if not len(candidates):
        return np.empty((0, len(queries)), np.float32)
    whole = len(candidates) == len(segments)
    keys = segments.keys if whole else segments.keys[segments.rows(candidates)]
    counts = np.diff(segments.first)[candidates]
    best: NDArray[np.float32] = np.maximum.reduceat(keys @ queries.T, np.cumsum(counts) - counts)
    return best


def best_first(
    segments: Segments, candidates: NDArray[np.int64], queries: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The candidates by their MaxSim; `candidates` ascend if they are all segments."""
    scores = maxsim(segments, candidates, queries)
    return candidates[np.argsort(-scores, kind="stable")]

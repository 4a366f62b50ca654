"""A few cluster centres for each segment instead of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._codes import Codes
from streamvlm.bench.rankers._exact import best_first

_ROUNDS = 8


@dataclass(frozen=True)
class Crisp:
    """k-means of each segment's keys as in CRISP (Veneroso et al. 2025, arXiv:2505.11471).

    CRISP also trains the model for it, which is not done here.
    """

    centres: int = 4
    """Of each segment."""
    candidates: int = 256
    """Centres found by their 1-bit codes for each query key; MaxSim ranks their segments."""

    def __call__(self, segments: Segments) -> CrispIndex:
        """The index of these segments."""
        return CrispIndex(segments, self)


class CrispIndex:
    """Codes of the centres."""

    def __init__(self, segments: Segments, options: Crisp) -> None:
        self._segments, self._candidates = segments, options.candidates
        found = [
            centres(segments.keys[start:end], options.centres)
            for start, end in pairwise(segments.first)
        ]
        self._owners = np.repeat(np.arange(len(segments)), [len(each) for each in found])
        self._codes = Codes(np.concatenate(found))

    @property
    def size(self) -> int:
        """Bytes of the codes."""
        return self._codes.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The candidates, by MaxSim with all their keys."""
        rows = np.concatenate(self._codes.nearest(queries, self._candidates))
        return best_first(self._segments, np.unique(self._owners[rows]), queries)


def centres(keys: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """k-means on the sphere, begun with keys that are far from one another.

    Args:
        keys: (n, E) of unit length.
        count: k; fewer if there are not so many different keys.

    Returns:
        (≤ k, E) float32 unit vectors.
    """
    chosen = keys[:1]
    while len(chosen) < min(count, len(keys)):
        nearest = (keys @ chosen.T).max(1)
        farthest = int(nearest.argmin())
        if nearest[farthest] > 1 - 1e-6:
            break
        chosen = np.concatenate([chosen, keys[farthest : farthest + 1]])
    for _ in range(_ROUNDS):
        nearest_of = (keys @ chosen.T).argmax(1)
        member = (nearest_of[:, None] == np.arange(len(chosen))).astype(np.float32)
        sums = member.T @ keys
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        chosen = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), chosen)
    return chosen

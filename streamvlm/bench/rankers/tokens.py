"""All tokens in one index; the segments of the nearest ones are compared by MaxSim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._codes import TokenCodes
from streamvlm.bench.rankers._exact import best_first


@dataclass(frozen=True)
class Tokens:
    """Two stages as in ColBERT (Khattab & Zaharia 2020, arXiv:2004.12832), by our codes."""

    nearest: int = 64
    """Tokens found for each query key; their segments are the candidates."""

    def __call__(self, segments: Segments) -> TokensIndex:
        """The index of these segments."""
        return TokensIndex(segments, self.nearest)


class TokensIndex:
    """Codes of all tokens."""

    def __init__(self, segments: Segments, nearest: int) -> None:
        self._segments, self._nearest = segments, nearest
        self._codes = TokenCodes(segments)

    @property
    def size(self) -> int:
        """Bytes of the codes."""
        return self._codes.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The candidates, by MaxSim."""
        found = self._codes.search(queries, self._nearest, self._nearest)
        candidates = np.unique(np.concatenate([segments for segments, _ in found]))
        return best_first(self._segments, candidates, queries)

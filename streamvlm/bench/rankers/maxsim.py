"""Exact MaxSim of every segment: the late interaction of ColBERT without any index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._exact import HALF, best_first


@dataclass(frozen=True)
class MaxSim:
    """Σ over query keys of the best cosine (Khattab & Zaharia 2020, arXiv:2004.12832)."""

    def __call__(self, segments: Segments) -> MaxSimIndex:
        """The index of these segments."""
        return MaxSimIndex(segments)


class MaxSimIndex:
    """All keys as they are."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    @property
    def size(self) -> int:
        """Bytes of the keys as float16."""
        return HALF * self._segments.keys.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """All segments, by MaxSim."""
        return best_first(self._segments, np.arange(len(self._segments)), queries)

"""One key for each segment: the mean of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._exact import HALF


@dataclass(frozen=True)
class Mean:
    """The mean of a segment's keys, compared with the mean of the question's."""

    less_camera: bool = False
    """Whether what all segments of a stream have in common is taken away first."""

    def __call__(self, segments: Segments) -> MeanIndex:
        """The index of these segments."""
        counts = np.diff(segments.first)[:, None]
        means = np.add.reduceat(segments.keys, segments.first[:-1]) / counts
        if self.less_camera:
            _, stream = np.unique(segments.stream, return_inverse=True)
            usual = np.zeros((stream.max() + 1, means.shape[1]), np.float32)
            np.add.at(usual, stream, means)
            means = means - (usual / np.bincount(stream)[:, None])[stream]
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        return MeanIndex(means / np.maximum(lengths, 1e-9))


class MeanIndex:
    """Pooled keys (S, E)."""

    def __init__(self, keys: NDArray[np.float32]) -> None:
        self.keys = keys

    @property
    def size(self) -> int:
        """Bytes of the keys as float16."""
        return HALF * self.keys.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """All segments, by the cosine."""
        return np.argsort(-(self.keys @ queries.mean(0)), kind="stable")

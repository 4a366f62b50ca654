"""Ways to find the segments of a stream that a question is about; one file per way.

A segment has one key for each of its tokens, and a question several: one for all of it, others for
its words. A ranker builds an index from the segments' keys, and the index ranks segments for the
keys of a question. What a ranker compares exactly after a coarse search is read from the store,
where all keys are; only what the coarse search itself needs counts as its index.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LIMIT = 64
"""Segments that a token-wise search keeps for each key of a question."""


@dataclass(frozen=True, eq=False)
class Segments:
    """What is searched."""

    keys: NDArray[np.float32]
    """(n, E) of unit length, those of a segment beside one another."""
    owners: NDArray[np.int64]
    """(n,) the segment of each key; ascends, and none of 0 … S−1 is left out."""
    stream: NDArray[np.int64]
    """(S,) the stream of each segment."""
    start: NDArray[np.float64]
    """(S,) when each begins, in seconds of its stream; ascends within a stream."""

    def __len__(self) -> int:
        return len(self.stream)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(S + 1,) where the keys of each segment begin, and where all end."""
        return np.searchsorted(self.owners, np.arange(len(self) + 1))

    def rows(self, segments: NDArray[np.int64]) -> NDArray[np.int64]:
        """(m,) where the keys of these segments are, segment by segment."""
        begin, counts = self.first[segments], np.diff(self.first)[segments]
        ends = np.cumsum(counts)
        return np.repeat(begin - ends + counts, counts) + np.arange(counts.sum())


class Index(Protocol):
    """What one ranker knows of some segments."""

    @property
    def size(self) -> int:
        """Bytes that the index takes."""

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The segments for a question, best first.

        Args:
            queries: (Q, E) the keys of the question, of unit length.

        Returns:
            The segments that were found, each once; at least one if there are any.
        """


class Ranker(Protocol):
    """One way of searching."""

    def __call__(self, segments: Segments) -> Index:
        """The index of these segments."""

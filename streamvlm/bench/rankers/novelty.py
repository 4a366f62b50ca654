"""Only novel tokens in the index; segments are scored as in XTR."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import LIMIT, Segments
from streamvlm.bench.rankers._codes import TokenCodes, per_segment
from streamvlm.bench.rankers._exact import best_cosines
from streamvlm.memory.index.novelty import Novelty, StreamNovelty
from streamvlm.memory.index.scan import Ranking
from streamvlm.memory.index.score import xtr


@dataclass(frozen=True)
class NovelTokens:
    """What a stream showed before needs no key again; the memory's own way of indexing."""

    rule: Novelty = field(default_factory=Novelty)
    """Which tokens are novel, and how often all of a segment are indexed."""
    candidates: int = 256
    """Tokens found by their codes, for each query key, and compared exactly."""
    depth: int = 64
    """Segments that count for each query key; the worst of them stands for all others."""
    intervals: int = 0
    """From anchor to anchor: in the best so many, all tokens are compared exactly; 0 for none."""

    def __call__(self, segments: Segments) -> NoveltyIndex:
        """The index of these segments."""
        return NoveltyIndex(segments, self)


class NoveltyIndex:
    """Codes of the novel tokens."""

    def __init__(self, segments: Segments, options: NovelTokens) -> None:
        self._segments, self._options = segments, options
        novel, self._interval = novel_keys(segments, options.rule)
        self.share = float(novel.mean())
        """Of the keys, how many have a code."""
        self._codes = TokenCodes(segments, np.flatnonzero(novel))

    @property
    def size(self) -> int:
        """Bytes of the codes."""
        return self._codes.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The segments found for any query key, by their mean score."""
        options = self._options
        coarse = [
            (found[: options.depth], scores[: options.depth])
            for found, scores in self._codes.search(queries, options.candidates, options.candidates)
        ]
        ranked = xtr(coarse, LIMIT)[0]
        if not options.intervals:
            return ranked
        near = distinct(self._interval[ranked])[: options.intervals]
        segments = np.flatnonzero(np.isin(self._interval, near))
        fine = zip(coarse, best_cosines(self._segments, segments, queries).T, strict=True)
        return xtr([self._united(found, (segments, scores)) for found, scores in fine], LIMIT)[0]

    def _united(self, coarse: Ranking, fine: Ranking) -> Ranking:
        """What was found in either way, by the better of its scores."""
        found = np.concatenate([coarse[0], fine[0]])
        scores = np.concatenate([coarse[1], fine[1]])
        order = np.lexsort((found, -scores))
        best, score = per_segment(found[order], scores[order])
        return best[: self._options.depth], score[: self._options.depth]


def distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each value once, in the order in which they come first."""
    return values[np.sort(np.unique(values, return_index=True)[1])]


def novel_keys(segments: Segments, rule: Novelty) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Go through each stream as it comes in.

    Args:
        segments: all of them.
        rule: what is novel.

    Returns:
        (n,) which keys are indexed, and (S,) a number for each segment that counts the anchors.
    """
    novel = np.empty(len(segments.keys), bool)
    interval = np.empty(len(segments), np.int64)
    streams: dict[int, StreamNovelty] = {}
    anchors = -1
    for stream in np.unique(segments.stream):
        watch = streams.setdefault(int(stream), StreamNovelty(rule))
        for segment in np.flatnonzero(segments.stream == stream):
            rows = slice(*segments.first[segment : segment + 2])
            novel[rows] = watch(segments.keys[rows], float(segments.start[segment]))
            anchors += bool(novel[rows].all())
            interval[segment] = anchors
    return novel, interval

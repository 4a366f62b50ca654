"""One long vector for each segment, whose dot product with the question's estimates MaxSim."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.bench.rankers._codes import Codes
from streamvlm.bench.rankers._exact import best_first


@dataclass(frozen=True)
class Muvera:
    """Fixed dimensional encodings, MUVERA (Dhulipala et al. 2024, arXiv:2405.19504).

    Each repetition cuts space by random planes. In each part the question's keys are added up, a
    segment's are averaged, and where a segment has none its nearest by Hamming distance stands in.
    """

    planes: int = 5
    """k_sim: 2 to the power of it are the parts of space."""
    width: int = 8
    """d_proj: what each part's vector is projected to, by random signs."""
    repetitions: int = 20
    """R_reps."""
    candidates: int = 100
    """Segments found by 1-bit codes of the encodings; MaxSim ranks them."""
    seed: int = 0
    """Of planes and signs."""

    def __call__(self, segments: Segments) -> MuveraIndex:
        """The index of these segments."""
        return MuveraIndex(segments, self)


class MuveraIndex:
    """Codes of the segments' encodings."""

    def __init__(self, segments: Segments, options: Muvera) -> None:
        self._segments, self._candidates = segments, options.candidates
        self._encoding = Encoding(options, segments.keys.shape[1])
        self._codes = Codes(self._encoding.of_segments(segments))

    @property
    def size(self) -> int:
        """Bytes of the codes."""
        return self._codes.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The candidates, by MaxSim."""
        encoded = self._encoding.of_question(queries)
        (found,) = self._codes.nearest(encoded[None], self._candidates)
        return best_first(self._segments, np.sort(found), queries)


class Encoding:
    """The planes and signs that questions and segments share.

    Args:
        options: how many.
        length: E, of the keys.
    """

    def __init__(self, options: Muvera, length: int) -> None:
        random = np.random.default_rng(options.seed)
        self.parts = 2**options.planes
        """B."""
        self._planes = random.standard_normal((options.repetitions, options.planes, length))
        signs = random.choice([-1.0, 1.0], (options.repetitions, options.width, length))
        self._signs = (signs / np.sqrt(options.width)).astype(np.float32)
        self._powers = 2 ** np.arange(options.planes)
        places = np.arange(self.parts)
        bits = (places[:, None] ^ places)[..., None] & self._powers
        self._distance = (bits > 0).sum(-1)

    def of_question(self, keys: NDArray[np.float32]) -> NDArray[np.float32]:
        """(R·B·d,) float32."""
        blocks = []
        for planes, signs in zip(self._planes, self._signs, strict=True):
            block = np.zeros((self.parts, len(signs)), np.float32)
            np.add.at(block, self._part(keys, planes), keys @ signs.T)
            blocks.append(block.ravel())
        return np.concatenate(blocks)

    def of_segments(self, segments: Segments) -> NDArray[np.float32]:
        """(S, R·B·d) float32."""
        blocks = []
        for planes, signs in zip(self._planes, self._signs, strict=True):
            part = self._part(segments.keys, planes)
            small = segments.keys @ signs.T
            block = np.zeros((len(segments) * self.parts, len(signs)), np.float32)
            place = segments.owners * self.parts + part
            counts = np.bincount(place, minlength=len(block))
            np.add.at(block, place, small)
            block /= np.maximum(counts, 1)[:, None]
            rows = self._stand_ins(segments, part)
            block = np.where(counts[:, None], block, small[rows])
            blocks.append(block.reshape(len(segments), -1))
        return np.concatenate(blocks, axis=1)

    def _stand_ins(self, segments: Segments, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """(S·B,) the row of each segment that is nearest to each part."""
        found = np.empty((len(segments), self.parts), np.int64)
        for segment, (start, end) in enumerate(pairwise(segments.first)):
            found[segment] = start + self._distance[:, part[start:end]].argmin(1)
        return found.ravel()

    def _part(self, keys: NDArray[np.float32], planes: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) on which side of each plane a key lies, as one number."""
        sides: NDArray[np.int64] = (keys @ planes.T > 0) @ self._powers
        return sides

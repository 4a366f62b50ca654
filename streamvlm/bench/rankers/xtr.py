"""All tokens in one index; segments are scored by the tokens that were found and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import LIMIT, Segments
from streamvlm.bench.rankers._codes import TokenCodes
from streamvlm.memory.index.score import xtr


@dataclass(frozen=True)
class Xtr:
    """XTR (Lee et al. 2023, arXiv:2304.01982): the worst score found stands for what was not."""

    candidates: int = 1024
    """Tokens found by their codes, for each query key."""
    kept: int = 256
    """Of these, the nearest ones that count."""

    def __call__(self, segments: Segments) -> XtrIndex:
        """The index of these segments."""
        return XtrIndex(TokenCodes(segments), self)


class XtrIndex:
    """Codes of tokens."""

    def __init__(self, codes: TokenCodes, options: Xtr) -> None:
        self._codes, self._options = codes, options

    @property
    def size(self) -> int:
        """Bytes of the codes."""
        return self._codes.size

    def rank(self, queries: NDArray[np.float32]) -> NDArray[np.int64]:
        """The segments found for any query key, by their mean score."""
        found = self._codes.search(queries, self._options.candidates, self._options.kept)
        return xtr(found, LIMIT)[0]

"""Efficient Video Sampling: what a place shows is kept when it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.compressors import _ops, _places
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class EVS:
    """Keep the tokens that differ most from the step before (EVS, NVIDIA, arXiv 2510.14624).

    A token's novelty is 1 − cosine similarity with the token at the same row and column one step
    before. The round(keep·N) most novel tokens of the whole clip are kept; the first of a place
    always is, equal novelty goes to the earlier token. As shipped in vLLM the rule keeps at least
    one full frame; here the budget comes first, and a budget below one frame is spread evenly
    over the tokens without a predecessor. After another compressor the predecessor is the latest
    earlier token that is left at the place.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        novelty = 1 - _places.similarity_before(tokens)
        first = novelty.isinf().nonzero().flatten()
        if len(first) > count:
            return tokens.select(_ops.evenly_spaced(count, first))
        return tokens.select(novelty.argsort(descending=True, stable=True)[:count].sort().values)

"""Evenly spaced tokens: the baseline that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class Uniform:
    """Keep evenly spaced tokens of the clip, read step by step, row by row (baseline).

    The spacing runs over the clip as one sequence, so the budget round(keep·N) is met exactly
    and every step gets its part, to within one token.
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
        every = torch.arange(len(tokens), device=tokens.features.device)
        return tokens.select(_ops.evenly_spaced(count, every))

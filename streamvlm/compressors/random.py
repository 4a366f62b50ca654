"""Tokens drawn by lot: the baseline that is hard to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class Random:
    """Keep tokens drawn by lot, blind to what they show (baseline).

    The lot depends on the seed and the number of tokens alone: clips of equal size keep equal
    places, on every device. The budget round(keep·N) is met exactly.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    seed: int = 0
    """Another seed, another lot."""
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
        # Drawn on the CPU whatever the device, so that the lot is the same everywhere.
        lot = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(self.seed))
        return tokens.select(lot[:count].sort().values.to(tokens.features.device))

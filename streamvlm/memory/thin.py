"""Fewer tokens of what is stored, without a look at any feature."""

from __future__ import annotations

import torch

from streamvlm.types import VisualTokens


def foremost(tokens: VisualTokens, count: int) -> VisualTokens:
    """The most important tokens of a clip, in time-then-place order.

    Args:
        tokens: N tokens; without `rank`, an even part of them is taken.
        count: how many, at least 1; all if there are no more.
    """
    if count >= len(tokens):
        return tokens
    if tokens.rank is None:
        even = torch.linspace(0, len(tokens) - 1, count, dtype=torch.float64).long()
        return tokens.select(even.to(tokens.position.device))
    return tokens.select(tokens.rank.argsort()[:count].sort().values)

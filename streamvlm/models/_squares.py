"""Towers whose tokens are squares of patches side by side: their cues are the squares' means."""

from __future__ import annotations

import torch


def mean_of_squares(cue: torch.Tensor, side: int, factor: int) -> torch.Tensor:
    """Pool what stands at patches to what stands at tokens.

    Args:
        cue: (B · (side · factor)², …), the patches of B pictures, each in reading order.
        side: tokens along each side of a picture.
        factor: patches along each side of a token.

    Returns:
        (B, side, side, …).
    """
    return cue.reshape(-1, side, factor, side, factor, *cue.shape[1:]).mean((2, 4))

"""What VidCom2 and STC share: how typical a token is, by Gaussians around means.

N tokens, D features, C channels, S steps that have tokens, K centres of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

VARIANCES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
"""α of the Gaussians that are added up."""

_ROWS_AT_ONCE = 1024
"""Bounds the copies that a variance takes."""


def quiet_channels(points_ND: torch.Tensor) -> torch.Tensor:
    """The half of the channels that vary least over some tokens.

    Args:
        points_ND: (N, D) floating point, N ≥ 1.

    Returns:
        (⌊D/2⌋,) int64, increasing, at least one; of equal variances the lower channel.
    """
    dtype = torch.promote_types(points_ND.dtype, torch.float32)
    mean_D = points_ND.mean(0, dtype=dtype)
    spread_D = torch.zeros_like(mean_D)
    for part in torch.split(points_ND, _ROWS_AT_ONCE):
        spread_D += (part - mean_D).square_().sum(0)
    count = max(1, len(mean_D) // 2)
    return spread_D.argsort(stable=True)[:count].sort().values


def unit_rows(points_ND: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Some channels of each token, scaled to length one.

    Args:
        points_ND: (N, D) floating point.
        channels: (C,) int64.

    Returns:
        (N, C) float32 (float64 for such points); zero where all these channels are.
    """
    unit_NC = points_ND.index_select(1, channels)
    unit_NC = unit_NC.to(torch.promote_types(unit_NC.dtype, torch.float32))
    length = torch.linalg.vector_norm(unit_NC, dim=1, keepdim=True)
    return unit_NC.div_(length.clamp(min=torch.finfo(length.dtype).tiny))


def typicality(
    unit_NC: torch.Tensor, centres_SKC: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """How near each token is to the centres of its step: Σ exp(−‖x − c‖² / 2α) over `VARIANCES`.

    As in VidCom2 (EMNLP 2025, arXiv 2505.14454).

    Args:
        unit_NC: (N, C) floating point, step after step.
        centres_SKC: (S, K, C) of the same dtype.
        counts: (S,) how many tokens each step has.

    Returns:
        (N, K), 0 to 5.
    """
    size_SK = centres_SKC.square().sum(-1)
    square_NK = torch.cat(
        [
            (size_K - 2 * (part @ centres_KC.T))
            for part, centres_KC, size_K in zip(
                torch.split(unit_NC, list(counts)), centres_SKC, size_SK, strict=True
            )
        ]
    )
    square_NK += torch.linalg.vector_norm(unit_NC, dim=1, keepdim=True).square()
    square_NK.clamp_(min=0)
    near = [(square_NK / (-2 * variance)).exp_() for variance in VARIANCES]
    return torch.stack(near).sum(0)

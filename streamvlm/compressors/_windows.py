"""Windows of steps in which some places are static: their tokens, as one for each place.

N tokens, D features, K static tokens, P places of a step, W windows, U static places of all
windows, window by window, then by place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from streamvlm.compressors import _merge


@dataclass(frozen=True)
class StaticPlaces:
    """What is static, each place of each window as one."""

    row: torch.Tensor
    """(K,) int64: the tokens that are static, in order."""
    unit: torch.Tensor
    """(K,) int64: the static place that each belongs to, 0 to U − 1."""
    first: torch.Tensor
    """(U,) int64: the first token of each."""
    means: list[torch.Tensor]
    """(U, …) float32 at least: the mean of each, of every table that was given."""
    weight: torch.Tensor
    """(U,) how many source tokens each stands for."""


def static_places(
    tables: Sequence[torch.Tensor],
    weight: torch.Tensor,
    window: torch.Tensor,
    place: torch.Tensor,
    is_static_WP: torch.Tensor,
) -> StaticPlaces:
    """Gather the tokens of static places.

    Args:
        tables: what to average, (N, …) floating point each.
        weight: (N,) how many source tokens each stands for.
        window: (N,) int64, the window of each.
        place: (N,) int64, the place of each in its step.
        is_static_WP: (W, P) bool; every place that is static has tokens.
    """
    row = is_static_WP[window, place].nonzero().flatten()
    number_WP = is_static_WP.flatten().cumsum(0).view_as(is_static_WP)
    units = int(number_WP[-1, -1])
    unit = number_WP[window[row], place[row]] - 1
    first = torch.full((units,), len(weight), device=row.device)
    first = first.scatter_reduce(0, unit, row, "amin")
    means, total = _merge.weighted_means(tables, row, unit, weight[row], units)
    return StaticPlaces(row, unit, first, means, total)

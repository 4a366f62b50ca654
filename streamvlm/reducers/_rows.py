"""What reducers share: layers, budgets, the best rows, and whom a row is most like.

V visual rows, M kept, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from streamvlm.reduction import Plan, VisualRows

_AT_ONCE = 2**24
"""Cosines in memory at once: 64 MiB in float32."""


def check_share(name: str, value: float) -> None:
    """Refuse the value of an option that must be a share of something.

    Args:
        name: the option.
        value: what was given for it.

    Raises:
        ValueError: the value is not more than 0 and at most 1.
    """
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be more than 0 and at most 1, found {value}")


def check_layers(name: str, layers: object) -> None:
    """Refuse layers that have none below to read attention from, or are not in order.

    Args:
        name: the option.
        layers: what was given for it; should be a sequence of numbers.

    Raises:
        ValueError: they are not whole numbers from 1 on, increasing.
    """
    given = layers if isinstance(layers, Sequence) else [layers]
    numbers = [layer for layer in given if isinstance(layer, int) and layer >= 1]
    rises = all(below < above for below, above in itertools.pairwise(numbers))
    if given is not layers or len(numbers) < len(given) or not rises:
        raise ValueError(f"{name} must be whole numbers from 1 on, increasing, found {layers}")


def scaled(layers: Sequence[int], of: int, depth: int, lowest: int) -> tuple[int, ...]:
    """Published layers in a model of another depth.

    Args:
        layers: the layers in the paper's model.
        of: how many layers that has.
        depth: how many layers this one has.
        lowest: the first layer at which rows may leave.

    Returns:
        One layer for each, at least 1 and `lowest`, and below `depth` unless `lowest` is not; in a
        shallow model several may fall on one.
    """
    least = max(1, lowest)
    return tuple(max(least, min(depth - 1, round(layer * depth / of))) for layer in layers)


def budget(keep: float, count: int) -> int:
    """How many rows may remain: round(keep·count), but at least one."""
    return max(1, round(keep * count))


def all_of(rows: VisualRows) -> Plan:
    """Nothing leaves."""
    return Plan(torch.arange(len(rows), device=rows.hidden.device))


def best(score: torch.Tensor, count: int) -> torch.Tensor:
    """The indices of the highest scores.

    Args:
        score: (V,) floating point; of equal scores the lower index is better.
        count: at most V.

    Returns:
        (count,) int64, increasing.
    """
    return score.argsort(descending=True, stable=True)[:count].sort().values


def most_like(hidden: torch.Tensor, rows: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """The head that each row is most like, by cosine; of equal ones the first.

    Args:
        hidden: (V, D) floating point.
        rows: (K,) int64, whom to compare.
        heads: (M,) int64, with whom; M ≥ 1.

    Returns:
        (K,) int64, members of `heads`.
    """
    unit = F.normalize(hidden.float(), dim=1)
    ours = unit[heads].T
    some = max(1, _AT_ONCE // len(heads))
    nearest = torch.empty_like(rows)
    for first in range(0, len(rows), some):
        part = slice(first, first + some)
        nearest[part] = heads[(unit[rows[part]] @ ours).argmax(1)]
    return nearest


def others(kept: torch.Tensor, count: int) -> torch.Tensor:
    """The indices from 0 to `count` − 1 that are not in `kept`, increasing."""
    is_other = torch.ones(count, dtype=torch.bool, device=kept.device)
    is_other[kept] = False
    return is_other.nonzero().flatten()


def mean_shares(weight: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The shares by which a target becomes the true mean of itself and its sources.

    Args:
        weight: (V,) how many tokens each row stands for.
        source: (K,) int64.
        target: (K,) int64, no source among them.

    Returns:
        (K,) float32.
    """
    total = weight.double().index_add(0, target, weight[source].double())
    return (weight[source] / total[target]).float()

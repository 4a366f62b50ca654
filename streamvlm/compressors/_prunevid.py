"""The counting half of PruneVid: clusters of steps become windows, groups get their clusters.

T steps with tokens, W windows, G groups of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise

import torch

FEW = 14
"""Groups of at most so many tokens stay as they are."""

Run = tuple[int, int]
"""A label and how many steps in a row have it."""


def window_starts(labels: Sequence[int]) -> list[int]:
    """Make windows of consecutive steps out of clusters of steps.

    A cluster keeps its longest runs of consecutive steps, if those are longer than one step. All
    other steps take the label of the longer of the kept runs to their left and right, the left
    one of equals; windows are the runs of equal labels after that. If no run is kept, the labels
    stay as they were.

    Args:
        labels: (T,) the cluster of each step.

    Returns:
        (W,) the first step of each window.
    """
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    longest: dict[int, int] = {}
    for label, length in runs:
        longest[label] = max(length, longest.get(label, 2))
    kept = [run if run[1] == longest[run[0]] else None for run in runs]
    if any(kept):
        left, right = _latest(kept), _latest(kept[::-1])[::-1]
        runs = [
            (max(filter(None, beside), key=lambda run: run[1])[0], length)
            for *beside, (_, length) in zip(left, right, runs, strict=True)
        ]
    merged = [sum(run[1] for run in same) for _, same in groupby(runs, key=lambda run: run[0])]
    return list(accumulate(merged[:-1], initial=0))


def _latest(kept: Sequence[Run | None]) -> list[Run | None]:
    """For each run the last kept one up to it."""
    latest = kept[0]
    return [latest := run or latest for run in kept]


def cluster_counts(sizes: Sequence[int], share: float) -> list[int]:
    """How many clusters each group of tokens is merged into, as published: small ones are not.

    Args:
        sizes: (G,) tokens of each group.
        share: clusters per token of the others, 0–1.

    Returns:
        (G,) at most the size of each; 0 for a large group with a small share.
    """
    return [size if size <= FEW else int(size * share) for size in sizes]


def noise(dice: torch.Generator, size: int) -> torch.Tensor:
    """The published tie-break of one group: (size,) float32, U(0, 10⁻⁶)."""
    return torch.rand(size, generator=dice) * 1e-6


def noise_in_turn(
    dice: torch.Generator, starts: Sequence[int], static: Sequence[int], others: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The published tie-breaks of all groups of tokens, drawn window by window.

    Args:
        dice: where they come from.
        starts: (W,) the first step of each window.
        static: (W,) static places of each window.
        others: (T,) other tokens of each step.

    Returns:
        Those of all static places, and of all other tokens; 0 in groups that are not clustered.
    """

    def draw(size: int) -> torch.Tensor:
        return noise(dice, size) if size > FEW else torch.zeros(size)

    static_draws, other_draws = [], []
    for size, (start, end) in zip(static, pairwise([*starts, len(others)]), strict=True):
        static_draws.append(draw(size))
        other_draws += [draw(size) for size in others[start:end]]
    return torch.cat(static_draws), torch.cat(other_draws)

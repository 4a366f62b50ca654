"""Nested: one order of importance, of which every beginning is a good choice.

N tokens, D features, M kept tokens, P projected features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens

_WIDTH = 64
"""Features are projected to so many: distances stay within about an eighth of what they were
(Johnson and Lindenstrauss 1984), and a pick costs a sixteenth of one at D = 1024."""


@dataclass(frozen=True)
class Nested:
    """Rank tokens so that any prefix is a good subset (ours, 2026; after Gonzalez 1985).

    A farthest-first traversal. The first token is the one that stands out most from the clip's
    mean. Then comes, again and again, the token with the largest product of two distances: to the
    nearest token chosen before (is it new, and unlike the rest?) and to the mean of the clip (does
    it stand out?). In its place the first in time is taken of all that nearly equal it, so that
    what stands still is kept as it was first seen, in one step. So diversity, novelty in time and
    saliency are one number, and no cue is needed. Without the second factor it is Gonzalez's
    k-centre heuristic, whose every prefix covers all tokens within twice the best radius possible
    for so many.

    What is kept carries its `rank`. Any smaller budget later is a cut by rank: no feature is read
    again. The reader of a memory makes that cut when the evidence does not fit its budget.

    It may use less than the budget round(keep·N): it stops when every token left out nearly equals
    one that was chosen. The chosen tokens for a smaller `keep` are always a part of those for a
    larger one. Distances are Euclidean between features, more than 64 of them projected by a fixed
    random matrix. Nothing is merged. Memory is linear in N, time is M·N.
    """

    keep: float = 0.1
    """Share of the tokens kept at most, 0–1."""
    floor: float = 0.1
    """Tokens nearly equal one another if their squared distance is at most this share of the clip's
    variance, 0–1; noise of a still camera lies below."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("floor", self.floor, may_be_zero=True)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep at most round(keep·N) tokens, ranked.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used: every record can be read without the one before.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        order = _farthest_first(_projected(tokens.features), count, self.floor)
        rank = order.argsort()
        return replace(tokens.select(order[rank]), rank=rank)


def _projected(features_ND: torch.Tensor) -> torch.Tensor:
    """(N, P) float32 with about the same distances, around a mean of zero."""
    full_ND = features_ND.float()
    if full_ND.shape[1] > _WIDTH:
        # Drawn on the CPU whatever the device, so that it is the same everywhere.
        dice = torch.Generator().manual_seed(0)
        matrix_DP = torch.randn(full_ND.shape[1], _WIDTH, generator=dice) / _WIDTH**0.5
        full_ND = full_ND @ matrix_DP.to(full_ND.device)
    return full_ND - full_ND.mean(0)


def _farthest_first(point_NP: torch.Tensor, count: int, floor: float) -> torch.Tensor:
    """(M,) int64, at most `count` indices, the most important first."""
    salience = point_NP.square().sum(1)
    enough = floor * salience.mean()
    weight = salience.clamp(min=torch.finfo(salience.dtype).tiny)
    distance = torch.full_like(salience, torch.inf)
    order: list[torch.Tensor] = []
    radius = []
    for _ in range(count):
        radius.append(distance.max())
        best = (distance * weight).argmax() if order else salience.argmax()
        # Of all that nearly equal the best, the first: argmax of what is true.
        is_like = (_to(point_NP, salience, best) <= enough) & (distance >= 0)
        pick = is_like.index_fill(0, best, True).int().argmax()
        order.append(pick)
        distance = torch.minimum(distance, _to(point_NP, salience, pick))
        distance = distance.index_fill(0, pick, -torch.inf)
    # Looked at only now, so that no pick waits for the device.
    is_needed = torch.stack(radius) > enough
    return torch.stack(order)[: int(is_needed.cumprod(0).sum())]


def _to(point_NP: torch.Tensor, salience_N: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """(N,) squared distances to one of the points: ‖x‖² − 2x·c + ‖c‖²."""
    square = torch.addmv(salience_N, point_NP, point_NP[one], alpha=-2) + salience_N[one]
    return square.clamp_(min=0)

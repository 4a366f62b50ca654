"""The tensor half of FastVID: which tokens are targets, and what each of them takes in.

N tokens, D features, Q targets, A anchors, R tokens of a segment, K pairs of a token and an anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F

from streamvlm.compressors import _fastvid, _merge, _peaks
from streamvlm.types import VisualTokens


def full(table: torch.Tensor) -> torch.Tensor:
    """The same in float32 at least: half precision cannot hold sums and squares."""
    return table.to(torch.promote_types(table.dtype, torch.float32))


def targets(
    tokens: VisualTokens,
    anchors: Sequence[_fastvid.Anchor],
    is_salient: torch.Tensor,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """The tokens at the density peaks of anchors.

    Args:
        tokens: N tokens.
        anchors: where to look, and how many to take.
        is_salient: (N,) bool, tokens that are no candidates.
        noise: (N,) floating point, added to the densities to break ties.

    Returns:
        (Q,) int64, anchor by anchor, best first in each.
    """
    device = is_salient.device
    chosen = [torch.empty(0, dtype=torch.int64, device=device)]
    for at in range(0, len(anchors), _fastvid.ANCHORS_AT_ONCE):
        some = anchors[at : at + _fastvid.ANCHORS_AT_ONCE]
        first_A1, count_A1, _ = torch.tensor(some, device=device).T[..., None]
        column = torch.arange(max(anchor.tokens for anchor in some), device=device)
        index_AP = (first_A1 + column).clamp(max=len(tokens) - 1)
        points = tokens.features.index_select(0, index_AP.flatten())
        is_candidate = (column < count_A1) & ~is_salient[index_AP]
        square = _peaks.squared_distances(full(points).view(*index_AP.shape, -1), is_candidate)
        score = _peaks.density_peaks(
            square, is_candidate, None if noise is None else noise[index_AP]
        )
        ranked = index_AP.gather(1, score.argsort(dim=-1, descending=True, stable=True))
        # How many to take is known here, so that no device has to be waited for.
        take = [row * len(column) + i for row, one in enumerate(some) for i in range(one.size)]
        chosen.append(ranked.flatten()[torch.tensor(take, device=device)])
    return torch.cat(chosen)


@dataclass(frozen=True)
class Rule:
    """How a target is blended with the mean of what joined it."""

    mix: float
    """How much of the result is the target itself beside the mean, 0–1."""
    in_mean: bool
    """Whether the target is one of those that the mean is taken of."""
    official: bool
    """Whether to weigh the target as the published code does."""


def merge(
    tokens: VisualTokens,
    plan: _fastvid.Plan,
    heads: torch.Tensor,
    is_joining: torch.Tensor,
    rule: Rule,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Let every token join its most similar target of each anchor of its segment.

    Args:
        tokens: N tokens.
        plan: whose anchors the targets are.
        heads: (Q,) int64, the targets, anchor by anchor; at least one.
        is_joining: (N,) bool, the tokens that join.
        rule: what becomes of the targets.

    Returns:
        New `contents` (Q, …) of the targets, and their weights (Q,).
    """
    pieces = [_merge_some(tokens, groups, heads, is_joining, rule) for groups in plan.rounds()]
    *contents, weight = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return contents, weight


def _merge_some(
    tokens: VisualTokens,
    groups: Sequence[_fastvid.Group],
    heads: torch.Tensor,
    is_joining: torch.Tensor,
    rule: Rule,
) -> list[torch.Tensor]:
    """The contents and weights (Q, …) of the targets of some groups."""
    heads = heads[groups[0].targets.start : groups[-1].targets.stop]
    row, nearest, itself = _pairs(tokens.features, heads, groups)
    # In units of 1/sharers, so that sums of thousands of shares stay exact.
    share = (tokens.weight * is_joining)[row]
    sharers = [group.sharers for group in groups for _ in range(sum(group.sizes))]
    unit = torch.tensor(sharers, device=row.device)
    own = torch.ones_like(tokens.weight[heads]) if rule.official else tokens.weight[heads] * unit
    if not (rule.official and rule.in_mean):
        nearest[itself] = torch.arange(len(heads), device=row.device)
        share[itself] = own if rule.in_mean else torch.zeros_like(own)
    tables = _merge.contents(tokens)
    means, total = _merge.weighted_means(tables, row, nearest, share, len(heads))
    mixed = torch.full_like(total, rule.mix)
    if rule.official or not rule.in_mean:
        mixed = mixed.maximum(own / (total + own))
    weight = total if rule.in_mean else total + own
    # At least itself: of equal targets, all tokens join the first.
    weight = weight.maximum(own) / unit
    return [*blend(means, [table[heads] for table in tables], mixed), weight]


def _pairs(
    features: torch.Tensor, heads: torch.Tensor, groups: Sequence[_fastvid.Group]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every token of each segment with its most similar target of each anchor, by cosine.

    Returns:
        (K,) int64 tokens; (K,) int64 which of the targets; (Q,) int64 the pair of each target
        with its own anchor.
    """
    device = heads.device
    unit_QD = F.normalize(full(features[heads]), dim=1)
    rows, nearest, itself = [], [], []
    first = pairs = 0
    for group in groups:
        anchors, segment = len(group.sizes), group.segment
        mine = slice(first, first + sum(group.sizes))
        nearest_RA = _nearest(features[segment], unit_QD[mine], group.sizes)
        nearest.append(first + nearest_RA.flatten())
        every = torch.arange(segment.start, segment.stop, device=device)
        rows.append(every[:, None].expand(-1, anchors).flatten())
        anchor = [i for i, size in enumerate(group.sizes) for _ in range(size)]
        pair = (heads[mine] - segment.start) * anchors + torch.tensor(anchor, device=device)
        itself.append(pairs + pair)
        first, pairs = mine.stop, pairs + len(every) * anchors
    return torch.cat(rows), torch.cat(nearest), torch.cat(itself)


def _nearest(segment_RD: torch.Tensor, unit_QD: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """For each token and anchor its most similar target (R, A) int64, by cosine."""
    device = segment_RD.device
    end_A1 = torch.tensor(list(accumulate(sizes)), device=device)[:, None]
    first_A1 = end_A1 - torch.tensor(sizes, device=device)[:, None]
    # An anchor with fewer targets repeats its last one: a fixed width needs no loop over anchors.
    column_AQ = (first_A1 + torch.arange(max(sizes), device=device)).minimum(end_A1 - 1)
    # The length of the tokens themselves does not change which target is nearest.
    similarity = full(segment_RD) @ unit_QD[column_AQ.flatten()].T
    best_AR = similarity.view(len(segment_RD), *column_AQ.shape).argmax(-1).T
    nearest_RA: torch.Tensor = column_AQ.gather(1, best_AR).T
    return nearest_RA


def blend(
    means: Sequence[torch.Tensor], old: Sequence[torch.Tensor], own: torch.Tensor
) -> list[torch.Tensor]:
    """Contents of targets: what they were themselves, and the means of what joined them.

    Args:
        means: (Q, …) floating point each.
        old: the same shapes, of any floating point.
        own: (Q,) how much is the old, 0–1.
    """
    return [
        mean.lerp(full(table), own.to(mean.dtype).view(-1, *(1 for _ in table.shape[1:])))
        for mean, table in zip(means, old, strict=True)
    ]

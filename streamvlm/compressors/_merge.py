"""What merging shares: means weighted by how much each token stands for.

N tokens, D features, M kept tokens, G groups, K pairs of a token and a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens


def contents(tokens: VisualTokens) -> list[torch.Tensor]:
    """What merging has to average: features (N, D), and deepstack (N, L, D) if there is one."""
    return [tokens.features] if tokens.deepstack is None else [tokens.features, tokens.deepstack]


def weighted_means(
    tables: Sequence[torch.Tensor],
    row: torch.Tensor,
    group: torch.Tensor,
    share: torch.Tensor,
    groups: int,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The mean row of each group over (row, group) pairs, weighted by a share each.

    Sums are taken in a fixed order on every device, which scatter-adds on a GPU do not promise.

    Args:
        tables: (N, …) floating point each.
        row: (K,) int64, rows of the tables; one row may be in several groups.
        group: (K,) int64, 0 to G − 1.
        share: (K,) floating point, at least 0: how much of the row the group gets.
        groups: G.

    Returns:
        The means, (G, …) float32 (float64 for such tables) each, zero for a group without
        shares; and the sums of shares, (G,).
    """
    order = group.argsort(stable=True)
    starts = torch.searchsorted(group[order], torch.arange(groups, device=group.device))
    row, share = row[order], share[order]

    def sums(table: torch.Tensor, index: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        scale = scale.to(table.dtype)
        return F.embedding_bag(index, table, starts, mode="sum", per_sample_weights=scale)

    total = sums(
        share[:, None], torch.arange(len(share), device=row.device), torch.ones_like(share)
    )
    least = torch.finfo(total.dtype).tiny
    means = []
    for table in tables:
        flat = table.flatten(1).to(torch.promote_types(table.dtype, torch.float32))
        mean = sums(flat, row, share).div_(total.clamp(min=least))
        means.append(mean.view(groups, *table.shape[1:]))
    return means, total[:, 0]


def with_merged(
    tokens: VisualTokens,
    kept: torch.Tensor,
    heads: torch.Tensor,
    merged: Sequence[torch.Tensor],
    weight: torch.Tensor,
) -> VisualTokens:
    """The kept tokens, those at `heads` with merged content; positions and cues stay their own.

    Args:
        tokens: N tokens.
        kept: (M,) int64, increasing.
        heads: (G,) int64, all of them in `kept`.
        merged: new `contents` for the heads, (G, …) each; cast to the dtype of the old.
        weight: (G,) how many source tokens each head now stands for.
    """
    chosen = tokens.select(kept)
    at = torch.searchsorted(kept, heads)

    def put(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return old.index_copy(0, at, new.to(old.dtype))

    features, *deepstack = map(put, contents(chosen), merged)
    return replace(
        chosen,
        features=features,
        weight=put(chosen.weight, weight),
        deepstack=deepstack[0] if deepstack else None,
    )


def nearest_of_group(
    points: torch.Tensor, group: torch.Tensor, is_head: torch.Tensor
) -> torch.Tensor:
    """The head of its own group that each entry is most like, by cosine.

    Groups are compared one with all of itself only, a few at a time: memory is that of the largest
    group's entries times its heads, for each of them.

    Args:
        points: (N, d) floating point, what is compared; need not be the features.
        group: (N,) int64, not decreasing: the step or the segment of each.
        is_head: (N,) bool; every group needs at least one.

    Returns:
        (N,) int64, an index of a head; that of itself for a head. Equal ones: the lower index.
    """
    unit = F.normalize(points.to(torch.promote_types(points.dtype, torch.float32)), dim=1)
    heads = is_head.nonzero().flatten()
    nearest = torch.arange(len(points), device=points.device)
    rows, counts = (
        torch.unique_consecutive(part, return_counts=True)[1].tolist()
        for part in (group, group[heads])
    )
    first = at = 0
    for size, seats in zip(rows, counts, strict=True):
        own = heads[at : at + seats]
        nearest[first : first + size] = own[(unit[first : first + size] @ unit[own].T).argmax(1)]
        first, at = first + size, at + seats
    nearest[heads] = heads
    return nearest


def join(tokens: VisualTokens, head: torch.Tensor, is_joining: torch.Tensor) -> VisualTokens:
    """Merge tokens into heads: each head becomes the mean of itself and of those that join it.

    Args:
        tokens: N tokens.
        head: (N,) int64: the index of the token that each belongs to; its own for one that is kept.
        is_joining: (N,) bool: whether a token that is not its own head counts in the mean; those
            that do not are dropped.

    Returns:
        The heads, with features, deepstack and weights of all that joined, and with their own
        position, seconds and cues.
    """
    every = torch.arange(len(tokens), device=head.device)
    is_head = head == every
    kept = is_head.nonzero().flatten()
    row = (is_head | is_joining).nonzero().flatten()
    group = torch.searchsorted(kept, head[row])
    merged, weight = weighted_means(contents(tokens), row, group, tokens.weight[row], len(kept))
    # Every head has new features: only the other fields are worth selecting.
    bare = replace(tokens, features=tokens.features[:, :0], deepstack=None).select(kept)
    features, *deepstack = (new.to(tokens.features.dtype) for new in merged)
    return replace(
        bare, features=features, weight=weight, deepstack=deepstack[0] if deepstack else None
    )

"""What compressors share: budgets, ranks within groups, weighted means, density peaks.

N tokens, D features, M kept tokens, G groups, K pairs of a token and a group,
B sets of P points each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from streamvlm.errors import ConfigError
from streamvlm.types import VisualTokens


def check_share(name: str, value: float, *, may_be_zero: bool = False) -> None:
    """Refuse the value of an option that must be a share of something.

    Args:
        name: the option.
        value: what was given for it.
        may_be_zero: whether none at all is a share too.

    Raises:
        ValueError: the value is not between 0 and 1.
    """
    if not (0 < value <= 1 or (may_be_zero and value == 0)):
        least = "at least 0" if may_be_zero else "more than 0"
        raise ValueError(f"{name} must be {least} and at most 1, found {value}")


def budget(keep: float, tokens: VisualTokens) -> int:
    """How many tokens may remain: round(keep·N), but at least one.

    Args:
        keep: share of the tokens that may remain, 0–1.
        tokens: N tokens, dense or already compressed.
    """
    return max(1, round(keep * len(tokens)))


def cue(cues: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """One of the side signals that came with tokens.

    Args:
        cues: `VisualTokens.cues` or `VisualTokens.frame_cues`.
        name: the signal.

    Raises:
        ConfigError: the tokens came without it.
    """
    if name not in cues:
        given = ", ".join(sorted(cues)) or "none"
        raise ConfigError(
            f"the cue {name!r} is missing from the tokens (they carry: {given}); use an encoder "
            "that gives it, before its tokens are stored, or a compressor that needs none"
        )
    return cues[name]


def evenly_spaced(count: int, sequence: torch.Tensor) -> torch.Tensor:
    """Those entries of a sequence that lie in the middles of `count` equal stretches of it.

    Args:
        count: how many, 1 to N.
        sequence: (N,) of any dtype.

    Returns:
        (count,) entries, in their order, no place twice.
    """
    middles = torch.arange(count, device=sequence.device) * 2 + 1
    return sequence[middles * len(sequence) // (2 * count)]


def ranks_within(score: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """The rank of each entry among the entries of its own group, the highest score first.

    Args:
        score: (N,) floating point; equal scores rank in index order.
        group: (N,) int64.

    Returns:
        (N,) int64, from 0 in each group.
    """
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    grouped = group[order]
    first = torch.searchsorted(grouped, grouped)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device) - first
    return ranks


def apportion(total: int, claims: Sequence[int], rooms: Sequence[int]) -> list[int]:
    """Deal out whole seats by claims: largest remainders (Hare–Niemeyer), never beyond a room.

    What a full room cannot take goes to the others. Equal remainders are served in an order that
    scatters them over the sequence, so that no end of a clip is favoured.

    Args:
        total: seats to deal out.
        claims: how much each may claim, at least 0.
        rooms: the most seats each can take.

    Returns:
        Seats of each; their sum is the smaller of `total` and the rooms of those with a claim.
    """
    seats = [0] * len(claims)
    waiting = [i for i, claim in enumerate(claims) if claim and rooms[i]]
    left = total
    while left and waiting:
        whole = sum(claims[i] for i in waiting)
        full = [i for i in waiting if left * claims[i] // whole >= rooms[i]]
        if not full:
            # Multiples of the golden ratio, modulo one turn, are spread evenly (Knuth's hash).
            waiting.sort(key=lambda i: (-(left * claims[i] % whole), i * 2654435769 % 2**32))
            for i in waiting:
                seats[i] = left * claims[i] // whole
            for i in waiting[: left - sum(seats[i] for i in waiting)]:
                seats[i] += 1
            return seats
        for i in full:
            seats[i] = rooms[i]
            left -= rooms[i]
        waiting = [i for i in waiting if not seats[i]]
    return seats


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


def density_peaks(
    points: torch.Tensor, valid: torch.Tensor, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """How well each point would serve as a cluster centre: dense, and far from anything denser.

    Density peaks with 4 neighbours (Rodriguez and Laio, Science 2014; the k-nearest-neighbour form
    of DPC-KNN, 2016): density ρ = exp(−mean of the 4 smallest d², itself included), distance
    δ = the smallest d to a denser point (for the densest: the largest d of the set), with
    d = ‖x − y‖ / √D; the score is log(ρ·δ), which ranks as ρ·δ does but cannot underflow.
    Takes memory for B·P² numbers.

    Args:
        points: (B, P, D) float32 or float64.
        valid: (B, P) bool; the others are no points at all.
        noise: (B, P) added to the density, to break ties as some official codes do; without it
            the lower index counts as denser.

    Returns:
        (B, P), −inf for what is not valid.
    """
    # Distances do not change when the middle is taken out, and lose fewer digits.
    centred = points - points.mean(1, keepdim=True)
    square = centred.square().sum(-1)
    square = torch.baddbmm(square[:, :, None] + square[:, None, :], centred, centred.mT, alpha=-2)
    square = square.clamp_(min=0).div_(points.shape[-1])
    square.diagonal(dim1=1, dim2=2).zero_()
    square.masked_fill_(~valid[:, None, :], torch.inf)

    near = square.topk(min(4, square.shape[-1]), largest=False).values
    found = near.isfinite()
    log_density = -near.where(found, 0).sum(-1) / found.sum(-1).clamp(min=1)
    if noise is not None:
        log_density = (log_density.exp() + noise).log()

    rank = log_density.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    denser = rank[:, None, :] < rank[:, :, None]
    farthest = square.where(valid[:, None, :] & valid[:, :, None], 0).amax((1, 2))
    distance = square.where(denser, torch.inf).amin(-1)
    distance = distance.where(distance.isfinite(), farthest[:, None]).sqrt()
    tiny = torch.finfo(points.dtype).tiny
    return (log_density + distance.clamp(min=tiny).log()).where(valid, -torch.inf)

"""What compressors share: budgets, cues, and ranks within groups.

N tokens, T steps, M kept tokens. Merging is in `_merge.py`, density peaks in `_peaks.py`, what a
place showed before in `_places.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

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


def deal(count: int, tokens: VisualTokens) -> torch.Tensor:
    """Deal out a budget over the steps of a clip, to each by how many tokens it has.

    Args:
        count: tokens to keep in all, at most N.
        tokens: N tokens of which some steps may have none.

    Returns:
        (T,) int64: how many each step of the uncompressed clip may keep; they sum to `count`, and
        none is more than the step has.
    """
    there = tokens.position[:, 0].bincount(minlength=tokens.grid[0]).tolist()
    return torch.tensor(apportion(count, there, there), device=tokens.position.device)


def best_of_each(score: torch.Tensor, group: torch.Tensor, seats: torch.Tensor) -> torch.Tensor:
    """Which entries are among the best of their own group.

    Args:
        score: (N,) floating point; of equal scores the lower index is better.
        group: (N,) int64, 0 to G − 1.
        seats: (G,) int64, how many of each group are wanted.

    Returns:
        (N,) bool.
    """
    return ranks_within(score, group) < seats[group]

"""The counting half of FastVID: how many tokens to take at which step. Integers, no tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from streamvlm.compressors import _ops

ANCHORS_AT_ONCE = 8
"""Bounds memory: similarities of a segment then grow with its length, not with its square."""


@dataclass(frozen=True)
class Plan:
    """How many tokens to take where; one entry per step that has tokens."""

    counts: Sequence[int]
    """Tokens there are."""
    ends: Sequence[int]
    """The steps at which segments end, exclusive."""
    salient: Sequence[int]
    """Tokens to keep as they are."""
    context: Sequence[int]
    """Targets to choose; 0 for a step that is no anchor."""

    def anchors(self) -> Iterator[list[Anchor]]:
        """All anchors with targets, in order, a few at once."""
        firsts = accumulate(self.counts, initial=0)
        every = [
            Anchor(*row) for row in zip(firsts, self.counts, self.context, strict=False) if row[-1]
        ]
        for at in range(0, len(every), ANCHORS_AT_ONCE):
            yield every[at : at + ANCHORS_AT_ONCE]

    def groups(self) -> Iterator[Group]:
        """The same anchors, a few of one segment at once."""
        first_row = list(accumulate(self.counts, initial=0))
        first_target = list(accumulate(self.context, initial=0))
        for start, end in pairwise([0, *self.ends]):
            anchors = [step for step in range(start, end) if self.context[step]]
            for at in range(0, len(anchors), ANCHORS_AT_ONCE):
                some = anchors[at : at + ANCHORS_AT_ONCE]
                yield Group(
                    segment=slice(first_row[start], first_row[end]),
                    targets=slice(first_target[some[0]], first_target[some[-1] + 1]),
                    sizes=[self.context[step] for step in some],
                    sharers=len(anchors),
                )


class Anchor(NamedTuple):
    """A step whose density peaks are targets."""

    first: int
    """Its first token."""
    tokens: int
    """How many tokens it has."""
    size: int
    """How many targets to choose."""


@dataclass(frozen=True)
class Group:
    """A few anchors of one segment, merged at once."""

    segment: slice
    """The tokens of the segment."""
    targets: slice
    """The targets of these anchors among all targets."""
    sizes: Sequence[int]
    """How many targets each has."""
    sharers: int
    """How many anchors of the segment have targets, in this group or not."""


def anchors_of(ends: Sequence[int], every: int) -> list[list[int]]:
    """The steps of each segment that are anchors: its last one and every `every`-th before it."""
    return [sorted(range(end - 1, start - 1, -every)) for start, end in pairwise([0, *ends])]


def exact_plan(
    counts: Sequence[int], ends: Sequence[int], every: int, budget: int, context: float
) -> Plan:
    """Meet a budget exactly, by largest remainders.

    Args:
        counts: tokens of each step.
        ends: the steps at which segments end, exclusive.
        every: steps from one anchor to the next.
        budget: tokens to take, at most the sum of `counts`.
        context: share of the budget to spend on targets, 0–1.

    Returns:
        A plan for `budget` tokens in all. What anchors cannot hold goes to salient tokens.
    """
    anchors = anchors_of(ends, every)
    wanted = round(context * budget)
    salient = _ops.apportion(budget - wanted, counts, counts)
    room = _minus(counts, salient)
    per_segment = _ops.apportion(
        wanted,
        [sum(counts[start:end]) for start, end in pairwise([0, *ends])],
        [sum(room[step] for step in steps) for steps in anchors],
    )
    targets = [0] * len(counts)
    for steps, seats in zip(anchors, per_segment, strict=True):
        claims, rooms = [counts[step] for step in steps], [room[step] for step in steps]
        for step, share in zip(steps, _ops.apportion(seats, claims, rooms), strict=True):
            targets[step] = share
    room = _minus(room, targets)
    spare = _ops.apportion(wanted - sum(targets), room, room)
    salient = [taken + more for taken, more in zip(salient, spare, strict=True)]
    return Plan(counts, ends, salient, targets)


def official_plan(
    counts: Sequence[int], ends: Sequence[int], every: int, keep: float, context: float
) -> Plan:
    """Round every share down, as `Qwen2Model.forward` of LunarShen/FastVID (a40a109) does.

    Args:
        counts: tokens of each step, all equal.
        ends: the steps at which segments end, exclusive.
        every: steps from one anchor to the next.
        keep: share of each step's tokens to take, 0–1.
        context: share of those to spend on targets, 0–1.
    """
    taken = int(counts[0] * keep)
    wanted = int(taken * context)
    targets = [0] * len(counts)
    pools: list[int] = []
    for steps, (start, end) in zip(anchors_of(ends, every), pairwise([0, *ends]), strict=True):
        share = wanted * (end - start) // len(steps)
        for step in steps:
            targets[step] = share
        # An anchor with the share of a single step is taken for a segment of one step there.
        pools += range(start + 1, end + 1) if share == wanted else [end]
    return Plan(counts, pools, [taken - wanted] * len(counts), targets)


def _minus(all_of: Sequence[int], some: Sequence[int]) -> list[int]:
    return [one - other for one, other in zip(all_of, some, strict=True)]

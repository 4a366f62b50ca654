"""The counting half of FastVID: how many tokens to take at which step. Integers, no tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from streamvlm.compressors import _ops

ANCHORS_AT_ONCE = 8
"""Bounds memory: similarities of a segment then grow with its length, not with its square."""


@dataclass(frozen=True)
class Segments:
    """A clip cut in segments; one entry per step that has tokens."""

    counts: Sequence[int]
    """Tokens there are."""
    ends: Sequence[int]
    """The steps at which segments end, exclusive."""
    holds: Sequence[bool]
    """Whether a step may hold tokens; the last one of each segment does."""

    def anchors(self, every: int) -> list[list[int]]:
        """The anchors of each segment: the last step that holds tokens, and every n-th before."""
        holders = [
            [step for step in range(start, end) if self.holds[step]]
            for start, end in pairwise([0, *self.ends])
        ]
        return [steps[::-1][::every][::-1] for steps in holders]


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

    def anchors(self) -> list[Anchor]:
        """All anchors with targets, in order."""
        return anchors_with_targets(self.counts, self.context)

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

    def rounds(self) -> Iterator[list[Group]]:
        """Groups to merge at once: few calls, and no more pairs than tokens if one group allows."""
        batch: list[Group] = []
        for group in self.groups():
            if batch and sum(one.pairs for one in (*batch, group)) > sum(self.counts):
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch


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
    """A few anchors of one segment."""

    segment: slice
    """The tokens of the segment."""
    targets: slice
    """The targets of these anchors among all targets."""
    sizes: Sequence[int]
    """How many targets each has."""
    sharers: int
    """How many anchors of the segment have targets, in this group or not."""

    @property
    def pairs(self) -> int:
        """How many pairs of a token and an anchor there are."""
        tokens: int = self.segment.stop - self.segment.start
        return tokens * len(self.sizes)


def anchors_with_targets(counts: Sequence[int], context: Sequence[int]) -> list[Anchor]:
    """The anchors of steps with so many tokens each, and so many targets."""
    rows = zip(accumulate(counts, initial=0), counts, context, strict=False)
    return [Anchor(*row) for row in rows if row[-1]]


def exact_plan(segments: Segments, every: int, budget: int, context: float) -> Plan:
    """Meet a budget exactly, by largest remainders.

    Args:
        segments: how the clip is cut.
        every: steps from one anchor to the next.
        budget: tokens to take, at most as many as there are.
        context: share of the budget to spend on targets, 0–1.

    Returns:
        A plan for `budget` tokens in all. What anchors cannot hold goes to salient tokens, and
        what no holder can hold to the other steps.
    """
    counts, held = segments.counts, _where(segments.holds, segments.counts)
    anchors = segments.anchors(every)
    wanted = round(context * budget)
    salient = _ops.apportion(budget - wanted, held, counts)
    room = _minus(counts, salient)
    per_segment = _ops.apportion(
        wanted,
        [sum(held[start:end]) for start, end in pairwise([0, *segments.ends])],
        [sum(room[step] for step in steps) for steps in anchors],
    )
    targets = [0] * len(counts)
    for steps, seats in zip(anchors, per_segment, strict=True):
        claims, rooms = [counts[step] for step in steps], [room[step] for step in steps]
        _add(targets, steps, _ops.apportion(seats, claims, rooms))
    for holds in (segments.holds, [True] * len(counts)):
        room = _minus(_minus(counts, salient), targets)
        spare = budget - sum(salient) - sum(targets)
        more = _ops.apportion(spare, _where(holds, room), room)
        _add(salient, range(len(counts)), more)
    return Plan(counts, segments.ends, salient, targets)


def official_plan(segments: Segments, every: int, keep: float, context: float) -> Plan:
    """Round every share down, as the code for LLaVA-OneVision and Qwen2.5-VL does.

    Args:
        segments: how the clip is cut, every step with as many tokens.
        every: steps from one anchor to the next.
        keep: share of each holder's tokens to take, 0–1.
        context: share of those to spend on targets, 0–1.
    """
    taken = int(segments.counts[0] * keep)
    wanted = int(taken * context)
    salient = _where(segments.holds, [taken - wanted] * len(segments.counts))
    targets = [0] * len(segments.counts)
    pools: list[int] = []
    bounds = pairwise([0, *segments.ends])
    for steps, (start, end) in zip(segments.anchors(every), bounds, strict=True):
        share = wanted * sum(segments.holds[start:end]) // len(steps)
        for step in steps:
            targets[step] = share
        # An anchor with the share of a single step is taken for a segment of one step there.
        pools += range(start + 1, end + 1) if share == wanted else [end]
    return Plan(segments.counts, pools, salient, targets)


def official_video_plan(segments: Segments, every: int, keep: float, context: float) -> Plan:
    """Deal out what each segment may take, as the code for LLaVA-Video does.

    Args:
        segments: how the clip is cut, every step with as many tokens.
        every: steps from one anchor to the next.
        keep: share of each step's tokens to take, 0–1, rounded down.
        context: share of a segment's tokens to spend on targets, 0–1, rounded down.

    Returns:
        A plan in which the first steps and anchors of a segment take what does not divide.
    """
    salient, targets = [0] * len(segments.counts), [0] * len(segments.counts)
    bounds = pairwise([0, *segments.ends])
    for anchors, (start, end) in zip(segments.anchors(every), bounds, strict=True):
        taken = int(segments.counts[0] * keep) * (end - start)
        wanted = int(taken * context)
        _add(salient, range(start, end), _split(taken - wanted, end - start))
        _add(targets, anchors, _split(wanted, len(anchors)))
    return Plan(segments.counts, segments.ends, salient, targets)


def _split(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _where(wanted: Iterable[bool], values: Iterable[int]) -> list[int]:
    return [value if is_wanted else 0 for is_wanted, value in zip(wanted, values, strict=True)]


def _add(values: list[int], places: Iterable[int], more: Iterable[int]) -> None:
    for place, extra in zip(places, more, strict=True):
        values[place] += extra


def _minus(all_of: Sequence[int], some: Sequence[int]) -> list[int]:
    return [one - other for one, other in zip(all_of, some, strict=True)]

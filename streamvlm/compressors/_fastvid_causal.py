"""The counting half of streaming FastVID: every number is known when its step arrives, or when
its segment ends. Integers, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from streamvlm.compressors import _fastvid, _ops


@dataclass(frozen=True)
class CausalPlan:
    """How many tokens to take where; one entry per step of the clip."""

    counts: Sequence[int]
    """Tokens there are."""
    starts: Sequence[int]
    """The steps at which segments start, from 0 on."""
    salient: Sequence[int]
    """Tokens to keep as they are."""
    context: Sequence[int]
    """Targets to choose; 0 for a step that is no anchor."""

    def anchors(self) -> list[_fastvid.Anchor]:
        """All anchors with targets, in order."""
        return _fastvid.anchors_with_targets(self.counts, self.context)

    def open_targets(self) -> Iterator[tuple[slice, slice]]:
        """Runs of tokens and the targets each run may join: those of its segment so far."""
        row = list(accumulate(self.counts, initial=0))
        target = list(accumulate(self.context, initial=0))
        for start, end in pairwise([*self.starts, len(self.counts)]):
            for known, steps in groupby(range(start, end), lambda step: target[step + 1]):
                run = list(steps)
                if known > target[start]:
                    yield slice(row[run[0]], row[run[-1] + 1]), slice(target[start], known)


def cut(is_cut: Sequence[bool], longest: int) -> list[int]:
    """The steps at which segments start, if none may be longer than `longest` steps.

    Args:
        is_cut: for each step whether the one before differs.
        longest: steps, at least 1.
    """
    starts = [0] if is_cut else []
    for step in range(1, len(is_cut)):
        if is_cut[step] or step - starts[-1] == longest:
            starts.append(step)
    return starts


def causal_plan(
    counts: Sequence[int], starts: Sequence[int], every: int, keep: float, context: float
) -> CausalPlan:
    """Spend a budget as steps arrive; what is spent up to any step meets the budget up to there.

    Every step saves its part for context until the next anchor of its segment, which spends the
    savings on targets. What no anchor can spend goes to salient tokens of the steps that saved.

    Args:
        counts: tokens of each step.
        starts: the steps at which segments start, from 0 on.
        every: steps from one anchor to the next, counted over steps that have tokens.
        keep: share of the tokens to take, 0–1.
        context: share of those to spend on targets, 0–1.

    Returns:
        A plan for round(keep·N) tokens in all, but at least one.
    """
    seen = list(accumulate(counts, initial=0))
    due = [max(1, round(keep * tokens)) if tokens else 0 for tokens in seen]
    merged = [round(context * tokens) for tokens in due]
    saved = [after - before for before, after in pairwise(merged)]
    salient = [after - before for before, after in pairwise(due)]
    targets = [0] * len(counts)
    for start, end in pairwise([*starts, len(counts)]):
        steps = [step for step in range(start, end) if counts[step]]
        waiting: list[int] = []
        for number, step in enumerate(steps):
            if number % every:
                waiting.append(step)
                continue
            savings = [saved[one] for one in waiting]
            spent = _ops.apportion(counts[step] - salient[step], savings, savings)
            targets[step] = saved[step] + sum(spent)
            for one, tokens in zip([step, *waiting], [saved[step], *spent], strict=True):
                salient[one] -= tokens
            waiting = []
    return CausalPlan(counts, starts, salient, targets)

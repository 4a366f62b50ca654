"""The counting half of HoliTom: where windows begin, and how many tokens to take in each.

T steps with tokens, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from streamvlm.compressors import _ops


@dataclass(frozen=True)
class Plan:
    """How a clip is cut into windows, and how many tokens to take where."""

    starts: Sequence[int]
    """(W,) the first step of each window."""
    static: Sequence[int]
    """(W,) places that are static all through each window."""
    centres: Sequence[int]
    """(W,) tokens that stand for those places afterwards."""
    dynamic: Sequence[int]
    """(T,) tokens to keep of the others at each step."""


def cut(run_TP: torch.Tensor, longest: int) -> tuple[list[int], list[int]]:
    """Cut a clip into the windows in which the most tokens can be merged away.

    A window of v + 1 steps merges each place that is static in all of its v transitions into one
    token, and so saves v tokens for each such place. The best sum over all ways to cut is found
    step by step; of equal ones the last window is the shorter.

    Args:
        run_TP: (T, P) int64 on the CPU: in how many of the last transitions before each step each
            place was static.
        longest: the most steps in a window.

    Returns:
        The first step of each window, and how many places are static all through it, (W,) each;
        none in a window of one step.
    """
    steps = len(run_TP)
    reach = torch.arange(min(steps, longest))
    best = torch.zeros(steps + 1, dtype=torch.int64)  # what the first so many steps save
    chosen = []
    for last, run_P in enumerate(run_TP.clamp(max=len(reach) - 1)):
        transitions = reach[: last + 1]
        # The run lengths of one step say how many places are static for how long, all at once.
        static = run_P.bincount(minlength=len(transitions)).flip(0).cumsum(0).flip(0)
        total = best[last - transitions] + static * transitions
        extra = int(total.argmax())
        best[last + 1] = total[extra]
        chosen.append((extra, int(static[extra]) if extra else 0))
    windows = []
    end = steps
    while end:
        extra, static_places = chosen[end - 1]
        end -= extra + 1
        windows.append((end, static_places))
    starts, counts = zip(*reversed(windows), strict=True)
    return list(starts), list(counts)


def exact_plan(
    starts: Sequence[int], static: Sequence[int], counts: Sequence[int], budget: int
) -> Plan:
    """Meet a budget exactly where there are as many tokens left, by largest remainders.

    Args:
        starts: (W,) the first step of each window.
        static: (W,) places that are static all through each window.
        counts: (T,) tokens of each step.
        budget: how many tokens may remain.

    Returns:
        A plan for `budget` tokens, or for all that static places and the others come to.
    """
    sizes = [*static, *_others(starts, static, counts)]
    seats = _ops.apportion(budget, sizes, sizes)
    return Plan(starts, static, seats[: len(static)], seats[len(static) :])


def official_plan(
    starts: Sequence[int], static: Sequence[int], counts: Sequence[int], keep: float
) -> Plan:
    """Round every share by itself, as cokeshao/HoliTom does.

    Args:
        starts: (W,) the first step of each window.
        static: (W,) places that are static all through each window.
        counts: (T,) tokens of each step.
        keep: share of the tokens to take, 0–1.
    """
    others, tokens = _others(starts, static, counts), sum(counts)
    ratio = min(keep / ((sum(static) + sum(others)) / tokens), 1)
    centres = [round(places * ratio) for places in static]
    return Plan(starts, static, centres, [math.ceil(places * ratio) for places in others])


def _others(starts: Sequence[int], static: Sequence[int], counts: Sequence[int]) -> list[int]:
    """(T,) tokens of each step that are not static."""
    windows = pairwise([*starts, len(counts)])
    return [
        counts[step] - places
        for places, (start, end) in zip(static, windows, strict=True)
        for step in range(start, end)
    ]

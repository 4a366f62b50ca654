"""HoliTom as its authors' code computes it: what our own is compared with for speed.

Written from a description of that code (the outer half of cokeshao/HoliTom, 2505.21334), not
copied: a table of all windows by one cumulative product for each start, a search in which each
step compares tensors, a loop over windows and steps, and one over the clusters of a window.

T steps, N tokens a step, D features; of a window: n static places, k centres of them.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens

THRESHOLD = 0.8
MIX = 0.6
NEIGHBOURS = 7
LONGEST = 1024


def compress(tokens: VisualTokens, keep: float) -> torch.Tensor:
    """Compress one dense clip with the published settings.

    Args:
        tokens: dense, with the cue `attention`.
        keep: share of the tokens kept; a few more or fewer come out, as there.

    Returns:
        (M, D) features of the dtype of the tokens, in time-then-place order (there: window by
        window, first its static tokens), a merged one at its centre in the window's first step.
    """
    steps, rows, columns = tokens.grid
    places = rows * columns
    x_TND = tokens.features.view(steps, places, -1)
    attention_TN = tokens.cues["attention"].view(steps, places)
    unit_TND = F.normalize(x_TND, dim=-1)
    is_same = (unit_TND[:-1] * unit_TND[1:]).sum(-1) > THRESHOLD
    starts, saved = _windows(_gains(is_same))
    left = steps * places - float(saved)
    ratio = min(keep / (left / (steps * places)), 1)

    index, features = [], []
    dice = torch.Generator().manual_seed(0)
    for start, end in pairwise([*starts, steps]):
        is_static = is_same[start : end - 1].all(0)
        if end - start == 1:
            is_static = torch.zeros_like(is_static)
        static = is_static.nonzero().flatten()
        if count := round(len(static) * ratio):
            mean_nD = x_TND[start:end, is_static].mean(0)
            centre_k, merged_kD = _clustered(mean_nD, count, dice)
            index.append(start * places + static[centre_k])
            features.append(merged_kD)
        dynamic = (~is_static).nonzero().flatten()
        for step in range(start, end):
            count = math.ceil(len(dynamic) * ratio)
            chosen = dynamic[attention_TN[step, dynamic].topk(count).indices]
            index.append(step * places + chosen)
            features.append(x_TND[step, chosen])
    return torch.cat(features)[torch.cat(index).argsort()]


def _gains(is_same: torch.Tensor) -> torch.Tensor:
    """(T, T) by first and last step of a window: tokens that merging its static places saves."""
    steps = len(is_same) + 1
    static_TTN = torch.zeros(steps, steps, is_same.shape[1], device=is_same.device)
    for start in range(steps - 1):
        static_TTN[start, start + 1 :] = is_same[start:].float().cumprod(0)
    step = torch.arange(steps, device=is_same.device)
    return static_TTN.sum(-1) * (step - step[:, None])


def _windows(gain_TT: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The first step of each window of the best cut, and how many tokens it saves."""
    steps = len(gain_TT)
    best = torch.zeros(steps + 1, device=gain_TT.device)
    start_of = list(range(steps))
    for last in range(steps):
        best[last + 1] = best[last]
        for width in range(2, min(last + 1, LONGEST) + 1):
            start = last + 1 - width
            saved = best[start] + gain_TT[start, last]
            if saved > best[last + 1]:
                best[last + 1] = saved
                start_of[last] = start
    starts, end = [], steps
    while end:
        end = start_of[end - 1]
        starts.append(end)
    return starts[::-1], best[steps]


def _clustered(
    points_nD: torch.Tensor, count: int, dice: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The density peaks of a window, (k,) and blended with what joins them (k, D)."""
    distance_nn = torch.cdist(points_nD, points_nD) / points_nD.shape[-1] ** 0.5
    near = distance_nn.topk(min(NEIGHBOURS, count), largest=False).values
    noise = torch.rand(len(points_nD), generator=dice).to(near) * 1e-6
    density = (-near.square().mean(-1)).exp() + noise
    is_denser = density[None, :] > density[:, None]
    score = density * distance_nn.where(is_denser, distance_nn.max()).amin(-1)
    centre_k = score.topk(count).indices
    nearest = distance_nn[:, centre_k].argmin(1)
    nearest[centre_k] = -1
    merged_kD = points_nD[centre_k]
    for cluster in range(count):
        is_member = nearest == cluster
        if is_member.any():
            mean = points_nD[is_member].mean(0)
            merged_kD[cluster] = MIX * merged_kD[cluster] + (1 - MIX) * mean
    return centre_k, merged_kD

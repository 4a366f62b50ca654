"""PruneVid as its authors' code computes it: what our own is compared with for speed.

Written from a description of that code (the merging half of Visual-AI/PruneVid, 2412.16117), not
copied: clusters of steps refined one step after another, a matrix of all pairs of steps for every
place of a window, density peaks of one step at a time.

T steps, N tokens a step, D features; of a window: w steps; of a group: n points, k clusters.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens

SEGMENTS = 0.25
THRESHOLD = 0.8
CLUSTERS = 0.5
NEIGHBOURS = 7
FEW = 14


def compress(tokens: VisualTokens, keep: float) -> torch.Tensor:
    """Compress one dense clip with the published settings.

    Args:
        tokens: dense, of at least 7 steps.
        keep: not used: how many tokens remain follows from the clip, as there.

    Returns:
        (M, D) features of the dtype of the tokens, in time-then-place order (there: window by
        window, first its static tokens), a merged one at its centre, a static one in the window's
        first step.
    """
    steps, rows, columns = tokens.grid
    places = rows * columns
    x_TND = tokens.features.view(steps, places, -1)
    dice = torch.Generator().manual_seed(0)
    _, label_T = _clustered(x_TND.mean(1), int(steps * SEGMENTS), dice)
    index, features = [], []
    for start, end in pairwise([*_window_starts(label_T), steps]):
        is_static = _mean_similarity(x_TND[start:end]) > THRESHOLD
        static, dynamic = is_static.nonzero().flatten(), (~is_static).nonzero().flatten()
        chosen, merged = _merged(x_TND[start:end, static].mean(0), dice)
        index.append(start * places + static[chosen])
        features.append(merged)
        for step in range(start, end):
            chosen, merged = _merged(x_TND[step, dynamic], dice)
            index.append(step * places + dynamic[chosen])
            features.append(merged)
    return torch.cat(features)[torch.cat(index).argsort()]


def _clustered(
    points_nD: torch.Tensor, count: int, dice: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The density peaks of a group (k,), best first, and the cluster of each point (n,)."""
    distance_nn = torch.cdist(points_nD, points_nD) / points_nD.shape[-1] ** 0.5
    near = distance_nn.topk(NEIGHBOURS, largest=False).values
    noise = torch.rand(len(points_nD), generator=dice).to(near) * 1e-6
    density = (-near.square().mean(-1)).exp() + noise
    is_denser = density[None, :] > density[:, None]
    score = density * distance_nn.where(is_denser, distance_nn.max()).amin(-1)
    centre_k = score.topk(count).indices
    label_n = distance_nn[:, centre_k].argmin(1)
    label_n[centre_k] = torch.arange(count, device=label_n.device)
    return centre_k, label_n


def _merged(points_nD: torch.Tensor, dice: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The density peaks of a group (k,) and the means of their clusters (k, D)."""
    count = len(points_nD)
    if count <= FEW:
        return torch.arange(count, device=points_nD.device), points_nD
    count = int(count * CLUSTERS)
    centre_k, label_n = _clustered(points_nD, count, dice)
    joins_nk = F.one_hot(label_n, count).to(points_nD.dtype)
    return centre_k, joins_nk.T @ points_nD / joins_nk.sum(0)[:, None]


def _mean_similarity(x_wND: torch.Tensor) -> torch.Tensor:
    """The cosine similarity at each place (N,), over all pairs of steps; not a number for one."""
    unit_wND = F.normalize(x_wND, dim=-1)
    pairs_wwN = torch.einsum("wnd,vnd->wvn", unit_wND, unit_wND)
    steps = len(x_wND)
    others = 1 - torch.eye(steps, device=x_wND.device)[..., None]
    return (pairs_wwN * others).sum((0, 1)) / (steps * (steps - 1))


def _window_starts(label_T: torch.Tensor) -> list[int]:
    """The first step of each window: clusters reduced to their longest runs of steps."""
    runs: list[list[int]] = []
    for step in range(len(label_T)):
        label = int(label_T[step].item())
        if not runs or runs[-1][2] != label:
            runs.append([step, step, label])
        runs[-1][1] = step + 1
    kept = []
    for label in sorted({run[2] for run in runs}):
        mine = [run for run in runs if run[2] == label]
        longest = max(end - start for start, end, _ in mine)
        if longest > 1:
            kept += [run for run in mine if run[1] - run[0] == longest]
    labels = [run[2] for run in runs]
    for at, run in enumerate(runs):
        if kept and run not in kept:
            left = [other for other in kept if other[1] <= run[0]]
            right = [other for other in kept if other[0] >= run[1]]
            beside = [max(left)] if left else []
            beside += [min(right)] if right else []
            labels[at] = max(beside, key=lambda other: other[1] - other[0])[2]
    starts = [run[0] for run in runs]
    return [start for at, start in enumerate(starts) if at == 0 or labels[at] != labels[at - 1]]

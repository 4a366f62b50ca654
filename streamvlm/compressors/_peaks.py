"""Density peaks: points in the thick of things, far from anything thicker.

B sets of P points each, D features.
"""

from __future__ import annotations

import torch


def squared_distances(points: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """The mean over the features of the squared differences of all points of a set, d².

    Takes memory for B·P² numbers.

    Args:
        points: (B, P, D) float32 or float64.
        valid: (B, P) bool; the others are no points at all.

    Returns:
        (B, P, P); the columns of what is not valid are inf.
    """
    # Distances do not change when the middle is taken out, and lose fewer digits.
    centred = points - points.mean(1, keepdim=True)
    square = centred @ centred.mT
    length = square.diagonal(dim1=1, dim2=2).clone()
    square.mul_(-2).add_(length[:, :, None]).add_(length[:, None, :])
    square.clamp_(min=0).div_(points.shape[-1])
    square.diagonal(dim1=1, dim2=2).zero_()
    return square.masked_fill_(~valid[:, None, :], torch.inf)


def density_peaks(
    square: torch.Tensor,
    valid: torch.Tensor,
    noise: torch.Tensor | None = None,
    neighbours: int = 4,
) -> torch.Tensor:
    """How well each point would serve as a cluster centre: dense, and far from anything denser.

    Density peaks (Rodriguez and Laio, Science 2014; the k-nearest-neighbour form of DPC-KNN,
    2016): density ρ = exp(−mean of the `neighbours` smallest d², itself included), distance δ =
    the smallest d to a denser point (for the densest: the largest d of the set), with
    d = ‖x − y‖ / √D; the score is log(ρ·δ), which ranks as ρ·δ does but cannot underflow.

    Args:
        square: (B, P, P) floating point, from `squared_distances`.
        valid: (B, P) bool; the others are no points at all.
        noise: (B, P) added to the density, to break ties as some official codes do; without it
            the lower index counts as denser.
        neighbours: how many near points decide how dense it is at a point.

    Returns:
        (B, P), −inf for what is not valid.
    """
    near = square.topk(min(neighbours, square.shape[-1]), largest=False).values
    found = near.isfinite()
    log_density = -near.where(found, 0).sum(-1) / found.sum(-1).clamp(min=1)
    if noise is not None:
        log_density = (log_density.exp() + noise).log()

    rank = log_density.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    farthest = square.where(valid[:, None, :] & valid[:, :, None], 0).amax((1, 2))
    is_no_denser = rank[:, None, :] >= rank[:, :, None]
    distance = square.masked_fill(is_no_denser, torch.inf).amin(-1)
    distance = distance.where(distance.isfinite(), farthest[:, None]).sqrt()
    tiny = torch.finfo(square.dtype).tiny
    return (log_density + distance.clamp(min=tiny).log()).where(valid, -torch.inf)

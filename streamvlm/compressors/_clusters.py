"""Clusters within groups: density peaks are centres, and every other point joins the nearest.

U points in groups one after another, D features, G groups at once, P points and K centres of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch

from streamvlm.compressors import _peaks

POINTS_AT_ONCE = 2048
"""Bounds memory: comparisons then do not grow with the number of groups."""


class Group(NamedTuple):
    """Points that are compared with one another and with no others."""

    size: int
    """How many points it has."""
    centres: int
    """How many of them are wanted as centres, at most `size`; 0 drops the group."""
    neighbours: int
    """How many near points, itself included, decide how dense it is at a point."""


def centre_of_each(
    table: torch.Tensor,
    row: torch.Tensor,
    groups: Sequence[Group],
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """The centre that each point belongs to: the nearest of its group by Euclidean distance.

    Args:
        table: (N, D) floating point.
        row: (U,) int64, where in the table each point is; points of a group follow one another.
        groups: the groups in order; their sizes sum to U.
        noise: (U,) added to the densities, see `_peaks.density_peaks`.

    Returns:
        (U,) int64: the index of its centre among the points, its own for a centre, −1 in a group
        without centres. Equally near ones: the lower index.
    """
    points, noise = len(row), None if noise is None else noise.to(row.device)
    own = torch.arange(points, device=row.device)
    size = torch.tensor([group.size for group in groups], device=row.device)
    is_used = torch.tensor([group.centres > 0 for group in groups], device=row.device)
    centre = own.where(is_used.repeat_interleave(size, output_size=points), -1)
    centre = torch.cat((centre, centre.new_zeros(1)))  # what is padding is written to the end
    for firsts, some in _batches(groups):
        first_G1, size_G1 = torch.tensor([firsts, [g.size for g in some]], device=row.device)[
            ..., None
        ]
        column = torch.arange(max(group.size for group in some), device=row.device)
        index_GP = (first_G1 + column).clamp(max=points - 1)
        is_point = column < size_G1
        nearest_GP = _nearest_peaks(
            _float(table[row[index_GP]]),
            is_point,
            [group.centres for group in some],
            some[0].neighbours,
            None if noise is None else noise[index_GP],
        )
        centre[index_GP.where(is_point, points)] = first_G1 + nearest_GP
    return centre[:points]


def _batches(groups: Sequence[Group]) -> Iterator[tuple[list[int], list[Group]]]:
    """First points and groups to be compared at once: of like size, with equal neighbours."""
    firsts = accumulate((group.size for group in groups), initial=0)
    waiting = [one for one in zip(groups, firsts, strict=False) if 0 < one[0].centres < one[0].size]
    waiting.sort(key=lambda one: (one[0].neighbours, one[0].size))
    batch: list[tuple[Group, int]] = []
    for one in waiting:
        is_full = one[0].size * (len(batch) + 1) > POINTS_AT_ONCE
        if batch and (is_full or one[0].neighbours != batch[0][0].neighbours):
            yield [first for _, first in batch], [group for group, _ in batch]
            batch = []
        batch.append(one)
    if batch:
        yield [first for _, first in batch], [group for group, _ in batch]


def _nearest_peaks(
    points_GPD: torch.Tensor,
    is_point_GP: torch.Tensor,
    centres: Sequence[int],
    neighbours: int,
    noise_GP: torch.Tensor | None,
) -> torch.Tensor:
    """For each point the column (G, P) of the nearest density peak, its own for a peak."""
    device, points = points_GPD.device, points_GPD.shape[1]
    square_GPP = _peaks.squared_distances(points_GPD, is_point_GP)
    score_GP = _peaks.density_peaks(square_GPP, is_point_GP, noise_GP, neighbours)
    peak_GK = score_GP.argsort(descending=True, stable=True)[:, : max(centres)]
    is_wanted = (
        torch.arange(max(centres), device=device) < torch.tensor(centres, device=device)[:, None]
    )
    peak_GK = peak_GK.where(is_wanted, points)
    is_peak_GP = torch.zeros(len(peak_GK), points + 1, dtype=torch.bool, device=device)
    is_peak_GP = is_peak_GP.scatter_(1, peak_GK, True)[:, :points]
    nearest_GP = square_GPP.masked_fill_(~is_peak_GP[:, None], torch.inf).argmin(-1)
    return torch.arange(points, device=device).where(is_peak_GP, nearest_GP)


def _float(table: torch.Tensor) -> torch.Tensor:
    """The same in float32 at least: half precision cannot hold squares."""
    return table.to(torch.promote_types(table.dtype, torch.float32))

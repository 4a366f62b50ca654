"""FrameFusion: frames that say the same are merged layer by layer, then the rest is pruned once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows

_PRUNE, _DONE = "prune", "done"
# A budget is a sum of shares: 6.9999999 rows are 7.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class FrameFusion:
    """Merge alike neighbours in time, then prune to a cost (FrameFusion, ICCV 2025, 2501.01986).

    From the first layer on, each row is compared with the one before it at its place of the picture
    that is still there. Rows whose cosine is at least `similar` join it, and a run of them becomes
    the true mean of itself and the row before it. When less than `fewest` of the rows join, merging
    ends, and before the next layer the rows that get least attention from the prompt's last token
    in the layer below, mean over heads, leave.

    How many may stay is what makes the rows read by all layers together equal cost · layers · V;
    when merging comes to that first, it stops there, with the most alike, and nothing is pruned.
    The published code counts its own calls as layers and takes every model for one of 28; this
    counts layers. What a chain of neighbours merges may drift: first and last need not be alike.
    """

    cost: float = 0.3
    """Visual rows that all layers together may read, as a share of what they would without."""
    similar: float = 0.6
    """Cosine from which on neighbours merge, −1 to 1."""
    fewest: float = 0.1
    """Merging ends when a smaller share of the rows joins, 0–1."""
    wants: ClassVar[Signal] = "last_query"

    def __post_init__(self) -> None:
        _rows.check_share("cost", self.cost)
        if not -1 <= self.similar <= 1 or not 0 <= self.fewest <= 1:
            raise ValueError("similar must be −1 to 1, and fewest 0 to 1")

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """All from the lowest on; most of them only find that all is done."""
        return tuple(range(lowest, depth))

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Merge, prune, or leave all as it is."""
        if rows.note == _DONE:
            return _all(rows, _DONE)
        spent = sum(rows.alive)
        allowed = (self.cost * rows.depth * rows.total - spent) / (rows.depth - rows.layer)
        allowed = min(max(allowed, 1), len(rows))
        if rows.note == _PRUNE and signal is not None:
            return Plan(_rows.best(signal, round(allowed)), note=_DONE)
        similar, by_place = _chains(rows)
        joins = similar >= self.similar
        found = int(joins.sum())
        if found >= len(rows) - allowed:
            joins = torch.zeros_like(joins)
            joins[_rows.best(similar, math.floor(len(rows) - allowed + _ROUNDING))] = True
            return _merged(rows, joins, by_place, _DONE)
        return _merged(rows, joins, by_place, _PRUNE if found < self.fewest * len(rows) else "")


def _all(rows: VisualRows, note: str) -> Plan:
    return Plan(_rows.all_of(rows).keep, note=note)


def _chains(rows: VisualRows) -> tuple[torch.Tensor, torch.Tensor]:
    """(V,) cosine with the row before at the same place, −inf for its first; and (V,) that order.

    The order is that of the rows sorted by place, and in time within each.
    """
    _, place = torch.unique(rows.place[:, [0, 2, 3]], dim=0, return_inverse=True)
    by_place = place.argsort(stable=True)
    unit = F.normalize(rows.hidden.float(), dim=1)
    earlier, later = by_place[:-1], by_place[1:]
    cosine = (unit[earlier] * unit[later]).sum(1)
    similar = torch.full_like(rows.weight, -torch.inf)
    similar[later] = cosine.where(place[earlier] == place[later], -torch.inf)
    return similar, by_place


def _merged(rows: VisualRows, joins: torch.Tensor, by_place: torch.Tensor, note: str) -> Plan:
    """Each row that joins goes into the last one before it, at its place, that does not."""
    source = joins.nonzero().flatten()
    if not len(source):
        return _all(rows, note)
    at = torch.arange(len(rows), device=joins.device)
    last = at.where(~joins[by_place], 0).cummax(0).values
    head = torch.empty_like(by_place).index_copy_(0, by_place, by_place[last])
    target = head[source]
    share = _rows.mean_shares(rows.weight, source, target)
    return Plan(_rows.others(source, len(rows)), source, target, share, note=note)

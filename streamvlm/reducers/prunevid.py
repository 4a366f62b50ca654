"""PruneVid inside the language model: only what the question looks at, in all layers' memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows


@dataclass(frozen=True)
class PruneVidInner:
    """Keep of every frame what the question looks at (PruneVid, ACL 2025, arXiv 2412.16117).

    Once, before one layer, a row's score is the most attention that any word behind the visual
    tokens gives it in any head of the layer below. The budget of round(keep·V) rows is dealt out
    over the time steps by how many rows each has, by largest remainders; where the published code
    rounds down in each frame, this keeps to the budget. What leaves is forgotten by the layers
    below too: their keys and values are cut, so that answering gets cheaper in every layer. Places
    stay. This is the method's second half; the first is a compressor.
    """

    keep: float = 0.4
    """Share of the visual rows kept, 0–1."""
    layer: int | None = None
    """The first layer that reads fewer; None for 10 of 32, scaled to the model's depth."""
    wants: ClassVar[Signal] = "text_queries"

    def __post_init__(self) -> None:
        _rows.check_share("keep", self.keep)
        if self.layer is not None:
            _rows.check_layers("layer", [self.layer])

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """One layer."""
        return _rows.scaled([10], 32, depth, lowest) if self.layer is None else (self.layer,)

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Keep round(keep·V) rows, of each time step its share."""
        if signal is None:
            return _rows.all_of(rows)
        _, step, there = torch.unique_consecutive(
            rows.place[:, :2], dim=0, return_inverse=True, return_counts=True
        )
        seats = _deal(self.keep, there)
        by_step = step[order := signal.argsort(descending=True, stable=True)].argsort(stable=True)
        sorted_rows = order[by_step]
        first = there.cumsum(0) - there
        rank = torch.arange(len(rows), device=step.device) - first[step[sorted_rows]]
        return Plan(
            sorted_rows[rank < seats[step[sorted_rows]]].sort().values, cut_caches=self.keep < 1
        )


def _deal(keep: float, there: torch.Tensor) -> torch.Tensor:
    """(T,) int64: how many of each step's rows stay; they sum to round(keep·V), at least 1."""
    quota = keep * there.double()
    seats = quota.floor().long()
    left = _rows.budget(keep, int(there.sum())) - int(seats.sum())
    seats[(quota - seats).argsort(descending=True, stable=True)[:left]] += 1
    return seats

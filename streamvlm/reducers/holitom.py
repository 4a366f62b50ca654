"""HoliTom inside the language model: what leaves is averaged into what it is most like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows


@dataclass(frozen=True)
class HoliTomInner:
    """Merge what gets little attention into its like (HoliTom, NeurIPS 2025, arXiv 2505.21334).

    Once, before one layer past the middle, the round(keep·V) rows stay that got most attention from
    the prompt's last token in the layer below, mean over heads. Every other row goes into the kept
    one that it is most like by cosine, one after the other in order, each time as the mean of the
    two: h ← (h + x) / 2. So of m that go into one, the i-th ends up with the share 2^(i−m−1) and
    the kept row itself with 2^(−m), which is how it is computed here. The mean is that of the
    published code: what comes last counts most. Places stay, and the layers below keep all they
    read. This is the method's second half; the first is a compressor.
    """

    keep: float = 0.5
    """Share of the visual rows kept, 0–1."""
    layer: int | None = None
    """The first layer that reads fewer; None for 18 of 28, scaled to the model's depth."""
    wants: ClassVar[Signal] = "last_query"

    def __post_init__(self) -> None:
        _rows.check_share("keep", self.keep)
        if self.layer is not None:
            _rows.check_layers("layer", [self.layer])

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """One layer."""
        return _rows.scaled([18], 28, depth, lowest) if self.layer is None else (self.layer,)

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Keep round(keep·V) rows, and merge all others into them."""
        if signal is None:
            return _rows.all_of(rows)
        kept = _rows.best(signal, _rows.budget(self.keep, len(rows)))
        source = _rows.others(kept, len(rows))
        target = _rows.most_like(rows.hidden, source, kept)
        return Plan(kept, source, target, _halving(target, len(rows)))


def _halving(target: torch.Tensor, rows: int) -> torch.Tensor:
    """(K,) float32: the share of each source if its target is halved for it and all that follow."""
    together = target.argsort(stable=True)
    counts = target.bincount(minlength=rows)
    # Of those that share a target, how many there are from each to the last.
    every = torch.arange(len(target), device=target.device)
    follow = counts.cumsum(0)[target[together]] - every
    return torch.empty_like(target, dtype=torch.float32).index_copy_(
        0, together, torch.exp2(-follow.float())
    )

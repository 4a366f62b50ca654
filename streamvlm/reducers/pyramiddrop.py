"""PyramidDrop: the deeper the layer, the fewer visual tokens it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows


@dataclass(frozen=True)
class PyramidDrop:
    """Drop half of the rows at each of several layers (PyramidDrop, CVPR 2025, arXiv 2410.17247).

    Before stage s of S, s = 1 … S, the round(keepˢ·V) of the prompt's V visual rows stay that get
    most attention from its last token, mean over heads: that of the stage's own layer, whose
    queries and keys are computed once more for it. In a shallow model several stages may fall on
    one layer; then the last of them counts. The published code numbers the places of what is left
    anew; here they stay.
    """

    keep: float = 0.5
    """Share of the visual rows that each stage keeps, 0–1."""
    stages: tuple[int, ...] = ()
    """The layers; none for 8, 16 and 24 of 32, scaled to the model's depth."""
    wants: ClassVar[Signal] = "last_query_ahead"

    def __post_init__(self) -> None:
        _rows.check_share("keep", self.keep)
        _rows.check_layers("stages", self.stages)
        object.__setattr__(self, "stages", tuple(self.stages))

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """The stages' layers."""
        return tuple(dict.fromkeys(self._stages(depth, lowest)))

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Keep round(keepˢ·V) of the prompt's V rows."""
        if signal is None:
            return _rows.all_of(rows)
        passed = sum(layer <= rows.layer for layer in self._stages(rows.depth, rows.lowest))
        count = _rows.budget(self.keep**passed, rows.total)
        return Plan(_rows.best(signal, count))

    def _stages(self, depth: int, lowest: int) -> tuple[int, ...]:
        return self.stages or _rows.scaled((8, 16, 24), 32, depth, lowest)

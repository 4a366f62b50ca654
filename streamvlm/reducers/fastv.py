"""FastV: after a few layers, half of the picture is no longer looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows


@dataclass(frozen=True)
class FastV:
    """Drop what the last token of the prompt looks at least (FastV, ECCV 2024, arXiv 2403.06764).

    Once, before one early layer, the round(keep·V) rows stay that got most attention from the
    prompt's last token in the layer below, mean over heads. Places stay, and the layers below keep
    all they read. The defaults are layer 3 of 32, and a share of 0.222 as LightCompress has it.
    """

    keep: float = 0.222
    """Share of the visual rows kept, 0–1."""
    layer: int | None = None
    """The first layer that reads fewer; None for 3 of 32, scaled to the model's depth."""
    wants: ClassVar[Signal] = "last_query"

    def __post_init__(self) -> None:
        _rows.check_share("keep", self.keep)
        if self.layer is not None:
            _rows.check_layers("layer", [self.layer])

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """One layer."""
        return _rows.scaled([3], 32, depth, lowest) if self.layer is None else (self.layer,)

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Keep round(keep·V) rows."""
        if signal is None:
            return _rows.all_of(rows)
        return Plan(_rows.best(signal, _rows.budget(self.keep, len(rows))))

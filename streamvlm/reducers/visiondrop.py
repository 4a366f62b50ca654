"""VisionDrop: pictures judge pictures, so that one reading serves every question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.reducers import _rows
from streamvlm.reduction import Plan, Signal, VisualRows


@dataclass(frozen=True)
class VisionDrop:
    """Keep what other visual rows look at, merge the rest (VisionDrop, 2025, arXiv 2506.22283).

    Before stage s of S, s = 1 … S, the prompt's V visual rows become n = round(keepˢ·V). Of these,
    round(contextual·n) are contextual and the others dominant: those that get most attention from
    the visual rows of the layer below, mean over them and the heads. From the rest, contextual rows
    are taken at even steps; each row that is neither goes into the contextual one that it is most
    like by cosine of the hidden states, which becomes the true mean of all that went into it. In a
    shallow model several stages may fall on one layer; then the last of them counts.

    No word of the question is asked, so what was read serves the next question too. The defaults
    give the published numbers: of 48 rows 30 + 5, then 22 + 4, then 16 + 3. The published code
    mixes up two numberings of the rows when it merges; this does not.
    """

    keep: float = 0.73
    """Share of the visual rows that each stage keeps, 0–1."""
    contextual: float = 0.15
    """Share of the kept that are merged from what is not dominant, 0–1."""
    stages: tuple[int, ...] = ()
    """The layers; none for 8, 16 and 24 of 32, scaled to the model's depth."""
    wants: ClassVar[Signal] = "vision_vision"

    def __post_init__(self) -> None:
        _rows.check_share("keep", self.keep)
        if not 0 <= self.contextual < 1:
            raise ValueError(
                f"contextual must be at least 0 and less than 1, found {self.contextual}"
            )
        _rows.check_layers("stages", self.stages)
        object.__setattr__(self, "stages", tuple(self.stages))

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """The stages' layers."""
        return tuple(dict.fromkeys(self._stages(depth, lowest)))

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Keep round(keepˢ·V) of the prompt's V rows, some of them merged."""
        passed = sum(layer <= rows.layer for layer in self._stages(rows.depth, rows.lowest))
        count = _rows.budget(self.keep**passed, rows.total)
        if signal is None or count >= len(rows):
            return _rows.all_of(rows)
        seats = min(round(self.contextual * count), count - 1)
        dominant = _rows.best(signal, count - seats)
        if not seats:
            return Plan(dominant)
        rest = _rows.others(dominant, len(rows))
        at = torch.arange(seats, device=rest.device) * (len(rest) // seats)
        heads = rest[at]
        kept = torch.cat([dominant, heads]).sort().values
        source = _rows.others(kept, len(rows))
        target = _rows.most_like(rows.hidden, source, heads)
        return Plan(kept, source, target, _rows.mean_shares(rows.weight, source, target))

    def _stages(self, depth: int, lowest: int) -> tuple[int, ...]:
        return self.stages or _rows.scaled((8, 16, 24), 32, depth, lowest)

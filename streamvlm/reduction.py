"""What a reducer is told, and what it decides: fewer visual tokens inside a language model.

V visual rows alive, M of them kept, K merges, D features. A row is one token at one layer: its
hidden state on the way up. Importing this module loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Signal = Literal[
    "none",
    "last_query",
    "last_query_ahead",
    "text_queries",
    "vision_vision",
]
"""Attention that visual rows get, one float32 number for each, from the layer below the plan's:

- `last_query`: from the prompt's last token, mean over heads.
- `last_query_ahead`: the same in the plan's own layer, computed before that layer runs.
- `text_queries`: from the tokens behind the last visual one, the largest over them and the heads.
- `vision_vision`: from the visual rows, mean over them and the heads.

Each query's weights are those of the model: over all that it sees, text too, they sum to 1.
"""

QUESTION_FREE: frozenset[Signal] = frozenset({"none", "vision_vision"})
"""The signals that no question is needed for, so that one reading serves all questions."""


@dataclass(frozen=True, slots=True, eq=False)
class VisualRows:
    """The visual tokens of a prompt as they enter one layer of a language model."""

    hidden: torch.Tensor
    """(V, D) floating point: hidden states, in the order of the prompt."""
    place: torch.Tensor
    """(V, 4) int64: stream, time step, row and column; the first two count through the prompt."""
    weight: torch.Tensor
    """(V,) float32: how many source tokens each stands for."""
    layer: int
    """The layer that they are about to enter; the first is 0."""
    depth: int
    """How many layers the model has."""
    lowest: int
    """The first layer at which rows may leave."""
    total: int
    """How many visual tokens the prompt has."""
    alive: tuple[int, ...]
    """How many visual rows each layer below read."""
    note: str = ""
    """What the reducer noted at its last layer."""

    def __len__(self) -> int:
        return len(self.hidden)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which rows stay, and what of the others goes into them.

    A row that others are merged into becomes the weighted mean of itself and them: each of them
    counts by its share, itself by what is left of 1.
    """

    keep: torch.Tensor
    """(M,) int64, M ≥ 1, increasing: the rows that stay."""
    source: torch.Tensor | None = None
    """(K,) int64: rows that leave and are merged; None for none."""
    target: torch.Tensor | None = None
    """(K,) int64: the row in `keep` that each is merged into."""
    share: torch.Tensor | None = None
    """(K,) float32, at least 0; the shares of one target sum to at most 1."""
    cut_caches: bool = field(default=False, kw_only=True)
    """Whether the rows that leave are forgotten by the layers below too."""
    note: str = field(default="", kw_only=True)
    """Given back to the reducer at its next layer."""

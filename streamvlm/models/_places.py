"""Position rules: which place in the language model's order each visual token takes.

Letters: A axes of the rotary embedding (1, or 3 for time, row, column), n tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol

import torch

from streamvlm.types import VisualTokens

Positions = Literal["full", "compact"]


class Rule(Protocol):
    """How a family numbers its visual tokens."""

    @property
    def axes(self) -> int:
        """A, the axes of its rotary embedding."""

    def place(self, steps: Sequence[VisualTokens], start: int) -> tuple[torch.Tensor, int]:
        """Number the tokens of one run of slots.

        Args:
            steps: its time steps in order, n ≥ 1 tokens together.
            start: the first free place.

        Returns:
            (A, n) int64 on the CPU, and the first free place behind the run.
        """


class Raster:
    """One axis; every step takes as many places as its whole grid has cells.

    So a token keeps its distance to all others, whatever was dropped, and holes stay where tokens
    are missing.
    """

    axes: ClassVar[int] = 1

    def place(self, steps: Sequence[VisualTokens], start: int) -> tuple[torch.Tensor, int]:
        """See `Rule.place`."""
        places = []
        for tokens in steps:
            cells = tokens.grid[1] * tokens.grid[2]
            places.append((tokens.flat_index % cells).cpu() + start)
            start += cells
        return torch.cat(places)[None], start


class Dense:
    """Visual tokens are numbered like words: no holes, and no grid.

    Args:
        axes: A; all of them get the same number.
    """

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def place(self, steps: Sequence[VisualTokens], start: int) -> tuple[torch.Tensor, int]:
        """See `Rule.place`."""
        end = start + sum(len(tokens) for tokens in steps)
        return torch.arange(start, end).expand(self.axes, -1), end

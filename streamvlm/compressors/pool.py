"""Average pooling: the oldest compressor, and the one most models are trained with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _merge, _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class Pool:
    """Average neighbouring tokens of each step into a smaller regular grid (baseline).

    The pooled grid has any number of rows and columns: the most cells that the budget allows
    among those whose cells are at most twice as long as wide (or as near to that as the frame
    allows). Because every step gets the same grid it may use less than the budget: asked for a
    quarter of 14×14 it takes 7×7, asked for a tenth (19.6) it takes 3×6. If the budget is smaller
    than one token per step, neighbouring steps are averaged too.

    Features (and deepstack) are means weighted by `weight`, weights are summed, so nothing is
    dropped. Position, seconds and cues are those of the source token nearest the middle of the
    cell's tokens.
    """

    keep: float = 0.25
    """Share of the tokens kept at most, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Merge into at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed; cells that hold no token give none.
            previous: not used.
        """
        allowed = _ops.budget(self.keep, tokens)
        if allowed >= len(tokens):
            return tokens
        cell, cells = _cells(tokens, allowed)
        every = torch.arange(len(tokens), device=cell.device)
        merged, weight = _merge.weighted_means(
            _merge.contents(tokens), every, cell, tokens.weight, cells
        )
        heads = _nearest_the_middle(tokens.position, cell, cells)
        return _merge.with_merged(tokens, heads.sort().values, heads, merged, weight)


def _cells(tokens: VisualTokens, allowed: int) -> tuple[torch.Tensor, int]:
    """The cell (N,) int64 that each token falls in, and how many of at most `allowed` hold any."""
    _, height, width = tokens.grid
    step, row, column = tokens.position.unbind(1)
    present, step = torch.unique_consecutive(step, return_inverse=True)
    steps = min(len(present), allowed)
    rows, columns = _pooled_grid(height, width, allowed // steps)
    cell = step * steps // len(present)
    cell = cell * rows + row * rows // height
    cell = cell * columns + column * columns // width
    filled, cell = torch.unique(cell, return_inverse=True)
    return cell, len(filled)


def _pooled_grid(height: int, width: int, most: int) -> tuple[int, int]:
    """Rows and columns of the grid with the most cells, but not of long thin ones."""

    def merit(grid: tuple[int, int]) -> tuple[float, int, float]:
        rows, columns = grid
        stretch = abs(math.log2(height * columns / (rows * width)))
        return -max(stretch, 1), rows * columns, -stretch

    every = (
        (rows, columns)
        for rows in range(1, min(height, most) + 1)
        for columns in range(1, min(width, most // rows) + 1)
    )
    return max(every, key=merit)


def _nearest_the_middle(position: torch.Tensor, cell: torch.Tensor, cells: int) -> torch.Tensor:
    """The token (G,) int64 of each cell that lies nearest the mean position of its tokens."""
    every = torch.arange(len(cell), device=cell.device)
    place = position.float()
    (middle,), _ = _merge.weighted_means([place], every, cell, torch.ones_like(place[:, 0]), cells)
    distance = (place - middle[cell]).square().sum(1)
    first = (_ops.ranks_within(-distance, cell) == 0).nonzero().flatten()
    return first[cell[first].argsort()]

"""TS-LLaVA: a few frames made small, and a thin sample of everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _merge, _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class TSLLaVA:
    """Merge a few frames into thumbnails, sample the rest evenly (TS-LLaVA, arXiv 2411.11066).

    `frames` evenly spaced steps are pooled, each into the same regular grid of means, as large as
    the share `thumbnail` of the budget allows. What is left of the budget goes to evenly spaced
    tokens of the whole clip, read step by step, row by row, which stay as they are. So the budget
    round(keep·N) is met exactly, and the clip is both seen at a glance and sampled throughout.

    The paper tiles the pixels of six frames into one picture and encodes that anew, 576 tokens
    beside 2880; a compressor has no pixels, so here a frame is made small by averaging its tokens.
    A thumbnail's token has position, seconds and cues of the token nearest the middle of its
    cell. A sampled token counts by itself and not in the mean of its cell as well, nor is the
    middle of a cell sampled: every token counts once at most. All steps with tokens are looked
    at, so this is no method for a stream without clips.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    frames: int = 6
    """How many steps become thumbnails, if there are so many."""
    thumbnail: float = 576 / 3456
    """Share of the budget for all thumbnails together, 0–1, as published."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("thumbnail", self.thumbnail, may_be_zero=True)
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, found {self.frames}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Merge and keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        every = torch.arange(len(tokens), device=tokens.features.device)
        most = round(self.thumbnail * count)
        if not most:
            return tokens.select(_ops.evenly_spaced(count, every))
        small, cell, heads = self._thumbnails(tokens, most)
        is_taken = torch.zeros_like(every, dtype=torch.bool)
        is_taken[heads] = True
        sampled = _ops.evenly_spaced(count - len(heads), every[~is_taken])
        is_taken[sampled] = True
        is_member = ~is_taken[small]
        is_member |= torch.isin(small, heads)
        row = small[is_member]
        merged, weight = _merge.weighted_means(
            _merge.contents(tokens), row, cell[is_member], tokens.weight[row], len(heads)
        )
        return _merge.with_merged(tokens, every[is_taken], heads, merged, weight)

    def _thumbnails(
        self, tokens: VisualTokens, most: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cut a few steps into cells, at most so many in all.

        Returns:
            The tokens of these steps (K,) int64, the cell that each lies in (K,) int64, counted
            from 0 without those that hold no token, and the token in the middle of each (G,).
        """
        _, height, width = tokens.grid
        present = torch.unique_consecutive(tokens.position[:, 0])
        chosen = _ops.evenly_spaced(min(self.frames, len(present), most), present)
        rows, columns = _shape(height, width, most // len(chosen))
        small = torch.isin(tokens.position[:, 0], chosen).nonzero().flatten()
        step, row, column = tokens.position[small].T.contiguous()
        down, across = (row + 0.5) * rows / height, (column + 0.5) * columns / width
        cell = torch.searchsorted(chosen, step) * rows + down.long()
        _, cell = torch.unique(cell * columns + across.long(), return_inverse=True)
        off_middle = (down.frac() - 0.5).square() + (across.frac() - 0.5).square()
        middle = (_ops.ranks_within(-off_middle, cell) == 0).nonzero().flatten()
        return small, cell, small[middle[cell[middle].argsort()]]


def _shape(height: int, width: int, most: int) -> tuple[int, int]:
    """Rows and columns of a frame made small, at most so many cells, in proportion if possible."""
    shrink = min(1.0, (most / (height * width)) ** 0.5)
    rows = min(max(1, int(height * shrink)), most)
    return rows, min(width, most // rows)

"""LongVU: in each window of steps, a whole first step and the places that leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _ops, _places, _published
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class LongVU:
    """Keep first steps of windows and what differs from them (LongVU, arXiv 2410.17434).

    The spatial reduction of LongVU: of each window of `window` steps the first is kept whole, of
    the others the tokens whose cosine similarity to the first token of their place and window is
    below `threshold`. May use less than the budget round(keep·N), in still scenes far less.

    The budget is dealt out to windows by their tokens; what a window leaves over, later ones may
    spend, so no window depends on a later one but for the budget. Where it does not suffice, first
    tokens and differing tokens are cut by the same share: the first ones stay evenly spaced, of
    the others those that differ most stay. After another compressor the first token of a place is
    the first that is left in the window; zero vectors are like nothing.

    With `compat="official"` the cut is that of the published code: as many tokens off the end of
    every window as are needed on average, rounded down, then off the end of the clip. Dense input
    only.
    """

    keep: float = 0.25
    """Share of the tokens kept at most, 0–1."""
    window: int = 8
    """Steps of a window."""
    threshold: float = 0.6
    """A token differs if its cosine similarity is below this."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to spread the cut, or to cut off the ends as published."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        if self.window < 1:
            raise ValueError(f"window must be at least 1, found {self.window}")
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the tokens are not dense.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        if self.compat == "official" and not tokens.is_dense:
            raise BadOption(
                f"the official LongVU needs dense tokens, found {len(tokens)} of grid "
                f"{tokens.grid}; use compat 'fixed'"
            )
        window = tokens.position[:, 0] // self.window
        similar = _similarity_to_first(tokens, window)
        cut = self._cut_off if self.compat == "official" else self._spread_cut
        return tokens.select(cut(similar, window, count).sort().values)

    def _spread_cut(self, similar: torch.Tensor, window: torch.Tensor, count: int) -> torch.Tensor:
        """The tokens (M,) int64 that stay, at most `count`, in no order.

        Args:
            similar: (N,) similarity to the first token of the place, −inf for that one.
            window: (N,) int64, of each token.
            count: the budget.
        """
        is_first = similar.isneginf()
        differs = (similar < self.threshold) & ~is_first
        windows = int(window[-1]) + 1
        there, firsts, others = (
            window[which].bincount(minlength=windows).tolist()
            for which in (torch.ones_like(differs), is_first, differs)
        )
        seats = _carried(
            _ops.apportion(count, there, there),
            [sum(rooms) for rooms in zip(firsts, others, strict=True)],
        )
        shares = [
            _ops.apportion(taken, rooms, rooms)
            for taken, *rooms in zip(seats, firsts, others, strict=True)
        ]
        parts = torch.split(is_first.nonzero().flatten(), firsts)
        spaced = [
            _ops.evenly_spaced(share, part)
            for part, (share, _) in zip(parts, shares, strict=True)
            if share
        ]
        novelty = (-similar).masked_fill(~differs, -torch.inf)
        most = torch.tensor([share for _, share in shares], device=similar.device)
        novel = _ops.best_of_each(novelty, window, most).nonzero().flatten()
        return torch.cat([*spaced, novel])

    def _cut_off(self, similar: torch.Tensor, window: torch.Tensor, count: int) -> torch.Tensor:
        """The tokens (M,) int64 that stay by the published rule; arguments as `_spread_cut`."""
        kept = (similar < self.threshold).nonzero().flatten()
        sizes = window[kept].bincount().tolist()
        cut = max(0, len(kept) - count) // len(sizes)
        left = [part[: max(0, len(part) - cut)] for part in torch.split(kept, sizes)]
        return torch.cat(left)[:count]


def _similarity_to_first(tokens: VisualTokens, window: torch.Tensor) -> torch.Tensor:
    """(N,) float32 cosine with the first token of the same place and window; −inf for that one."""
    _, rows, columns = tokens.grid
    group = window * (rows * columns) + tokens.flat_index % (rows * columns)
    every = torch.arange(len(tokens), device=group.device)
    first = every.new_full((int(group.max()) + 1,), len(tokens))
    first = first.scatter_reduce(0, group, every, "amin")[group]
    similar = _places.cosines(tokens.features[first], tokens.features)
    return similar.masked_fill(first == every, -torch.inf)


def _carried(seats: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """How many seats each window takes of its own and of those that earlier ones left over."""
    taken, spare = [], 0
    for own, want in zip(seats, wanted, strict=True):
        taken.append(min(own + spare, want))
        spare += own - taken[-1]
    return taken

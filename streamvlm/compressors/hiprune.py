"""HiPrune: objects as a middle layer sees them, and the summary that the last layer keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _ops, _published
from streamvlm.types import VisualTokens

_CROSS = 5
"""An anchor and its four neighbours."""


@dataclass(frozen=True)
class HiPrune:
    """Keep objects of a middle layer and registers of the last (HiPrune, arXiv 2508.00553).

    Three kinds of tokens of each frame are kept. Anchors receive the most attention in a middle
    layer, where a tower looks at objects: one for every five tokens of the share `anchors` of the
    budget. Buffers are the tokens above, below, left and right of an anchor. All that is left of
    the budget goes to registers, the tokens that receive the most attention in the last layer.

    The budget round(keep·N) is met exactly: it and the anchors are dealt out to the steps by
    largest remainders, so that a small budget has anchors in some steps only. Neighbours beyond
    the frame's edge, or dropped by another compressor, are not replaced by others; a token that
    is near two anchors counts once; where there is no room for all buffers, those that the last
    layer attends to most come first. Equal attention goes to the earlier token.

    With `compat="official"` it is the published algorithm to the letter: every step has the same
    budget and anchors, both rounded, and a neighbour is the token one or one row's width before
    or after, held within the frame: at the end of a row it is the start of the next, and above
    the first row it is the very first token. Dense input only.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    anchors: float = 0.1
    """Share of the budget meant for anchors and buffers, 0–1 (α of the paper)."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet the budget and end at the frame's edges, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "attention_middle"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("anchors", self.anchors, may_be_zero=True)
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cues `attention` (N,) and
                `attention_middle` (N,): how much attention each token receives in the last layer
                and in a middle one.
            previous: not used.

        Raises:
            ConfigError: a cue is missing.
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        attention = _ops.cue(tokens.cues, "attention")
        middle = _ops.cue(tokens.cues, "attention_middle")
        step = tokens.position[:, 0]
        if self.compat == "official":
            seats, anchors = self._official_seats(tokens)
            is_anchor = _ops.best_of_each(middle, step, anchors)
            is_near = _wrapping_cross(tokens, is_anchor)
        else:
            seats, anchors = self._seats(tokens)
            is_anchor = _ops.best_of_each(middle, step, anchors)
            is_near = _cross(tokens, is_anchor)
        _, rows, columns = tokens.grid
        kind = is_anchor.long() + is_near
        # A rank within a step is below rows·columns: the kind decides, then attention.
        score = kind * (rows * columns) - _ops.ranks_within(attention, step)
        return tokens.select(_ops.best_of_each(score, step, seats))

    def _seats(self, tokens: VisualTokens) -> tuple[torch.Tensor, torch.Tensor]:
        """How many tokens and how many anchors each step has, (T,) int64 each."""
        count = _ops.budget(self.keep, tokens)
        seats = _ops.deal(count, tokens)
        claims = seats.tolist()
        anchors = _ops.apportion(round(count * self.anchors / _CROSS), claims, claims)
        return seats, torch.tensor(anchors, device=seats.device)

    def _official_seats(self, tokens: VisualTokens) -> tuple[torch.Tensor, torch.Tensor]:
        count = _published.per_frame(self.keep, tokens)
        anchors = round(count * self.anchors / _CROSS)
        needs = {
            "dense tokens": tokens.is_dense,
            "at least one token kept of each step": count > 0,
            "room for the neighbours of all anchors": anchors * _CROSS <= count,
        }
        _published.require("HiPrune", needs, self.keep, tokens)
        every = torch.ones(tokens.grid[0], dtype=torch.int64, device=tokens.position.device)
        return every * count, every * anchors


def _cross(tokens: VisualTokens, is_anchor: torch.Tensor) -> torch.Tensor:
    """(N,) bool: whether a token is an anchor or shares a side with one in its frame."""
    steps, rows, columns = tokens.grid
    place = tokens.flat_index
    anchors = torch.zeros(steps * rows * columns, dtype=torch.bool, device=place.device)
    anchors[place] = is_anchor
    anchors = anchors.view(tokens.grid)
    near = anchors.clone()
    near[:, 1:] |= anchors[:, :-1]
    near[:, :-1] |= anchors[:, 1:]
    near[:, :, 1:] |= anchors[:, :, :-1]
    near[:, :, :-1] |= anchors[:, :, 1:]
    return near.flatten()[place]


def _wrapping_cross(tokens: VisualTokens, is_anchor: torch.Tensor) -> torch.Tensor:
    """The same of dense tokens as published, by differences of indices."""
    _, rows, columns = tokens.grid
    places = rows * columns
    step, place = is_anchor.view(-1, places).nonzero().unbind(1)
    offset = torch.tensor([0, -1, 1, -columns, columns], device=place.device)
    near = (place[:, None] + offset).clamp(0, places - 1) + step[:, None] * places
    return is_anchor.index_fill(0, near.flatten(), True)

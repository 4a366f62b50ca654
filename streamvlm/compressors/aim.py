"""AIM: neighbours in a frame that are alike are merged, round after round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _merge, _ops, _published
from streamvlm.types import VisualTokens

_STEPS_AT_ONCE = 16
"""Bounds memory: similarities of so many steps are held at a time."""


@dataclass(frozen=True)
class AIM:
    """Merge like tokens of each frame in rounds of ToMe (AIM's merging, ICCV 2025, 2412.03248).

    A round of bipartite matching (ToMe, ICLR 2023): of the tokens of a frame, counted in place
    order, each even one looks for the odd one it is most like, by cosine, and as many pairs as
    the round has to remove, the most alike first, are merged. A round removes at most half of a
    frame; as many rounds follow as the budget needs. AIM has two, from N to N/2 to N/4.

    The budget round(keep·N) is met exactly: it is dealt out to the steps by largest remainders. A
    step whose share is below one token is dropped, in all others nothing is: features are means
    weighted by `weight`, over all rounds, and weights are summed. Position, seconds and cues are
    those of the odd token of a pair. Ties go to the lower index.

    With `compat="official"` it is the published algorithm to the letter: both rounds to a quarter
    of the tokens, of dense input, where the second one takes the mean of what the first one left
    regardless of how many tokens that stands for. `weight`, which it does not know, is filled in.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet any budget with true means, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Merge into round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        if self.compat == "official":
            places = tokens.grid[1] * tokens.grid[2]
            needs = {
                "dense tokens": tokens.is_dense,
                "a keep of 0.25": self.keep == 0.25,
                "a multiple of four tokens in a step": places % 4 == 0,
            }
            _published.require("AIM", needs, self.keep, tokens)
        seats_T = _ops.deal(count, tokens)
        seats = seats_T.tolist()
        left = tokens if all(seats) else tokens.select(seats_T[tokens.position[:, 0]] > 0)
        there = left.position[:, 0].bincount(minlength=len(seats)).tolist()
        while there != seats:
            removed = [min(n // 2, n - m) for n, m in zip(there, seats, strict=True)]
            left = self._merge_round(left, there, removed)
            there = [n - r for n, r in zip(there, removed, strict=True)]
        # Between rounds means stay in full precision: they are rounded once.
        deepstack = None if left.deepstack is None else left.deepstack.to(tokens.features.dtype)
        return replace(left, features=left.features.to(tokens.features.dtype), deepstack=deepstack)

    def _merge_round(
        self, tokens: VisualTokens, there: Sequence[int], removed: Sequence[int]
    ) -> VisualTokens:
        """One round: of the tokens that are there in each step so many are to be removed."""
        partner, similarity = _matches(tokens.features, there, removed)
        wanted = torch.tensor(removed, device=partner.device)
        is_joining = _ops.best_of_each(similarity, tokens.position[:, 0], wanted)
        every = torch.arange(len(tokens), device=partner.device)
        kept = every[~is_joining]
        group = torch.searchsorted(kept, partner.where(is_joining, every))
        weight = tokens.weight
        share = weight if self.compat == "fixed" else torch.ones_like(weight)
        (features, *deepstack), _ = _merge.weighted_means(
            _merge.contents(tokens), every, group, share, len(kept)
        )
        _, total = _merge.weighted_means([], every, group, weight, len(kept))
        # All that is kept has new features: only the other fields are worth selecting.
        bare = replace(tokens, features=tokens.features[:, :0], deepstack=None)
        return replace(
            bare.select(kept),
            features=features,
            weight=total,
            deepstack=deepstack[0] if deepstack else None,
        )


def _matches(
    features: torch.Tensor, there: Sequence[int], removed: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The odd token of its step that each even token is most like, and how much.

    Args:
        features: (N, D) floating point, step by step.
        there: tokens of each step, N in all.
        removed: how many of each are to be removed; not needed where that is none.

    Returns:
        (N,) int64 and (N,) cosines, −inf for odd tokens.
    """
    partner = torch.arange(len(features), device=features.device)
    dtype = torch.promote_types(features.dtype, torch.float32)
    norm = torch.linalg.vector_norm(features, dim=1, dtype=dtype).clamp_(
        min=torch.finfo(dtype).tiny
    )
    similarity = torch.full_like(norm, -torch.inf)
    first = 0
    for size, steps in _runs(there, removed):
        run = slice(first, first := first + size * len(steps))
        if not any(steps):
            continue
        shape = len(steps), size
        x_BPD, norm_BP = features[run].to(dtype).view(*shape, -1), norm[run].view(shape)
        # Products of views: neither even nor odd tokens are copied.
        like_BEO = (x_BPD[:, 0::2] @ x_BPD[:, 1::2].mT).div_(norm_BP[:, None, 1::2])
        most_BE, which_BE = like_BEO.max(-1)
        similarity[run].view(shape)[:, 0::2] = most_BE / norm_BP[:, 0::2]
        odd_BO = partner[run].view(shape)[:, 1::2]
        partner[run].view(shape)[:, 0::2] = odd_BO.gather(1, which_BE)
    return partner, similarity


def _runs(there: Sequence[int], removed: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Neighbouring steps of equal size, a few at once: the size, and how many to remove of each."""
    for size, steps in groupby(zip(there, removed, strict=True), key=itemgetter(0)):
        run = [fewer for _, fewer in steps]
        for at in range(0, len(run), _STEPS_AT_ONCE):
            yield size, run[at : at + _STEPS_AT_ONCE]

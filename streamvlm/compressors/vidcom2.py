"""VidCom2: what is unlike the whole clip and unlike its own step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _gaussian, _merge, _ops, _published
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens

_TEMPERATURE = 0.01
"""How sharply steps compete for the budget: a few unusual ones get most of what is extra."""
_PARTS = 2**20
"""Claims are whole numbers: this many parts of a token."""


@dataclass(frozen=True)
class VidCom2:
    """Keep tokens unlike the clip's mean and their step's (VidCom2, EMNLP 2025, 2505.14454).

    Only the half of the channels that vary least over the clip are looked at, scaled to unit
    length. A token is typical of a mean c by Σ exp(−‖x − c‖²/2α), α = ⅛, ¼, ½, 1, 2. Each step
    keeps its tokens that are least typical of the clip's mean and of the step's mean together;
    equal ones go to the lower place. Unusual steps keep more: with p the softmax over the steps of
    −(how typical their tokens are of the clip, on average) / 0.01, a step claims 1 + p − mean p
    for each of its tokens.

    The budget round(keep·N) is met exactly: it is dealt out to the steps by these claims, by
    largest remainders, and what a step cannot hold goes to the others. Means count merged tokens
    by their weight. Needs the whole clip; `stc` is the streaming form.

    With `compat="official"` each step keeps round(ratio·tokens) with
    ratio = keep·(1 + p − mean p), at most 1, as published: a few tokens more or less than the
    budget come out. Dense input only, and refused if no token would be left.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet the budget exactly, or to round as the published code does."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        budget = _ops.budget(self.keep, tokens)
        if budget >= len(tokens):
            return tokens
        _, step, counts = torch.unique_consecutive(
            tokens.position[:, 0], return_inverse=True, return_counts=True
        )
        there = counts.tolist()
        every = torch.arange(len(tokens), device=step.device)
        unit_NC = _gaussian.unit_rows(tokens.features, _gaussian.quiet_channels(tokens.features))
        (mean_SC,), total_S = _merge.weighted_means(
            [unit_NC], every, step, tokens.weight, len(there)
        )
        mean_C = total_S.to(mean_SC.dtype) @ mean_SC / total_S.sum()
        centres_S2C = torch.stack((mean_C.expand_as(mean_SC), mean_SC), 1)
        typical_N2 = _gaussian.typicality(unit_NC, centres_S2C, there)
        (of_clip_S1,), _ = _merge.weighted_means(
            [typical_N2[:, :1]], every, step, tokens.weight, len(there)
        )
        rarity = (-of_clip_S1[:, 0] / _TEMPERATURE).softmax(0)
        share = (1 + rarity - rarity.mean()).tolist()
        if self.compat == "fixed":
            claims = [max(1, round(s * n * _PARTS)) for s, n in zip(share, there, strict=True)]
            seats = _ops.apportion(budget, claims, there)
        else:
            seats = self._official(tokens, share)
        best = torch.tensor(seats, device=step.device)
        return tokens.select(_ops.best_of_each(-typical_N2.sum(1), step, best))

    def _official(self, tokens: VisualTokens, share: list[float]) -> list[int]:
        """How many tokens each step keeps in `vidcom2.py` of xuyang-liu16/VidCom2 (944a17d)."""
        if not tokens.is_dense:
            raise BadOption(
                f"the official VidCom2 needs dense tokens, found {len(tokens)} of grid "
                f"{tokens.grid}; use compat 'fixed'"
            )
        places = len(tokens) // len(share)
        seats = [round(min(1.0, self.keep * s) * places) for s in share]
        if not sum(seats):
            raise BadOption(
                f"the official VidCom2 keeps none of {places} tokens per step at keep "
                f"{self.keep}; raise keep or use compat 'fixed'"
            )
        return seats

"""VisionZip: a few tokens hold most of what a frame says, and the rest is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _merge, _ops, _published
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class VisionZip:
    """Keep attended tokens of each frame, merge the rest by keys (VisionZip, CVPR 2025).

    Of each frame the tokens that receive the most attention are kept: the dominant ones. Among
    the rest, evenly spaced targets are chosen, and every other token joins the target of its
    frame that its key is most like, by cosine; these are the contextual tokens, weighted means of
    a target and all that joined it. This is the form for towers without a [CLS] token, such as
    SigLIP; attention from a [CLS] token is not used where there is one.

    The budget round(keep·N) is met exactly: it and the share `context` of it are dealt out to the
    steps by largest remainders; the rest of a step that gets no contextual token is dropped. In
    every other step all tokens count once, so that weights sum to those of the steps. Ties go to
    the lower index.

    With `compat="official"` it is the published algorithm to the letter: every step has the same
    budget; targets stand at multiples of the whole-numbered distance that fits into the rest, so
    that its end may have none; and a contextual token is the target *plus* the mean of those that
    joined it, a vector about twice as long. Dense input only. `weight`, which it does not know,
    is filled in as above.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    context: float = 10 / 64
    """Share of the budget for contextual tokens, 0–1; as published for 64 tokens and for video."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet the budget and take means, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "keys"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("context", self.context, may_be_zero=True)
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep and merge to round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cues `attention` (N,), how
                much attention each token receives, and `keys` (N, d).
            previous: not used.

        Raises:
            ConfigError: a cue is missing.
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        attention = _ops.cue(tokens.cues, "attention")
        keys = _ops.cue(tokens.cues, "keys")
        step = tokens.position[:, 0]
        dominant, context = self._seats(tokens)
        is_dominant = _ops.best_of_each(attention, step, torch.tensor(dominant, device=step.device))
        if not any(context):
            return tokens.select(is_dominant)
        has_context = torch.tensor(context, device=step.device)[step] > 0
        rest = (~is_dominant & has_context).nonzero().flatten()
        targets = self._targets(step[rest], context)
        is_target = torch.zeros_like(rest, dtype=torch.bool).index_fill(0, targets, True)
        joined = _merge.nearest_of_group(keys[rest], step[rest], is_target)
        group = torch.searchsorted(targets, joined)
        merged, weight = self._merged(tokens, rest, is_target, group)
        heads = rest[targets]
        kept = is_dominant.index_fill(0, heads, True).nonzero().flatten()
        return _merge.with_merged(tokens, kept, heads, merged, weight)

    def _seats(self, tokens: VisualTokens) -> tuple[list[int], list[int]]:
        """How many dominant and how many contextual tokens each of the T steps has."""
        if self.compat == "official":
            count = _published.per_frame(self.keep, tokens)
            wanted = round(count * self.context)
            needs = {"dense tokens": tokens.is_dense, "a contextual token of each step": wanted > 0}
            _published.require("VisionZip", needs, self.keep, tokens)
            return [count - wanted] * tokens.grid[0], [wanted] * tokens.grid[0]
        count = _ops.budget(self.keep, tokens)
        seats = _ops.deal(count, tokens).tolist()
        context = _ops.apportion(round(count * self.context), seats, seats)
        return [both - one for both, one in zip(seats, context, strict=True)], context

    def _targets(self, step: torch.Tensor, context: Sequence[int]) -> torch.Tensor:
        """Evenly spaced entries of each step, `context` of them, in a rest that lies at `step`."""
        seats = torch.tensor(context, device=step.device)
        there = step.bincount(minlength=len(context))
        first = (there.cumsum(0) - there).repeat_interleave(seats, output_size=sum(context))
        number = torch.arange(len(first), device=step.device)
        number -= (seats.cumsum(0) - seats)[step[first]]
        there, seats = there[step[first]], seats[step[first]]
        if self.compat == "official":
            return first + number * (there // seats)
        return first + (2 * number + 1) * there // (2 * seats)

    def _merged(
        self,
        tokens: VisualTokens,
        rest: torch.Tensor,
        is_target: torch.Tensor,
        group: torch.Tensor,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """New contents and weights (G, …) of the targets, of what is left and where it goes."""
        heads = rest[is_target]
        if self.compat == "fixed":
            share = tokens.weight[rest]
            return _merge.weighted_means(_merge.contents(tokens), rest, group, share, len(heads))
        share = (~is_target).to(tokens.weight.dtype)
        means, members = _merge.weighted_means(
            _merge.contents(tokens), rest, group, share, len(heads)
        )
        tables = _merge.contents(tokens)
        return [mean + table[heads] for mean, table in zip(means, tables, strict=True)], members + 1

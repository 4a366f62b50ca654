"""FastVID for live streams: what a segment becomes is settled when it ends.

N tokens, T steps of the clip, D features, Q targets, W similarities remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F

from streamvlm.compressors import _fastvid_causal, _fastvid_merge, _merge, _ops
from streamvlm.types import VisualTokens

RECENT = "recent_similarities"
"""The frame cue (T, W) that carries on: similarities up to each step, oldest first."""
UNSEEN = -2.0
"""What stands in it for a similarity not yet seen: below every cosine."""
ROUNDING = 1e-5
"""Similarities that differ by less are equal, so that a frozen picture is not cut up."""


@dataclass(frozen=True)
class FastVIDStream:
    """FastVID that never looks ahead, with bounded state (after FastVID, NeurIPS 2025, 2503.11187).

    A segment ends where neighbouring frame vectors are less similar than the lowest `quantile` of
    the last `window` similarities of the stream, or after `longest` steps. What was seen of the
    stream comes from the previous clip and goes on to the next in the frame cue
    `recent_similarities` (T, W), at most `window` numbers a step; without a previous clip, or
    after one that was returned whole, counting starts anew. A clip's end is a segment's end.

    The first step of a segment and every `anchor_every`-th after it are anchors. Every step keeps
    the tokens that receive the most attention. Its part of the budget for merged tokens is saved
    until the next anchor of the segment, which spends the savings on its density peaks, the
    targets; savings that no anchor can spend buy attended tokens of the steps that saved. Every
    other token joins the most similar target that its segment has so far, of whichever anchor;
    before the first target it is dropped. A target then becomes `mix`·itself + (1 − `mix`)·(mean
    of itself and the tokens that joined it): with `mix` 0, plain weighted means.

    What is kept up to the end of any segment is round(keep·tokens so far), at least one; so the
    budget is met exactly, and what a segment becomes does not depend on what follows. To run it
    step by step, one would hold of the open segment a running sum for each of its targets and
    the attended tokens of the steps since its last anchor: memory for anchors · targets · D
    numbers, whatever the stream's length. `weight` counts every token once, except those
    dropped. Ties go to the lower index.
    """

    keep: float = 0.1
    """Share of the tokens kept, 0–1."""
    quantile: float = 0.1
    """About so large a share of steps starts a segment; 0: those less alike than any remembered."""
    window: int = 256
    """How many similarities of neighbouring steps are remembered."""
    longest: int = 32
    """Steps after which a segment ends in any case."""
    context: float = 0.4
    """Share of the budget spent on merged tokens, the rest on attended ones, 0–1."""
    anchor_every: int = 4
    """Steps from one anchor to the next."""
    mix: float = 0.6
    """How much of a merged token is the target itself beside the mean, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "frame_vector"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        for name in ("quantile", "context", "mix"):
            _ops.check_share(name, getattr(self, name), may_be_zero=True)
        for name in ("window", "longest", "anchor_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep and merge to round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cues `attention` (N,), how
                much attention each token receives, and `frame_vector` (T, Dg).
            previous: what this method made of the clip before, if there was one.

        Returns:
            The tokens left, with the frame cue `recent_similarities` for the next clip.

        Raises:
            ConfigError: a cue is missing.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        attention = _ops.cue(tokens.cues, "attention")
        similarity = _similarity(_ops.cue(tokens.frame_cues, "frame_vector"))
        recent_TW = self._recent(similarity, previous)
        step = tokens.position[:, 0]
        plan = _fastvid_causal.causal_plan(
            step.bincount(minlength=tokens.grid[0]).tolist(),
            _fastvid_causal.cut(self._is_cut(similarity, recent_TW), self.longest),
            self.anchor_every,
            self.keep,
            self.context,
        )
        salient = torch.tensor(plan.salient, device=step.device)
        is_salient = _ops.best_of_each(attention, step, salient)
        heads = _fastvid_merge.targets(tokens, plan.anchors(), is_salient)
        out = self._merged(tokens, plan, is_salient, heads)
        return replace(out, frame_cues={**out.frame_cues, RECENT: recent_TW})

    def _recent(self, similarity: torch.Tensor, previous: VisualTokens | None) -> torch.Tensor:
        """(T, W) the last similarities at the end of each step, oldest first."""
        seen = similarity.new_empty(0)
        if previous is not None and RECENT in previous.frame_cues and previous.grid[0]:
            seen = previous.frame_cues[RECENT][-1].to(similarity)
        # A negative pad cuts off: the window may have been another one before.
        past = F.pad(seen, (self.window - len(seen), 0), value=UNSEEN)
        return torch.cat((past, similarity)).unfold(0, self.window, 1)

    def _is_cut(self, similarity: torch.Tensor, recent_TW: torch.Tensor) -> list[bool]:
        """For each step whether it is less like the one before than is usual up to there."""
        before = recent_TW[:-1].sort(dim=1).values
        seen = (before > UNSEEN).sum(1)
        # Below everything seen lies what is unseen, so that nothing is cut while nothing is known.
        rank = self.window - seen + (self.quantile * (seen - 1)).floor().long()
        rank = rank.clamp(max=self.window - 1)
        threshold = before.gather(1, rank[:, None])[:, 0]
        return [False, *(similarity < threshold - ROUNDING).tolist()]

    def _merged(
        self,
        tokens: VisualTokens,
        plan: _fastvid_causal.CausalPlan,
        is_salient: torch.Tensor,
        heads: torch.Tensor,
    ) -> VisualTokens:
        """The salient tokens, and the targets with what joined them."""
        kept = is_salient.index_fill(0, heads, True).nonzero().flatten()
        if not len(heads):
            return tokens.select(kept)
        unit_QD = F.normalize(_fastvid_merge.full(tokens.features[heads]), dim=1)
        nearest = torch.full_like(tokens.position[:, 0], -1)
        for run, targets in plan.open_targets():
            similarity = _fastvid_merge.full(tokens.features[run]) @ unit_QD[targets].T
            nearest[run] = targets.start + similarity.argmax(1)
        nearest[is_salient] = -1
        nearest[heads] = torch.arange(len(heads), device=heads.device)
        row = (nearest >= 0).nonzero().flatten()
        tables = _merge.contents(tokens)
        means, weight = _merge.weighted_means(
            tables, row, nearest[row], tokens.weight[row], len(heads)
        )
        own = torch.full_like(weight, self.mix)
        merged = _fastvid_merge.blend(means, [table[heads] for table in tables], own)
        return _merge.with_merged(tokens, kept, heads, merged, weight)


def _similarity(frame_vector: torch.Tensor) -> torch.Tensor:
    """(T − 1,) float32 cosines of neighbouring frame vectors (T, Dg)."""
    vector = frame_vector.float()
    return F.cosine_similarity(vector[:-1], vector[1:], dim=-1)

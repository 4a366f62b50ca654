"""FastVID: salient tokens of every step, and the rest of each segment merged at density peaks.

N tokens, D features, T steps with tokens, R tokens of one segment, A anchors of it, Q targets of
an anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F

from streamvlm.compressors import _fastvid, _fastvid_merge, _merge, _ops, _published
from streamvlm.types import VisualTokens

Variant = Literal["llava_onevision", "llava_video", "qwen2_5_vl"]
Compat = Literal["fixed", "official"]


@dataclass(frozen=True)
class FastVID:
    """Keep attended tokens, merge the rest at density peaks (FastVID, NeurIPS 2025, 2503.11187).

    The clip is cut into segments where neighbouring frame vectors differ. Every step keeps the
    tokens that receive the most attention. In each segment the last step and every
    `anchor_every`-th before it are anchors; the density peaks among an anchor's other tokens are
    targets, and every token of the segment that was not kept joins the most similar target of
    each anchor. The target then becomes `mix`·itself + (1 − `mix`)·(mean of itself and the tokens
    that joined it). That is the variant for LLaVA-OneVision. The others differ from it:

    - `llava_video`: the mean is of the tokens that joined only, and a target counts at least as
      much as each of them. The defaults are the published ones.
    - `qwen2_5_vl`: of consecutive steps of a segment that are at least `ignore_above` alike only
      the last holds tokens, and anchors are counted over such steps; the others hold only what
      those cannot. Published with `keep` 0.27 and `threshold` 0.84.

    The budget round(keep·N) is met exactly: it is dealt out by largest remainders to steps,
    segments and anchors; what the anchors cannot hold becomes attended tokens. With a anchors in
    the segment a token that joins counts 1/a in each mean and `weight`, a target counts whole and
    in its own only, so weights sum to N unless the budget leaves a segment without a target.
    So merged features are weighted means in which only the head counts for more than its weight;
    with `mix` 0 they are plain ones. Ties go to the lower index. Memory is linear in the length
    of the clip (and quadratic in the tokens of one step), time at most quadratic.

    With `compat="official"` it is the published code to the letter: every share is rounded down,
    so that fewer tokens than asked may come out; seeded noise breaks ties; targets join one
    another and count twice in their own mean if `mix` is small; dense input only, and refused
    where that code crashes. `weight`, which it does not know, is filled in as above.
    There `llava_video` rounds per segment, and its first steps and anchors take the remainder;
    targets join those of other anchors only. (The clip size fixed in that code is that of the
    clip here; it drops the newline column before.) `qwen2_5_vl` counts steps that are alike as
    one, which makes the budget smaller, and drops the tokens of all but the last.
    """

    keep: float = 0.1
    """Share of the tokens kept, 0–1."""
    segments: int = 8
    """Cut into at least so many segments, as far as there are steps."""
    threshold: float = 0.9
    """Cut also where the cosine similarity of neighbouring frame vectors is below this."""
    context: float = 0.4
    """Share of the budget spent on merged tokens, the rest on attended ones, 0–1."""
    anchor_every: int = 4
    """Steps from one anchor to the next."""
    mix: float = 0.6
    """How much of a merged token is the target itself beside the mean, 0–1."""
    variant: Variant = "llava_onevision"
    """Which of the published methods."""
    ignore_above: float = 0.95
    """Of steps whose frame vectors are at least so similar only the last holds tokens (Qwen)."""
    compat: Compat = "fixed"
    """Whether to meet the budget and the edge cases, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "frame_vector"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("context", self.context, may_be_zero=True)
        _ops.check_share("mix", self.mix, may_be_zero=True)
        for name in ("segments", "anchor_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name, known in (("variant", Variant), ("compat", Compat)):
            if getattr(self, name) not in get_args(known):
                names = ", ".join(get_args(known))
                raise ValueError(f"{name} must be one of {names}, found {getattr(self, name)!r}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep and merge to round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cues `attention` (N,), how
                much attention each token receives, and `frame_vector` (T, Dg).
            previous: not used.

        Raises:
            ConfigError: a cue is missing.
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        attention = _ops.cue(tokens.cues, "attention")
        frame_vector = _ops.cue(tokens.frame_cues, "frame_vector")
        present, step, count = torch.unique_consecutive(
            tokens.position[:, 0], return_inverse=True, return_counts=True
        )
        segments = self._segments(frame_vector[present], count.tolist())
        plan = self._plan(tokens, segments)
        salient = torch.tensor(plan.salient, device=step.device)
        is_salient = _ops.ranks_within(attention, step) < salient[step]
        is_left = ~is_salient
        noise = None
        if self.compat == "official":
            is_left &= torch.tensor(segments.holds, device=step.device)[step]
            noise = _official_noise(is_left)
        targets = _fastvid_merge.targets(tokens, plan.anchors(), is_salient, noise)
        is_kept = is_salient.index_fill(0, targets, True)
        kept = is_kept.nonzero().flatten()
        if not len(targets):
            return tokens.select(kept)
        is_joining = is_left if self.compat == "official" else ~is_kept
        rule = _fastvid_merge.Rule(
            mix=self.mix,
            in_mean=self.variant != "llava_video",
            official=self.compat == "official",
        )
        merged = _fastvid_merge.merge(tokens, plan, targets, is_joining, rule)
        return _merge.with_merged(tokens, kept, targets, *merged)

    def _segments(self, frame_vector: torch.Tensor, counts: list[int]) -> _fastvid.Segments:
        """Cut where vectors (T, Dg) of neighbouring steps differ."""
        similarity = F.cosine_similarity(frame_vector[:-1], frame_vector[1:], dim=-1)
        is_cut = similarity < self.threshold
        is_cut[similarity.argsort(stable=True)[: self.segments - 1]] = True
        holds = torch.ones_like(is_cut)
        if self.variant == "qwen2_5_vl":
            holds = is_cut | ~(similarity >= self.ignore_above)
        ends = [cut + 1 for cut in is_cut.nonzero().flatten().tolist()] + [len(frame_vector)]
        return _fastvid.Segments(counts, ends, [*holds.tolist(), True])

    def _plan(self, tokens: VisualTokens, segments: _fastvid.Segments) -> _fastvid.Plan:
        if self.compat == "fixed":
            budget = _ops.budget(self.keep, tokens)
            return _fastvid.exact_plan(segments, self.anchor_every, budget, self.context)
        is_video = self.variant == "llava_video"
        deal = _fastvid.official_video_plan if is_video else _fastvid.official_plan
        plan = deal(segments, self.anchor_every, self.keep, self.context)
        steps = list(zip(plan.counts, plan.salient, plan.context, strict=True))
        needs = {
            "dense tokens": tokens.is_dense,
            f"at least {self.segments} steps": len(steps) >= self.segments,
            "at least one token kept of each step": any(kept + more for _, kept, more in steps),
            "no more targets than an anchor has tokens": all(
                more <= there - kept for there, kept, more in steps
            ),
        }
        _published.require("FastVID", needs, self.keep, tokens)
        return plan


def _official_noise(is_left: torch.Tensor) -> torch.Tensor:
    """(N,) the published tie-break: one draw of U(0, 10⁻⁶) for all tokens left to merge."""
    draw = torch.rand(int(is_left.sum()), generator=torch.Generator().manual_seed(0)) * 1e-6
    noise = torch.zeros(len(is_left), device=is_left.device)
    return noise.masked_scatter(is_left, draw.to(noise.device))

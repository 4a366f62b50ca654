"""FastVID: salient tokens of every step, and the rest of each segment merged at density peaks.

N tokens, D features, T steps with tokens, R tokens of one segment, A anchors of it, Q targets of
an anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from streamvlm.compressors import _fastvid, _merge, _ops, _peaks
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class FastVID:
    """Keep attended tokens, merge the rest at density peaks (FastVID, NeurIPS 2025, 2503.11187).

    As published for LLaVA-OneVision: the clip is cut into segments where neighbouring frame
    vectors differ. Every step keeps the tokens that receive the most attention. In each segment
    the last step and every `anchor_every`-th before it are anchors; the density peaks among an
    anchor's other tokens are targets, and every token of the segment that was not kept joins the
    most similar target of each anchor. The target then becomes
    `mix`·itself + (1 − `mix`)·(mean of itself and the tokens that joined it).

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
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet the budget and the edge cases, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "frame_vector"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("context", self.context, may_be_zero=True)
        _ops.check_share("mix", self.mix, may_be_zero=True)
        for name in ("segments", "anchor_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.compat not in ("fixed", "official"):
            raise ValueError(f"compat must be 'fixed' or 'official', found {self.compat!r}")

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
        plan = self._plan(tokens, self._segment_ends(frame_vector[present]), count.tolist())
        salient = torch.tensor(plan.salient, device=step.device)
        is_salient = _ops.ranks_within(attention, step) < salient[step]
        targets = self._targets(tokens, plan, is_salient)
        is_kept = is_salient.index_fill(0, targets, True)
        kept = is_kept.nonzero().flatten()
        if not len(targets):
            return tokens.select(kept)
        is_joining = ~(is_salient if self.compat == "official" else is_kept)
        pieces = [
            self._merged(tokens, targets[group.targets], group, is_joining)
            for group in plan.groups()
        ]
        *merged, weight = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return _merge.with_merged(tokens, kept, targets, merged, weight)

    def _segment_ends(self, frame_vector: torch.Tensor) -> list[int]:
        """The steps at which segments end, exclusive, from the vectors (T, Dg) of the steps."""
        similarity = F.cosine_similarity(frame_vector[:-1], frame_vector[1:], dim=-1)
        is_cut = similarity < self.threshold
        is_cut[similarity.argsort(stable=True)[: self.segments - 1]] = True
        return [cut + 1 for cut in is_cut.nonzero().flatten().tolist()] + [len(frame_vector)]

    def _plan(self, tokens: VisualTokens, ends: list[int], counts: list[int]) -> _fastvid.Plan:
        if self.compat == "fixed":
            budget = _ops.budget(self.keep, tokens)
            return _fastvid.exact_plan(counts, ends, self.anchor_every, budget, self.context)
        plan = _fastvid.official_plan(counts, ends, self.anchor_every, self.keep, self.context)
        needs = {
            "dense tokens": tokens.is_dense,
            f"at least {self.segments} steps": len(counts) >= self.segments,
            "at least one token kept of each step": plan.salient[0] + max(plan.context) > 0,
            "no more targets than an anchor has tokens": (
                max(plan.context) <= counts[0] - plan.salient[0]
            ),
        }
        if unmet := [need for need, is_met in needs.items() if not is_met]:
            raise BadOption(
                f"the official FastVID needs {' and '.join(unmet)}, found {len(tokens)} tokens of "
                f"grid {tokens.grid} at keep {self.keep}; use compat 'fixed'"
            )
        return plan

    def _targets(
        self, tokens: VisualTokens, plan: _fastvid.Plan, is_salient: torch.Tensor
    ) -> torch.Tensor:
        """The tokens (Q,) int64 at the density peaks of all anchors, best first in each."""
        device = is_salient.device
        noise = _official_noise(is_salient) if self.compat == "official" else None
        chosen = [torch.empty(0, dtype=torch.int64, device=device)]
        for anchors in plan.anchors():
            first_A1, count_A1, _ = torch.tensor(anchors, device=device).T[..., None]
            column = torch.arange(max(anchor.tokens for anchor in anchors), device=device)
            index_AP = (first_A1 + column).clamp(max=len(tokens) - 1)
            score = _peaks.density_peaks(
                _full(tokens.features[index_AP]),
                (column < count_A1) & ~is_salient[index_AP],
                None if noise is None else noise[index_AP],
            )
            ranked = index_AP.gather(1, score.argsort(dim=-1, descending=True, stable=True))
            # How many to take is known here, so that no device has to be waited for.
            take = [at * len(column) + i for at, one in enumerate(anchors) for i in range(one.size)]
            chosen.append(ranked.flatten()[torch.tensor(take, device=device)])
        return torch.cat(chosen)

    def _merged(
        self,
        tokens: VisualTokens,
        targets: torch.Tensor,
        group: _fastvid.Group,
        is_joining: torch.Tensor,
    ) -> list[torch.Tensor]:
        """New contents and weights (Q, …) of the targets of a few anchors of one segment."""
        segment = [table[group.segment] for table in _merge.contents(tokens)]
        old = [table[targets] for table in _merge.contents(tokens)]
        nearest = _nearest_targets(segment[0], old[0], group.sizes)
        # In units of 1/sharers, so that sums of thousands of shares stay exact.
        share = is_joining[group.segment, None].repeat(1, len(group.sizes)).to(tokens.weight.dtype)
        if self.compat == "fixed":
            number = torch.arange(len(targets), device=targets.device)
            ends = torch.tensor(list(accumulate(group.sizes)), device=targets.device)
            itself = targets - group.segment.start, torch.searchsorted(ends, number, right=True)
            nearest[itself] = number
            share[itself] = group.sharers
        share *= tokens.weight[group.segment, None]
        row = torch.arange(len(share), device=share.device)[:, None].expand_as(share)
        means, total = _merge.weighted_means(
            segment, row.flatten(), nearest.flatten(), share.flatten(), len(targets)
        )
        own = torch.full_like(total, self.mix)
        if self.compat == "official":
            own = own.maximum(1 / (total + 1))
            total = total.clamp(min=1)
        blends = [
            mean.lerp(_full(table), own.to(mean.dtype).view(-1, *(1 for _ in table.shape[1:])))
            for mean, table in zip(means, old, strict=True)
        ]
        return [*blends, total / group.sharers]


def _full(table: torch.Tensor) -> torch.Tensor:
    """The same in float32 at least: half precision cannot hold sums and squares."""
    return table.to(torch.promote_types(table.dtype, torch.float32))


def _official_noise(is_salient: torch.Tensor) -> torch.Tensor:
    """(N,) the published tie-break: one draw of U(0, 10⁻⁶) for all tokens not salient."""
    count = int((~is_salient).sum())
    draw = torch.rand(count, generator=torch.Generator().manual_seed(0)) * 1e-6
    noise = torch.zeros(len(is_salient), device=is_salient.device)
    return noise.masked_scatter(~is_salient, draw.to(noise.device))


def _nearest_targets(
    segment_RD: torch.Tensor, target_QD: torch.Tensor, sizes: Sequence[int]
) -> torch.Tensor:
    """For each token and anchor its most similar target (R, A) int64, by cosine."""
    device = segment_RD.device
    end_A1 = torch.tensor(list(accumulate(sizes)), device=device)[:, None]
    first_A1 = end_A1 - torch.tensor(sizes, device=device)[:, None]
    # An anchor with fewer targets repeats its last one: a fixed width needs no loop over anchors.
    column_AQ = (first_A1 + torch.arange(max(sizes), device=device)).minimum(end_A1 - 1)
    unit_QD = F.normalize(_full(target_QD), dim=1)
    # The length of the tokens themselves does not change which target is nearest.
    similarity = _full(segment_RD) @ unit_QD[column_AQ.flatten()].T
    nearest_RA = similarity.view(len(segment_RD), *column_AQ.shape).argmax(-1)
    nearest: torch.Tensor = column_AQ[torch.arange(len(sizes), device=device), nearest_RA]
    return nearest

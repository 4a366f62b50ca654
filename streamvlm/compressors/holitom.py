"""HoliTom: what stays the same over a window of steps becomes one token, the rest is attended.

N tokens, D features, T steps with tokens, P places of a step, W windows, U static places of all
windows, C clusters of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _clusters, _holitom, _merge, _ops, _places, _published, _windows
from streamvlm.types import VisualTokens

NEIGHBOURS = 7
"""Near points that decide how dense it is at a point, where there are as many clusters."""


@dataclass(frozen=True)
class HoliTom:
    """Merge static places over windows, keep attended others (HoliTom, NeurIPS 2025, 2505.21334).

    The outer half of the method, before the language model. A place is static from one step to
    the next if its two tokens have a cosine similarity above `threshold`. The clip is cut into
    the windows in which the most tokens can be merged away: a place that is static all through
    its window becomes one token, the mean. The static tokens of a window are then merged once
    more, into the nearest of their density peaks; of the other tokens each step keeps those that
    receive the most attention. A merged token sits at the first step of its window, at the place
    of its peak.

    The budget round(keep·N) is dealt out by largest remainders to the static tokens of each
    window and to the others of each step; a group whose share comes to nothing is dropped. It is
    never exceeded, and is met unless fewer tokens are left when static places have been merged: a
    frozen clip gives at most one frame. Where several places are merged, the head, that is the
    token at that first step, counts `mix` beside the mean of all: merged features are weighted
    means in which only the head counts for more than its weight. Ties go to the lower index. In a
    clip that is already compressed, a place is static only between neighbouring steps, of those
    with tokens, that both show it. Memory is linear in the length of the clip, time too but for
    one sum for each pair of steps.

    With `compat="official"` it is the published code to the letter: every share is rounded by
    itself, so that a few tokens more or fewer than asked come out; `mix` is the share of the
    peak's mean over the window beside the mean of the places that join it; seeded noise breaks
    ties; dense input only. Order, positions and `weight`, which it does not know, are as above.
    """

    keep: float = 0.1
    """Share of the tokens kept, 0–1."""
    threshold: float = 0.8
    """A place is static where the cosine similarity of neighbouring steps is above this."""
    mix: float = 0.6
    """How much of a merged token is its head beside the mean, 0–1."""
    longest: int = 1024
    """The most steps in a window."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to keep to the budget and the edge cases, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("mix", self.mix, may_be_zero=True)
        if self.longest < 1:
            raise ValueError(f"longest must be at least 1, found {self.longest}")
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep and merge to at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cue `attention` (N,), how much
                attention each token receives.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        if self.compat == "official":
            _published.require("HoliTom", {"dense tokens": tokens.is_dense}, self.keep, tokens)
        attention = _ops.cue(tokens.cues, "attention")
        _, step, count = torch.unique_consecutive(
            tokens.position[:, 0], return_inverse=True, return_counts=True
        )
        place = tokens.flat_index % (tokens.grid[1] * tokens.grid[2])
        run_TP = self._static_runs(tokens, step, place, len(count))
        plan = self._plan(tokens, run_TP, count.tolist())
        if self.compat == "official":
            needs = {"at least one token kept": sum(plan.centres) + sum(plan.dynamic) > 0}
            _published.require("HoliTom", needs, self.keep, tokens)

        window_T, is_static_WP = _static_places(run_TP, plan.starts)
        window = window_T[step]
        is_static = is_static_WP[window, place]
        seats = torch.tensor(plan.dynamic, device=step.device)
        # Static tokens rank among themselves, so that they take no seats of the others.
        rank = _ops.ranks_within(attention, step + is_static * len(count))
        is_kept = (rank < seats[step]) & ~is_static

        tables = _merge.contents(tokens)
        static = _windows.static_places(tables, tokens.weight, window, place, is_static_WP)
        every = torch.arange(len(static.first), device=step.device)
        groups = [
            _clusters.Group(size, centres, min(NEIGHBOURS, centres))
            for size, centres in zip(plan.static, plan.centres, strict=True)
        ]
        noise = _official_noise(groups) if self.compat == "official" else None
        peak = _clusters.centre_of_each(static.means[0], every, groups, noise)
        peaks = (peak == every).nonzero().flatten()
        merged, weight = self._blends(tokens, static, peak, peaks)
        heads = static.first[peaks]
        kept = is_kept.index_fill(0, heads, True).nonzero().flatten()
        return _merge.with_merged(tokens, kept, heads, merged, weight)

    def _static_runs(
        self, tokens: VisualTokens, step: torch.Tensor, place: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """(T, P) int64: in how many of the last transitions each place was static."""
        places = tokens.grid[1] * tokens.grid[2]
        is_there_TP = place.new_zeros((steps + 1, places), dtype=torch.bool)
        is_there_TP[step + 1, place] = True
        # The latest earlier token of the place is that of the step before if there is one.
        is_same = _places.similarity_before(tokens) > self.threshold
        is_same_TP = torch.zeros_like(is_there_TP[1:])
        is_same_TP[step, place] = is_same & is_there_TP[step, place]
        every_T1 = torch.arange(steps, device=step.device)[:, None]
        return every_T1 - every_T1.where(~is_same_TP, 0).cummax(0).values

    def _plan(self, tokens: VisualTokens, run_TP: torch.Tensor, count: list[int]) -> _holitom.Plan:
        starts, static = _holitom.cut(run_TP.cpu(), self.longest)
        if self.compat == "official":
            return _holitom.official_plan(starts, static, count, self.keep)
        return _holitom.exact_plan(starts, static, count, _ops.budget(self.keep, tokens))

    def _blends(
        self,
        tokens: VisualTokens,
        static: _windows.StaticPlaces,
        peak: torch.Tensor,
        peaks: torch.Tensor,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """New contents (C, …) and weights (C,) of the heads of clusters.

        Args:
            tokens: N tokens.
            static: the static places of all windows.
            peak: (U,) int64, the static place that each joins, −1 for one that is dropped.
            peaks: (C,) int64, those that are joined, by themselves at least.
        """
        place = (peak >= 0).nonzero().flatten()
        cluster = torch.searchsorted(peaks, peak[place])
        is_alone = cluster.bincount(minlength=len(peaks)) == 1
        share = static.weight[place]
        if self.compat == "official":
            itself = [table[peaks] for table in static.means]
            own = is_alone.float().clamp(min=self.mix)
            share = share * (peak[place] != place)
        else:
            itself = [table[static.first[peaks]] for table in _merge.contents(tokens)]
            own = self.mix * (~is_alone).float()
        means, total = _merge.weighted_means(static.means, place, cluster, share, len(peaks))
        blends = [
            mean.lerp_(
                one.to(mean.dtype), own.to(mean.dtype).view(-1, *(1 for _ in mean.shape[1:]))
            )
            for mean, one in zip(means, itself, strict=True)
        ]
        return blends, total + static.weight[peaks] if self.compat == "official" else total


def _static_places(
    run_TP: torch.Tensor, starts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The window (T,) of each step, and whether places are static all through one (W, P)."""
    start, end = torch.tensor([starts, [*starts[1:], len(run_TP)]], device=run_TP.device)
    window = torch.searchsorted(end, torch.arange(len(run_TP), device=end.device), right=True)
    transitions = (end - 1 - start)[:, None]
    return window, (run_TP[end - 1] >= transitions) & (transitions > 0)


def _official_noise(groups: Sequence[_clusters.Group]) -> torch.Tensor:
    """(U,) the published tie-break: U(0, 10⁻⁶), drawn window by window where there are centres."""
    dice = torch.Generator().manual_seed(0)
    draws = [
        torch.rand(group.size, generator=dice) if group.centres else torch.zeros(group.size)
        for group in groups
    ]
    return torch.cat(draws) * 1e-6

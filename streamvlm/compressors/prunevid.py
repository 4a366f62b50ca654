"""PruneVid: like frames form windows, what is static in one is merged in time, all in space.

N tokens, D features, T steps with tokens, P places of a step, W windows, U static places of all
windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _clusters, _merge, _ops, _prunevid, _published, _windows
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens

NEIGHBOURS = 7
"""Near points that decide how dense it is at a point."""


@dataclass(frozen=True)
class PruneVid:
    """Merge static places in time and alike tokens in space (PruneVid, ACL 2025, 2412.16117).

    The merging half of the method, before the language model. Steps are clustered by the mean of
    their tokens, at density peaks, and the longest stretches of each cluster become windows. A
    place is static in a window if the cosine similarity of its tokens, averaged over all pairs,
    is above `threshold`; its tokens are then one group member, their mean. The static places of
    a window are a group, and so are the other tokens of each step. Every group of more than 14
    is merged into the nearest of its density peaks, `clusters` per member; a merged token is the
    plain mean of all its tokens and sits at the peak, for static places at the first step of the
    window that shows it.

    How many tokens remain follows from the clip, as published: 17 % of a typical one, half of one
    without anything static. Where that is above the budget round(keep·N), the clusters of all
    groups are scaled down to meet it exactly, by largest remainders, and a group whose share comes
    to nothing is dropped; where it is below, fewer tokens than allowed are used. Ties go to the
    lower index. In a clip that is already compressed, pairs are those that are there. Memory is
    linear in the length of the clip but for T² numbers that compare the steps.

    With `compat="official"` it is the published code to the letter, which knows no budget: `keep`
    is not looked at. Seeded noise breaks ties; dense input of at least 7 steps only. Order,
    positions and `weight`, which it does not know, are as above.
    """

    keep: float = 0.17
    """Most tokens kept, as a share of all, 0–1."""
    threshold: float = 0.8
    """A place is static where the mean cosine similarity over its window is above this."""
    segments: float = 0.25
    """Clusters of steps per step, 0–1; at least one."""
    clusters: float = 0.5
    """Most clusters per member of a group of more than 14, 0–1; at least one."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to keep to the budget and the edge cases, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for name in ("keep", "segments", "clusters"):
            _ops.check_share(name, getattr(self, name))
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Merge to at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the published code cannot take these tokens.
        """
        if self.compat == "fixed" and _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        _, step, count = torch.unique_consecutive(
            tokens.position[:, 0], return_inverse=True, return_counts=True
        )
        counts, place = count.tolist(), tokens.flat_index % (tokens.grid[1] * tokens.grid[2])
        dice = self._official_dice(tokens, len(counts))
        starts = self._window_starts(tokens, step, len(counts), dice)
        first_step = torch.tensor(starts, device=step.device)
        window = torch.searchsorted(first_step, step, right=True) - 1
        is_static_WP = self._static_places(tokens, place, starts, counts)
        static = _windows.static_places(
            [tokens.features], tokens.weight, window, place, is_static_WP
        )
        other = (~is_static_WP[window, place]).nonzero().flatten()

        static_sizes = is_static_WP.sum(1).tolist()
        other_sizes = step[other].bincount(minlength=len(counts)).tolist()
        groups = self._groups([*static_sizes, *other_sizes], tokens)
        noise: Sequence[torch.Tensor | None] = (None, None)
        if dice is not None:
            noise = _prunevid.noise_in_turn(dice, starts, static_sizes, other_sizes)
        every = torch.arange(len(static.first), device=step.device)
        head = torch.full((len(tokens),), -1, device=step.device)
        peak = _clusters.centre_of_each(static.means[0], every, groups[: len(starts)], noise[0])
        head[static.row] = _at(static.first, peak)[static.unit]
        peak = _clusters.centre_of_each(tokens.features, other, groups[len(starts) :], noise[1])
        head[other] = _at(other, peak)
        return _merge.join(tokens, head, head >= 0)

    def _official_dice(self, tokens: VisualTokens, steps: int) -> torch.Generator | None:
        """Where the published tie-break comes from; none if ties go to the lower index."""
        if self.compat == "fixed":
            return None
        needs = {
            "dense tokens": tokens.is_dense,
            f"at least {NEIGHBOURS} steps": steps >= NEIGHBOURS,
            "at least one cluster of steps": int(steps * self.segments) > 0,
        }
        if unmet := [need for need, is_met in needs.items() if not is_met]:
            raise BadOption(
                f"the official PruneVid needs {' and '.join(unmet)}, found {len(tokens)} tokens of "
                f"grid {tokens.grid}; use compat 'fixed'"
            )
        return torch.Generator().manual_seed(0)

    def _window_starts(
        self, tokens: VisualTokens, step: torch.Tensor, steps: int, dice: torch.Generator | None
    ) -> list[int]:
        """The first step of each window, from clusters of the mean tokens of steps."""
        every = torch.arange(len(tokens), device=step.device)
        (mean,), _ = _merge.weighted_means([tokens.features], every, step, tokens.weight, steps)
        group = _clusters.Group(steps, max(1, int(steps * self.segments)), NEIGHBOURS)
        noise = None if dice is None else _prunevid.noise(dice, steps).to(step.device)
        cluster = _clusters.centre_of_each(mean, every[:steps], [group], noise)
        return _prunevid.window_starts(cluster.tolist())

    def _static_places(
        self, tokens: VisualTokens, place: torch.Tensor, starts: list[int], counts: list[int]
    ) -> torch.Tensor:
        """Whether each place is static in each window (W, P) bool."""
        places = tokens.grid[1] * tokens.grid[2]
        first = list(accumulate(counts, initial=0))
        is_static_WP = place.new_zeros((len(starts), places), dtype=torch.bool)
        for window, (start, end) in enumerate(pairwise([*starts, len(counts)])):
            if end - start > 1:
                rows = slice(first[start], first[end])
                similar = _mean_cosines(tokens.features[rows], place[rows], places)
                is_static_WP[window] = similar > self.threshold
        return is_static_WP

    def _groups(self, sizes: list[int], tokens: VisualTokens) -> list[_clusters.Group]:
        """How many clusters of each group of tokens are wanted."""
        wanted = _prunevid.cluster_counts(sizes, self.clusters)
        if self.compat == "fixed":
            wanted = [max(count, min(size, 1)) for count, size in zip(wanted, sizes, strict=True)]
            wanted = _ops.apportion(_ops.budget(self.keep, tokens), wanted, wanted)
        elif any(size and not count for count, size in zip(wanted, sizes, strict=True)):
            raise BadOption(
                f"the official PruneVid needs at least one cluster of each group, found clusters "
                f"{self.clusters}; use more, or compat 'fixed'"
            )
        return [
            _clusters.Group(size, count, NEIGHBOURS)
            for size, count in zip(sizes, wanted, strict=True)
        ]


def _at(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The entries of a table at an index, −1 where the index is −1."""
    return table[index].where(index >= 0, -1)


def _mean_cosines(x_KD: torch.Tensor, place: torch.Tensor, places: int) -> torch.Tensor:
    """The cosine similarity of the tokens of each place (P,), over all pairs; −inf without any.

    The squared length of a sum of k unit vectors is k plus the cosines of its k·(k − 1) pairs.
    """
    dtype = torch.promote_types(x_KD.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x_KD, dim=1, dtype=dtype)
    row = torch.arange(len(place), device=place.device)
    share = 1 / norm.clamp(min=1e-12)
    (mean,), total = _merge.weighted_means([x_KD], row, place, share, places)
    count = place.bincount(minlength=places)
    pairs = count * (count - 1)
    square = (torch.linalg.vector_norm(mean, dim=1) * total).square()
    similar: torch.Tensor = (square - count) / pairs
    return similar.where(pairs > 0, -torch.inf)

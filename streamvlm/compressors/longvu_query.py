"""Two resolutions: frames that bear on the question stay whole, the others become small."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from streamvlm.compressors import _merge, _ops
from streamvlm.compressors.pool import Pool
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class LongVUQuery:
    """Keep whole the frames that bear on the question, pool the others (LongVU, ICML 2025).

    The query-guided part of LongVU: a frame's score is the mean over its tokens and the question's
    words of their likeness. The best frames keep all their tokens as long as these fit into the
    part `detail` of the budget; of equal scores the earlier frame is better. What is left of the
    budget goes to all other frames alike, each averaged into a smaller regular grid (see `pool`),
    which may use a little less. If no frame fits, all are pooled.

    The paper has two fixed resolutions and a plain dot product; here the low one follows from the
    budget, and likeness is the cosine. Its other parts, which know no question, are not used.
    """

    keep: float = 0.25
    """Share of the tokens kept at most, 0–1."""
    detail: float = 0.5
    """Share of the budget that frames at full resolution may take, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset({"question"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("detail", self.detail, may_be_zero=True)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Leave at most round(keep·N) tokens.

        Args:
            tokens: one clip with the cue `question`, (N, L), dense or already compressed.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        is_whole = _best_frames(tokens, self.detail * count)
        whole, others = tokens.select(is_whole), tokens.select(~is_whole)
        if len(whole) == count:
            return whole
        small = Pool(keep=(count - len(whole)) / len(others))(others)
        return _in_order(whole, small)


def _best_frames(tokens: VisualTokens, room: float) -> torch.Tensor:
    """(N,) bool: the tokens of the steps with the highest scores, together at most `room`."""
    step, steps = tokens.position[:, 0], tokens.grid[0]
    likeness = _ops.cue(tokens.cues, "question").float()
    likeness = likeness.mean(1) if likeness.shape[1] else torch.zeros_like(tokens.weight)
    every = torch.arange(len(step), device=step.device)
    ones = torch.ones_like(likeness)
    (score,), _ = _merge.weighted_means([likeness[:, None]], every, step, ones, steps)
    there = step.bincount(minlength=steps)
    score = score[:, 0].where(there > 0, -torch.inf)
    order = score.argsort(descending=True, stable=True)
    is_best = torch.zeros(steps, dtype=torch.bool, device=step.device)
    is_best[order] = there[order].cumsum(0) <= room
    return is_best[step]


def _in_order(one: VisualTokens, other: VisualTokens) -> VisualTokens:
    """The tokens of both, of which none share a place, in time-then-place order."""
    whole = replace(
        one,
        features=torch.cat([one.features, other.features]),
        position=torch.cat([one.position, other.position]),
        seconds=torch.cat([one.seconds, other.seconds]),
        weight=torch.cat([one.weight, other.weight]),
        cues={name: torch.cat([cue, other.cues[name]]) for name, cue in one.cues.items()},
        deepstack=_joined(one.deepstack, other.deepstack),
        rank=_joined(one.rank, other.rank),
    )
    return whole.select(whole.flat_index.argsort())


def _joined(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return None if one is None or other is None else torch.cat([one, other])

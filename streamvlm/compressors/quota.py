"""Frame weights become a budget of tokens: much of the frames that bear on the question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _ops, _question
from streamvlm.types import VisualTokens

_UNITS = 2**30
"""Claims are whole numbers: the largest one."""


@dataclass(frozen=True)
class Quota:
    """Share out the budget over frames by how they bear on the question (QuoTA, arXiv 2503.08689).

    QuoTA asks a second model about each frame and gives it tokens by the square of its answer.
    Here the frame is scored by what is at hand: its token that stands out most for a word of the
    question. A step's part of the budget is its tokens times exp(score / temperature), by largest
    remainders, and never more than it has; so round(keep·N) is met exactly, which the published
    floors do not, and no frame is scaled up.

    Within a step the tokens kept are evenly spaced in row-major order: as in the paper, a frame
    gets a resolution, and where in it to look is left to the model.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    temperature: float = 0.05
    """How evenly the budget is spread: a frame whose score is so much higher gets e times more."""
    needs: ClassVar[frozenset[str]] = frozenset({"question"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be more than 0, found {self.temperature}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip with the cue `question`, (N, L), dense or already compressed.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        steps, step = tokens.grid[0], tokens.position[:, 0]
        score = torch.full((steps,), -torch.inf, device=step.device)
        score = score.scatter_reduce(0, step, _question.relevance(tokens), "amax")
        there = step.bincount(minlength=steps)
        claims = there * ((score - score.max()) / self.temperature).exp().double()
        # Everyone who has tokens has a claim, if only to what the others cannot take.
        whole = (claims / claims.max() * _UNITS).long().clamp(min=1).where(there > 0, 0)
        seats = _ops.apportion(count, whole.tolist(), there.tolist())
        return tokens.select(_spread(torch.tensor(seats, device=step.device), there))


def _spread(seats: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """Evenly spaced entries of each group.

    Args:
        seats: (T,) int64, how many entries of each.
        there: (T,) int64, how many each has; the groups follow one another.

    Returns:
        (sum of seats,) int64, increasing: those in the middles of equal stretches of their group.
    """
    group = torch.arange(len(seats), device=seats.device).repeat_interleave(seats)
    number = torch.arange(len(group), device=seats.device) - (seats.cumsum(0) - seats)[group]
    start = there.cumsum(0) - there
    return start[group] + (2 * number + 1) * there[group] // (2 * seats[group])

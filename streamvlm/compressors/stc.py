"""STC, its pruner: what is unlike the past of the stream and unlike its own step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple

import torch

from streamvlm.compressors import _gaussian, _merge, _ops
from streamvlm.types import VisualTokens


class _Memory(NamedTuple):
    """What is remembered of a stream: the same size however long it is."""

    stc_channels: torch.Tensor
    """(C,) int64: the channels that are looked at, fixed once."""
    stc_mean: torch.Tensor
    """(C,) float32: mean of the means of all steps so far."""
    stc_steps: torch.Tensor
    """() int64: how many steps that are."""


@dataclass(frozen=True)
class STC:
    """Keep tokens unlike the past's mean and their step's (STC-Pruner, CVPR 2026, 2512.00891).

    The streaming form of VidCom2. Only the half of the channels that vary least over the stream's
    first step are looked at, scaled to unit length. A token is typical of a mean c by
    Σ exp(−‖x − c‖²/2α), α = ⅛, ¼, ½, 1, 2. Each step keeps its tokens that are least typical of
    the mean of all steps before and of the step's own mean together; equal ones go to the lower
    place. The stream's first step has no past and is compared with its own mean alone.

    Causal: what a step keeps depends on nothing after it. The budget round(keep·N) is met
    exactly: after the first n tokens of the clip round(keep·n) are kept, but at least one, so that
    steps of equal size keep equal numbers, to within one. Steps count once in the mean of the
    past, merged tokens by their weight in the mean of their step.

    Channels and mean go from clip to clip in `frame_cues` of the output (`stc_channels` (T, C),
    `stc_mean` (T, C), `stc_steps` (T,), all rows alike: the state after the clip), unless keep is
    1. A clip whose predecessor does not have them, or is of another model, starts anew. Tokens
    that carry them already, from an STC before this one, go on carrying the same.

    The published code picks its channels anew in every step, in no fixed order, so that its mean
    mixes different channels; and it keeps every step's mean for ever. Neither is repeated here.
    """

    keep: float = 0.3
    """Share of the tokens kept, 0–1; published are 60 of 196."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: the clip before in the stream as this compressor gave it, or None.
        """
        if self.keep == 1:
            return tokens
        memory = _recalled(tokens, previous)
        if not len(tokens):
            return tokens if memory is None else _with_memory(tokens, tokens, memory)
        _, step, counts = torch.unique_consecutive(
            tokens.position[:, 0], return_inverse=True, return_counts=True
        )
        there = counts.tolist()
        if memory is None:
            memory = _new_memory(_gaussian.quiet_channels(tokens.features[: there[0]]))
        unit_NC = _gaussian.unit_rows(tokens.features, memory.stc_channels)
        every = torch.arange(len(tokens), device=step.device)
        (mean_SC,), _ = _merge.weighted_means([unit_NC], every, step, tokens.weight, len(there))
        past_SC, memory = _past(mean_SC, memory)
        centres_S2C = torch.stack((past_SC, mean_SC), 1)
        typical_N = _gaussian.typicality(unit_NC, centres_S2C, there).sum(1)
        seats = torch.tensor(_causal_seats(self.keep, there), device=step.device)
        kept = tokens.select(_ops.best_of_each(-typical_N, step, seats))
        return _with_memory(kept, tokens, memory)


def _causal_seats(keep: float, counts: Sequence[int]) -> list[int]:
    """How many tokens each step keeps: what round(keep·n), n tokens so far, grows by."""
    so_far = (max(1, round(keep * total)) for total in accumulate(counts))
    return [after - before for before, after in pairwise((0, *so_far))]


def _new_memory(channels: torch.Tensor) -> _Memory:
    mean = torch.zeros(len(channels), device=channels.device)
    return _Memory(channels, mean, torch.zeros((), dtype=torch.int64, device=channels.device))


def _recalled(tokens: VisualTokens, previous: VisualTokens | None) -> _Memory | None:
    """What the clip before remembered of this stream, None if nothing that can be used."""
    if previous is None or previous.model != tokens.model or not previous.grid[0]:
        return None
    if not set(_Memory._fields) <= previous.frame_cues.keys():
        return None
    return _Memory(*(previous.frame_cues[name][-1] for name in _Memory._fields))


def _past(mean_SC: torch.Tensor, memory: _Memory) -> tuple[torch.Tensor, _Memory]:
    """The mean of all steps before each step (S, C), and the memory after the last one."""
    _, before_C, steps = memory
    number_S1 = steps + torch.arange(1, len(mean_SC) + 1, device=mean_SC.device)[:, None]
    after_SC = (mean_SC.cumsum(0) + before_C * steps) / number_S1
    # Without a past it is zero, from which all tokens are equally far.
    past_SC = torch.cat((before_C[None], after_SC[:-1]))
    return past_SC, memory._replace(
        stc_mean=after_SC[-1].to(before_C.dtype), stc_steps=steps + len(mean_SC)
    )


def _with_memory(kept: VisualTokens, tokens: VisualTokens, memory: _Memory) -> VisualTokens:
    """The kept tokens, carrying what is remembered, or what their input carried already."""
    rows = {
        name: state.expand(tokens.grid[0], *state.shape) for name, state in memory._asdict().items()
    }
    return replace(kept, frame_cues={**rows, **tokens.frame_cues})

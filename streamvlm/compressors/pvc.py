"""Progressive tokens: each step adds what the steps before it have not sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens

_ABOVE_NOISE = 3.0
"""A place has changed if its novelty is so many times that of one that only flickers."""
_LEAST = 0.05
"""Novelty that is never a change, however quiet the picture."""


_SAMPLE = 64
"""Numbers of each token that show whether two pictures are the very same."""
_ROUNDING = 1e-6
"""Novelty below this is that of the very same picture, as the clip before may have sent it."""
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class PVC:
    """Send what a place has not yet shown, step by step (after PVC, CVPR 2025; training-free).

    PVC trains an encoder whose every frame adds what its predecessors lack. Ours keeps the
    principle and drops the network: a place's novelty is 1 − cosine similarity with what was last
    sent there, by an earlier step of the clip or by the clip before. A step's budget goes first
    to the places of highest novelty, if it is above the noise; then to places not yet sent, in an
    order of which each part covers the picture evenly, so that a still scene gains detail with
    time. A place not yet sent is compared with the step before, so that movement is seen there
    too. When everything still has been sent, nothing more is: it may use less than the budget.

    The noise is that of the camera: the median novelty over the places of a step, in the quietest
    step of the clip so far that does not just repeat the one before. Three times that is what
    counts as a change, but at least 0.05 and at most `threshold`.

    It never looks ahead: after each step at most round(keep·tokens so far) are kept, and what
    still steps leave may be spent later in the clip. The first step of a clip always keeps one.
    Only `previous` counts as sent, not the clips before it, since a clip is read together with the
    one before and no other; so a still scene is sent anew in every second clip.
    """

    keep: float = 0.25
    """Share of the tokens kept at most, 0–1."""
    threshold: float = 0.3
    """Novelty that is a change however noisy the picture, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset()
    chained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("threshold", self.threshold)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: the clip before, as this method gave it; not used if its frames are of
                another size or of another model.
        """
        if _ops.budget(self.keep, tokens) >= len(tokens):
            return tokens
        sent = _Sent(tokens, self.threshold)
        if previous is not None and _fits(previous, tokens):
            sent.remember(previous)
        counts = torch.unique_consecutive(tokens.position[:, 0], return_counts=True)[1].tolist()
        kept, start = [], 0
        for count in counts:
            allowed = max(1, round(self.keep * (start + count)))
            kept.append(sent.step(slice(start, start + count), allowed))
            start += count
        return tokens.select(torch.cat(kept))


class _Sent:
    """What each of P places has shown so far; all of it stays on the tokens' device."""

    def __init__(self, tokens: VisualTokens, threshold: float) -> None:
        _, rows, columns = tokens.grid
        device, places = tokens.features.device, rows * columns
        self._features, self._threshold = tokens.features, threshold
        self._place = tokens.flat_index % max(places, 1)
        self._order = _scattered(rows, columns, device)
        # What a place sent last or, if it sent nothing yet, what it showed last.
        self._reference = torch.zeros(places, tokens.features.shape[1], device=device)
        self._length = torch.zeros(places, device=device)
        self._is_seen = torch.zeros(places, dtype=torch.bool, device=device)
        self._is_sent = torch.zeros_like(self._is_seen)
        self._noise = torch.full((), torch.inf, device=device)
        self._spent = torch.zeros((), dtype=torch.int64, device=device)

    def remember(self, previous: VisualTokens) -> None:
        """Take over what the clip before sent: the last of each place."""
        place = previous.flat_index % len(self._order)
        order = place.argsort(stable=True)
        is_last = place[order].diff(append=place.new_full((1,), -1)) != 0
        last = order[is_last]
        self._reference[place[last]] = previous.features[last].float()
        self._length[place[last]] = torch.linalg.vector_norm(previous.features[last].float(), dim=1)
        self._is_seen[place[last]] = self._is_sent[place[last]] = True

    def step(self, part: slice, allowed: int) -> torch.Tensor:
        """Which tokens of one step are sent.

        Args:
            part: where they are among the clip's tokens.
            allowed: how many may be sent from the beginning of the clip to this step.

        Returns:
            (n,) bool.
        """
        place: torch.Tensor | slice = self._place[part]
        if part.stop - part.start == len(self._order):
            place = slice(None)  # all of them in order: nothing has to be copied together
        look, reference = self._features[part].float(), self._reference[place]
        is_sent, length = self._is_sent[place], torch.linalg.vector_norm(look, dim=1)
        dot = torch.einsum("nd,nd->n", look, reference)
        novelty = 1 - dot / (length * self._length[place]).clamp(min=_TINY)
        novelty = novelty.where(self._is_seen[place], torch.nan)
        flicker = novelty.nanmedian()
        flicker = flicker.where(~self._repeats(part, flicker), torch.nan)
        self._noise = torch.fmin(self._noise, flicker)
        change = (self._noise * _ABOVE_NOISE).clamp(min=_LEAST).clamp(max=self._threshold)

        is_new, novelty = novelty > change, novelty.nan_to_num(0)
        # Three classes, one above the other: changed, never sent, known; novelty is at most 2.
        urgency = torch.where(is_new, novelty + 1, -self._order[place])
        urgency = urgency.where(is_new | ~is_sent, novelty - 4)
        rank = urgency.argsort(descending=True, stable=True).argsort()
        is_wanted = is_new | ~is_sent | ((rank == 0) & (part.start == 0))
        is_kept: torch.Tensor = is_wanted & (rank < allowed - self._spent)

        self._spent = self._spent + is_kept.sum()
        is_shown = is_kept | ~is_sent
        self._reference[place] = look.where(is_shown[:, None], reference)
        self._length[place] = length.where(is_shown, self._length[place])
        self._is_sent[place] = is_sent | is_kept
        self._is_seen[place] = True
        return is_kept

    def _repeats(self, part: slice, flicker: torch.Tensor) -> torch.Tensor:
        """() bool: whether a step is the very picture before it, which has no noise to show."""
        if part.start == 0:
            return flicker <= _ROUNDING
        before = slice(2 * part.start - part.stop, part.start)
        if before.start < 0:
            return torch.zeros((), dtype=torch.bool, device=self._place.device)
        same = self._features[part, :_SAMPLE] == self._features[before, :_SAMPLE]
        return same.all() & (self._place[part] == self._place[before]).all()


def _fits(previous: VisualTokens, tokens: VisualTokens) -> bool:
    width = previous.features.shape[1] == tokens.features.shape[1]
    return width and (previous.model, previous.grid[1:]) == (tokens.model, tokens.grid[1:])


def _scattered(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """(rows · columns,) float32 from 0 to below 1: an order of places that is even all the way.

    That of Bayer's dither matrix (1973): each part of it is a grid that complements the others.
    """
    row = torch.arange(rows, device=device)[:, None]
    column = torch.arange(columns, device=device)[None]
    value = torch.zeros(rows, columns, dtype=torch.int64, device=device)
    for bit in range(max(rows, columns).bit_length()):
        value = value * 4 + ((row ^ column) >> bit & 1) * 2 + (row >> bit & 1)
    order: torch.Tensor = value.flatten().argsort(stable=True).argsort() / max(rows * columns, 1)
    return order

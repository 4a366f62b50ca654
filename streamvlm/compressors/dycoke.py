"""DyCoke, first stage: in groups of four steps, what differs from a reference step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _ops, _places, _published
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens

GROUP = 4
"""Steps of a group; its first one is the reference of the group."""
_LAG = (GROUP, 1, 2, 1)
"""Steps back to the reference: of the group's first, second, third and fourth step."""
_PARTS = 1000
"""Claims are whole numbers: this many parts of a token."""
_SCATTER = (0.7548776662466927, 0.5698402909980532)
"""Turns per row and column: the smallest of them, modulo one, lie evenly over a picture (R2)."""
_ROWS_AT_ONCE = 2048
"""Bounds the copy of the references."""


@dataclass(frozen=True)
class DyCoke:
    """Keep what differs from a reference step, four by four (DyCoke TTM, CVPR 2025, 2411.15024).

    Temporal token merging of the paper, which selects and never averages. Steps come in groups of
    four, counted from the clip's first. The second step is compared with the first, the fourth
    with the third, and the third with the first; each keeps the tokens least similar (by cosine)
    to the token at the same row and column. As published the first step of a group stays whole
    and the others keep 1 − `prune` of theirs.

    The budget round(keep·N) is met exactly. It is dealt out to the steps by largest remainders,
    and a first step claims 1 / (1 − `prune`) times as much as the others. Where it cannot stay
    whole it keeps what differs most from the first step of the group before. Tokens with nothing
    to be compared with (all of the clip's first step; after another compressor, those whose place
    is empty in the reference) are taken first, scattered evenly over the picture. Equally similar
    tokens go to the lower place. Nothing looks ahead but the dealing out of the budget.

    With `compat="official"` it is the published code: the number of tokens follows from the
    clip's length and `prune` alone, near one half for the default, and the last group's third
    step stays whole if it is the clip's last but one. `keep` is then only a ceiling: refused if
    the published number is above it. Dense input of an even number of steps from 6 on only, for
    that code fails below and loses the last of an odd number. Tokens are put in order of place.
    """

    keep: float = 0.5
    """Share of the tokens kept, 0–1; about what is published."""
    prune: float = 0.7
    """Share of its tokens that a step other than the first of its group loses as published."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to meet the budget and the edge cases, or to repeat the published code."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _ops.check_share("prune", self.prune, may_be_zero=True)
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the published code cannot take these tokens, or
                keeps more of them than `keep` allows.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        seats = self._seats(tokens, count) if self.compat == "fixed" else self._official(tokens)
        step = tokens.position[:, 0]
        return tokens.select(
            _ops.best_of_each(_novelty(tokens), step, torch.tensor(seats, device=step.device))
        )

    def _seats(self, tokens: VisualTokens, count: int) -> list[int]:
        """How many tokens each step keeps, `count` in all."""
        there = tokens.position[:, 0].bincount(minlength=tokens.grid[0]).tolist()
        # A step never claims nothing, or prune 1 could leave a budget that nobody wants.
        other = max(1, round((1 - self.prune) * _PARTS))
        claims = [(other if t % GROUP else _PARTS) * size for t, size in enumerate(there)]
        return _ops.apportion(count, claims, there)

    def _official(self, tokens: VisualTokens) -> list[int]:
        """How many tokens each step keeps in `dycoke_ttm` of KD-TAO/DyCoke (dd74634)."""
        steps, rows, columns = tokens.grid
        places = rows * columns
        if not tokens.is_dense or steps < GROUP + 1 or steps % 2:
            raise BadOption(
                f"the official DyCoke needs dense tokens of an even number of steps from 6 on, "
                f"found {len(tokens)} tokens of grid {tokens.grid}; use compat 'fixed'"
            )
        fewer = int((1 - self.prune) * places)
        seats = [
            places if t % GROUP == 0 or (t % GROUP == 2 and t >= steps - 2) else fewer
            for t in range(steps)
        ]
        if sum(seats) > _ops.budget(self.keep, tokens):
            raise BadOption(
                f"the official DyCoke keeps {sum(seats)} of these {len(tokens)} tokens, more than "
                f"keep {self.keep} allows; raise keep or prune, or use compat 'fixed'"
            )
        return seats


def _novelty(tokens: VisualTokens) -> torch.Tensor:
    """How little each token is like that of its reference step, (N,) float32.

    −cosine; above 1 for a token without any to compare with, in an order that scatters them.
    """
    _, rows, columns = tokens.grid
    flat = tokens.flat_index
    lag = torch.tensor(_LAG, device=flat.device)[tokens.position[:, 0] % GROUP]
    wanted = flat - lag * (rows * columns)
    reference = torch.searchsorted(flat, wanted)
    is_there = flat[reference] == wanted
    # The references of a few rows at a time: a copy of all features would take longer.
    pairs = zip(
        torch.split(reference, _ROWS_AT_ONCE),
        torch.split(tokens.features, _ROWS_AT_ONCE),
        strict=True,
    )
    similar = torch.cat([_places.cosines(tokens.features[to], rows) for to, rows in pairs])
    turn = (tokens.position[:, 1:].double() @ flat.new_tensor(_SCATTER, dtype=torch.float64)) % 1
    return (-similar).where(is_there, 2 - turn.to(similar.dtype))

"""What stands in the slots of a prompt, told to those that choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from streamvlm.models._evidence import Step
from streamvlm.models._prompt import Extra, Piece, Slots


@dataclass(frozen=True, slots=True, eq=False)
class Seats:
    """What stands in the slots of a prompt, in order; n slots."""

    place: torch.Tensor
    """(n, 4) int64: stream, time step, row, column; −1 in slots of the model's own vectors."""
    weight: torch.Tensor
    """(n,) float32: how many source tokens each stands for."""


def seats(evidence: Sequence[Step], pieces: Sequence[Piece]) -> Seats:
    """Where the tokens of a prompt come from.

    Args:
        evidence: the time steps that the pieces were laid out from.
        pieces: what stands between the beginning of the user's turn and the question.
    """
    streams, stream = {}, 0
    for number, step in enumerate(evidence):
        stream += bool(step.heading) and number > 0
        streams[id(step.tokens)] = (stream, number)
    place, weight = [torch.empty(0, 4, dtype=torch.int64)], [torch.empty(0)]
    for piece in pieces:
        if isinstance(piece, Extra):
            place.append(torch.full((len(piece.features), 4), -1))
            weight.append(torch.zeros(len(piece.features)))
        for tokens in piece.steps if isinstance(piece, Slots) else ():
            where = torch.tensor(streams[id(tokens)]).expand(len(tokens), 2)
            place.append(torch.cat([where, tokens.position[:, 1:].cpu()], dim=1))
            weight.append(tokens.weight.cpu())
    return Seats(torch.cat(place), torch.cat(weight))

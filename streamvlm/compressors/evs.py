"""Efficient Video Sampling: what a place shows is kept when it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class EVS:
    """Keep the tokens that differ most from the step before (EVS, NVIDIA, arXiv 2510.14624).

    A token's novelty is 1 − cosine similarity with the token at the same row and column one step
    before. The round(keep·N) most novel tokens of the whole clip are kept; the first of a place
    always is, equal novelty goes to the earlier token. As shipped in vLLM the rule keeps at least
    one full frame; here the budget comes first, and a budget below one frame is spread evenly
    over the tokens without a predecessor. After another compressor the predecessor is the latest
    earlier token that is left at the place.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        novelty = _novelty(tokens)
        first = novelty.isinf().nonzero().flatten()
        if len(first) > count:
            return tokens.select(_ops.evenly_spaced(count, first))
        return tokens.select(novelty.argsort(descending=True, stable=True)[:count].sort().values)


def _novelty(tokens: VisualTokens) -> torch.Tensor:
    """(N,) 1 − cosine with the token before it at its place; inf where there is none."""
    _, rows, columns = tokens.grid
    novelty = torch.full_like(tokens.weight, torch.inf)
    if tokens.is_dense:
        novelty[rows * columns :] = _distance(
            tokens.features[: -rows * columns], tokens.features[rows * columns :]
        )
        return novelty
    place = tokens.flat_index % (rows * columns)
    by_place = place.argsort(stable=True)
    earlier, later = by_place[:-1], by_place[1:]
    distance = _distance(tokens.features[earlier], tokens.features[later])
    novelty[later] = distance.to(novelty.dtype).where(place[earlier] == place[later], torch.inf)
    return novelty


def _distance(one_ND: torch.Tensor, other_ND: torch.Tensor) -> torch.Tensor:
    """(N,) float32, 1 − cosine similarity of pairs; 1 where one of them is zero."""
    one_ND, other_ND = one_ND.float(), other_ND.float()
    dot = torch.einsum("nd,nd->n", one_ND, other_ND)
    norms = torch.linalg.vector_norm(one_ND, dim=1) * torch.linalg.vector_norm(other_ND, dim=1)
    distance: torch.Tensor = 1 - dot / norms.clamp(min=torch.finfo(norms.dtype).tiny)
    return distance

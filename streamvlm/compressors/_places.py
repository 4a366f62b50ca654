"""What a place of the picture showed before: the chain of tokens at one row and column.

N tokens, D features, K pairs of tokens.
"""

from __future__ import annotations

import torch

from streamvlm.types import VisualTokens

_ROWS_AT_ONCE = 4096
"""Bounds what is copied into full precision."""


def similarity_before(tokens: VisualTokens) -> torch.Tensor:
    """How much each token is like the latest earlier one at its place.

    Args:
        tokens: N tokens, dense or already compressed; where steps are missing at a place, its
            latest token that is left counts.

    Returns:
        (N,) float32 cosines, 0 where one of the two is zero, −inf for the first of a place.
    """
    _, rows, columns = tokens.grid
    similar = torch.full_like(tokens.weight, -torch.inf)
    if tokens.is_dense:
        frame = rows * columns
        similar[frame:] = cosines(tokens.features[:-frame], tokens.features[frame:])
        return similar
    place = tokens.flat_index % (rows * columns)
    by_place = place.argsort(stable=True)
    earlier, later = by_place[:-1], by_place[1:]
    found = cosines(tokens.features[earlier], tokens.features[later])
    similar[later] = found.to(similar.dtype).where(place[earlier] == place[later], -torch.inf)
    return similar


def cosines(one_KD: torch.Tensor, other_KD: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of pairs, in float32.

    Args:
        one_KD: (K, D) floating point.
        other_KD: (K, D) floating point.

    Returns:
        (K,) float32; 0 where one of the two is zero.
    """
    pieces = zip(*(torch.split(part, _ROWS_AT_ONCE) for part in (one_KD, other_KD)), strict=True)
    return torch.cat([_cosines(one.float(), other.float()) for one, other in pieces])


def _cosines(one_KD: torch.Tensor, other_KD: torch.Tensor) -> torch.Tensor:
    dot = torch.einsum("kd,kd->k", one_KD, other_KD)
    norms = torch.linalg.vector_norm(one_KD, dim=1) * torch.linalg.vector_norm(other_KD, dim=1)
    similar: torch.Tensor = dot / norms.clamp(min=torch.finfo(norms.dtype).tiny)
    return similar

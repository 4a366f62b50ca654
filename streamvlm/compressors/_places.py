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
        x_ND, length = tokens.features, _lengths(tokens.features)
        found = _dots(x_ND[:-frame], x_ND[frame:]) / _product(length[:-frame], length[frame:])
        similar[frame:] = found
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
    return _dots(one_KD, other_KD) / _product(_lengths(one_KD), _lengths(other_KD))


def _dots(one_KD: torch.Tensor, other_KD: torch.Tensor) -> torch.Tensor:
    pieces = zip(*(torch.split(part, _ROWS_AT_ONCE) for part in (one_KD, other_KD)), strict=True)
    return torch.cat([torch.einsum("kd,kd->k", a.float(), b.float()) for a, b in pieces])


def _lengths(x_KD: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(x_KD.dtype, torch.float32)
    length: torch.Tensor = torch.linalg.vector_norm(x_KD, dim=1, dtype=dtype).float()
    return length


def _product(one_K: torch.Tensor, other_K: torch.Tensor) -> torch.Tensor:
    product = one_K * other_K
    return product.clamp(min=torch.finfo(product.dtype).tiny)

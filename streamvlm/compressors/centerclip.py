"""CenterCLIP: the medoids of a few steps at a time.

N tokens, D features, S segments at once, P tokens of the largest of them, K medoids at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens

_SEGMENTS_AT_ONCE = 4
"""Bounds memory: that of so many matrices of the distances within a segment."""
_SAME = 1e-6
"""Squared distances up to this share of their mean are rounding: the tokens are copies."""


@dataclass(frozen=True)
class CenterCLIP:
    """Cluster the tokens of a few steps, keep the medoids (CenterCLIP, SIGIR 2022, 2205.00823).

    k-medoids by Euclidean distance in each segment of `steps` steps, without training and outside
    the encoder. The first medoid is the token of the largest norm, each next one that whose nearest
    medoid is the farthest (KKZ). Then every token joins its nearest medoid, and of each cluster the
    token with the least sum of distances to the others, weighted by `weight`, becomes the medoid,
    until nothing changes or it was done `iterations` times (the published code: up to 100).

    Exactly round(keep·N) tokens come out, dealt out to segments by largest remainders. Medoids stay
    as they were: nothing is merged, so `weight` stays their own too. A segment knows nothing of the
    others but its part of the budget. Ties go to the lower index. Memory is linear in N.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    steps: int = 4
    """Steps of a segment; time and memory grow with it."""
    iterations: int = 3
    """Move the medoids at most so many times; 0 leaves them where KKZ put them."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, found {self.steps}")
        if self.iterations < 0:
            raise ValueError(f"iterations must be at least 0, found {self.iterations}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        sizes = (tokens.position[:, 0] // self.steps).bincount().tolist()
        seats = _ops.apportion(count, sizes, sizes)
        # A segment without a seat keeps nothing, and one without a token has no seat.
        segments = [
            (end - size, size, own)
            for end, size, own in zip(accumulate(sizes), sizes, seats, strict=True)
            if own
        ]
        kept = [
            self._medoids(tokens, segments[at : at + _SEGMENTS_AT_ONCE])
            for at in range(0, len(segments), _SEGMENTS_AT_ONCE)
        ]
        return tokens.select(torch.cat(kept))

    def _medoids(self, tokens: VisualTokens, segments: list[tuple[int, int, int]]) -> torch.Tensor:
        """The medoids (M,) int64 of a few segments, increasing.

        Args:
            tokens: N tokens.
            segments: first token, number of tokens and number of medoids of each.
        """
        device = tokens.features.device
        first_S1, size_S1, seats_S1 = torch.tensor(segments, device=device).T[..., None]
        column_P = torch.arange(max(size for _, size, _ in segments), device=device)
        is_token_SP = column_P < size_S1
        index_SP = (first_S1 + column_P).clamp(max=len(tokens) - 1)
        points_SPD = tokens.features[index_SP]
        points_SPD = points_SPD.to(torch.promote_types(points_SPD.dtype, torch.float32))
        norm_SP = torch.linalg.vector_norm(points_SPD, dim=-1)
        distance_SPP = _distances(points_SPD, is_token_SP)

        most = max(seats for _, _, seats in segments)
        norm_SP = norm_SP.masked_fill(~is_token_SP, -torch.inf)
        start_SK = _spread(distance_SPP, norm_SP, most)
        is_seat_SK = torch.arange(most, device=device) < seats_S1
        # Segments with fewer seats than others, or fewer tokens, go on to be filled: not counted.
        is_medoid_SP = torch.zeros_like(index_SP).scatter_add(1, start_SK, is_seat_SK.long()) > 0
        weight_SP = tokens.weight[index_SP].to(norm_SP.dtype) * is_token_SP
        for _ in range(self.iterations):
            moved_SP = _moved(distance_SPP, is_medoid_SP, is_token_SP, weight_SP, most)
            if torch.equal(moved_SP, is_medoid_SP):
                break
            is_medoid_SP = moved_SP
        medoids: torch.Tensor = index_SP[is_medoid_SP]
        return medoids


def _distances(points_SPD: torch.Tensor, is_token_SP: torch.Tensor) -> torch.Tensor:
    """Euclidean distances (S, P, P), symmetric, in units of the segment's spread."""
    # Distances do not change when the middle is taken out, and lose fewer digits.
    centred = points_SPD - points_SPD.mean(1, keepdim=True)
    square = centred.square().sum(-1)
    mean = (square * is_token_SP).sum(1, keepdim=True) / is_token_SP.sum(1, keepdim=True)
    scale = mean.clamp(min=torch.finfo(mean.dtype).tiny).reciprocal()
    square = (square * scale)[:, :, None]
    product = (centred * scale[..., None]) @ centred.mT
    distance = product.mul_(-2).add_(square).add_(square.mT)
    # Both directions must agree to the last bit, or rounding decides which of two is the medoid.
    distance = distance.maximum(distance.mT)
    return distance.masked_fill_(distance <= _SAME, 0).sqrt_()


def _spread(distance_SPP: torch.Tensor, norm_SP: torch.Tensor, most: int) -> torch.Tensor:
    """The tokens (S, most) int64 that lie apart, in the order of choice (KKZ, Katsavounidis 1994).

    Args:
        distance_SPP: (S, P, P) distances.
        norm_SP: (S, P) lengths, −inf for what is no token.
        most: how many to choose; what comes after all tokens of a segment means nothing.
    """
    every_S = torch.arange(len(norm_SP), device=norm_SP.device)
    chosen = [norm_SP.argmax(1)]
    nearest_SP = norm_SP.where(norm_SP.isneginf(), torch.inf)
    for _ in range(most - 1):
        nearest_SP = nearest_SP.minimum(distance_SPP[every_S, chosen[-1]])
        nearest_SP[every_S, chosen[-1]] = -torch.inf
        chosen.append(nearest_SP.argmax(1))
    return torch.stack(chosen, 1)


def _moved(
    distance_SPP: torch.Tensor,
    is_medoid_SP: torch.Tensor,
    is_token_SP: torch.Tensor,
    weight_SP: torch.Tensor,
    most: int,
) -> torch.Tensor:
    """Let every token join its nearest medoid, then choose the medoid of each cluster anew.

    Args:
        distance_SPP: (S, P, P) distances.
        is_medoid_SP: (S, P) bool, what the clusters grow around.
        is_token_SP: (S, P) bool; the others only fill up.
        weight_SP: (S, P) how much the distance to each token counts, 0 for no token.
        most: K, the medoids of the segment that has the most.

    Returns:
        (S, P) bool, the new medoids: as many as before.
    """
    segments, places = is_medoid_SP.shape
    every_P = torch.arange(places, device=is_medoid_SP.device)
    medoid_SK = every_P.where(is_medoid_SP, places).sort(1).values[:, :most]
    column_SPK = medoid_SK.clamp(max=places - 1)[:, None].expand(-1, places, -1)
    to_medoid_SPK = distance_SPP.gather(2, column_SPK)
    to_medoid_SPK.masked_fill_((medoid_SK == places)[:, None], torch.inf)
    # A medoid stays in its own cluster even if a copy of it is a medoid too: none runs empty.
    cluster_SP = (is_medoid_SP.cumsum(1) - 1).where(is_medoid_SP, to_medoid_SPK.argmin(2))
    is_same_SPP = cluster_SP[:, :, None] == cluster_SP[:, None, :]
    cost_SP = (distance_SPP * is_same_SPP @ weight_SP[..., None])[..., 0]
    row_S1 = torch.arange(segments, device=every_P.device)[:, None]
    group_SP = (cluster_SP + row_S1 * most).where(is_token_SP, segments * most)
    seats = torch.ones(segments * most + 1, dtype=torch.int64, device=every_P.device)
    seats[-1] = 0
    best = _ops.best_of_each(-cost_SP.flatten(), group_SP.flatten(), seats)
    return best.view(segments, places)

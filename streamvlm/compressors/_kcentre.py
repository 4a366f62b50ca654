"""What the k-centre family shares: choosing tokens that are unlike one another, one by one.

Plain greedy choice reads every token once for each token that it chooses. Here most tokens are left
alone most of the time, because a bound shows that they cannot be next; what is chosen, and in what
order, is the same up to the rounding of similarities. Equal scores go to the lower index, zero
vectors come last.

N tokens, D features, M tokens to choose, P tokens of a pool, C candidates among them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

_POOL, _SMALLEST_POOL = 1024, 16
"""How many tokens to look at in a round, at most and at least."""
_BLOCK = 256
"""How many tokens to compare a pool with at a time."""
_ALIKE = 1 - 1e-6
"""From here on two tokens are the same: float32 cannot tell, and its rounding shall not decide."""


def unit_vectors(features_ND: torch.Tensor) -> torch.Tensor:
    """Features (N, D) scaled to length 1, in float32 at least; zero vectors stay zero."""
    return F.normalize(features_ND.to(torch.promote_types(features_ND.dtype, torch.float32)), dim=1)


def farthest_from_mean(unit_ND: torch.Tensor) -> torch.Tensor:
    """The token (1,) int64 with the lowest mean cosine to all tokens, in one pass."""
    return _zeros_last(unit_ND @ unit_ND.sum(0), unit_ND, torch.inf).argmin(0, keepdim=True)


def most_isolated(unit_ND: torch.Tensor, frame: int) -> torch.Tensor:
    """The token (1,) int64 whose nearest other token is the farthest, by cosine.

    All pairs are compared at worst, but in blocks, and a token is dropped as soon as it shows a
    nearer neighbour than the nearest one of the best token so far.

    Args:
        unit_ND: (N, D) unit vectors.
        frame: tokens of a step: the same place one step on is a good first guess.
    """
    nearest = torch.full_like(unit_ND[:, 0], -torch.inf)
    for lag in (1, frame):
        similar = _snapped(torch.einsum("nd,nd->n", unit_ND[:-lag], unit_ND[lag:]))
        nearest[:-lag] = nearest[:-lag].maximum(similar)
        nearest[lag:] = nearest[lag:].maximum(similar)
    nearest = _zeros_last(nearest, unit_ND, 1)
    best = torch.full_like(nearest[:1], torch.inf)
    order = nearest.argsort(stable=True)
    for pool in (order[:_SMALLEST_POOL], *torch.split(order[_SMALLEST_POOL:], 2 * _POOL)):
        start, width = 0, _BLOCK
        while start < len(order):
            pool = pool[nearest[pool] <= best]
            others = torch.arange(start, min(start + width, len(order)), device=pool.device)
            similar = unit_ND[pool] @ unit_ND[start : start + width].T
            similar = similar.masked_fill_(pool[:, None] == others, -torch.inf).amax(1)
            nearest[pool] = nearest[pool].maximum(_snapped(similar))
            # Few are left after the first blocks: the next may be larger.
            start, width = start + width, min(2 * width, 4 * _POOL)
        best = torch.cat([best, nearest[pool]]).amin(0, keepdim=True)
    return nearest.argmin(0, keepdim=True)


def farthest_first(unit_ND: torch.Tensor, first: torch.Tensor, count: int) -> torch.Tensor:
    """Choose again and again the token whose nearest chosen token is the farthest, by cosine.

    Greedy k-centre (Gonzalez 1985). The similarity to the nearest chosen token can only grow while
    more are chosen, so an old value is a lower bound. Each round brings the tokens with the lowest
    values up to date, and chooses greedily among these for as long as no other can come first.

    Args:
        unit_ND: (N, D) unit vectors.
        first: (1,) int64, the token to start with.
        count: M, 1 to N.

    Returns:
        (M,) int64, in the order of choice.
    """
    nearest = _snapped((unit_ND @ unit_ND[first].T)[:, 0])
    nearest = _zeros_last(nearest, unit_ND, 1).index_fill_(0, first, torch.inf)
    seen = torch.ones_like(nearest, dtype=torch.int64)
    centre_MD = unit_ND.new_empty(count, unit_ND.shape[1])
    centre_MD[:1] = unit_ND[first]
    chosen = first
    while (done := len(chosen)) < count:
        pool = nearest.argsort(stable=True)[: min(_POOL, len(nearest) - done)]
        last, limit = pool[-1:], nearest[pool[-1:]]
        _catch_up(nearest, seen, pool, unit_ND, centre_MD[:done])
        candidate = pool[_is_before(nearest[pool], pool, limit, last)].sort().values
        if not len(candidate):
            continue
        gram = _snapped(unit_ND[candidate] @ unit_ND[candidate].T)
        steps = min(count - done, len(candidate))
        picked, score = _greedy(nearest[candidate], gram, steps, torch.maximum)
        picked = picked[: _run(_is_before(score, candidate[picked], limit, last))]
        new = candidate[picked]
        centre_MD[done : done + len(new)] = unit_ND[new]
        nearest[candidate] = nearest[candidate].maximum(gram[picked].amax(0))
        seen[candidate] = done + len(new)
        nearest[new] = torch.inf
        chosen = torch.cat([chosen, new])
    return chosen


def largest_sum(unit_ND: torch.Tensor, first: torch.Tensor, count: int) -> torch.Tensor:
    """Choose again and again the token whose distances to the chosen ones have the largest sum.

    Greedy max-sum diversification, the distance being 1 − cosine. With m chosen unit vectors of
    sum S the distances of a token x sum to m − x·S, so the lowest x·S is next. Each round takes the
    tokens where it is lowest and chooses greedily among these, for which their Gram matrix is
    enough, for as long as no other can come first (see `_least_of_others`).

    Args:
        unit_ND: (N, D) unit vectors.
        first: (1,) int64, the token to start with.
        count: M, 1 to N.

    Returns:
        (M,) int64, in the order of choice.
    """
    total = unit_ND[first[0]]
    score = _zeros_last((unit_ND @ total).double(), unit_ND, 2 * len(unit_ND))
    score[first] = torch.inf
    chosen, size = first, _SMALLEST_POOL
    while (done := len(chosen)) < count:
        rest = len(score) - done
        size = size if rest > _POOL else rest
        pool = score.topk(size, largest=False).indices.sort().values
        gram = unit_ND[pool] @ unit_ND[pool].T
        picked, found = _greedy(score[pool], gram, min(count - done, size), torch.add)
        is_next = found < _least_of_others(score[pool], picked, found, total)
        new = pool[picked[: _run(is_next | (size == rest))]]
        if not len(new):
            new = score.argmin(0, keepdim=True)
        change = unit_ND[new].sum(0)
        total = total + change
        score += unit_ND @ change
        score[new] = torch.inf
        chosen = torch.cat([chosen, new])
        size = min(max(_SMALLEST_POOL, 8 * len(new)), _POOL)
    return chosen


def _least_of_others(
    start: torch.Tensor, picked: torch.Tensor, found: torch.Tensor, total: torch.Tensor
) -> torch.Tensor:
    """The least that x·S can be for a token x outside a pool, before each pick from the pool.

    While S grows by Δ = αS/|S| + δ with δ ⊥ S, the product of a unit vector x that had x·S = c|S|
    becomes c(|S| + α) + x·δ, which is at least c(|S| + α) − √(1 − c²)·|δ|. Outside the pool no c is
    below the largest one inside.

    Args:
        start: (P,) float64, x·S in the pool at the start of the round.
        picked: (C,) int64, the places in the pool of what was picked.
        found: (C,) float64, x·S of these when they were picked.
        total: (D,) the sum S at the start of the round.

    Returns:
        (C,) float64, NaN if S is zero.
    """
    length = torch.linalg.vector_norm(total.double())
    before = start[picked]
    # What each pick adds to α and to |Δ|² holds for those after it.
    along, square = (
        F.pad(added.cumsum(0)[:-1], (1, 0)) for added in (before / length, 1 + 2 * (found - before))
    )
    across = (square - along.square()).clamp(min=0).sqrt()
    ahead = length + along
    # The bound is convex in c; its minimum may lie inside.
    cosine = (start.max() / length).maximum(-ahead / torch.hypot(ahead, across)).clamp(-1, 1)
    least: torch.Tensor = cosine * ahead - (1 - cosine.square()).sqrt() * across
    return least


def _greedy(
    score: torch.Tensor,
    gram: torch.Tensor,
    steps: int,
    joined: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain greedy choice of the lowest score among C candidates.

    Args:
        score: (C,) to start with.
        gram: (C, C) similarities; the diagonal is overwritten.
        steps: how many to choose, 1 to C.
        joined: what makes new scores of the old ones and the similarities to what was chosen.

    Returns:
        Places (steps,) int64 among the candidates, and their scores (steps,) when chosen.
    """
    gram.fill_diagonal_(torch.inf)
    picked, found = [], []
    for _ in range(steps):
        lowest = score.argmin(0, keepdim=True)
        picked.append(lowest)
        found.append(score[lowest])
        score = joined(score, gram[lowest][0])
    return torch.cat(picked), torch.cat(found)


def _catch_up(
    nearest: torch.Tensor,
    seen: torch.Tensor,
    pool: torch.Tensor,
    unit_ND: torch.Tensor,
    centre_MD: torch.Tensor,
) -> None:
    """Compare a pool with the chosen tokens that it has not seen, in place.

    Args:
        nearest: (N,) largest similarity to a chosen token, of those seen so far.
        seen: (N,) int64, how many those are.
        pool: (P,) int64 in the order of `nearest`; what rises above the last of them can wait.
        unit_ND: (N, D) unit vectors.
        centre_MD: (M, D) unit vectors of the chosen tokens so far.
    """
    limit = nearest[pool[-1:]]
    for start in range(0, len(centre_MD), _BLOCK):
        block = centre_MD[start : start + _BLOCK]
        end = start + len(block)
        behind = pool[(seen[pool] < end) & (nearest[pool] <= limit)]
        similar = (unit_ND[behind] @ block.T).amax(1)
        nearest[behind] = nearest[behind].maximum(_snapped(similar))
        seen[behind] = end


def _is_before(
    score: torch.Tensor, index: torch.Tensor, limit: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Whether tokens come before, or are, the token `last` of the score `limit`."""
    return (score < limit) | ((score == limit) & (index <= last))


def _run(condition: torch.Tensor) -> int:
    """How many entries at the start are true."""
    return int(condition.cumprod(0).sum())


def _snapped(similar: torch.Tensor) -> torch.Tensor:
    """Similarities, exactly 1 where they are so up to rounding."""
    return similar.masked_fill(similar >= _ALIKE, 1)


def _zeros_last(score: torch.Tensor, unit_ND: torch.Tensor, worst: float) -> torch.Tensor:
    """Scores (N,) with the worst for zero vectors, which are like nothing and show nothing."""
    return score.masked_fill(torch.linalg.vector_norm(unit_ND, dim=1) == 0, worst)

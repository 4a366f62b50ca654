"""FrameFusion: what a place goes on showing is merged into the token that showed it first.

N tokens, P places of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

import torch

from streamvlm.compressors import _merge, _ops, _places, _published
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class FrameFusion:
    """Merge what a place goes on showing, then prune (FrameFusion, ICCV 2025, 2501.01986).

    The half of the method that works outside the language model. At each row and column a token
    joins the run of tokens before it if its cosine similarity is at least `threshold` with the
    token right before it (the chain) and at least `anchor` with the run's first token; else it
    starts a run. Each run becomes its weighted mean, at the place and time of its first token.
    The paper has the chain only, which merges a slow drift without end; `anchor` −1 is that.
    Merging is causal: which run a token joins depends on nothing after it.

    If more runs are left than round(keep·N), the paper prunes by the attention of the question,
    which does not exist here. Instead those are dropped that are least novel: whose first token is
    most like what its place showed before, by the smaller of the two similarities; the earlier of
    equal ones is kept. The first run of each place counts as new, and if even those are too many
    they are spread evenly. If fewer runs are left, fewer tokens than the budget come out.

    With `compat="official"` it is the published merge pass with a cap of 1 − keep: the chain only,
    and if at least that share of all tokens would join, only the ⌊cap·N⌋ most similar do. Nothing
    is pruned, so more tokens than the budget may be left. Dense input only. Outside remain what
    the paper does between the layers of the language model: further passes, the pruning, and a
    cap that follows from the computation spent so far.
    """

    keep: float = 0.3
    """Share of the tokens kept at most, 0–1."""
    threshold: float = 0.6
    """Least cosine similarity, −1 to 1, with the token before."""
    anchor: float = 0.6
    """Least cosine similarity, −1 to 1, with the first token of the run; not in the paper."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to stop drift and meet the budget, or to repeat the published merge pass."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        for name in ("threshold", "anchor"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be -1 to 1, found {getattr(self, name)}")
        _published.check_compat(self.compat)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Merge, and drop if need be, to at most round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed.
            previous: not used.

        Raises:
            BadOption: `compat="official"` and the tokens are not dense.
        """
        budget = _ops.budget(self.keep, tokens)
        if budget >= len(tokens):
            return tokens
        similar = _places.similarity_before(tokens)
        if self.compat == "official":
            head, similar = _runs(tokens, similar, self._official(tokens, similar), None)
        else:
            head, similar = _runs(tokens, similar, similar >= self.threshold, self.anchor)
        every = torch.arange(len(tokens), device=head.device)
        is_head = head == every
        if self.compat == "fixed":
            kept = _most_novel(similar, is_head.nonzero().flatten(), budget)
            is_kept = torch.zeros_like(is_head).index_fill(0, kept, True)
            # A run that is dropped has no head that is kept, and none of it may join another.
            head = head.where(is_kept[head], -1)
        return _merge.join(tokens, head, head >= 0)

    def _official(self, tokens: VisualTokens, similar: torch.Tensor) -> torch.Tensor:
        """Which tokens (N,) bool join the one before in thu-nics/FrameFusion (fbec1d2)."""
        if not tokens.is_dense:
            raise BadOption(
                f"the official FrameFusion needs dense tokens, found {len(tokens)} of grid "
                f"{tokens.grid}; use compat 'fixed'"
            )
        is_joining = similar >= self.threshold
        cap = 1 - self.keep
        if int(is_joining.sum()) / len(tokens) < cap:
            return is_joining
        order = similar.argsort(descending=True, stable=True)
        most = order[: int(cap * len(tokens))]
        return torch.zeros_like(is_joining).index_fill(0, most, True)


def _runs(
    tokens: VisualTokens, similar: torch.Tensor, may_join: torch.Tensor, anchor: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The runs that the tokens of each place form, step by step.

    Args:
        tokens: N tokens.
        similar: (N,) float32 cosines with the token before, −inf for the first of a place.
        may_join: (N,) bool: whether the chain holds.
        anchor: least cosine with the first token of the run; None for any.

    Returns:
        The index of the first token of each token's run (N,) int64; and the smaller of the
        token's similarities with the one before and with the first of the run before, (N,).
    """
    _, rows, columns = tokens.grid
    place = tokens.flat_index % (rows * columns)
    head = torch.arange(len(tokens), device=place.device)
    smaller = similar.clone()
    first_P = head.new_zeros(rows * columns)
    counts = torch.unique_consecutive(tokens.position[:, 0], return_counts=True)[1].tolist()
    for start, end in pairwise(accumulate(counts, initial=0)):
        here = slice(start, end)
        first = first_P[place[here]]
        joins = may_join[here]
        if anchor is not None:
            like_first = _places.cosines(tokens.features[first], tokens.features[here])
            smaller[here] = torch.minimum(similar[here], like_first)
            joins = joins & (like_first >= anchor)
        head[here] = torch.where(joins, first, head[here])
        first_P[place[here]] = head[here]
    return head, smaller


def _most_novel(similar: torch.Tensor, heads: torch.Tensor, budget: int) -> torch.Tensor:
    """Those `budget` of the heads (R,) int64 that are least similar to what was before."""
    before = similar[heads]
    first = heads[before.isinf()]
    if len(first) > budget:
        return _ops.evenly_spaced(budget, first)
    return heads[before.argsort(stable=True)[:budget]]

"""ToDRE: tokens whose distances to one another have a large sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.compressors import _kcentre, _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class ToDRE:
    """Keep the tokens that lie farthest from all others kept (ToDRE, arXiv 2505.18757).

    Greedy max-sum diversification over the whole clip: again and again the token whose distances,
    1 − cosine, to the tokens kept so far have the largest sum; the first is the one with the
    largest sum over all tokens. Unlike k-centre (DivPrune) it favours what is extreme, and may keep
    copies of it. Exactly round(keep·N) tokens come out, in time-then-place order and unchanged;
    of equal sums the lower index is taken, zero vectors last. Memory is linear in N.

    This is the half of the paper that comes after the encoder. The other, to drop all visual
    tokens in a late layer of the language model, is not a compressor's business.
    """

    keep: float = 0.1
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
        unit_ND = _kcentre.unit_vectors(tokens.features)
        first = _kcentre.farthest_from_mean(unit_ND)
        return tokens.select(_kcentre.largest_sum(unit_ND, first, count).sort().values)

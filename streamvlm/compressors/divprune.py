"""DivPrune: tokens as unlike one another as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from streamvlm.compressors import _kcentre, _ops, _published
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class DivPrune:
    """Keep the tokens that are least like one another (DivPrune, CVPR 2025, arXiv 2503.02175).

    Greedy k-centre over the whole clip, with 1 − cosine as the distance: again and again the token
    whose nearest kept token is the farthest. Place and time play no part. Exactly round(keep·N)
    tokens come out, in time-then-place order and unchanged; of equally far ones the lower index is
    taken, zero vectors last, and tokens alike to within 10⁻⁶ count as equal.

    The first token is the one with the lowest mean cosine to all. With `compat="official"` it is
    the one whose nearest other token is the farthest, as published, which takes about twice the
    time. Neither builds a matrix of all distances: memory is linear in N.
    """

    keep: float = 0.1
    """Share of the tokens kept, 0–1."""
    compat: Literal["fixed", "official"] = "fixed"
    """Whether to choose the first token cheaply, or as published."""
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        _published.check_compat(self.compat)

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
        if self.compat == "official":
            _, rows, columns = tokens.grid
            first = _kcentre.most_isolated(unit_ND, rows * columns)
        else:
            first = _kcentre.farthest_from_mean(unit_ND)
        return tokens.select(_kcentre.farthest_first(unit_ND, first, count).sort().values)

"""FasterVLM: what the summary of a frame looks at is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class FasterVLM:
    """Keep the tokens that a frame's [CLS] token attends to most (FasterVLM, arXiv 2412.01818).

    As published: the top tokens of each frame by the attention from the tower's summary, mean over
    heads, in place order. The budget round(keep·N) is met exactly: it is dealt out to the steps by
    largest remainders, so that below one token a step some steps keep none. Equal attention goes
    to the earlier token. A step's tokens are chosen by that step alone.

    A tower without a summary has received attention instead, which makes another method: HiPrune
    without anchors.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset({"cls_attention"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip, dense or already compressed, with the cue `cls_attention` (N,), how
                much the tower's summary attends to each token.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        attention = _ops.cue(tokens.cues, "cls_attention")
        seats = _ops.deal(count, tokens)
        return tokens.select(_ops.best_of_each(attention, tokens.position[:, 0], seats))

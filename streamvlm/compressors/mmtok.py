"""Maximum coverage: the tokens that together stand for the question and for the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class MMTok:
    """Cover the question's words and all other tokens by greedy choice (MMTok, arXiv 2508.18264).

    A token covers a word by its share in the softmax over the tokens of their cosines, and another
    token likewise; what several kept tokens cover is covered as well as by the best of them. The
    token that adds most is kept, and so on: greedy maximum coverage. Words count equally, together
    1; tokens by their weight, together `vision`. Of equal gains the lower index wins, and the
    budget round(keep·N) is met exactly.

    Coverage compares all tokens with one another. More than `block` of them are cut, in
    time-then-place order, into equal blocks of at most that many, each with its part of the
    budget (largest remainders), so that memory is that of block² numbers.

    Ours are the blocks, the weights of merged tokens, and the words: the paper takes a CLIP text
    encoder's, here they are the language model's own input embeddings.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    vision: float = 0.5
    """How much all tokens together count beside the question: the paper's α."""
    word_temperature: float = 0.02
    """How widely a word spreads over tokens; the paper takes 0.02 for LLaVA, 0.01 for Qwen."""
    token_temperature: float = 0.2
    """How widely a token spreads over tokens."""
    block: int = 2048
    """The most tokens that are compared with one another."""
    needs: ClassVar[frozenset[str]] = frozenset({"question"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)
        for name in ("vision", "word_temperature", "token_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be more than 0, found {getattr(self, name)}")
        if self.block < 1:
            raise ValueError(f"block must be at least 1, found {self.block}")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Keep round(keep·N) tokens.

        Args:
            tokens: one clip with the cue `question`, (N, L), dense or already compressed.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        question = _ops.cue(tokens.cues, "question")
        blocks = math.ceil(len(tokens) / self.block)
        ends = [len(tokens) * (number + 1) // blocks for number in range(blocks)]
        sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        kept = []
        for end, size, seats in zip(ends, sizes, _ops.apportion(count, sizes, sizes), strict=True):
            part = slice(end - size, end)
            cover = self._cover(tokens.features[part], question[part], tokens.weight[part])
            kept.append(_greedy(cover, seats) + end - size)
        return tokens.select(torch.cat(kept))

    def _cover(
        self, features: torch.Tensor, question: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """(L + n, n): how well each word, then each token, is covered by each token."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        words = question.T.to(dtype).div(self.word_temperature).softmax(1)
        unit = F.normalize(features.to(dtype), dim=1)
        similar = (unit @ unit.T).div_(self.token_temperature).softmax(1)
        share = weight.to(dtype) * (self.vision / weight.sum(dtype=dtype))
        return torch.cat([words / max(len(words), 1), similar.mul_(share[:, None])])


def _greedy(cover: torch.Tensor, count: int) -> torch.Tensor:
    """The columns that cover most together, chosen one after the other.

    Lazier than lazy greedy choice, which works out anew the gains that may still be the largest:
    a gain changes only by the rows that the last choice covers better, and these are few after the
    first ones. So all gains are kept up to date from those rows alone. Their number comes back from
    the device once for each token that is kept.

    Args:
        cover: (K, n) floating point, at least 0.
        count: how many columns, at most n.

    Returns:
        (count,) int64, increasing.
    """
    # In float64, as it is the difference of many small numbers.
    gain = cover.sum(0, dtype=torch.float64)
    covered = cover.new_zeros(len(cover))
    kept = []
    for _ in range(count):
        best = gain.argmax()
        column = cover[:, best]
        rows = (column > covered).nonzero().flatten()
        old, new = covered[rows, None], column[rows, None]
        gain -= cover.index_select(0, rows).clamp_(old, new).sub_(old).sum(0)
        covered[rows] = new[:, 0]
        gain[best] = -torch.inf
        kept.append(best)
    return torch.stack(kept).sort().values if kept else gain.new_zeros(0, dtype=torch.int64)

"""What the question asks for is recovered, and the rest lives on in what is most like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from streamvlm.compressors import _merge, _ops, _question
from streamvlm.types import VisualTokens


@dataclass(frozen=True)
class Recoverable:
    """Recover what the question asks for, merge the rest (Recoverable Compression, AAAI 2025).

    The paper (arXiv 2409.01179) drops what the picture alone makes unimportant, recovers from it
    the tokens that are like the question, and merges what is still left. Stored tokens have no
    attention left to say what is important, so ours begins at the recovery: the round(keep·N)
    tokens of the clip that stand out most for a word of the question are kept (of equal ones the
    earlier), and each other token is merged into the most similar kept one of its own step. A step
    of which nothing is kept is dropped: merging over time would say that things were at once.

    A kept token never counts less than all that join it together, so that what was asked for is
    not drowned in its surroundings.
    """

    keep: float = 0.25
    """Share of the tokens kept, 0–1."""
    needs: ClassVar[frozenset[str]] = frozenset({"question"})

    def __post_init__(self) -> None:
        _ops.check_share("keep", self.keep)

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Leave round(keep·N) tokens.

        Args:
            tokens: one clip with the cue `question`, (N, L), dense or already compressed.
            previous: not used.

        Raises:
            ConfigError: the cue is missing.
        """
        count = _ops.budget(self.keep, tokens)
        if count >= len(tokens):
            return tokens
        order = _question.relevance(tokens).argsort(descending=True, stable=True)
        is_kept = torch.zeros(len(tokens), dtype=torch.bool, device=order.device)
        is_kept[order[:count]] = True
        step = tokens.position[:, 0]
        has_kept = torch.zeros(tokens.grid[0], dtype=torch.bool, device=step.device)
        has_kept[step[is_kept]] = True
        index = has_kept[step].nonzero().flatten()
        return _merge_rest(tokens.select(index), is_kept[index])


def _merge_rest(tokens: VisualTokens, is_kept: torch.Tensor) -> VisualTokens:
    """Merge all into the kept tokens, each of which counts at least as much as what joins it."""
    head = _merge.nearest_of_group(tokens.features, tokens.position[:, 0], is_kept)
    kept = is_kept.nonzero().flatten()
    group = torch.searchsorted(kept, head)
    total = torch.zeros(len(kept), device=head.device).index_add(0, group, tokens.weight)
    own = tokens.weight[kept]
    share = tokens.weight.index_copy(0, kept, torch.maximum(own, total - own))
    every = torch.arange(len(tokens), device=head.device)
    contents = _merge.contents(tokens)
    merged, _ = _merge.weighted_means(contents, every, group, share, len(kept))
    return _merge.with_merged(tokens, kept, kept, merged, total)

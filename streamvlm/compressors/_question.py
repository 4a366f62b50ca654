"""What the question asks for: the nearness of tokens to its words, and of steps to all of it.

N tokens, L words, T steps.
"""

from __future__ import annotations

import torch

from streamvlm.compressors import _ops
from streamvlm.types import VisualTokens


def relevance(tokens: VisualTokens) -> torch.Tensor:
    """How far each token stands out in its likeness to some word of the question.

    Vectors of one model have much in common, and words such as “the” are near all of them. So
    each word's mean cosine over the tokens is taken out first; then a token counts by the word that
    it stands out most for.

    Args:
        tokens: N tokens with the cue `question`, (N, L) cosines.

    Returns:
        (N,) float32; all 0 for a question without words.
    """
    cue_NL = _ops.cue(tokens.cues, "question").float()
    if not cue_NL.numel():
        return torch.zeros_like(tokens.weight)
    return (cue_NL - cue_NL.mean(0)).amax(1)

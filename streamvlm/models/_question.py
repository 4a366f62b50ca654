"""How near stored tokens are to the words of a question, in the language model's input space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens

_AT_ONCE = 4096
"""Tokens whose features are held in float32 at one time."""


@torch.no_grad()
def compared(tokens: VisualTokens, ids: torch.Tensor, embedding: Any) -> VisualTokens:
    """Add the cue `question`: visual tokens and words live in one space, so a cosine compares them.

    Words are taken as the model reads them, before its first layer; no pass through it is needed.

    Args:
        tokens: N tokens of features (N, D).
        ids: (L,) int64, the question's words.
        embedding: the module that turns ids into (L, D) vectors.

    Returns:
        The same tokens with one more cue, (N, L) float32 on their own device; 0 for a zero vector.
    """
    words = embedding(ids.to(embedding.weight.device)).to(tokens.features.device)
    words_LD = F.normalize(words.float(), dim=1)
    parts = [
        F.normalize(part_ND.float(), dim=1) @ words_LD.T
        for part_ND in torch.split(tokens.features, _AT_ONCE)
    ]
    return replace(tokens, cues={**tokens.cues, "question": torch.cat(parts)})

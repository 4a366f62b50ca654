"""What visual rows of a language model get of its attention, without all of its weights.

S rows of the sequence, V of them visual; h heads, g of them to one head of the keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from streamvlm.models._taps import weights
from streamvlm.reduction import Signal

_AT_ONCE = 2**24
"""Attention weights in memory at once: 64 MiB in float32."""


def attention_to(
    visual: torch.Tensor, wanted: Signal
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]:
    """How to compute what visual rows get of some queries' attention.

    Args:
        visual: (V,) int64, where they stand in the sequence.
        wanted: of which queries.

    Returns:
        A function of queries (1, h, S, d), keys (1, h / g, S, d), a bool mask (S, S) or None for a
        causal one, and the scale; it gives (V,) float32.
    """

    def look(
        query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        size, largest = query.shape[2], wanted == "text_queries"
        every = torch.arange(size, device=query.device)
        asking = every[-1:]
        if wanted == "vision_vision":
            asking = visual
        elif largest and visual[-1] < size - 1:
            asking = every[int(visual[-1]) + 1 :]
        total = torch.zeros(len(visual), device=query.device)
        at_once = max(1, _AT_ONCE // (query.shape[1] * size))
        for first in range(0, len(asking), at_once):
            some = asking[first : first + at_once]
            seen = every <= some[:, None] if mask is None else mask[some]
            # Queries that share a head of the keys stand below one another.
            folded = query[:, :, some].reshape(1, key.shape[1], -1, query.shape[3])
            seen = seen.repeat(query.shape[1] // key.shape[1], 1)
            given = weights(folded, key, seen, scale)[0, ..., visual].flatten(0, 1)
            total = total.maximum(given.amax(0)) if largest else total + given.sum(0)
        return total if largest else total / (len(asking) * query.shape[1])

    return look

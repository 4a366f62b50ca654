"""Side signals of a vision tower, for compressors that read more than the tokens."""

from __future__ import annotations

from typing import Any

import torch


def attention_received(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """How much attention each patch receives in a layer, mean over heads and queries.

    Computed anew from what went into that one layer, because asking the model for its attentions
    would turn off the fast kernel in every layer and keep all of them.

    Args:
        layer: an encoder layer of SigLIP.
        hidden: (B, P, C) what went into it.

    Returns:
        (B, P) float32; each row sums to 1.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    heads = (attention.num_heads, attention.head_dim)
    queries = attention.q_proj(normed).unflatten(-1, heads).transpose(1, 2)
    keys = attention.k_proj(normed).unflatten(-1, heads).transpose(1, 2)
    weights: torch.Tensor = (queries @ keys.mT * attention.scale).softmax(-1, dtype=torch.float32)
    return weights.mean((1, 2))

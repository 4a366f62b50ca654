"""Payload codecs: how the features of a record are written. `raw` is exact, `int8` is half of fp16.

`int8` keeps one fp16 scale per 64 neighbouring channels. Video-LLM features have a few loud
channels; a scale per token would drown the others (relative error 0.064 against 0.018 measured on
tokens with six outlier channels), a scale per 64 channels costs 3 % of size. Symmetric absmax
rounding in blocks as in Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import pad

from streamvlm.errors import MemoryStoreError
from streamvlm.plugins import nearest

PAYLOADS = ("int8", "raw")
"""The names of the codecs."""

_BLOCK = 64
_LOUDEST = 127


def check_payload(payload: str) -> None:
    """Refuse a codec that does not exist.

    Raises:
        MemoryStoreError: no codec has that name; the message gives the nearest one.
    """
    if payload not in PAYLOADS:
        raise MemoryStoreError(
            f"no payload codec is called {payload!r}{nearest(payload, PAYLOADS)}"
        )


def encode(payload: str, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Turn features into what is written.

    Args:
        payload: one of `PAYLOADS`.
        features: (…, D) floating point, on any device.

    Returns:
        `raw`: {"raw": the same tensor}. `int8`: {"codes": (…, D) int8, "scales": (…, ⌈D/64⌉)
        float16}. On the CPU, contiguous.

    Raises:
        MemoryStoreError: `int8` and a feature is not finite or beyond 8.3 million.
    """
    features = features.detach().cpu().contiguous()
    if payload == "raw":
        return {"raw": features}
    width = features.shape[-1]
    blocks = _blocks(features.float())
    scales = (blocks.abs().amax(-1) / _LOUDEST).half()
    if not torch.isfinite(scales).all():
        raise MemoryStoreError(
            "features are not finite or too large for the payload 'int8'; check the encoder's "
            "output, or create the memory with payload='raw'"
        )
    # An all-zero block has scale 0; dividing by 1 instead gives its zeros back.
    divisors = torch.where(scales > 0, scales, torch.ones_like(scales)).float().unsqueeze(-1)
    codes = (blocks / divisors).round().clamp(-_LOUDEST, _LOUDEST).to(torch.int8)
    return {"codes": codes.flatten(-2)[..., :width].contiguous(), "scales": scales}


def decode(payload: str, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Turn what was written back into features.

    Args:
        payload: the codec that wrote them.
        parts: what `encode` returned.
        dtype: the type the features had.

    Returns:
        (…, D) of that dtype: exact for `raw`, within half a scale for `int8`.
    """
    if payload == "raw":
        return parts["raw"]
    codes, scales = parts["codes"], parts["scales"]
    width = codes.shape[-1]
    blocks = _blocks(codes).float() * scales.float().unsqueeze(-1)
    return blocks.flatten(-2)[..., :width].to(dtype)


def _blocks(channels: torch.Tensor) -> torch.Tensor:
    """(…, D) as (…, ⌈D/64⌉, 64), filled up with zeros."""
    missing = -channels.shape[-1] % _BLOCK
    full = pad(channels, (0, missing)) if missing else channels
    return full.reshape(*full.shape[:-1], -1, _BLOCK)

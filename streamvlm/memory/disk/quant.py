"""Payload codecs: how the features of a record are written. `raw` is exact, `int8` is half of fp16.

`int8` keeps one fp16 scale per 64 neighbouring channels. Video-LLM features have a few loud
channels; a scale per token would drown the others (relative error 0.064 against 0.018 measured on
tokens with six outlier channels), a scale per 64 channels costs 3 % of size. Symmetric absmax
rounding in blocks as in Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022.

`int4` is for records that were thinned: two codes a byte and one fp16 scale per 32 channels, a
little over half of `int8`, and its mean 1 − cosine of 5e-3 is 250 times that of `int8`.

Features are taken a few rows at a time, so that they stay in the cache, and so that torch does not
wake a team of threads for microseconds of work: on busy cores such a call waits milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from streamvlm.errors import MemoryStoreError
from streamvlm.plugins import nearest

PAYLOADS = ("int8", "raw", "int4")
"""The names of the codecs."""
CHOICES = ("int8", "raw")
"""Those that a new memory may be created with; `int4` is what becomes of thinned records."""

_PIECE, _PIECE_ALONE = 32_000, 128_000
"""Numbers worked on at a time: torch starts threads, if it may, from 32,768 on."""
_WHOLE = 1.5 * 2**23
"""Float32 numbers of this size are whole."""
_SMALLEST = 2.0**-24
"""The smallest float16 above 0."""


class _Form(NamedTuple):
    """How a codec rounds."""

    block: int
    """Channels that share a scale."""
    loudest: int
    """The largest code."""


_FORMS = {"int8": _Form(64, 127), "int4": _Form(32, 7)}


def check_payload(payload: str) -> None:
    """Refuse a codec that a new memory cannot be created with.

    Raises:
        MemoryStoreError: it is none of `CHOICES`; the message gives the nearest one.
    """
    if payload not in CHOICES:
        raise MemoryStoreError(
            f"no payload codec for new memories is called {payload!r}{nearest(payload, CHOICES)}"
        )


def encode(payload: str, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Turn features into what is written.

    Args:
        payload: one of `PAYLOADS`.
        features: (…, D) floating point, on any device.

    Returns:
        `raw`: {"raw": the same tensor}. `int8`: {"codes": (…, D) int8, "scales": (…, ⌈D/64⌉)
        float16}. `int4`: {"codes": (…, D/2) uint8, the even channel in the low half of each byte,
        "scales": (…, ⌈D/32⌉) float16}; if D is odd the codes are (…, D) int8, one a byte. On the
        CPU, contiguous.

    Raises:
        MemoryStoreError: a feature is not finite or beyond 8.3 million (`int8`) or 458 thousand
            (`int4`).
    """
    features = features.detach().cpu().contiguous()
    if payload == "raw":
        return {"raw": features}
    form, rows = _FORMS[payload], features.flatten(0, -2)
    width = rows.shape[1]
    is_packed = payload == "int4" and width % 2 == 0
    codes = torch.empty(
        (len(rows), width // 2 if is_packed else width),
        dtype=torch.uint8 if is_packed else torch.int8,
    )
    scales = torch.empty((len(rows), -(-width // form.block)), dtype=torch.float16)
    for piece in _pieces(rows):
        whole = _rounded(rows[piece], scales[piece], form)[:, :width]
        codes[piece] = _two_a_byte(whole) if is_packed else whole
    if not torch.isfinite(scales).all():
        raise MemoryStoreError(
            f"features are not finite or too large for the payload {payload!r}; check the "
            "encoder's output, or create the memory with payload='raw'"
        )
    leading = features.shape[:-1]
    return {
        "codes": codes.view(*leading, codes.shape[1]),
        "scales": scales.view(*leading, scales.shape[1]),
    }


def decode(payload: str, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """Turn what was written back into features.

    Args:
        payload: the codec that wrote them.
        parts: what `encode` returned.
        dtype: the type the features had.

    Returns:
        (…, D) of that dtype: exact for `raw`, else within half a scale.
    """
    if payload == "raw":
        return parts["raw"]
    codes, scales = parts["codes"].flatten(0, -2), parts["scales"].flatten(0, -2)
    is_packed = codes.dtype == torch.uint8
    width = codes.shape[1] * (2 if is_packed else 1)
    features = torch.empty(len(codes), width, dtype=dtype)
    for piece in _pieces(features):
        own = _one_a_byte(codes[piece]) if is_packed else codes[piece]
        blocks = _blocks(own.float(), _FORMS[payload].block)
        blocks *= scales[piece].float().unsqueeze(-1)
        features[piece] = blocks.flatten(1)[:, :width]
    return features.view(*parts["codes"].shape[:-1], width)


def _pieces(rows: torch.Tensor) -> Iterator[slice]:
    """Slices of a few rows of (N, D) each."""
    numbers = _PIECE if torch.get_num_threads() > 1 else _PIECE_ALONE
    step = max(numbers // max(rows.shape[1], 1), 1)
    return (slice(first, first + step) for first in range(0, len(rows), step))


def _rounded(rows: torch.Tensor, scales: torch.Tensor, form: _Form) -> torch.Tensor:
    """(n, D') float32 whole codes of (n, D) features, D' ≥ D; writes (n, B) scales."""
    blocks = _blocks(rows.float(), form.block)
    scales.copy_(blocks.abs().amax(-1).mul_(1 / form.loudest))
    # A block of zeros has scale 0; it is divided by the smallest scale there is instead.
    factors = scales.float().clamp_(min=_SMALLEST).reciprocal_().unsqueeze(-1)
    codes = blocks.mul(factors).clamp_(-form.loudest, form.loudest)
    # To the nearest, halves to even, like `round_`, which starts threads for far fewer numbers.
    return codes.add_(_WHOLE).sub_(_WHOLE).flatten(1)


def _blocks(rows: torch.Tensor, size: int) -> torch.Tensor:
    """(n, D) as (n, ⌈D/size⌉, size), filled up with zeros."""
    missing = -rows.shape[1] % size
    full = pad(rows, (0, missing)) if missing else rows
    return full.view(len(full), full.shape[1] // size, size)


def _two_a_byte(codes: torch.Tensor) -> torch.Tensor:
    """(n, D/2) uint8 of (n, D) whole codes from −7 to 7: each plus 8 is half a byte."""
    pairs = codes.add(8).to(torch.uint8).view(torch.int16)
    return (pairs | pairs >> 4).to(torch.uint8)


def _one_a_byte(packed: torch.Tensor) -> torch.Tensor:
    """(n, D) int8 codes of (n, D/2) uint8."""
    pairs = packed.to(torch.int16)
    return (pairs | pairs << 4).bitwise_and_(0x0F0F).view(torch.int8).sub_(8)

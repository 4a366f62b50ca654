"""Records that depend on their number alone, so that any process can tell a wrong byte."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.memory.store import Identity
from streamvlm.types import MemoryRecord, VisualTokens

IDENTITY = Identity("soak-encoder", "soak-embedder", 16)
"""Whose records they are."""
SPAN = 1_000_000
"""Each writer has so many numbers of its own, from a multiple of this on."""
STREAMS = 3
"""Streams of each writer."""

_SCENE = 20
_NOISE = 0.06
_NEAR = 0.02


def stream(number: int) -> str:
    """The stream of a record."""
    return f"stream-{number // SPAN}.{number % STREAMS}"


def uid(number: int) -> str:
    """The id of a record."""
    return f"record-{number:012d}"


def number_of(uid: str) -> int:
    """The number of a record."""
    return int(uid.removeprefix("record-"))


def second(number: int) -> float:
    """When a record begins; it lasts one second."""
    return float(number % SPAN)


def record(number: int) -> MemoryRecord:
    """The record of a number: three keys, of which the first nearly repeats its neighbours'."""
    random = np.random.default_rng(number)
    scene = np.random.default_rng((number // SPAN, number % STREAMS, number // _SCENE))
    near = _unit(scene.normal(size=(1, 16))) + _NOISE * random.normal(size=(1, 16))
    count = 5 + number % 40
    tokens = VisualTokens(
        model=IDENTITY.encoder,
        features=torch.from_numpy(random.normal(size=(count, 64)).astype(np.float32)),
        position=torch.arange(count)[:, None] * torch.tensor([[0, 0, 1]]),
        seconds=torch.full((count,), second(number), dtype=torch.float64),
        grid=(1, 1, count),
        weight=torch.ones(count),
    )
    return MemoryRecord(
        id=uid(number),
        stream=stream(number),
        start=second(number),
        end=second(number) + 1,
        keys=_unit(np.concatenate([near, random.normal(size=(2, 16))])),
        tokens=tokens,
        frame_seconds=np.array([second(number)]),
        frame_hash=np.array([number], np.uint64),
        thumbnail=b"jpeg %d" % number,
    )


def shrunk(whole: MemoryRecord) -> MemoryRecord:
    """The record as it is after thinning: every second token, tier 1."""
    kept = torch.arange(0, len(whole.tokens.features), 2)
    return replace(whole, tokens=whole.tokens.select(kept), tier=1)


def difference(found: MemoryRecord) -> str | None:
    """What of a record that was read is not as `record` or `shrunk` gave it; None if all is."""
    wanted = record(number_of(found.id))
    if found.tier:
        wanted = shrunk(wanted)
    for name in ("stream", "start", "end", "thumbnail", "tier"):
        if getattr(found, name) != getattr(wanted, name):
            return f"{found.id}: {name} is {getattr(found, name)!r}"
    for name in ("features", "position", "seconds", "weight"):
        if not torch.equal(getattr(found.tokens, name), getattr(wanted.tokens, name)):
            return f"{found.id}: tokens.{name} differ"
    if not np.array_equal(found.frame_hash, wanted.frame_hash):
        return f"{found.id}: frame_hash differs"
    # Keys that are not indexed are stored as int8.
    if found.keys.shape != wanted.keys.shape or np.abs(found.keys - wanted.keys).max() > _NEAR:
        return f"{found.id}: keys differ"
    return None


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamvlm.memory.store import Identity, Memory
from streamvlm.types import MemoryRecord, VisualTokens

WIDTH = 32


@pytest.fixture
def identity() -> Identity:
    return Identity(encoder="tiny-encoder@1", embedder="tiny-embedder@1", key_width=WIDTH)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "lobby"


@pytest.fixture
def memory(path, identity) -> Iterator[Memory]:
    with Memory.create(path, identity, payload="raw", sync="process") as memory:
        yield memory


@pytest.fixture
def units() -> Callable[..., NDArray[np.float32]]:
    """(count, width) random float32 unit vectors."""

    def make(count: int, *, width: int = WIDTH, seed: int = 0) -> NDArray[np.float32]:
        vectors = np.random.default_rng(seed).normal(size=(count, width))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.fixture
def record(units) -> Callable[..., MemoryRecord]:
    """A record that depends on its number alone: one second of a stream."""

    def make(
        number: int,
        *,
        stream: str = "/videos/a.mp4",
        start: float | None = None,
        keys: NDArray[np.float32] | None = None,
        num_tokens: int = 6,
        width: int = 70,
        dtype: torch.dtype = torch.float32,
        layers: int = 0,
    ) -> MemoryRecord:
        generator = torch.Generator().manual_seed(number)
        start = float(number) if start is None else start
        shape = (num_tokens, layers, width)
        tokens = VisualTokens(
            model="tiny-encoder@1",
            features=torch.randn(num_tokens, width, generator=generator).to(dtype),
            position=torch.stack([torch.arange(num_tokens)] * 3, dim=1),
            seconds=torch.full((num_tokens,), start + 1 / 3, dtype=torch.float64),
            grid=(num_tokens, num_tokens, num_tokens),
            weight=torch.rand(num_tokens, generator=generator) + 1,
            deepstack=torch.randn(shape, generator=generator).to(dtype) if layers else None,
        )
        return MemoryRecord(
            id=f"{number:016x}",
            stream=stream,
            start=start,
            end=start + 1,
            keys=units(2, seed=number) if keys is None else keys,
            tokens=tokens,
            frame_seconds=np.array([start, start + 0.5]),
            frame_hash=np.array([number, 2**64 - 1 - number], dtype=np.uint64),
            thumbnail=b"\xff\xd8" + bytes([number % 256]) * 40 + b"\xff\xd9",
        )

    return make


@pytest.fixture
def same() -> Callable[[MemoryRecord, MemoryRecord], bool]:
    """Whether two records are equal bit for bit, but for keys, which are stored as float16."""

    def compare(one: MemoryRecord, other: MemoryRecord) -> bool:
        a, b = one.tokens, other.tokens
        tensors = ["features", "position", "seconds", "weight"]
        if a.deepstack is not None and b.deepstack is not None:
            tensors.append("deepstack")
        return (
            (one.id, one.stream, one.start, one.end, one.thumbnail)
            == (other.id, other.stream, other.start, other.end, other.thumbnail)
            and (a.model, a.grid, a.deepstack is None) == (b.model, b.grid, b.deepstack is None)
            and all(getattr(a, t).dtype == getattr(b, t).dtype for t in tensors)
            and all(torch.equal(getattr(a, t), getattr(b, t)) for t in tensors)
            and np.array_equal(one.keys.astype(np.float16), other.keys.astype(np.float16))
            and np.array_equal(one.frame_seconds, other.frame_seconds)
            and np.array_equal(one.frame_hash, other.frame_hash)
            and other.frame_hash.dtype == np.uint64
            and other.keys.dtype == np.float32
        )

    return compare

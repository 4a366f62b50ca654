"""Made-up records: what fixed cameras see, as keys with or without tokens of a real model's size.

K keys of a record, E key width, N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.memory.bulk import Manifest, write_shard
from streamvlm.memory.disk.folder import Format
from streamvlm.memory.store import Identity, Memory, Novelty
from streamvlm.types import MemoryRecord, VisualTokens

SECONDS = 8.0
"""Of a record."""
ENCODER = "made up"
ALL_KEYS = Novelty(cosine=2.0)
"""Every key is indexed, so that it is known how many there are."""
_THUMBNAIL = bytes(range(256)) * 12
_BLOCK = 4096
_EVENT = 12
"""Records in a row that show an object which is then never seen again."""


def identity(width: int) -> Identity:
    """Of memories for made-up keys."""
    return Identity(ENCODER, "made up", width)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same (…, E) at length 1."""
    found: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found


def made_up_tokens(count: int, width: int, seed: int = 0) -> VisualTokens:
    """Float16 tokens (N, D) of one frame, as noise: nothing compresses them."""
    dice = torch.Generator().manual_seed(seed)
    place = torch.arange(count)
    zeros = torch.zeros_like(place)
    return VisualTokens(
        model=ENCODER,
        features=torch.randn(count, width, generator=dice).half(),
        position=torch.stack([zeros, zeros, place], dim=1),
        seconds=torch.zeros(count, dtype=torch.float64),
        grid=(1, 1, max(count, 1)),
        weight=torch.ones(count),
    )


def made_up_record(
    number: int,
    stream: str,
    start: float,
    keys: NDArray[np.float32],
    tokens: VisualTokens,
    thumbnail: bytes = _THUMBNAIL,
) -> MemoryRecord:
    """A record of 8 seconds.

    Args:
        number: gives its id.
        stream: whose it is.
        start: in seconds.
        keys: (K, E) unit vectors.
        tokens: may be the same for all.
        thumbnail: its bytes.
    """
    return MemoryRecord(
        id=f"{number:016x}",
        stream=stream,
        start=start,
        end=start + SECONDS,
        keys=keys,
        tokens=tokens,
        frame_seconds=np.array([start]),
        frame_hash=np.array([number], np.uint64),
        thumbnail=thumbnail,
    )


@dataclass(frozen=True)
class World:
    """Fixed cameras that look at the same for hours, and now and then at an object.

    Each camera has its own background, of which a record shows a few places; they drift and carry
    noise, so that neighbours in time are alike by a cosine of about 0.98. Every eighth stretch of
    twelve records shows an object in one key, which is what questions are about.
    """

    records: int
    """In all."""
    keys: int
    """K, of a record."""
    width: int
    """E."""
    cameras: int = 16
    seed: int = 0

    @property
    def total(self) -> int:
        """Keys in all."""
        return self.records * self.keys

    @property
    def per_camera(self) -> int:
        """Records of a camera."""
        return self.records // self.cameras

    @property
    def seconds(self) -> float:
        """Of a camera's stream."""
        return self.per_camera * SECONDS

    def camera(self, record: int) -> str:
        """The stream of a record."""
        return f"camera {record // self.per_camera}"

    def start(self, record: int) -> float:
        """When a record begins, in seconds of its stream."""
        return (record % self.per_camera) * SECONDS

    @cached_property
    def all_keys(self) -> NDArray[np.float16]:
        """(records, K, E) as they are stored."""
        found = np.empty((self.records, self.keys, self.width), np.float16)
        dice = np.random.default_rng(self.seed)
        places = dice.normal(size=(self.cameras, self.keys, self.width)).astype(np.float32)
        drift = dice.normal(size=places.shape).astype(np.float32)
        for first in range(0, self.records, _BLOCK):
            number = np.arange(first, min(first + _BLOCK, self.records))
            camera = np.minimum(number // self.per_camera, self.cameras - 1)
            noise = dice.standard_normal((len(number), *places.shape[1:]), np.float32)
            age = (number % self.per_camera / self.per_camera)[:, None, None].astype(np.float32)
            keys = places[camera] + age * drift[camera] + 0.15 * noise
            for at in np.flatnonzero(self._has_object(number)):
                keys[at, 0] = 0.3 * keys[at, 0] + self.object(int(number[at]) // _EVENT)
            found[first : first + len(number)] = unit(keys)
        return found

    @cached_property
    def units(self) -> NDArray[np.float32]:
        """(records, K, E) float32 of unit length: what is compared without an index."""
        found = np.empty(self.all_keys.shape, np.float32)
        for first in range(0, self.records, _BLOCK):
            found[first : first + _BLOCK] = self.all_keys[first : first + _BLOCK]
            found[first : first + _BLOCK] = unit(found[first : first + _BLOCK])
        return found

    @staticmethod
    def _has_object(number: NDArray[np.int64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = number // _EVENT % 8 == 0
        return found

    def object(self, event: int) -> NDArray[np.float32]:
        """(E,) what is seen in an event."""
        dice = np.random.default_rng((self.seed, event))
        return dice.standard_normal(self.width, np.float32)

    def questions(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        """(count, E) unit vectors, each of an object as a text names it: at a cosine of 0.6."""
        dice = np.random.default_rng((self.seed, seed, 1))
        events = 8 * dice.integers(0, max(1, self.records // (8 * _EVENT)), count)
        objects = unit(np.stack([self.object(int(event)) for event in events]))
        noise = unit(dice.standard_normal(objects.shape, np.float32))
        return unit(objects + 1.2 * noise)

    def backgrounds(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        """(count, E) unit vectors like keys of a background, of which there are thousands."""
        dice = np.random.default_rng((self.seed, seed, 2))
        chosen = self.all_keys[dice.integers(0, self.records, count), -1].astype(np.float32)
        return unit(chosen + 0.03 * dice.standard_normal(chosen.shape, np.float32))

    def made(self, first: int, last: int, tokens: VisualTokens) -> Iterator[MemoryRecord]:
        """Records from one number up to before another."""
        for number in range(first, last):
            keys = self.all_keys[number].astype(np.float32)
            place = self.camera(number), self.start(number)
            yield made_up_record(number, *place, keys, tokens, b"")

    def build(self, path: Path, shards: int = 2) -> None:
        """Write a memory of this world with tiny tokens, as workers would: in shards of their own.

        Args:
            path: the folder.
            shards: how many, each of a stretch of records.
        """
        tokens = made_up_tokens(1, 64)
        borders = np.linspace(0, self.records, shards + 1).astype(int).tolist()
        with Memory.create(
            path, identity(self.width), payload="raw", novelty=ALL_KEYS, sync="process"
        ) as memory:
            written = [
                write_shard(
                    path / "shards", memory.format, self.made(*pair, tokens), sync="process"
                )
                for pair in pairwise(borders)
            ]
            memory.adopt(written)

    def best(
        self, query: NDArray[np.float32], count: int, within: slice = slice(None)
    ) -> tuple[list[int], NDArray[np.float32]]:
        """The records whose best key is nearest by comparing all, and their scores.

        Args:
            query: (E,) unit vector.
            count: how many.
            within: of which records.
        """
        scores = (self.units[within] @ query).max(axis=1)
        order = np.argsort(-scores, kind="stable")[:count]
        return (order + (within.start or 0)).tolist(), scores[order]


def by_time(world: World, path: Path, chosen: Format, parts: int = 4) -> Sequence[Manifest]:
    """Shards that each hold a stretch of time of all cameras, as live writers leave them."""
    tokens = made_up_tokens(1, 64)
    borders = np.linspace(0, world.per_camera, parts + 1).astype(int).tolist()

    def stretch(first: int, last: int) -> Iterator[MemoryRecord]:
        for camera in range(world.cameras):
            base = camera * world.per_camera
            yield from world.made(base + first, base + last, tokens)

    return [
        write_shard(path / "shards", chosen, stretch(*pair), sync="process")
        for pair in pairwise(borders)
    ]

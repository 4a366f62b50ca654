"""The keys of one shard on a torch device, where comparing all of them exactly is fast enough."""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.memory.index.scan import AnyScanner, Asked, Look, Ranking, Scanner

_CHUNK = 262_144
_LOW = 0xFFFF_FFFF


class DeviceScanner:
    """As `Scanner`, but exact and without an index; what a GPU is for.

    Threads may search while others add: a search sees the keys there were when it began.

    Args:
        keys: (n, E) float16.
        index: an index that a `Scanner` made of these keys; only handed on.
        device: as torch names it.
    """

    def __init__(
        self, keys: NDArray[np.float16], index: bytes | None = None, *, device: str
    ) -> None:
        self._serialized = index
        self._adding = threading.Lock()
        # The keys and the inverse of their lengths, and then room for more.
        empty = torch.empty(0, keys.shape[1], dtype=torch.float16, device=device)
        self._room = (empty, torch.empty(0, device=device))
        self._held = self._room
        self.add(keys)

    def __len__(self) -> int:
        return len(self._held[0])

    @property
    def keys(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """All keys and none."""
        keys: NDArray[np.float16] = self._held[0].cpu().numpy()
        return keys, keys[:0]

    def unmap(self) -> None:
        """Nothing to do: they were copied."""

    @property
    def has_index(self) -> bool:
        """False: there is none to be written."""
        return False

    def serialize(self) -> bytes | None:
        """The index that was given."""
        return self._serialized

    def add(self, keys: NDArray[np.float16]) -> None:
        """Append keys (m, E)."""
        fresh = torch.from_numpy(np.array(keys)).to(self._held[0].device)
        length = torch.linalg.vector_norm(fresh, dim=1, dtype=torch.float32)
        inverse = torch.where(length > 0, 1 / length, 0)
        with self._adding:
            used, count = len(self), len(self) + len(fresh)
            if count > len(self._room[0]):
                self._room = (self._grown(0, count), self._grown(1, count))
            for room, more in zip(self._room, (fresh, inverse), strict=True):
                room[used:count] = more
            self._held = (self._room[0][:count], self._room[1][:count])

    def _grown(self, which: int, count: int) -> torch.Tensor:
        held = self._held[which]
        room = held.new_empty((max(2 * len(held), count), *held.shape[1:]))
        room[: len(held)] = held
        return room

    def look(self, asked: Asked) -> Look:
        """The records nearest to the query keys; nothing is left to be settled."""
        queries, owners, allowed = asked.queries, asked.owners, asked.allowed
        num_records = int(owners.max(initial=-1)) + 1
        if not num_records:
            return Look([(owners[:0], queries[:0, 0])] * len(queries))
        keys, inverse_length = self._held
        wanted = torch.from_numpy(queries).to(keys.device)
        record = torch.from_numpy(np.maximum(owners, 0)).to(keys.device)
        mask = None if allowed is None else torch.from_numpy(allowed).to(keys.device)
        scores = wanted.new_full((len(queries), num_records), -torch.inf)
        for start in range(0, len(owners), _CHUNK):
            rows = slice(start, min(start + _CHUNK, len(owners)))
            cosines = wanted @ keys[rows].float().T * inverse_length[rows]
            if mask is not None:
                cosines.masked_fill_(~mask[rows], -torch.inf)
            scores.scatter_reduce_(1, record[rows].expand_as(cosines), cosines, "amax")
        return Look(_ranked(scores, asked.limit))


def _ranked(scores: torch.Tensor, limit: int) -> list[Ranking]:
    """The best records by their scores (Q, R), -inf for none; of equals those that come first.

    `torch.topk` takes any of equal numbers. So it is given whole numbers that have no equal: the
    bits of a score, turned so that they ascend with it, and below them the place from the end.
    """
    bits = scores.view(torch.int32)
    ascending = torch.where(bits < 0, bits ^ 0x7FFF_FFFF, bits).long()
    place = torch.arange(scores.shape[1], device=scores.device)
    _, records = torch.topk((ascending << 32) | (_LOW - place), min(limit, scores.shape[1]))
    found = records.cpu().numpy(), scores.gather(1, records).cpu().numpy()
    return [
        (row[values > -np.inf], values[values > -np.inf])
        for row, values in zip(*found, strict=True)
    ]


def scanner_on(device: str, keys: NDArray[np.float16], index: bytes | None) -> AnyScanner:
    """A scanner of keys (n, E), with their index if there is one, on "cpu" or a torch device."""
    return Scanner(keys, index) if device == "cpu" else DeviceScanner(keys, index, device=device)

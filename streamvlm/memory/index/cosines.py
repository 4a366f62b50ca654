"""Keys as they are held in main memory, which may grow, and their exact cosines with queries.

Q query keys, n held keys, E key width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

_CACHED = 262_144

_T = TypeVar("_T", bound=np.generic)


def _blocks(
    keys: NDArray[np.float16], rows: NDArray[np.int64] | None = None
) -> Iterator[torch.Tensor]:
    """(·, E) float32, few enough to stay in the cache; each overwrites the one before.

    Twice as fast as with a new tensor for each block.
    """
    if rows is not None and len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        keys, rows = keys[rows[0] : rows[-1] + 1], None
    count = len(keys) if rows is None else len(rows)
    at_once = max(1, _CACHED // keys.shape[1])
    buffer = torch.empty(min(at_once, count), keys.shape[1])
    for start in range(0, count, at_once):
        here = slice(start, start + at_once)
        taken = keys[here] if rows is None else keys.take(rows[here], axis=0)
        yield buffer[: len(taken)].copy_(torch.from_numpy(taken))


def _inverse_length(
    keys: NDArray[np.float16], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """(M,) float32: 1 / length of the keys in these rows, or of all; 0 for a key of zeros.

    Rounding to float16 moves a length by up to 0.0005, which is more than near-duplicates differ.
    """
    lengths = [torch.linalg.vector_norm(block, dim=1) for block in _blocks(keys, rows)]
    inverse = [torch.where(length > 0, 1 / length, 0) for length in lengths]
    return torch.cat(inverse).numpy() if inverse else np.empty(0, np.float32)


@dataclass(frozen=True)
class HeldKeys:
    """Keys at one moment; `and_these` gives those of the next and leaves these as they are.

    Of one line of such moments only the last may be added to: they share their memory.
    """

    base: NDArray[np.float16]
    """(b, E) those of the beginning, maybe mapped from a file."""
    tail: NDArray[np.float16]
    """(t, E) those added."""
    inverse_length: NDArray[np.float32]
    """(b + t,) NaN for those of `base` that were not needed yet."""
    _room: tuple[NDArray[np.float16], NDArray[np.float32]]
    """What `tail` and `inverse_length` are the beginnings of."""

    @classmethod
    def of(cls, base: NDArray[np.float16]) -> HeldKeys:
        """The keys (b, E); only read."""
        tail = np.empty((0, base.shape[1]), np.float16)
        inverse_length = np.full(len(base), np.nan, np.float32)
        return cls(base, tail, inverse_length, (tail, inverse_length))

    def __len__(self) -> int:
        return len(self.inverse_length)

    def and_these(self, keys: NDArray[np.float16]) -> HeldKeys:
        """These and then the keys (m, E)."""
        tail, keys_room = _append(self.tail, self._room[0], keys)
        inverse_length, room = _append(self.inverse_length, self._room[1], _inverse_length(keys))
        return HeldKeys(self.base, tail, inverse_length, (keys_room, room))

    def first(self, count: int) -> HeldKeys:
        """The first so many; not to be added to."""
        base = self.base[:count]
        tail = self.tail[: count - len(base)]
        return HeldKeys(base, tail, self.inverse_length[:count], self._room)

    def cosines(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """(Q, M) exact cosines of the queries (Q, E) with the keys in these rows, or with all.

        Args:
            queries: of unit length.
            rows: (M,) ascending, or None for all.
        """
        lengths = self._inverse_lengths(rows)
        cosines = np.empty((len(queries), len(lengths)), np.float32)
        columns, out = torch.from_numpy(queries).T.contiguous(), torch.from_numpy(cosines)
        start = 0
        for piece, places in zip((self.base, self.tail), self._split(rows), strict=True):
            for block in _blocks(piece, places):
                out[:, start : start + len(block)] = (block @ columns).T
                start += len(block)
        cosines *= lengths
        return cosines

    def units(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, E) float32 of unit length: the keys in these rows, which ascend."""
        in_base, in_tail = self._split(rows)
        taken = np.concatenate([self.base[in_base], self.tail[in_tail]])
        return taken.astype(np.float32) * self._inverse_lengths(rows)[:, None]

    def _inverse_lengths(self, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """(M,) those of the keys in these rows, or of all."""
        known = self.inverse_length if rows is None else self.inverse_length[rows]
        unknown = np.flatnonzero(np.isnan(known))
        if not len(unknown):
            return known
        missing = unknown if rows is None else rows[unknown]
        # Threads may do so at once: they write the same.
        self.inverse_length[missing] = _inverse_length(self.base, missing)
        return self.inverse_length if rows is None else self.inverse_length[rows]

    def _split(
        self, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
        """The places in `base` and those in `tail` of these rows, which ascend; None for all."""
        if rows is None:
            return None, None
        border = int(np.searchsorted(rows, len(self.base)))
        return rows[:border], rows[border:] - len(self.base)


def _append(
    held: NDArray[_T], room: NDArray[_T], more: NDArray[_T]
) -> tuple[NDArray[_T], NDArray[_T]]:
    """The held rows with more behind them, and the room that they are the beginning of."""
    used, count = len(held), len(held) + len(more)
    if count > len(room):
        room = np.empty((max(2 * used, count), *held.shape[1:]), held.dtype)
        room[:used] = held
    room[used:count] = more
    return room[:count], room

"""Which keys of a stream say something new, and so are worth a place in the index.

Most of a video repeats its neighbours. A key is *novel* if its cosine to every key kept before is
below a threshold; the others are stored with their record, but not indexed. From time to time a
record is an *anchor*: all of its keys are indexed, and the comparison starts afresh. So what is
left out has a nearly equal key between the last anchor and itself, as a picture of a film has
everything it builds on since the last key frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import BadOption

WINDOW = 256
"""A key is compared with at most so many keys that were kept last."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """When a key is novel, and how often a record is an anchor."""

    cosine: float = 0.90
    """A key at least this close to one kept before says nothing new; above 1 all are indexed."""
    anchor_seconds: float = 300.0
    """Seconds of stream time from one anchor to the next at the most."""

    def __post_init__(self) -> None:
        if not self.cosine > 0 or self.anchor_seconds <= 0:
            raise BadOption("novelty: cosine and anchor_seconds must be more than 0")


class StreamNovelty:
    """What was kept of one stream lately; give it the stream's records in order."""

    def __init__(self, rule: Novelty) -> None:
        self._rule = rule
        self._kept: _Kept | None = None
        self._anchor = -np.inf

    @classmethod
    def resume(
        cls, rule: Novelty, since_anchor: Iterable[tuple[float, NDArray[np.float32]]]
    ) -> StreamNovelty:
        """Go on where another process stopped.

        Args:
            rule: as that process had it.
            since_anchor: the start and the indexed keys (k, E) of each record from the stream's
                last anchor on, in order.
        """
        stream = cls(rule)
        for start, keys in since_anchor:
            if stream._kept is None:
                stream._anchor = start
            stream._remember(keys)
        return stream

    def is_due(self, start: float) -> bool:
        """Whether a record that begins at a time is to be an anchor."""
        # Also after a jump back in time, which only a broken clock makes.
        is_near = 0 <= start - self._anchor < self._rule.anchor_seconds
        return self._kept is None or not is_near

    def __call__(self, keys: NDArray[np.float32], start: float) -> NDArray[np.bool_]:
        """Which keys of the next record are to be indexed.

        Args:
            keys: (K, E) float32 unit vectors.
            start: when the record begins, in seconds of the stream.

        Returns:
            (K,) bool; all True for an anchor.
        """
        if self.is_due(start):
            self._kept, self._anchor = None, start
        if self._kept is None or self._rule.cosine > 1:
            novel = np.ones(len(keys), bool)
        else:
            novel = _unlike(keys, self._kept.keys, self._rule.cosine)
        self._remember(keys[novel])
        return novel

    def _remember(self, keys: NDArray[np.float32]) -> None:
        if self._kept is None:
            self._kept = _Kept(keys.shape[1])
        self._kept.add(keys)


class _Kept:
    """The last keys that were kept, up to `WINDOW`, in no order."""

    def __init__(self, width: int) -> None:
        self._keys = np.empty((WINDOW, width), np.float32)
        self._count = 0

    @property
    def keys(self) -> NDArray[np.float32]:
        """(n, E)."""
        return self._keys[: self._count]

    def add(self, keys: NDArray[np.float32]) -> None:
        """Keep these too, in the place of the oldest."""
        last = keys[-WINDOW:]
        self._keys[(self._count + np.arange(len(last))) % WINDOW] = last
        self._count += len(last)


def _unlike(
    keys: NDArray[np.float32], kept: NDArray[np.float32], cosine: float
) -> NDArray[np.bool_]:
    """(K,) bool: keys unlike all kept ones and unlike those chosen before them."""
    novel = np.zeros(len(keys), bool)
    is_new: NDArray[np.bool_] = (keys @ kept.T).max(axis=1) < cosine
    if not is_new.any():
        return novel
    is_unlike = keys @ keys.T < cosine
    alike = ~is_unlike[is_new][:, is_new]
    if np.count_nonzero(alike) == len(alike):  # each is like itself alone
        return is_new
    # As many rounds as there are novel keys, of which there are few.
    while is_new.any():
        first = is_new.argmax()
        novel[first] = True
        is_new &= is_unlike[first]
        is_new[first] = False
    return novel

"""Finding the records of one shard whose keys are nearest to query keys.

Few keys, or few allowed by a filter, are compared exactly. Many are first ranked by estimates from
2-bit codes of all of them (see `codes`), then the best candidates are compared exactly. Nothing is
pruned by clusters or graphs: in video most keys repeat a background, and the rare object that is
asked for lies between the clusters.

Codes cannot tell near-duplicates apart, so each answer is checked. The error of the estimates is
known. A key that lies well above the worst candidate's estimate is almost surely a candidate
itself. So if the best record of all shards stands out like this, all that stand out are found. If
none does, more candidates are taken, and if these improve the answer by much or cost as much, all
keys are compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.index.codes import Codes, error
from streamvlm.memory.index.cosines import HeldKeys

INDEX_FROM = 16_384
"""Keys from which on a shard has an index; 2 ms (128 wide) to 5 ms (384 wide) without one."""

_KEEP = 64
_OVER, _OVER_FILTERED, _OVER_MORE = 4, 16, 64
# A mask that leaves so many keys is no filter: it hides what was forgotten since.
_NEARLY_ALL = 0.9
# With fewer keys than this for each candidate, all are compared.
_WORTH = 32
_PER_RECORD = 16
_SURE = 3.0
_SETTLED = 0.02

Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Records (M,) and their scores (M,), best first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a shard: for each query key the records whose best key is nearest to it."""

    queries: NDArray[np.float32]
    """(Q, E) unit vectors."""
    owners: NDArray[np.int64]
    """(n,) the record of each of the first n keys, ascending where allowed."""
    allowed: NDArray[np.bool_] | None
    """(n,) which keys may be found, or None for all n."""
    limit: int
    """How many records."""

    def only(self, places: NDArray[np.int64]) -> Asked:
        """The same for some of the query keys."""
        return replace(self, queries=self.queries[places])


@dataclass(frozen=True, slots=True)
class Look:
    """What a shard shows at first sight of its nearest records, for Q query keys."""

    rankings: list[Ranking]
    """(Q), some of them perhaps without records that are as good."""
    needed: NDArray[np.float32] | None = None
    """(Q,) if the best record, wherever it is, scores so much, no such record is missing."""
    deeper: Callable[[NDArray[np.int64], NDArray[np.float32]], list[Ranking]] | None = None
    """Looks again for some of the queries (n,), given the best scores found anywhere (Q,)."""

    @property
    def tops(self) -> NDArray[np.float32]:
        """(Q,) the score of the best record found; -inf where there is none."""
        return _tops(self.rankings)

    def settled(self, floor: NDArray[np.float32]) -> list[Ranking]:
        """The rankings, looked at again where something as good as the best may be missing.

        Args:
            floor: (Q,) the best scores found in other shards.
        """
        if self.needed is None or self.deeper is None:
            return self.rankings
        unsure = np.flatnonzero(self.needed > np.maximum(floor, self.tops))
        if len(unsure):
            _replace(self.rankings, unsure, self.deeper(unsure, floor))
        return self.rankings


def _tops(rankings: Sequence[Ranking]) -> NDArray[np.float32]:
    return np.array([scores.max(initial=-np.inf) for _, scores in rankings], np.float32)


class AnyScanner(Protocol):
    """The keys of one shard and how to search them, on whatever device."""

    def __len__(self) -> int: ...

    @property
    def keys(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """All keys, in two pieces that follow one another."""

    @property
    def has_index(self) -> bool:
        """True once a search needed the index."""

    def add(self, keys: NDArray[np.float16]) -> None:
        """Append keys (m, E)."""

    def unmap(self) -> None:
        """Hold the keys in main memory: the file they were mapped from can leave the disk."""

    def serialize(self) -> bytes | None:
        """The index of all keys as bytes, or None if there is none."""

    def look(self, asked: Asked) -> Look:
        """The records nearest to the query keys, as they are seen at first sight.

        Raises:
            MissingDependency: there are many keys, and FAISS is not installed.
        """


def best(records: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Ranking:
    """The records with the highest scores; of equals those that come first.

    Args:
        records: (M,) numbers, each once.
        scores: (M,) of each.
        limit: how many.
    """
    near = _at_least(scores, limit)
    order = near[np.argsort(-scores[near], kind="stable")[:limit]]
    return records[order], scores[order]


def best_per_record(owners: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Ranking:
    """The same from scores of keys: a record has that of its best key; `owners` ascend."""
    near = _at_least(scores, _PER_RECORD * limit)
    found = _group(owners[near], scores[near], limit)
    return found if len(found[0]) == min(limit, len(near)) else _group(owners, scores, limit)


def _at_least(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Where, in order, the scores are that are not below the highest `count`."""
    if len(scores) <= count:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, -count)[-count])


def _group(owners: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Ranking:
    if not len(owners):
        return owners, scores
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    return best(owners[first], np.maximum.reduceat(scores, first), limit)


def _exact(keys: HeldKeys, asked: Asked) -> list[Ranking]:
    """The rankings from comparing all keys that are allowed."""
    return _among(keys, asked, None if asked.allowed is None else np.flatnonzero(asked.allowed))


def _among(keys: HeldKeys, asked: Asked, rows: NDArray[np.int64] | None) -> list[Ranking]:
    """The rankings from comparing the keys in these rows, which ascend; None for all."""
    owners = asked.owners if rows is None else asked.owners[rows]
    cosines = keys.cosines(asked.queries, rows)
    return [best_per_record(owners, scores, asked.limit) for scores in cosines]


class Scanner:
    """The keys of one shard in main memory, their index, and how to search them.

    Threads may search while others add: a search sees the keys that its `owners` speak of.

    Args:
        keys: (n, E) float16, may be mapped from a file; only read.
        index: the serialised FAISS index of these keys, or None; made when it is needed.
    """

    def __init__(self, keys: NDArray[np.float16], index: bytes | None = None) -> None:
        self._keys = HeldKeys.of(keys)
        self._codes = Codes(index)
        self._adding = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """All keys, in two pieces that follow one another."""
        keys = self._keys
        return keys.base, keys.tail

    def add(self, keys: NDArray[np.float16]) -> None:
        """Append keys (m, E)."""
        with self._adding:
            self._keys = self._keys.and_these(keys)

    def unmap(self) -> None:
        """Hold the keys in main memory; see `AnyScanner`."""
        with self._adding:
            if isinstance(self._keys.base, np.memmap):
                self._keys = replace(self._keys, base=np.array(self._keys.base))

    @property
    def has_index(self) -> bool:
        """True once a search needed the index."""
        return self._codes.is_ready

    def serialize(self) -> bytes | None:
        """The index of all keys as bytes, or None if no search needed one yet."""
        if self.has_index:
            self._codes.follow(self._keys)
        return self._codes.serialize()

    def look(self, asked: Asked) -> Look:
        """The records nearest to the query keys; see `AnyScanner`."""
        num_keys = len(asked.owners)
        keys = self._keys.first(num_keys)
        count = num_keys if asked.allowed is None else int(np.count_nonzero(asked.allowed))
        keep = max(_KEEP, asked.limit)
        first = keep * (_OVER if count >= _NEARLY_ALL * num_keys else _OVER_FILTERED)
        if num_keys < INDEX_FROM or count < first * _WORTH:
            return Look(_exact(keys, asked))
        self._codes.follow(self._keys)
        found, needed = self._by_codes(keys, asked, first)

        def deeper(places: NDArray[np.int64], floor: NDArray[np.float32]) -> list[Ranking]:
            again, narrow = asked.only(places), [found[place] for place in places]
            if count < keep * _OVER_MORE * _WORTH:
                return _exact(keys, again)
            wide, wanted = self._by_codes(keys, again, keep * _OVER_MORE)
            pairs = zip(narrow, wide, strict=True)
            rises = [_gain(*pair, asked.limit) > _SETTLED for pair in pairs]
            unsure = np.flatnonzero((wanted > np.maximum(floor[places], _tops(wide))) & rises)
            if len(unsure):
                _replace(wide, unsure, _exact(keys, again.only(unsure)))
            return wide

        return Look(found, needed, deeper)

    def _by_codes(
        self, keys: HeldKeys, asked: Asked, candidates: int
    ) -> tuple[list[Ranking], NDArray[np.float32]]:
        """The rankings from so many candidates, and (Q,) `Look.needed`."""
        estimates, rows = self._codes.nearest(asked.queries, asked.allowed, candidates)
        # In the order of arrival, so that equal scores rank as they do in an exact search, and
        # without those added since the search began.
        each = np.unique(rows)
        found = _among(keys, asked, each[(each >= 0) & (each < len(keys))])
        needed = estimates.min(axis=1) + np.float32(_SURE * error(asked.queries.shape[1]))
        needed[[len(scores) < asked.limit for _, scores in found]] = np.inf
        # Where there are no more candidates, all keys were compared.
        needed[(rows < 0).any(axis=1)] = -np.inf
        return found, needed


def _gain(narrow: Ranking, wide: Ranking, limit: int) -> float:
    """How much higher the mean score is of the second ranking."""
    if min(len(narrow[0]), len(wide[0])) < limit:
        return np.inf
    return float(wide[1].mean() - narrow[1].mean())


def _replace(found: list[Ranking], places: NDArray[np.int64], others: list[Ranking]) -> None:
    for place, other in zip(places, others, strict=True):
        found[place] = other

"""Finding the records of one shard whose keys are nearest to a query key.

Few keys, or few allowed by a filter, are compared exactly. Many are first ranked by 1-bit codes of
all of them (RaBitQ, Gao and Long, SIGMOD 2024, as FAISS `IVF1,RaBitQfs`), then the best candidates
are compared exactly. Nothing is pruned by clusters or graphs: in video most keys repeat a
background, and the rare object that is asked for lies between the clusters (memory.md, section 3).

One bit cannot tell near-duplicates apart, so each answer is checked: the candidates tell the error
of the estimates, and unless the worst candidate's estimate lies three such errors below the
result, more candidates are taken, and if these do not settle it either, all keys are compared.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.errors import MissingDependency

logger = logging.getLogger(__name__)

INDEX_FROM = 8_192
"""Keys from which on a shard has an index, and on the first of which it is trained."""

_KEEP = 64
_OVER, _OVER_FILTERED = 4, 16
_WIDEN = 4
# An exact pass over so many keys costs what finding and rescoring one candidate does.
_WORTH = 32
_SURE = 3.0
_CACHED = 2_048
_ADDED = 65_536

Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Records (M,) and their scores (M,), best first."""


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency(
            'install the extra: pip install "streamvlm[cpu]" (or [gpu]); '
            f"a memory of more than {INDEX_FROM} keys is searched with FAISS"
        ) from error
    return faiss


def best(records: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Ranking:
    """The records with the highest scores; of equals those that come first.

    Args:
        records: (M,) numbers, each once.
        scores: (M,) of each.
        limit: how many.
    """
    if len(scores) > limit:
        border = np.partition(scores, -limit)[-limit]
        near = np.flatnonzero(scores >= border)
        records, scores = records[near], scores[near]
    order = np.argsort(-scores, kind="stable")[:limit]
    return records[order], scores[order]


def _best_per_record(owners: NDArray[np.int64], scores: NDArray[np.float32], limit: int) -> Ranking:
    """The same from scores of keys: a record has that of its best key; `owners` ascend."""
    if not len(owners):
        return owners, scores
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    return best(owners[first], np.maximum.reduceat(scores, first), limit)


def _blocks(keys: NDArray[np.float16]) -> Iterator[torch.Tensor]:
    """(·, E) float32, few enough to stay in the cache: seven times faster than all at once."""
    for start in range(0, len(keys), _CACHED):
        yield torch.from_numpy(keys[start : start + _CACHED]).float()


def _inverse_length(keys: NDArray[np.float16]) -> NDArray[np.float32]:
    """(n,) float32: 1 / length of each key, 0 for a key of zeros.

    Rounding to float16 moves a length by up to 0.0005, which is more than near-duplicates differ.
    """
    lengths = [torch.linalg.vector_norm(block, dim=1) for block in _blocks(keys)]
    inverse = [torch.where(length > 0, 1 / length, 0) for length in lengths]
    return torch.cat(inverse).numpy() if inverse else np.empty(0, np.float32)


class Scanner:
    """The keys of one shard, their index, and how to search them.

    Args:
        keys: (n, E) float16, may be mapped from a file; only read.
        index: the serialised FAISS index of these keys, or None; made when it is needed.
    """

    def __init__(self, keys: NDArray[np.float16], index: bytes | None = None) -> None:
        self._base = keys
        self._tail = np.empty((0, keys.shape[1]), np.float16)
        self._size = len(keys)
        self._inverse_length = _inverse_length(keys)
        self._serialized = index
        self._index: Any = None

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """All keys, in two pieces that follow one another."""
        return self._base, self._tail[: self._size - len(self._base)]

    def add(self, keys: NDArray[np.float16]) -> None:
        """Append keys (m, E)."""
        used = self._size - len(self._base)
        if used + len(keys) > len(self._tail):
            grown = np.empty((max(2 * used, used + len(keys)), keys.shape[1]), np.float16)
            grown[:used] = self._tail[:used]
            self._tail = grown
        self._inverse_length = np.append(self._inverse_length, _inverse_length(keys))
        self._tail[used : used + len(keys)] = keys
        self._size += len(keys)

    @property
    def has_index(self) -> bool:
        """True once a search needed the index."""
        return self._index is not None

    def serialize(self) -> bytes | None:
        """The index of all keys as bytes, or None if no search needed one yet."""
        if not self.has_index:
            return self._serialized
        self._build()
        content: bytes = _faiss().serialize_index(self._index).tobytes()
        return content

    def search(
        self,
        queries: NDArray[np.float32],
        owners: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
        limit: int,
    ) -> list[Ranking]:
        """A ranking for each query key (Q, E)."""
        return [self._search(key, owners, allowed, limit) for key in queries]

    def _search(
        self,
        key: NDArray[np.float32],
        owners: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
        limit: int,
    ) -> Ranking:
        """The records whose best key is nearest to the query.

        Args:
            key: (E,) unit vector.
            owners: (n,) the record of each key, ascending where allowed.
            allowed: (n,) which keys may be found, or None for all.
            limit: how many records.

        Raises:
            MissingDependency: there are many keys, and FAISS is not installed.
        """
        count = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if len(self) >= INDEX_FROM:
            first = max(_KEEP, limit) * (_OVER if allowed is None else _OVER_FILTERED)
            for candidates in (first, first * _WIDEN):
                if candidates * _WORTH > count:
                    break
                found = self._search_codes(key, owners, allowed, (candidates, limit))
                if found is not None:
                    return found
        rows = None if allowed is None else np.flatnonzero(allowed)
        scores = self._scores(key, rows)
        return _best_per_record(owners if rows is None else owners[rows], scores, limit)

    def _search_codes(
        self,
        key: NDArray[np.float32],
        owners: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
        counts: tuple[int, int],
    ) -> Ranking | None:
        """The ranking from this many candidates, or None if it takes more to be sure of it."""
        candidates, limit = counts
        faiss = _faiss()
        self._build()
        options = {"nprobe": 1}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(**options)
        estimates, rows = self._index.search(key[None], candidates, params=parameters)
        estimates, rows = estimates[0][rows[0] >= 0], rows[0][rows[0] >= 0]
        # In the order of arrival, so that equal scores rank as they do in an exact search.
        order = np.argsort(rows)
        estimates, rows = estimates[order], rows[order]
        scores = self._scores(key, rows)
        records, record_scores = _best_per_record(owners[rows], scores, limit)
        # Candidates are those estimated too high, so this is above the error of all keys.
        error = float(np.sqrt(np.mean((estimates - scores) ** 2)))
        is_sure = len(records) == limit and (record_scores[-1] - estimates.min() >= _SURE * error)
        return (records, record_scores) if is_sure else None

    def _scores(
        self, key: NDArray[np.float32], rows: NDArray[np.int64] | None
    ) -> NDArray[np.float32]:
        """Exact cosines (M,) of the query with the keys in these rows, or with all."""
        pieces = self.keys if rows is None else (self._take(rows),)
        lengths = self._inverse_length if rows is None else self._inverse_length[rows]
        query = torch.from_numpy(key)
        products = [block @ query for piece in pieces for block in _blocks(piece)]
        return torch.cat(products).numpy() * lengths if products else np.empty(0, np.float32)

    def _take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """(M, E) float16: the keys in these rows, which ascend."""
        border = int(np.searchsorted(rows, len(self._base)))
        base, tail = rows[:border], rows[border:] - len(self._base)
        return np.concatenate([self._base[base], self._tail[tail]])

    def _units(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(M, E) float32 of unit length: the keys in these rows as the index takes them."""
        return self._take(rows).astype(np.float32) * self._inverse_length[rows, None]

    def _build(self) -> None:
        """Bring the index up to the keys, of which there are enough to train it."""
        if self._index is None:
            self._index = self._read_index() or self._train()
        for start in range(self._index.ntotal, len(self), _ADDED):
            rows = np.arange(start, min(start + _ADDED, len(self)))
            self._index.add(self._units(rows))

    def _read_index(self) -> Any:
        if self._serialized is None:
            return None
        content, self._serialized = np.frombuffer(self._serialized, np.uint8), None
        try:
            return _faiss().deserialize_index(content)
        except RuntimeError as error:
            logger.warning("an index that this FAISS cannot read is made again: %s", error)
            return None

    def _train(self) -> Any:
        faiss = _faiss()
        width = self._base.shape[1]
        index = faiss.index_factory(width, "IVF1,RaBitQfs", faiss.METRIC_INNER_PRODUCT)
        index.train(self._units(np.arange(INDEX_FROM)))
        return index


def scanner_on(device: str, keys: NDArray[np.float16], index: bytes | None) -> Scanner:
    """The scanner of a device."""
    return Scanner(keys, index)

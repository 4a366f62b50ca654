"""From query keys to hits: coarse over everything, finer near the best, then one score a record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index.look import Times, around_hits, at_edges, finer
from streamvlm.memory.index.scan import Ranking
from streamvlm.memory.index.score import DEPTH, xtr
from streamvlm.memory.index.view import View
from streamvlm.memory.info import Hit, Identity

_PATIENCE = 50
"""How often a search begins anew because what it found is merged or forgotten meanwhile: more often
than maintenance, which rewrites one shard after the other, can get in its way."""


class Searching:
    """Searches one memory; several threads may at once.

    Args:
        rows: the catalogue.
        folder: the memory's.
        identity: whose keys it holds.
        reader: reads shards.
        device: where keys are compared.
    """

    def __init__(
        self, rows: Rows, folder: Path, identity: Identity, reader: ShardReader, device: str
    ) -> None:
        self._rows = rows
        self._folder = folder
        self._identity = identity
        self._reader = reader
        self._view = View(rows, folder, identity.key_width, reader, device)

    def __call__(
        self, key: NDArray[np.float32], streams: tuple[str, ...], times: Times, limit: int
    ) -> list[Hit]:
        """See `Memory.search`."""
        queries = self._queries(key)
        if limit < 1:
            return []
        for _ in range(_PATIENCE):
            hits, is_whole = self._hits(queries, streams, times, limit)
            if is_whole:
                break
        return hits

    def _hits(
        self, queries: NDArray[np.float32], streams: tuple[str, ...], times: Times, limit: int
    ) -> tuple[list[Hit], bool]:
        """What is found; False if some of it is gone by now, and what stands for it not found.

        The index is searched as it was at one moment. A record that is moved later keeps its
        number and is looked up where it is then.
        """
        version = self._rows.version()
        numbers = self._rows.stream_numbers() if streams else {}
        chosen = [numbers[name] for name in streams if name in numbers] if streams else None
        depth = max(DEPTH, 2 * limit)
        coarse = self._view.search(queries, chosen, times, depth)
        near = around_hits(self._rows, coarse, times, limit)
        near += at_edges(self._rows, streams, times)
        fine, is_whole = finer(coarse, queries, near, self._rows, self._reader)
        sids, scores = _scored(fine, limit)
        rows = self._rows.by_sid(sids.tolist())
        pairs = zip(sids.tolist(), scores.tolist(), strict=True)
        found = [(rows[sid].segment, score) for sid, score in pairs if sid in rows]
        # Nothing was committed meanwhile, or nothing that took away a record.
        is_whole &= self._rows.version() == version or (
            len(found) == len(sids) and self._rows.are_there(_records(coarse))
        )
        return [Hit(s.uid, score, s.stream, s.start, s.end) for s, score in found], is_whole

    def _queries(self, key: NDArray[np.float32]) -> NDArray[np.float32]:
        """(Q, E) float32 unit vectors."""
        width = self._identity.key_width
        queries = np.atleast_2d(np.asarray(key, dtype=np.float32))
        lengths = np.linalg.norm(queries, axis=-1)
        fits = key.ndim in (1, 2) and len(queries) and queries.shape[1] == width
        if not (fits and (lengths > 0).all() and np.isfinite(lengths).all()):
            raise MemoryStoreError(
                f"the memory {self._folder} is searched with finite keys of {width} numbers, found "
                f"shape {key.shape} and lengths {np.array2string(lengths, threshold=4)}; use the "
                f"embedder {self._identity.embedder}"
            )
        unit: NDArray[np.float32] = queries / lengths[:, None]
        return unit


def _records(rankings: Sequence[Ranking]) -> list[int]:
    found: list[int] = np.unique(np.concatenate([records for records, _ in rankings])).tolist()
    return found


def _scored(rankings: Sequence[Ranking], limit: int) -> Ranking:
    """One score a record; what is not among the best for a query key counts with the worst."""
    first, best = xtr([(found[:DEPTH], scores[:DEPTH]) for found, scores in rankings], limit)
    if len(first) == limit:
        return first, best
    # Those further down come after them, in their own order.
    rest, scores = xtr(rankings, limit + len(first))
    is_new = ~np.isin(rest, first)
    lowest = best.min(initial=1.0)
    records = np.concatenate([first, rest[is_new]])
    return records[:limit], np.concatenate([best, np.minimum(scores[is_new], lowest)])[:limit]

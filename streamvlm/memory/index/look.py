"""The second, finer look of a search: all keys of the records near the best hits, and at the edges.

The index holds novel keys only. What repeats one of them lies in the same anchor interval (see
`novelty`), so the intervals of the best hits are read whole, and their records compared by all of
their keys. Where a question begins in the middle of an interval, what is still seen there may have
its indexed key before that time, so the records up to the next anchor are compared as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.rows import Row, Rows
from streamvlm.memory.disk.codec import DamagedRecord, keys_bytes, unpack_keys
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index.scan import Ranking
from streamvlm.memory.index.score import DEPTH, xtr

INTERVALS = 16
"""How many anchor intervals are read at least. On three hours of demo films the best record was
then always that of a search over all keys, and 96 % of the best eight were."""

Times = tuple[float | None, float | None]


def read_keys(reader: ShardReader, row: Row, width: int) -> NDArray[np.float32]:
    """All keys (K, E) of a record, the indexed ones first.

    Raises:
        DamagedRecord: they are not what was written.
        OSError: the shard cannot be read.
    """
    segment = row.segment
    size = keys_bytes(segment.num_keys, segment.num_indexed, width)
    return unpack_keys(reader.read(row.shard, segment.offset, size), segment.uid)


def finer(
    coarse: Sequence[Ranking],
    queries: NDArray[np.float32],
    near: Iterable[Row],
    rows: Rows,
    reader: ShardReader,
) -> tuple[list[Ranking], bool]:
    """Rankings in which records near the best ones are scored by all of their keys.

    Args:
        coarse: a ranking of record numbers for each query key.
        queries: (Q, E) unit vectors.
        near: the records to compare by all their keys; those that cannot be read are left out.
        rows: the catalogue, which is asked where a record is that was moved meanwhile.
        reader: reads shards.

    Returns:
        The rankings; False if one of the records was merged or forgotten before it was read.
    """
    sids: list[int] = []
    keys: list[NDArray[np.float32]] = []
    is_whole = True
    wanted = {row.sid: row for row in near}
    while wanted:
        unread = {}
        for row in wanted.values():
            try:
                keys.append(read_keys(reader, row, queries.shape[1]))
                sids.append(row.sid)
            except (DamagedRecord, OSError):
                unread[row.sid] = row
        now = rows.by_sid(list(unread))
        is_whole &= len(now) == len(unread)
        wanted = {sid: row for sid, row in now.items() if row.shard != unread[sid].shard}
    if not sids:
        return list(coarse), is_whole
    first = np.cumsum([0, *map(len, keys[:-1])])
    flat = np.concatenate(keys)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    scores = np.maximum.reduceat(flat @ queries.T, first, axis=0)
    numbers = np.array(sids, np.int64)
    united = [_united(each, (numbers, scores[:, query])) for query, each in enumerate(coarse)]
    return united, is_whole


def _united(one: Ranking, other: Ranking) -> Ranking:
    """Both rankings as one, best first; a record in both has the better of its scores."""
    records = np.concatenate([one[0], other[0]])
    scores = np.concatenate([one[1], other[1]]).astype(np.float32)
    order = np.lexsort((records, -scores))
    _, first = np.unique(records[order], return_index=True)
    kept = order[np.sort(first)]
    return records[kept], scores[kept]


def around_hits(rows: Rows, coarse: Sequence[Ranking], times: Times, limit: int) -> list[Row]:
    """The records in the anchor intervals of the best hits, where the index has not all keys.

    Args:
        rows: the catalogue.
        coarse: a ranking of record numbers for each query key.
        times: (since, until); no others are wanted.
        limit: how many hits are asked for.
    """
    most = max(INTERVALS, 2 * limit)
    numbers, _ = xtr(coarse, max(DEPTH, 4 * limit))
    found = rows.intervals(numbers.tolist())
    # In the order of the hits, each once.
    intervals = dict.fromkeys(found[sid] for sid in numbers.tolist() if sid in found)
    near = rows.partly_indexed(list(intervals)[:most])
    return [row for row in near if _is_within(row, times)]


def at_edges(rows: Rows, streams: Iterable[str], times: Times) -> list[Row]:
    """The records between the beginning of a time and the first anchor after it, of each stream.

    Args:
        rows: the catalogue.
        streams: those that are asked for; empty for all.
        times: (since, until).
    """
    since, _ = times
    if since is None:
        # Also a stream may begin between anchors, once its older records are forgotten.
        headless = rows.headless()
        near = [
            row
            for stream in (headless & set(streams) if streams else headless)
            for row in rows.until_anchor(stream, -np.inf)
        ]
    else:
        near = [
            row
            for stream in streams or rows.stream_numbers()
            for row in rows.until_anchor(stream, since)
        ]
    return [
        row
        for row in near
        if row.segment.num_indexed < row.segment.num_keys and _is_within(row, times)
    ]


def _is_within(row: Row, times: Times) -> bool:
    since, until = times
    segment = row.segment
    return (since is None or segment.end > since) and (until is None or segment.start < until)

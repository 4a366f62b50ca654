"""Keeping a live memory under its caps: old records are thinned where they lie, and their bytes go.

Done by a writer as it appends, so the folder is within its caps whenever somebody looks. It is one
rewrite (see `rewrite`): readers see a stream before or after it, and a crash leaves one of both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from streamvlm.memory.age.ageing import Caps, Entries, Step, plan
from streamvlm.memory.age.thin import payload_of, thinned
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Row
from streamvlm.memory.disk.codec import DamagedRecord, Stored, pack, unpack_stored
from streamvlm.memory.disk.folder import Format, Sync
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.rewrite import Kept, Replaced, remove_dead, rewrite
from streamvlm.memory.disk.shards import ShardLimits, ShardReader, shard_size
from streamvlm.types import MemoryRecord

logger = logging.getLogger(__name__)

_LIVE = 0.75
"""Share of the cap on bytes for live records; the rest is for dead ones, rewrites and the
catalogue."""
_SHARDS = 32
"""A capped stream fills so many shards, so that what is thinned leaves whole ones."""
_CHECKS = 64
"""How often a stream's caps are looked at while it fills once."""
_DEAD = 0.08
"""Share of the cap on bytes that dead records in sealed shards may take."""


def limits_for(caps: Caps) -> ShardLimits:
    """When shards of a capped memory are full."""
    if caps.max_bytes is None:
        return ShardLimits()
    return ShardLimits(max_bytes=min(ShardLimits().max_bytes, caps.max_bytes // _SHARDS))


class Meter:
    """Says when it is time to look at the caps: every so many bytes or records appended."""

    def __init__(self, caps: Caps) -> None:
        self._bytes = np.inf if caps.max_bytes is None else caps.max_bytes / _CHECKS
        self._records = np.inf if caps.max_records is None else caps.max_records / _CHECKS
        self._done = np.zeros(2)

    def add(self, packed: Sequence[Packed]) -> bool:
        """Count what was appended; True if it is time."""
        self._done += (sum(each.length for each in packed), len(packed))
        is_due = self._done[0] >= self._bytes or self._done[1] >= self._records
        if is_due:
            self._done[:] = 0
        return bool(is_due)


def bound(
    path: Path, catalog: Catalog, reader: ShardReader, chosen: Format, caps: Caps, sync: Sync
) -> bool:
    """Thin every stream that is near a cap, and give back what that leaves.

    Args:
        path: the memory's folder.
        catalog: a connection that may write.
        reader: reads shards.
        chosen: the memory's format.
        caps: for each stream.
        sync: what the result survives.

    Returns:
        True if anything was thinned.

    Raises:
        OSError: the disk is full or broken; then all is as before.
    """
    sizes: dict[str, list[int]] = {}
    for name, _tier, records, size, *_ in catalog.totals():
        held = sizes.setdefault(name, [0, 0])
        held[0] += size
        held[1] += records
    near = [name for name, held in sizes.items() if caps.is_near(held[0] / _LIVE, held[1])]
    for stream in near:
        rows = catalog.stream_rows(stream)
        steps = plan(_entries(rows), caps)
        pieces = _pieces(steps, rows, reader, chosen)
        if steps and (first := next(pieces, None)) is not None:
            rewrite(path, catalog, reader, chain([first], pieces), sync)
    if near:
        remove_dead(path, catalog, reader)
        _tidy(path, catalog, reader, caps, len(sizes), sync)
    return bool(near)


def _entries(rows: Sequence[Row]) -> Entries:
    """The records as they count towards a cap: with the room that must be left beside them."""
    segments = [row.segment for row in rows]
    return Entries(
        start=np.array([s.start for s in segments]),
        end=np.array([s.end for s in segments]),
        bytes=np.array([s.length for s in segments], dtype=np.float64) / _LIVE,
        tier=np.array([s.tier for s in segments], dtype=np.int64),
    )


def _pieces(
    steps: Sequence[Step], rows: Sequence[Row], reader: ShardReader, chosen: Format
) -> Iterator[Replaced]:
    """What each step makes of its rows; a damaged record stays as it is."""
    for step in steps:
        own = rows[step.first : step.stop]
        # In tier 1 each is on its own: a step may be thousands of records.
        groups = [[row] for row in own] if step.tier == 1 else [own]
        for group in groups:
            whole = [(row, stored) for row in group if (stored := _read(row, reader)) is not None]
            if whole:
                yield from _thinned(whole, step.tier, chosen)


def _read(row: Row, reader: ShardReader) -> Stored | None:
    segment = row.segment
    try:
        blob = reader.read(row.shard, segment.offset, segment.length)
        return unpack_stored(blob, segment.uid)
    except (DamagedRecord, OSError) as error:
        logger.warning("not thinned: %s", error)
        return None


def _thinned(whole: Sequence[tuple[Row, Stored]], tier: int, chosen: Format) -> Iterator[Replaced]:
    left = list(whole)
    for record in thinned([stored.record for _, stored in whole], tier):
        # The results span the records that they were made of, in the same order.
        parts = [pair for pair in left if pair[0].segment.start < record.end]
        left = left[len(parts) :]
        yield Replaced([row for row, _ in parts], _packed(record, parts, chosen))


def _packed(record: MemoryRecord, parts: Sequence[tuple[Row, Stored]], chosen: Format) -> Packed:
    payload = payload_of(record.tier, chosen.payload)
    if record.tier == 1:
        ((row, stored),) = parts
        is_anchor = bool(row.segment.is_anchor)
        blob = pack(record, payload, stored.indexed, is_anchor=is_anchor)
        return Packed(record, [blob], int(stored.indexed.sum()), is_anchor)
    # All of its keys differ, and it is read without what came before.
    blob = pack(record, payload, is_anchor=True)
    return Packed(record, [blob], len(record.keys), is_anchor=True)


def _tidy(
    path: Path, catalog: Catalog, reader: ShardReader, caps: Caps, streams: int, sync: Sync
) -> None:
    """Write sparse shards anew until few dead bytes are left, and small ones together."""
    most_dead = np.inf if caps.max_bytes is None else _DEAD * caps.max_bytes * streams
    most_files = np.inf if caps.max_files is None else caps.max_files * streams
    room = limits_for(caps).max_bytes
    while True:
        live = catalog.live()
        names = [shard.name for shard in catalog.shards("sealed")]
        sizes = {name: (live.get(name, 0), shard_size(path / "shards", name)) for name in names}
        dead = sum(size - held for held, size in sizes.values())
        is_crowded = len(sizes) > most_files
        if dead <= most_dead and not is_crowded:
            return
        order = sorted(sizes, key=lambda name: _rank(*sizes[name], is_crowded=is_crowded))
        ends = np.cumsum([sizes[name][0] for name in order])
        chosen = order[: max(1 + is_crowded, int(np.searchsorted(ends, room)))]
        rows = [row for name in sorted(chosen) for row in catalog.held(name)]
        if rows:
            rewrite(path, catalog, reader, map(Kept, rows), sync)
        remove_dead(path, catalog, reader)


def _rank(live: int, size: int, *, is_crowded: bool) -> float:
    """Shards by this, least first: those with the most to gain."""
    return live if is_crowded else live / max(size, 1)

"""What a writer does to records before they are appended: known ones out, novel keys chosen."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from streamvlm.memory.appender import Appender
from streamvlm.memory.bulk import Manifest, received
from streamvlm.memory.catalog import Catalog
from streamvlm.memory.folder import Format, Sync
from streamvlm.memory.look import read_keys
from streamvlm.memory.novelty import Novelty, StreamNovelty
from streamvlm.memory.packing import Packed, packed
from streamvlm.memory.shards import ShardLimits, ShardReader
from streamvlm.types import MemoryRecord

_STREAMS = 64
"""Of so many streams it is kept in mind what is novel; of others it is read again."""


class Writer:
    """The writing half of a memory; several threads may use it.

    Args:
        path: the memory's folder.
        chosen: the content of its format file.
        catalog: a connection of its own; closed with this.
        reader: reads shards.
        sync: what an append survives.
        limits: when a shard is full.
    """

    def __init__(
        self,
        path: Path,
        chosen: Format,
        catalog: Catalog,
        reader: ShardReader,
        sync: Sync,
        limits: ShardLimits,
    ) -> None:
        self.catalog = catalog
        """For what needs no more than a commit."""
        self._path = path
        self._format = chosen
        self._reader = reader
        self._sync: Sync = sync
        self._appender = Appender(path / "shards", catalog, sync, limits)
        self._streams: OrderedDict[str, StreamNovelty] = OrderedDict()
        self._thinking = threading.Lock()

    def close(self) -> None:
        """Release the open shard and the connection."""
        self._appender.close()
        self.catalog.close()

    def append(self, records: Sequence[MemoryRecord]) -> None:
        """See `Memory.append`."""
        known = self.catalog.known([record.id for record in records])
        fresh = {record.id: record for record in records if record.id not in known}
        by_stream: dict[str, list[MemoryRecord]] = {}
        for record in fresh.values():
            by_stream.setdefault(record.stream, []).append(record)
        done: dict[str, Packed] = {}
        try:
            for stream, own in by_stream.items():
                with self._thinking:
                    novelty = self._novelty(stream)
                    done |= {each.record.id: each for each in packed(own, self._format, novelty)}
            if done:
                self._appender.append([done[uid] for uid in fresh])
        except BaseException:
            # What was taken for kept is not there.
            for stream in by_stream:
                self._streams.pop(stream, None)
            raise

    def adopt(self, manifests: Sequence[Manifest]) -> int:
        """See `Memory.adopt`."""
        shards = [received(self._path, each, self._format, self._sync) for each in manifests]
        added = self.catalog.adopt(shards)
        for _, segments in shards:
            for segment in segments:
                self._streams.pop(segment.stream, None)
        return added

    def forget(self, stream: str, before: float | None) -> int:
        """See `Memory.forget`."""
        self._streams.pop(stream, None)
        return self.catalog.forget(stream, before)

    def roll(self) -> None:
        """See `Memory.roll`."""
        self._appender.roll()

    def _novelty(self, stream: str) -> StreamNovelty:
        if stream not in self._streams:
            self._streams[stream] = self._resumed(stream)
            if len(self._streams) > _STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(stream)
        return self._streams[stream]

    def _resumed(self, stream: str) -> StreamNovelty:
        rule: Novelty = self._format.novelty
        last = self.catalog.last_before(stream, float("inf"))
        row = self.catalog.place(last) if last is not None else None
        if row is None:
            return StreamNovelty(rule)
        rows = self.catalog.interval(stream, row.segment.start)
        width = self._format.identity.key_width
        try:
            keys = [read_keys(self._reader, each, width) for each in rows]
        except OSError:
            # The next record is an anchor then, which is always right.
            return StreamNovelty(rule)
        pairs = zip(rows, keys, strict=True)
        since = [(row.segment.start, own[: row.segment.num_indexed]) for row, own in pairs]
        return StreamNovelty.resume(rule, since)

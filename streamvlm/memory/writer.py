"""What a writer does to records before they are appended: known ones out, novel keys chosen."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from streamvlm.errors import StreamVLMError
from streamvlm.memory.age.ageing import Caps
from streamvlm.memory.age.bounding import Meter, bound, limits_for
from streamvlm.memory.bulk import Manifest, received
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.disk.appender import Appender
from streamvlm.memory.disk.codec import DamagedRecord
from streamvlm.memory.disk.folder import Sync, check_catalog, in_words, read_format
from streamvlm.memory.disk.gate import maintenance_lock
from streamvlm.memory.disk.packing import Packed, packed
from streamvlm.memory.disk.shards import ShardLimits, ShardReader
from streamvlm.memory.index.look import read_keys
from streamvlm.memory.index.novelty import Novelty, StreamNovelty
from streamvlm.types import MemoryRecord

logger = logging.getLogger(__name__)

_STREAMS = 64
"""Of so many streams it is kept in mind what is novel; of others it is read again."""


@dataclass(frozen=True, slots=True)
class Writing:
    """How a memory is written, and how much of each stream it keeps."""

    sync: Sync = "power"
    """What acknowledged records survive: a `power` cut, or a killed `process` only (faster)."""
    limits: ShardLimits | None = None
    """When a shard is full; None for the defaults."""
    caps: Caps | None = None
    """Beyond these, old records of a stream are thinned; None for never."""


class Writer:
    """The writing half of a memory; several threads may use it.

    Args:
        path: the memory's folder.
        writing: how to write, and how much to keep.

    Raises:
        MemoryStoreError: it cannot be opened or written.
    """

    def __init__(self, path: Path, writing: Writing) -> None:
        with in_words(path, "open"):
            self._format = read_format(path)
            check_catalog(path)
            self.catalog = Catalog(path / "catalog.db", writable=True, sync=writing.sync)
            """For what needs no more than a commit."""
        self._path = path
        self._reader = ShardReader(path / "shards")
        self._sync: Sync = writing.sync
        self._caps = writing.caps or Caps()
        self._meter = Meter(self._caps)
        limits = writing.limits or limits_for(self._caps)
        self._appender = Appender(path / "shards", self.catalog, self._sync, limits)
        self._streams: OrderedDict[str, StreamNovelty] = OrderedDict()
        self._thinking = threading.Lock()
        # One thread for all passes: malloc would give each new one a heap of its own.
        self._thinner = ThreadPoolExecutor(1, "thinning")
        self._bounding: Future[None] | None = None

    def close(self) -> None:
        """Release the open shard and the connection."""
        self._wait_until_bound()
        self._thinner.shutdown()
        self._appender.close()
        self.catalog.close()
        self._reader.close()

    def append(self, records: Sequence[MemoryRecord]) -> None:
        """See `Memory.append`."""
        known = self.catalog.known([record.id for record in records])
        fresh = {
            record.id: record
            for record in records
            if record.id not in known
            and not self.catalog.is_covered(record.stream, record.start, record.end)
        }
        by_stream: dict[str, list[MemoryRecord]] = {}
        for record in fresh.values():
            by_stream.setdefault(record.stream, []).append(record)
        done: dict[str, Packed] = {}
        try:
            with self._thinking:
                for stream, own in by_stream.items():
                    novelty = self._novelty(stream)
                    done |= {each.record.id: each for each in packed(own, self._format, novelty)}
                batch = [done[uid] for uid in fresh]
                # In here, so that of two copies of a record the one with its keys comes first.
                ticket = self._appender.enqueue(batch)
            self._appender.finish(ticket)
        except BaseException:
            # What was taken for kept is not there.
            for stream in by_stream:
                self._streams.pop(stream, None)
            raise
        with self._thinking:
            if self._meter.add(batch):
                self._wait_until_bound()
                # In the background: a camera does not wait. Who is faster than this, waits above.
                self._bounding = self._thinner.submit(self._bound)

    def _wait_until_bound(self) -> None:
        bounding, self._bounding = self._bounding, None
        if bounding is not None:
            bounding.result()

    def _bound(self) -> None:
        """Bring every stream under its caps, unless another process is at it."""
        try:
            with maintenance_lock(self._path) as is_mine:
                if is_mine:
                    parts = (self.catalog, self._reader, self._format)
                    bound(self._path, *parts, self._caps, self._sync)
        except (OSError, sqlite3.Error, StreamVLMError) as error:
            # What was appended is safe, and the next time is soon.
            logger.warning("the memory %s cannot be thinned: %s", self._path, error)

    def adopt(self, manifests: Sequence[Manifest]) -> int:
        """See `Memory.adopt`."""
        with ExitStack() as held:
            shards = [
                held.enter_context(received(self._path, each, self._format, self._sync))
                for each in manifests
            ]
            added = self.catalog.adopt(shards)
        for _, segments in shards:
            for segment in segments:
                self._streams.pop(segment.stream, None)
        return added

    def forget(self, stream: str, before: float | None) -> int:
        """See `Memory.forget`."""
        self._streams.pop(stream, None)
        return self.catalog.forget(stream, before)

    def forget_strays(self, stream: str) -> None:
        """See `Memory.forget_strays`."""
        self._streams.pop(stream, None)
        self.catalog.forget_strays(stream)

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
        _, low, high = self.catalog.intervals([row.sid])[row.sid]
        rows = self.catalog.between(stream, low, high)
        width = self._format.identity.key_width
        try:
            keys = [read_keys(self._reader, each, width) for each in rows]
        except (OSError, DamagedRecord):
            # The next record is an anchor then, which is always right.
            return StreamNovelty(rule)
        pairs = zip(rows, keys, strict=True)
        since = [(row.segment.start, own[: row.segment.num_indexed]) for row, own in pairs]
        return StreamNovelty.resume(rule, since)

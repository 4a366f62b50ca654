"""The way of records into the memory: bytes to a shard, flushed, then rows to the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from streamvlm.memory.catalog import Catalog, Segment
from streamvlm.memory.folder import Sync
from streamvlm.memory.shards import ShardLimits, ShardWriter
from streamvlm.types import MemoryRecord


class Appender:
    """Appends batches to the open shard and begins the next one when it is full.

    Args:
        folder: the memory's `shards`.
        catalog: the writer's own.
        sync: what an append survives.
        limits: when a shard is full.
    """

    def __init__(self, folder: Path, catalog: Catalog, sync: Sync, limits: ShardLimits) -> None:
        self._folder = folder
        self._catalog = catalog
        self._sync: Sync = sync
        self._limits = limits
        self._writer: ShardWriter | None = None
        self._given_up: set[str] = set()

    def append(self, records: Sequence[MemoryRecord], packed: Sequence[bytes]) -> None:
        """Write a batch: all of it exists when this returns, and nothing of it until then.

        Args:
            records: at least one, none of them known to the catalogue.
            packed: the bytes of each.

        Raises:
            OSError: the disk is full or broken. The shard is given up, the next call begins
                another.
            sqlite3.Error: the same, met by the catalogue.
        """
        try:
            writer, key_base = self._open_shard()
            segments = []
            for record, blob, offset in zip(records, packed, writer.append(packed), strict=True):
                times = (record.stream, record.start, record.end)
                place = (offset, len(blob), len(record.keys), key_base)
                segments.append(Segment(0, record.id, *times, *place))
                key_base += len(record.keys)
            self._catalog.add(writer.name, segments)
        except BaseException:
            self._give_up()
            raise

    def close(self) -> None:
        """Close the open shard; the next writer may go on with it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _give_up(self) -> None:
        """Never write to the open shard again; on a full disk only this process knows that."""
        if self._writer is not None:
            self._given_up.add(self._writer.name)
            self.close()
            with suppress(Exception):
                self._catalog.seal_all()

    def _open_shard(self) -> tuple[ShardWriter, int]:
        """The shard to append to, and the number of its next key."""
        last = self._catalog.last_shard()
        full = last and (
            last.state == "sealed"
            or last.name in self._given_up
            or last.bytes >= self._limits.max_bytes
            or last.num_keys >= self._limits.max_keys
        )
        if last and not full:
            if self._writer is None:
                path = self._folder / f"{last.name}.svm"
                self._writer = ShardWriter.resume(path, last.bytes, self._sync)
            if self._writer is not None:
                return self._writer, last.num_keys
        self.close()
        self._writer = ShardWriter.create(self._folder, self._sync)
        self._catalog.add_shard(self._writer.name)
        return self._writer, 0

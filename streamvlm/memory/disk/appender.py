"""The way of records into the memory: bytes to a shard, flushed, then rows to the catalogue.

Each writer appends to a shard of its own, on whose file it holds a lock. Threads of a process share
commits: whoever comes while another writes waits for it, then the first of those who wait writes
for all (group commit, as in DeWitt et al., SIGMOD 1984).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.disk.folder import Sync
from streamvlm.memory.disk.packing import Packed, lay_out
from streamvlm.memory.disk.shards import ShardLimits, ShardWriter, age, shard_file

_GROUP_BYTES = 1 << 25
"""A group of batches is written once it is so large."""


@dataclass(slots=True, eq=False)
class Batch:
    """What one call of `append` brought, and what became of it."""

    packed: Sequence[Packed]
    done: bool = False
    error: BaseException | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.length for each in self.packed)


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
        self._num_keys = 0
        self._given_up: set[str] = set()
        self._waiting: deque[Batch] = deque()
        self._disk = threading.Lock()

    def enqueue(self, packed: Sequence[Packed]) -> Batch:
        """Give a batch its place after those that came before; `finish` has it written.

        Args:
            packed: the records.
        """
        batch = Batch(packed, done=not packed)
        if packed:
            self._waiting.append(batch)
        return batch

    def finish(self, batch: Batch) -> None:
        """Write a batch: all of it exists when this returns, and nothing of it until then.

        Args:
            batch: from `enqueue`.

        Raises:
            OSError: the disk is full or broken. The shard is given up, the next call begins
                another.
            sqlite3.Error: the same, met by the catalogue.
        """
        with self._disk:
            while not batch.done:
                self._write_group()
        if batch.error is not None:
            raise batch.error

    def roll(self) -> None:
        """Let nothing more be appended to the open shard."""
        with self._disk:
            if self._writer is not None:
                self._catalog.seal([self._writer.name])
                self._close_writer()

    def close(self) -> None:
        """Close the open shard; the next writer may go on with it."""
        with self._disk:
            self._close_writer()

    def _write_group(self) -> None:
        group = [self._waiting.popleft()]
        size = group[0].size
        while self._waiting and size + self._waiting[0].size <= _GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].size
        error: BaseException | None = None
        try:
            self._write([each for batch in group for each in batch.packed])
        except BaseException as raised:
            self._give_up()
            error = raised
        for batch in group:
            batch.done, batch.error = True, error

    def _write(self, packed: Sequence[Packed]) -> None:
        while True:
            writer = self._open_shard()
            offsets = writer.append([each.pieces for each in packed])
            segments = lay_out(packed, offsets, self._num_keys)
            if self._catalog.add(writer.name, segments):
                self._num_keys = segments[-1].key_end
                return
            # Another process sealed it, to take deleted records out of it.
            self._close_writer()

    def _give_up(self) -> None:
        """Never write to the open shard again; on a full disk only this process knows that."""
        if self._writer is not None:
            name = self._writer.name
            self._given_up.add(name)
            with suppress(Exception):
                self._catalog.seal([name])
            self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_shard(self) -> ShardWriter:
        full = None
        if self._writer is None:
            self._resume()
        elif self._is_full(self._writer.name, self._writer.end, self._num_keys):
            full = self._writer.name
            self._close_writer()
        if self._writer is None:
            self._writer = ShardWriter.create(self._folder, self._sync)
            self._num_keys = 0
            self._catalog.add_shard(self._writer.name, seal=full)
        return self._writer

    def _resume(self) -> None:
        """Go on with an open shard whose writer is gone, if there is one."""
        for shard in self._catalog.shards("open"):
            is_full = self._is_full(shard.name, shard.bytes, shard.num_keys)
            if is_full or shard.name in self._given_up:
                continue
            path = shard_file(self._folder, shard.name)
            self._writer = ShardWriter.resume(path, shard.bytes, self._sync)
            self._num_keys = shard.num_keys
            # Its last writer may have written more between the look and the lock.
            if self._writer is not None and self._catalog.shard(shard.name) == shard:
                return
            self._close_writer()

    def _is_full(self, name: str, num_bytes: int, num_keys: int) -> bool:
        return (
            num_bytes >= self._limits.max_bytes
            or num_keys >= self._limits.max_keys
            or age(name) >= self._limits.max_seconds
        )

"""Shard files: append-only, one writer, read by ranges.

A shard only grows. What a failed or killed append left at its end stays there unread: the
catalogue says where records are. After a failed append the shard is never written again, and
never truncated, because the commit that reported an error may have happened nevertheless.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from streamvlm.memory.disk.blob import Pieces, size
from streamvlm.memory.disk.codec import HEAD_BYTES
from streamvlm.memory.disk.folder import Sync, sync_folder
from streamvlm.memory.disk.gate import try_lock

SUFFIX = ".svm"
"""What the names of shard files end with."""

_OPEN_FILES = 64
_VECTORS = 512
"""Buffers that one call of the system writes at the most."""


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """When a shard is full and the next one begins."""

    max_bytes: int = 1 << 30
    """Bytes of records."""
    max_keys: int = 524_288
    """Indexed keys, which bounds what one index holds."""
    max_seconds: float = 6 * 3600.0
    """Seconds since it was begun, so that what is forgotten by age leaves whole shards."""


def age(name: str) -> float:
    """Seconds since a shard was begun, by its name; negative if the clock was set back."""
    return time.time() - int(name[:16]) / 1e6


def shard_file(folder: Path, name: str) -> Path:
    """Where a shard is."""
    return folder / f"{name}{SUFFIX}"


def shard_size(folder: Path, name: str) -> int:
    """Bytes of a shard's file; 0 if it is missing."""
    try:
        return shard_file(folder, name).stat().st_size
    except FileNotFoundError:
        return 0


class ShardWriter:
    """The open end of one shard; holds a lock on the file."""

    def __init__(self, path: Path, descriptor: int, end: int, sync: Sync) -> None:
        self.name = path.stem
        self._folder = path.parent
        self.end = end
        """Where the next record will be, in bytes."""
        self._descriptor = descriptor
        self._sync = sync

    @classmethod
    def create(cls, folder: Path, sync: Sync) -> Self:
        """Begin a shard with a name that no other has and that sorts by time.

        Args:
            folder: the memory's `shards`.
            sync: with `power`, the name is on disk when this returns.
        """
        path = shard_file(folder, f"{time.time_ns() // 1000:016d}{secrets.token_hex(4)}")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        writer = cls(path, descriptor, 0, sync)
        try:
            try_lock(descriptor)
            if sync == "power":
                writer.flush_name()
        except BaseException:
            writer.close()
            path.unlink(missing_ok=True)
            raise
        return writer

    @classmethod
    def resume(cls, path: Path, committed: int, sync: Sync) -> Self | None:
        """Go on with a shard after whatever a killed writer left at its end.

        Args:
            path: the file.
            committed: where the last record of the catalogue ends.
            sync: as for `create`.

        Returns:
            A writer; None if another has it, or the file is missing or shorter than it should be.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        size = os.fstat(descriptor).st_size
        if size < committed or not try_lock(descriptor):
            os.close(descriptor)
            return None
        writer = cls(path, descriptor, size + -size % HEAD_BYTES, sync)
        if sync == "power":
            # Who began it may have been content to survive a killed process.
            writer.flush_name()
        return writer

    def append(self, packed: Sequence[Pieces]) -> list[int]:
        """Write records one behind the other; with `power` they are on disk when this returns.

        Args:
            packed: records as pieces, together a multiple of 64 bytes long each.

        Returns:
            The offset of each.

        Raises:
            OSError: the disk is full or broken. Close this writer and begin another shard.
        """
        ends = list(itertools.accumulate(map(size, packed), initial=self.end))
        pieces = list(itertools.chain.from_iterable(packed))
        for first in range(0, len(pieces), _VECTORS):
            self._write(pieces[first : first + _VECTORS])
        if self._sync == "power":
            self.flush()
        return ends[:-1]

    def flush(self) -> None:
        """Have everything written so far on disk."""
        os.fdatasync(self._descriptor)

    def flush_name(self) -> None:
        """Have the file's name on disk."""
        os.fsync(self._descriptor)
        sync_folder(self._folder)

    def _write(self, rest: Pieces) -> None:
        while rest:
            written = os.pwritev(self._descriptor, rest, self.end)
            self.end += written
            # A full disk or a signal may cut a write short, in the middle of a buffer.
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest:
                rest[0] = memoryview(rest[0])[written:]

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


class ShardReader:
    """Reads ranges of any shard of a memory; keeps the files it read last open. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset: int, length: int) -> memoryview:
        """Up to `length` bytes of a shard, for the caller to keep; fewer where the file ends.

        Raises:
            OSError: the file is missing or cannot be read.
        """
        with self._lock:
            if shard not in self._descriptors:
                path = shard_file(self._folder, shard)
                self._descriptors[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if len(self._descriptors) > _OPEN_FILES:
                    os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors.move_to_end(shard)
            # Memory that may be written: torch, which reads it in place, takes no other.
            content = np.empty(length, np.uint8).data
            # Inside the lock, so that no other thread closes the file meanwhile.
            return content[: os.preadv(self._descriptors[shard], [content], offset)]

    def forget(self, shard: str) -> None:
        """Close a shard whose file is to go."""
        with self._lock:
            if shard in self._descriptors:
                os.close(self._descriptors.pop(shard))

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._descriptors:
                os.close(self._descriptors.popitem()[1])

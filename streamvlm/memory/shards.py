"""Shard files: append-only, one writer, read by ranges.

A shard only grows. What a failed or killed append left at its end stays there unread: the
catalogue says where records are. After a failed append the shard is never written again, and
never truncated, because the commit that reported an error may have happened nevertheless.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from streamvlm.memory.codec import HEAD_BYTES
from streamvlm.memory.folder import Sync, sync_folder

_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """When a shard is full and the next one begins."""

    max_bytes: int = 1 << 30
    """Bytes of records."""
    max_keys: int = 524_288
    """Keys, which bounds what one index holds."""


class ShardWriter:
    """The open end of one shard; holds a lock on the file."""

    def __init__(self, path: Path, descriptor: int, end: int, sync: Sync) -> None:
        self.name = path.stem
        self.end = end
        """Where the next record will be, in bytes."""
        self._descriptor = descriptor
        self._sync = sync
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def create(cls, folder: Path, sync: Sync) -> Self:
        """Begin a shard with a name that no other has and that sorts by time.

        Args:
            folder: the memory's `shards`.
            sync: with `power`, the name is on disk when this returns.
        """
        path = folder / f"{time.time_ns() // 1000:016d}{secrets.token_hex(4)}.svm"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if sync == "power":
            os.fsync(descriptor)
            sync_folder(folder)
        return cls(path, descriptor, 0, sync)

    @classmethod
    def resume(cls, path: Path, committed: int, sync: Sync) -> Self | None:
        """Go on with a shard after whatever a killed writer left at its end.

        Args:
            path: the file.
            committed: where the last record of the catalogue ends.
            sync: as for `create`.

        Returns:
            A writer, or None if the file is missing or shorter than it should be.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        size = os.fstat(descriptor).st_size
        if size < committed:
            os.close(descriptor)
            return None
        return cls(path, descriptor, size + -size % HEAD_BYTES, sync)

    def append(self, packed: Sequence[bytes]) -> list[int]:
        """Write records one behind the other; with `power` they are on disk when this returns.

        Args:
            packed: records as bytes, each a multiple of 64 long.

        Returns:
            The offset of each.

        Raises:
            OSError: the disk is full or broken. Close this writer and begin another shard.
        """
        offsets = []
        for blob in packed:
            offsets.append(self.end)
            rest = memoryview(blob)
            while rest:
                written = os.pwrite(self._descriptor, rest, self.end)
                self.end += written
                rest = rest[written:]
        if self._sync == "power":
            os.fdatasync(self._descriptor)
        return offsets

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


class ShardReader:
    """Reads ranges of any shard of a memory; keeps the files it read last open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes of a shard; fewer where the file ends.

        Raises:
            OSError: the file is missing or cannot be read.
        """
        if shard not in self._descriptors:
            path = self._folder / f"{shard}.svm"
            self._descriptors[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._descriptors) > _OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
        self._descriptors.move_to_end(shard)
        return os.pread(self._descriptors[shard], length, offset)

    def close(self) -> None:
        """Close all files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

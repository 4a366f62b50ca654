"""The memory: records appended durably, searched by key, filtered by stream and time.

The durability contract, of which a test kills writers to see that it holds:

1. When `append` or `put_stream` returns, what was given survives a killed process and, with
   `sync="power"`, a power cut, provided the disk honours flush.
2. A batch is visible entirely or not at all, to every reader, and repeating it adds nothing.
3. A crash at any moment leaves a memory that opens without repair and holds exactly the
   acknowledged records, plus at most the batch in flight.
4. `forget` is atomic; deleted records stop being found when it returns. Their bytes stay on disk.
5. Index files are never needed: missing, stale or damaged ones are noticed by size and checksum,
   and made again from the shards.
6. Damage to a record is detected on read, reported by the record's id, and costs that one alone.

Sentences 1 to 3 hold for a single writer: a second one is refused while the first has the folder
open. Readers are always allowed and see what was committed when they ask.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MemoryStoreError
from streamvlm.memory import folder
from streamvlm.memory.appender import Appender
from streamvlm.memory.catalog import Catalog
from streamvlm.memory.codec import DamagedRecord, pack, unpack
from streamvlm.memory.folder import Sync, in_words
from streamvlm.memory.info import Hit, Identity, StreamInfo
from streamvlm.memory.part import View
from streamvlm.memory.quant import check_payload
from streamvlm.memory.shards import ShardLimits, ShardReader
from streamvlm.types import MemoryRecord

__all__ = ["DamagedRecord", "Hit", "Identity", "Memory", "ShardLimits", "StreamInfo"]


class Memory:
    """A folder of records; make one with `create` or `open`. Safe to share between threads."""

    def __init__(
        self, path: Path, *, writable: bool, sync: Sync = "power", limits: ShardLimits | None = None
    ) -> None:
        self.path = path
        """The folder."""
        with in_words(path, "open"):
            self.identity, self.payload = folder.read_format(path)
        self.writable = writable
        """Whether this is the one writer."""
        self._process = os.getpid()
        self._thread = threading.RLock()
        self._closed = False
        self._lock = folder.lock_writer(path) if writable else None
        try:
            with in_words(path, "open"):
                self._catalog = Catalog(path / "catalog.db", writable=writable, sync=sync)
        except BaseException:
            self._unlock()
            raise
        shards = path / "shards"
        self._reader = ShardReader(shards)
        self._appender = Appender(shards, self._catalog, sync, limits or ShardLimits())
        self._view = View(self._catalog, path, self.identity.key_width, self._reader)

    @classmethod
    def create(
        cls,
        path: Path | str,
        identity: Identity,
        *,
        payload: str = "int8",
        sync: Sync = "power",
        limits: ShardLimits | None = None,
    ) -> Self:
        """Make a new memory and open it for writing.

        Args:
            path: a folder that is new or empty.
            identity: whose vectors it will hold.
            payload: how features are written: `int8`, or `raw` as the model gave them.
            sync: what acknowledged records survive: a `power` cut, or a killed `process` only.
            limits: when a shard is full; None for the defaults.

        Raises:
            MemoryStoreError: the folder is a memory already, holds other files, or cannot be
                written.
        """
        path = Path(path).absolute()
        check_payload(payload)
        with in_words(path, "create"):
            folder.check_vacant(path)
            (path / "shards").mkdir(parents=True, exist_ok=True)
            Catalog(path / "catalog.db", writable=True, sync=sync).close()
            folder.write_format(path, identity, payload)
            folder.sync_folder(path.parent)
        return cls(path, writable=True, sync=sync, limits=limits)

    @classmethod
    def open(
        cls,
        path: Path | str,
        identity: Identity | None = None,
        *,
        writable: bool = True,
        sync: Sync = "power",
        limits: ShardLimits | None = None,
    ) -> Self:
        """Open a memory.

        Args:
            path: the folder.
            identity: whose vectors it must hold; None takes what is there.
            writable: become the one writer, or only read.
            sync: as for `create`.
            limits: as for `create`.

        Raises:
            MemoryStoreError: no memory is there, it is of a newer format, it holds vectors of
                other weights, or another writer has it.
        """
        path = Path(path).absolute()
        if identity is not None:
            with in_words(path, "open"):
                folder.check_identity(path, folder.read_format(path)[0], identity)
        return cls(path, writable=writable, sync=sync, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release files and the writer's lock; doing it twice is fine."""
        with self._thread:
            # A forked child shares the parent's lock and connection and must leave them alone.
            if self._closed or self._process != os.getpid():
                return
            self._closed = True
            self._appender.close()
            self._reader.close()
            self._catalog.close()
            self._unlock()

    def __len__(self) -> int:
        """How many records there are."""
        with self._using("read"):
            return self._catalog.count()

    def ids(self, stream: str | None = None) -> list[str]:
        """Record ids of one stream or all, by stream and time."""
        with self._using("read"):
            return self._catalog.uids(stream)

    def last_before(self, stream: str, seconds: float) -> str | None:
        """The id of a stream's record that starts last before a second; None if none does."""
        with self._using("read"):
            return self._catalog.last_before(stream, seconds)

    def streams(self) -> list[StreamInfo]:
        """What is known about every stream, by id."""
        with self._using("read"):
            return self._catalog.streams()

    def stream(self, name: str) -> StreamInfo | None:
        """What is known about one stream, or None if it is not here."""
        with self._using("read"):
            return next(iter(self._catalog.streams(name)), None)

    def append(self, records: Sequence[MemoryRecord]) -> None:
        """Add records; they are on disk when this returns. Those known by id are left out.

        Args:
            records: of any streams, in the order in which to keep them.

        Raises:
            MemoryStoreError: a record does not fit this memory, or the disk is full; then none
                of them was added.
        """
        with self._using("write to", writing=True):
            known = self._catalog.known([record.id for record in records])
            fresh = {record.id: record for record in records if record.id not in known}
            for record in fresh.values():
                self.identity.check(record)
            packed = [pack(record, self.payload) for record in fresh.values()]
            if packed:
                self._appender.append(list(fresh.values()), packed)

    def put_stream(self, info: StreamInfo) -> None:
        """Write or replace what is known about a stream; it is on disk when this returns."""
        with self._using("write to", writing=True):
            self._catalog.put_stream(info)

    def forget(self, stream: str) -> None:
        """Delete a stream and its records; what they took on disk is not given back yet."""
        with self._using("write to", writing=True):
            self._catalog.forget(stream)

    def search(
        self,
        key: NDArray[np.float32],
        *,
        streams: Sequence[str] = (),
        since: float | None = None,
        until: float | None = None,
        limit: int = 8,
    ) -> list[Hit]:
        """The records nearest to a query key.

        Args:
            key: (E,) float32, of any length but 0.
            streams: only these streams; empty for all.
            since: only records that end after this second of their stream.
            until: only records that start before this second of their stream.
            limit: at most so many.

        Returns:
            Best first; the score of a record is the cosine of the best of its keys.

        Raises:
            MemoryStoreError: the key does not fit this memory.
            MissingDependency: there are many keys, and FAISS is not installed.
        """
        width = self.identity.key_width
        length = float(np.linalg.norm(key))
        if key.shape != (width,) or not (0 < length < np.inf):
            raise MemoryStoreError(
                f"the memory {self.path} is searched with a finite key of {width} numbers, found "
                f"shape {key.shape} and length {length}; use the embedder {self.identity.embedder}"
            )
        if limit < 1:
            return []
        unit = np.asarray(key / length, dtype=np.float32)
        with self._using("search"):
            sids, scores = self._view.search(unit, streams, (since, until), limit)
            uids = self._catalog.uid_of(sids.tolist())
        pairs = zip(sids.tolist(), scores.tolist(), strict=True)
        return [Hit(uids[sid], score) for sid, score in pairs if sid in uids]

    def load(self, ids: Sequence[str]) -> list[MemoryRecord]:
        """Read records whole, every byte checked.

        Args:
            ids: record ids.

        Returns:
            The records in that order, on the CPU.

        Raises:
            DamagedRecord: one is not what was written; the message names it. Load the others.
            MemoryStoreError: there is no record of that id.
        """
        with self._using("read"):
            return [self._load(uid) for uid in ids]

    def _load(self, uid: str) -> MemoryRecord:
        place = self._catalog.place(uid)
        if place is None:
            raise MemoryStoreError(
                f"the memory {self.path} has no record {uid}; it may have been forgotten: search "
                "again"
            )
        shard, segment = place
        try:
            return unpack(self._reader.read(shard, segment.offset, segment.length), uid)
        except OSError as error:
            raise DamagedRecord(
                f"record {uid} cannot be read from shard {shard} ({error.strerror}); restore the "
                "shard from a copy, or forget its stream and ingest it again"
            ) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _using(self, doing: str, *, writing: bool = False) -> Iterator[None]:
        with self._thread, in_words(self.path, doing):
            if self._closed:
                raise MemoryStoreError(f"the memory {self.path} is closed; open it again")
            if self._process != os.getpid():
                raise MemoryStoreError(
                    f"the memory {self.path} was opened before this process was forked; open it "
                    "again in this process"
                )
            if writing and not self.writable:
                raise MemoryStoreError(
                    f"the memory {self.path} was opened for reading; open it with writable=True"
                )
            yield

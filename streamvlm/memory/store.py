"""The memory: records appended durably, searched by key, filtered by stream and time.

The durability contract, of which tests kill writers and cut the power to see that it holds:

1. When `append`, `adopt` or `put_stream` returns, what was given survives a killed process and,
   with `sync="power"`, a power cut, provided the disk honours flush.
2. A batch is visible entirely or not at all, to every reader, and repeating it adds nothing.
3. A crash at any moment leaves a memory that opens without repair and holds exactly the
   acknowledged records, plus at most the batches in flight.
4. `forget` and thinning are atomic; a reader sees the old or the new version, never neither.
   Deleted records stop being found when it returns, and leave the disk at the next maintenance.
5. Index files are never needed: missing, stale or damaged ones are noticed by size and checksum,
   and made again from the shards.
6. Damage to a record is detected on read, reported by the record's id, and costs that one alone.

Any number of processes and threads may write and read at once: each writer has a shard of its own,
and one short lock is held round each commit. The folder must lie on a local disk. Readers see what
was committed when they ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MemoryStoreError
from streamvlm.memory import folder
from streamvlm.memory.bulk import Manifest
from streamvlm.memory.catalog import Catalog
from streamvlm.memory.codec import DamagedRecord, unpack
from streamvlm.memory.folder import Format, Sync, in_words
from streamvlm.memory.info import Hit, Identity, StreamInfo
from streamvlm.memory.novelty import Novelty
from streamvlm.memory.quant import check_payload
from streamvlm.memory.rows import Rows
from streamvlm.memory.searching import Searching
from streamvlm.memory.shards import ShardLimits, ShardReader
from streamvlm.memory.writer import Writer
from streamvlm.types import MemoryRecord

__all__ = ["DamagedRecord", "Hit", "Identity", "Memory", "Novelty", "ShardLimits", "StreamInfo"]

_PATIENCE = 5
"""How often a record is looked up anew because maintenance moved it."""


class Memory:
    """A folder of records; make one with `create` or `open`. Safe to share between threads."""

    def __init__(
        self,
        path: Path,
        *,
        writable: bool,
        sync: Sync = "power",
        limits: ShardLimits | None = None,
        device: str = "cpu",
    ) -> None:
        self.path = path
        """The folder."""
        with in_words(path, "open"):
            self.format = folder.read_format(path)
            folder.check_catalog(path)
        self.writable = writable
        """Whether it may be appended to."""
        self._process = os.getpid()
        self._closed = False
        self._reader = ShardReader(path / "shards")
        with in_words(path, "open"):
            # A writer has a connection of its own, so that a search never waits for a flush.
            catalog = Catalog(path / "catalog.db", writable=True, sync=sync) if writable else None
            self._rows = Rows(path / "catalog.db", writable=False)
        self._writer = (
            Writer(path, self.format, catalog, self._reader, sync, limits or ShardLimits())
            if catalog is not None
            else None
        )
        self._searching = Searching(self._rows, path, self.identity, self._reader, device)

    @property
    def identity(self) -> Identity:
        """Whose vectors it holds."""
        return self.format.identity

    @property
    def payload(self) -> str:
        """How features are written."""
        return self.format.payload

    @classmethod
    def create(
        cls,
        path: Path | str,
        identity: Identity,
        *,
        payload: str = "int8",
        novelty: Novelty | None = None,
        sync: Sync = "power",
        limits: ShardLimits | None = None,
        device: str = "cpu",
    ) -> Self:
        """Make a new memory and open it for writing.

        Args:
            path: a folder that is new or empty.
            identity: whose vectors it will hold.
            payload: how features are written: `int8`, or `raw` as the model gave them.
            novelty: which keys are indexed; None for the defaults.
            sync: what acknowledged records survive: a `power` cut, or a killed `process` only.
            limits: when a shard is full; None for the defaults.
            device: where keys are compared: `cpu`, `cuda`, …

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
            folder.write_format(path, Format(identity, payload, novelty or Novelty()))
            folder.sync_folder(path.parent)
        return cls(path, writable=True, sync=sync, limits=limits, device=device)

    @classmethod
    def open(
        cls,
        path: Path | str,
        identity: Identity | None = None,
        *,
        writable: bool = True,
        sync: Sync = "power",
        limits: ShardLimits | None = None,
        device: str = "cpu",
    ) -> Self:
        """Open a memory; any number of processes may have it open.

        Args:
            path: the folder.
            identity: whose vectors it must hold; None takes what is there.
            writable: to append as well, or only to read.
            sync: as for `create`.
            limits: as for `create`.
            device: as for `create`.

        Raises:
            MemoryStoreError: no memory is there, it is of another format, or it holds vectors of
                other weights.
        """
        path = Path(path).absolute()
        if identity is not None:
            with in_words(path, "open"):
                folder.check_identity(path, folder.read_format(path).identity, identity)
        return cls(path, writable=writable, sync=sync, limits=limits, device=device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release files and locks; doing it twice is fine."""
        # A forked child shares the parent's locks and connections and must leave them alone.
        if self._closed or self._process != os.getpid():
            return
        self._closed = True
        self._rows.close()
        if self._writer is not None:
            self._writer.close()
        self._reader.close()

    def __len__(self) -> int:
        """How many records there are."""
        with self._using("read"):
            return self._rows.count()

    def ids(self, stream: str | None = None) -> list[str]:
        """Record ids of one stream or all, by stream and time."""
        with self._using("read"):
            return self._rows.uids(stream)

    def last_before(self, stream: str, seconds: float) -> str | None:
        """The id of a stream's record that starts last before a second; None if none does."""
        with self._using("read"):
            return self._rows.last_before(stream, seconds)

    def streams(self) -> list[StreamInfo]:
        """What is known about every stream, by id."""
        with self._using("read"):
            return self._rows.streams()

    def stream(self, name: str) -> StreamInfo | None:
        """What is known about one stream, or None if it is not here."""
        with self._using("read"):
            return next(iter(self._rows.streams(name)), None)

    def append(self, records: Sequence[MemoryRecord]) -> None:
        """Add records; they are on disk when this returns. Those known by id are left out.

        Args:
            records: of any streams, those of one stream in the order of time.

        Raises:
            MemoryStoreError: a record does not fit this memory, or the disk is full; then none
                of them was added.
        """
        with self._using("write to"):
            self._writing().append(records)

    def adopt(self, manifests: Sequence[Manifest]) -> int:
        """Take in shards that workers wrote with `bulk.write_shard`: all of them, or none.

        Args:
            manifests: what the workers returned. One that was adopted before adds nothing.

        Returns:
            How many records were added.

        Raises:
            MemoryStoreError: a shard is not what its manifest says, or does not fit this memory.
        """
        with self._using("write to"):
            return self._writing().adopt(manifests)

    def put_stream(self, info: StreamInfo) -> None:
        """Write or replace what is known about a stream; it is on disk when this returns."""
        with self._using("write to"):
            self._writing().catalog.put_stream(info)

    def forget(self, stream: str, *, before: float | None = None) -> int:
        """Delete a stream and its records; `maintain` and `erase` take them off the disk.

        Args:
            stream: its id.
            before: delete only records that end by this second, and keep the stream.

        Returns:
            How many records were deleted.
        """
        with self._using("write to"):
            return self._writing().forget(stream, before)

    def roll(self) -> None:
        """End the shard that this writer appends to, so that maintenance may rewrite it."""
        with self._using("write to"):
            self._writing().roll()

    def search(
        self,
        key: NDArray[np.float32],
        *,
        streams: Sequence[str] = (),
        since: float | None = None,
        until: float | None = None,
        limit: int = 8,
    ) -> list[Hit]:
        """The records nearest to one query key or several.

        All indexed keys are ranked first, then all keys of the records near the best ones are
        compared exactly, and of those between `since` and the first anchor after it.

        Args:
            key: (E,) or (Q, E) float32, of any length but 0.
            streams: only these streams; empty for all.
            since: only records that end after this second of their stream.
            until: only records that start before this second of their stream.
            limit: at most so many.

        Returns:
            Best first; see `Hit.score`.

        Raises:
            MemoryStoreError: a key does not fit this memory.
            MissingDependency: there are many keys, and FAISS is not installed.
        """
        with self._using("search"):
            return self._searching(key, tuple(streams), (since, until), limit)

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
        tried = None
        for _ in range(_PATIENCE):
            row = self._rows.place(uid)
            if row is None:
                raise MemoryStoreError(
                    f"the memory {self.path} has no record {uid}; it may have been forgotten: "
                    "search again"
                )
            if row == tried:
                break
            try:
                segment = row.segment
                return unpack(self._reader.read(row.shard, segment.offset, segment.length), uid)
            except OSError as error:
                # Its shard may have been rewritten since the look: then it is elsewhere now.
                tried, failure = row, error
        raise DamagedRecord(
            f"record {uid} cannot be read ({failure.strerror}); restore its shard from a copy, or "
            "forget its stream and ingest it again"
        ) from failure

    def _writing(self) -> Writer:
        if self._writer is None:
            raise MemoryStoreError(
                f"the memory {self.path} was opened for reading; open it with writable=True"
            )
        return self._writer

    @contextmanager
    def _using(self, doing: str) -> Iterator[None]:
        with in_words(self.path, doing):
            if self._closed:
                raise MemoryStoreError(f"the memory {self.path} is closed; open it again")
            if self._process != os.getpid():
                raise MemoryStoreError(
                    f"the memory {self.path} was opened before this process was forked; open it "
                    "again in this process"
                )
            yield

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

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.age.ageing import Caps
from streamvlm.memory.bulk import Manifest
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.disk import folder
from streamvlm.memory.disk.codec import DamagedRecord, GoneRecord
from streamvlm.memory.disk.folder import Format, Sync, in_words
from streamvlm.memory.disk.quant import check_payload
from streamvlm.memory.disk.shards import ShardLimits
from streamvlm.memory.index.novelty import Novelty
from streamvlm.memory.info import Hit, Identity, StreamInfo
from streamvlm.memory.reading import Reading
from streamvlm.memory.writer import Writer, Writing
from streamvlm.types import MemoryRecord

__all__ = [
    "Caps",
    "DamagedRecord",
    "GoneRecord",
    "Hit",
    "Identity",
    "Memory",
    "Novelty",
    "ShardLimits",
    "StreamInfo",
]


class Memory(Reading):
    """A folder of records; make one with `create` or `open`. Safe to share between threads."""

    def __init__(
        self, path: Path, *, writable: bool, writing: Writing | None = None, device: str = "cpu"
    ) -> None:
        # The writer first: it opens a catalogue that a crash left in need of recovery.
        self._writer: Writer | None = None
        if writable:
            self._writer = Writer(path, writing or Writing())
        try:
            super().__init__(path, device)
        except BaseException:
            if self._writer is not None:
                self._writer.close()
            raise
        self.writable = writable
        """Whether it may be appended to."""

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
        caps: Caps | None = None,
    ) -> Self:
        """Make a new memory and open it for writing.

        Args:
            path: a folder that is new or empty.
            identity: whose vectors it will hold.
            payload: how features are written: `int8`, or `raw` as the model gave them.
            novelty: which keys are indexed; None for the defaults.
            sync: what acknowledged records survive: a `power` cut, or a killed `process` only.
            limits: when a shard is full; None for the defaults.
            caps: how much of each stream is kept; beyond, old records are thinned. None for all.

        Raises:
            MemoryStoreError: the folder is a memory already, holds other files, or cannot be
                written.
        """
        path = Path(path).absolute()
        check_payload(payload)
        with in_words(path, "create"):
            folder.check_vacant(path)
            folder.make_durably(path / "shards")
            Catalog(path / "catalog.db", writable=True, sync=sync).close()
            folder.write_format(path, Format(identity, payload, novelty or Novelty()))
            folder.sync_folder(path.parent)
        return cls(path, writable=True, writing=Writing(sync, limits, caps))

    @classmethod
    def open(
        cls,
        path: Path | str,
        identity: Identity | None = None,
        *,
        writable: bool = True,
        sync: Sync = "power",
        limits: ShardLimits | None = None,
        caps: Caps | None = None,
        device: str = "cpu",
    ) -> Self:
        """Open a memory; any number of processes may have it open.

        Args:
            path: the folder.
            identity: whose vectors it must hold; None takes what is there.
            writable: to append as well, or only to read.
            sync: as for `create`.
            limits: as for `create`.
            caps: as for `create`.
            device: where keys are compared: `cpu`, `cuda`, …

        Raises:
            MemoryStoreError: no memory is there, it is of another format, or it holds vectors of
                other weights.
        """
        path = Path(path).absolute()
        if identity is not None:
            with in_words(path, "open"):
                folder.check_identity(path, folder.read_format(path).identity, identity)
        return cls(path, writable=writable, writing=Writing(sync, limits, caps), device=device)

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

    def put_stream(self, info: StreamInfo) -> int:
        """Write or replace what is known about a stream; it is on disk when this returns.

        Returns:
            A number by which `has_stream` and `update_stream` know it until it is forgotten.
        """
        with self._using("write to"):
            return self._writing().catalog.put_stream(info)

    def has_stream(self, name: str, number: int) -> bool:
        """Whether a stream was not forgotten since `put_stream` gave this number."""
        with self._using("write to"):
            return self._writing().catalog.has_stream(name, number)

    def update_stream(self, info: StreamInfo, number: int) -> bool:
        """Replace what is known about a stream, unless it was forgotten meanwhile.

        Where `forget` took only its beginning, its coverage goes on to say so.

        Args:
            info: what is known now.
            number: what `put_stream` gave for it.

        Returns:
            False if it was forgotten; then nothing changed.
        """
        with self._using("write to"):
            return self._writing().catalog.update_stream(info, number)

    def forget_strays(self, stream: str) -> None:
        """Delete a stream's records if nothing is known about it: those appended after `forget`.

        Args:
            stream: its id.
        """
        with self._using("write to"):
            self._writing().forget_strays(stream)

    def forget(self, stream: str, *, before: float | None = None) -> int:
        """Delete a stream and its records; `maintain` and `erase` take them off the disk.

        Args:
            stream: its id.
            before: delete only records that end by this second, and keep the stream, whose coverage
                then says so.

        Returns:
            How many records were deleted.
        """
        with self._using("write to"):
            return self._writing().forget(stream, before)

    def roll(self) -> None:
        """End the shard that this writer appends to, so that maintenance may rewrite it."""
        with self._using("write to"):
            self._writing().roll()

    def _writing(self) -> Writer:
        if self._writer is None:
            raise MemoryStoreError(
                f"the memory {self.path} was opened for reading; open it with writable=True"
            )
        return self._writer

    def _release(self) -> None:
        super()._release()
        if self._writer is not None:
            self._writer.close()

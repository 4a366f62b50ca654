"""The reading half of a memory: what is there, what a key finds, the records themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Row, Rows
from streamvlm.memory.disk import folder
from streamvlm.memory.disk.codec import DamagedRecord, GoneRecord, unpack
from streamvlm.memory.disk.folder import in_words
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index.searching import Searching
from streamvlm.memory.info import Hit, Identity, StreamInfo
from streamvlm.types import MemoryRecord

_PATIENCE = 5
"""How often a record is looked up anew because maintenance moved it."""


class Reading:
    """A memory as it is read. Safe to share between threads, not with a forked process.

    Args:
        path: the memory's folder.
        device: where keys are compared.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        """The folder."""
        with in_words(path, "open"):
            self.format = folder.read_format(path)
            """What all records of the memory have in common."""
            folder.check_catalog(path)
            # A writer has a connection of its own, so that a search never waits for a flush.
            self._rows = Rows(path / "catalog.db", writable=False)
        self._process = os.getpid()
        self._closed = False
        self._reader = ShardReader(path / "shards")
        self._searching = Searching(self._rows, path, self.identity, self._reader, device)

    @property
    def identity(self) -> Identity:
        """Whose vectors it holds."""
        return self.format.identity

    @property
    def payload(self) -> str:
        """How features are written."""
        return self.format.payload

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release files and locks; doing it twice is fine."""
        # A forked child shares the parent's locks and connections and must leave them alone.
        if not self._closed and self._process == os.getpid():
            self._closed = True
            self._release()

    def _release(self) -> None:
        self._rows.close()
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
            DamagedRecord: one is not what was written; the message names it, its stream and time.
                Load the others.
            GoneRecord: there is no record of that id.
        """
        with self._using("read"):
            places = self._rows.places(ids)
            return [self._load(uid, places.get(uid)) for uid in ids]

    def _load(self, uid: str, row: Row | None) -> MemoryRecord:
        for _ in range(_PATIENCE):
            if row is None:
                raise GoneRecord(
                    f"the memory {self.path} has no record {uid}; it may have been forgotten: "
                    "search again"
                )
            segment = row.segment
            try:
                return unpack(self._reader.read(row.shard, segment.offset, segment.length), uid)
            except OSError as error:
                tried, failure = row, error
            except MemoryStoreError as error:
                raise type(error)(f"{segment.when}: {error}") from error
            # Its shard may have been rewritten since the look: then it is elsewhere now.
            row = self._rows.place(uid)
            if row == tried:
                break
        raise DamagedRecord(
            f"{segment.when}: record {uid} cannot be read ({failure.strerror}); restore its shard "
            "from a copy, or forget its stream and ingest it again"
        ) from failure

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

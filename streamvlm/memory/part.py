"""What a process holds of the shards to search them; follows the catalogue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory import derived
from streamvlm.memory.catalog import Catalog, Segment, Shard
from streamvlm.memory.codec import DamagedRecord, Head, unpack_keys
from streamvlm.memory.scan import INDEX_FROM, Ranking, Scanner, best
from streamvlm.memory.shards import ShardReader

logger = logging.getLogger(__name__)

_SAVE_EVERY = 65_536


class Part:
    """One shard as searched: the times of its records and the scanner of its keys."""

    def __init__(self, shard: Shard, width: int, reader: ShardReader, index: Path) -> None:
        self.rev = shard.rev
        self._shard = shard.name
        self._width = width
        self._reader = reader
        self._index = index
        found = derived.load(index, shard.name, width, shard.num_keys)
        keys, codes = found or (np.empty((0, width), np.float16), None)
        self._scanner = Scanner(keys, codes)
        self._saved = len(keys)
        self._saved_codes = codes is not None
        self.sid = np.empty(0, np.int64)
        self._number_of: dict[str, int] = {}
        self._stream = np.empty(0, np.int64)
        self._start = np.empty(0, np.float64)
        self._end = np.empty(0, np.float64)
        # The record (its place in the arrays above) of each key; -1 where it cannot be found.
        self._owner = np.full(len(self._scanner), -1, np.int64)

    @property
    def last(self) -> int:
        """The number of the newest record held."""
        return int(self.sid[-1]) if len(self.sid) else 0

    def follow(self, segments: Sequence[Segment], num_keys: int) -> None:
        """Take in records committed since.

        Args:
            segments: those above `last`, in order.
            num_keys: how many keys the shard has now.
        """
        owner = np.full(num_keys, -1, np.int64)
        owner[: len(self._owner)] = self._owner
        fresh = np.zeros((num_keys - len(self._scanner), self._width), np.float16)
        for place, segment in enumerate(segments, start=len(self.sid)):
            rows = slice(segment.key_base, segment.key_base + segment.num_keys)
            first = segment.key_base - len(self._scanner)
            if first >= 0:
                try:
                    fresh[first : first + segment.num_keys] = self._read_keys(segment)
                except (DamagedRecord, OSError) as error:
                    logger.warning("a search cannot find this record: %s", error)
                    continue
            owner[rows] = place
        self._owner = owner
        self._scanner.add(fresh)
        self.sid = np.append(self.sid, [segment.sid for segment in segments]).astype(np.int64)
        number_of = self._number_of
        streams = [number_of.setdefault(segment.stream, len(number_of)) for segment in segments]
        self._stream = np.append(self._stream, streams).astype(np.int64)
        self._start = np.append(self._start, [segment.start for segment in segments])
        self._end = np.append(self._end, [segment.end for segment in segments])

    def _read_keys(self, segment: Segment) -> NDArray[np.float16]:
        size = Head(segment.num_keys, self._width, 0, 0, 0).keys_end
        blob = self._reader.read(self._shard, segment.offset, size)
        return unpack_keys(blob, segment.uid)

    def search(
        self,
        key: NDArray[np.float32],
        streams: Sequence[str],
        times: tuple[float | None, float | None],
        limit: int,
    ) -> Ranking:
        """The best records of this shard as their numbers and scores; see `Memory.search`."""
        since, until = times
        allowed = np.ones(len(self.sid), bool)
        if streams:
            wanted = [self._number_of[stream] for stream in streams if stream in self._number_of]
            allowed &= np.isin(self._stream, wanted)
        if since is not None:
            allowed &= self._end > since
        if until is not None:
            allowed &= self._start < until
        mask = (self._owner >= 0) & np.append(allowed, False)[self._owner]
        owners, scores = self._scanner.search(key, self._owner, None if mask.all() else mask, limit)
        return self.sid[owners], scores

    def save(self) -> None:
        """Write the index files, if that is worth it and possible."""
        unsaved = len(self._scanner) - self._saved
        new_codes = self._scanner.has_index and not self._saved_codes
        if not new_codes and unsaved < (_SAVE_EVERY if self._saved else INDEX_FROM):
            return
        with suppress(OSError):
            derived.save(self._index, self._shard, self._scanner.keys, self._scanner.serialize())
            self._saved = len(self._scanner)
            self._saved_codes = self._scanner.has_index or self._saved_codes


class View:
    """All shards of a memory as searched."""

    def __init__(self, catalog: Catalog, folder: Path, width: int, reader: ShardReader) -> None:
        self._catalog = catalog
        self._folder = folder
        self._width = width
        self._reader = reader
        self._parts: dict[int, Part] = {}
        self._version: tuple[int, int] | None = None

    def search(
        self,
        key: NDArray[np.float32],
        streams: Sequence[str],
        times: tuple[float | None, float | None],
        limit: int,
    ) -> Ranking:
        """The best records as their numbers and scores, from one snapshot of the catalogue."""
        self._follow()
        found = []
        for part in self._parts.values():
            found.append(part.search(key, streams, times, limit))
            part.save()
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        return best(
            np.concatenate([sids for sids, _ in found]),
            np.concatenate([scores for _, scores in found]),
            limit,
        )

    def _follow(self) -> None:
        version = self._catalog.version()
        if version == self._version:
            return
        with self._catalog.snapshot():
            for shard in self._catalog.shards():
                part = self._parts.get(shard.number)
                if part is None or part.rev != shard.rev:
                    part = Part(shard, self._width, self._reader, self._folder / "index")
                part.follow(self._catalog.segments(shard.number, part.last), shard.num_keys)
                self._parts[shard.number] = part
        # Read before the snapshot: a commit in between is looked at once more, and never missed.
        self._version = version

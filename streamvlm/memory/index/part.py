"""What a process holds of one shard to search it: the times of its records, the indexed keys."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.rows import Shard
from streamvlm.memory.disk.codec import DamagedRecord, indexed_bytes, unpack_indexed
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index import derived
from streamvlm.memory.index.scan import INDEX_FROM, AnyScanner, Look, scanner_on

logger = logging.getLogger(__name__)

_SAVE_EVERY = 65_536


class Part:
    """One shard as searched. Searches may go on while another thread follows the catalogue.

    Args:
        shard: its row when it was first seen; nothing is known of its records yet.
        width: E, the length of a key.
        reader: reads shards.
        index: the folder of index files.
        device: where keys are compared.
    """

    def __init__(
        self, shard: Shard, width: int, reader: ShardReader, index: Path, device: str
    ) -> None:
        self.shard: Shard | None = None
        """The row of the shard as far as it was followed; None before the first time."""
        self._name = shard.name
        self._width = width
        self._reader = reader
        self._index = index
        self._device = device
        self._lock = threading.Lock()
        found = derived.load(index, shard.name, width, shard.num_keys)
        self._start(*(found or (np.empty((0, width), np.float16), None)))
        # sid, stream number, start, end, indexed keys, number of the first of them, offset
        self._columns = np.empty((0, 7), np.float64)
        # The record (its place in the columns) of each key; -1 where there is none any more.
        self._owner = np.empty(0, np.int64)
        self._has_owner = np.empty(0, bool)
        self._is_full = True
        self._numbers = np.empty(0, np.int64)
        # Numbers of the records whose keys could not be read.
        self._lost: set[int] = set()

    def _start(self, keys: NDArray[np.float16], codes: bytes | None) -> None:
        """Begin with what index files hold."""
        self._scanner: AnyScanner = scanner_on(self._device, keys, codes)
        self._saved = len(keys)
        self._saved_codes = codes is not None

    @property
    def last(self) -> int:
        """The number of the newest record held."""
        return int(self._columns[:, 0].max(initial=0))

    def follow(
        self, shard: Shard, columns: NDArray[np.float64], others: Sequence[Part] = ()
    ) -> list[int]:
        """Take in what was committed since.

        Args:
            shard: its row now.
            columns: `Rows.columns` of it above `last`, or of all its records if any left it.
            others: where the records may have been before they were moved here.

        Returns:
            Numbers of the records that no search can find, because their keys cannot be read.
        """
        with self._lock:
            if self.shard is None or self.shard.rev == shard.rev:
                columns = np.concatenate([self._columns, columns])
            if self.shard is None and not self._is_of(columns):
                logger.warning(
                    "index of %s in %s is thrown away and made again: it is of records that the "
                    "catalogue does not have",
                    self._name,
                    self._index,
                )
                self._start(np.empty((0, self._width), np.float16), None)
            fresh, lost = self._read(columns, shard.num_keys, others)
            self._scanner.add(fresh)
            self._lost.update(lost)
            self._columns = columns
            readable = ~np.isin(columns[:, 0], list(self._lost))
            self._numbers = columns[:, 0].astype(np.int64)
            self._owner = _owners(columns, shard.num_keys, readable)
            self._has_owner = self._owner >= 0
            self._is_full = bool(self._has_owner.all())
            self.shard = shard
            return lost

    def _is_of(self, columns: NDArray[np.float64]) -> bool:
        """Whether the last of the loaded keys are those of the record that has their numbers now.

        They are not if the catalogue was replaced by an older copy and went on from there.
        """
        keys = self._scanner.keys[0]
        held = columns[(columns[:, 4] > 0) & (columns[:, 5] < len(keys))]
        if not len(held):
            return True
        _, _, _, _, count, base, offset = held[held[:, 5].argmax()].astype(np.int64).tolist()
        try:
            blob = self._reader.read(self._name, offset, indexed_bytes(count, self._width))
            own = unpack_indexed(blob, "")
        except (DamagedRecord, OSError):
            return True
        return np.array_equal(keys[base : base + count], own)

    def _read(
        self, columns: NDArray[np.float64], num_keys: int, others: Sequence[Part]
    ) -> tuple[NDArray[np.float16], list[int]]:
        """The indexed keys that are not held yet, and the records of which they cannot be read."""
        first = len(self._scanner)
        fresh = np.zeros((num_keys - first, self._width), np.float16)
        lost = []
        wanted = columns[(columns[:, 5] >= first) & (columns[:, 4] > 0)]
        for other in others:
            if not len(wanted):
                break
            is_there, keys = other.held(wanted)
            fresh[_rows(wanted[is_there]) - first] = keys
            wanted = wanted[~is_there]
        for sid, _, _, _, count, base, offset in wanted.astype(np.int64).tolist():
            try:
                blob = self._reader.read(self._name, offset, indexed_bytes(count, self._width))
                fresh[base - first : base - first + count] = unpack_indexed(blob, "")
            except (DamagedRecord, OSError):
                lost.append(sid)
        return fresh, lost

    def held(self, columns: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float16]]:
        """The indexed keys of records that are, or were, in this shard.

        Args:
            columns: (n, 7) as `Rows.columns` gives them, of any shard.

        Returns:
            (n,) bool, which records are held here, and their keys, one behind the other.
        """
        with self._lock:
            mine = self._columns[~np.isin(self._columns[:, 0], list(self._lost))]
            base, tail = self._scanner.keys
        mine = mine[mine[:, 0].argsort()]
        place = np.searchsorted(mine[:, 0], columns[:, 0]).clip(max=max(len(mine) - 1, 0))
        if not len(mine):
            return np.zeros(len(columns), bool), base[:0]
        own = mine[place]
        is_there = (own[:, 0] == columns[:, 0]) & (own[:, 4] == columns[:, 4])
        rows = _rows(own[is_there])
        keys = np.empty((len(rows), self._width), np.float16)
        is_old = rows < len(base)
        keys[is_old] = base[rows[is_old]]
        keys[~is_old] = tail[rows[~is_old] - len(base)]
        return is_there, keys

    def look(
        self,
        queries: NDArray[np.float32],
        streams: Sequence[int] | None,
        times: tuple[float | None, float | None],
        limit: int,
    ) -> tuple[NDArray[np.int64], Look]:
        """The records of this shard whose indexed keys are nearest, by their places.

        Args:
            queries: (Q, E) unit vectors.
            streams: numbers of the streams to look at; None for all.
            times: (since, until) in seconds; see `Memory.search`.
            limit: how many records for each query key.

        Returns:
            The number of the record in each place, and what is seen at first sight.
        """
        with self._lock:
            mask, owner, numbers = self._allowed(streams, times), self._owner, self._numbers
        # Outside of it, as the scanner looks only at the keys that have an owner here.
        return numbers, self._scanner.look(queries, owner, mask, limit)

    def _allowed(
        self, streams: Sequence[int] | None, times: tuple[float | None, float | None]
    ) -> NDArray[np.bool_] | None:
        """(n,) which keys may be found; None for all."""
        since, until = times
        if streams is None and since is None and until is None:
            return None if self._is_full else self._has_owner
        _, stream, start, end = self._columns[:, :4].T
        allowed = np.ones(len(self._columns), bool)
        if streams is not None:
            allowed &= np.isin(stream, streams)
        if since is not None:
            allowed &= end > since
        if until is not None:
            allowed &= start < until
        rows = _rows(self._columns[allowed])
        mask = np.zeros(len(self._owner), bool)
        mask[rows] = self._has_owner[rows]
        return mask

    def save(self) -> None:
        """Write the index files, if that is worth it and possible."""
        with self._lock:
            if self._lost:
                return
            unsaved = len(self._scanner) - self._saved
            new_codes = self._scanner.has_index and not self._saved_codes
            if not new_codes and unsaved < (_SAVE_EVERY if self._saved else INDEX_FROM):
                return
            with suppress(OSError):
                keys, codes = self._scanner.keys, self._scanner.serialize()
                derived.save(self._index, self._name, keys, codes)
                self._saved = len(self._scanner)
                self._saved_codes = self._scanner.has_index or self._saved_codes


def _owners(
    columns: NDArray[np.float64], num_keys: int, readable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(num_keys,) int64: the place of each indexed key's record, -1 where there is none."""
    counts, bases = (columns[:, 4] * readable).astype(np.int64), columns[:, 5].astype(np.int64)
    owners = np.full(num_keys, -1, np.int64)
    owners[_ranges(bases, counts)] = np.repeat(np.arange(len(columns)), counts)
    return owners


def _rows(columns: NDArray[np.float64]) -> NDArray[np.int64]:
    """The numbers of the indexed keys of some records within their shard."""
    return _ranges(columns[:, 5].astype(np.int64), columns[:, 4].astype(np.int64))


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers from each first on, so many, one range behind the other."""
    total = int(counts.sum())
    return np.arange(total) + np.repeat(first - (counts.cumsum() - counts), counts)

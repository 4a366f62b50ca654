"""What a process holds of one shard to search it, and how that follows the catalogue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.columns import COLUMNS
from streamvlm.memory.catalog.rows import Rows, Shard
from streamvlm.memory.disk.codec import DamagedRecord, indexed_bytes, unpack_indexed
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index import derived
from streamvlm.memory.index.device import scanner_on
from streamvlm.memory.index.held import FIELDS, LOST, NO_RECORDS, Held
from streamvlm.memory.index.scan import INDEX_FROM

logger = logging.getLogger(__name__)

_SAVE_EVERY = 65_536
_PROBES = 16
"""Records that are compared with the catalogue when index files are read."""
_WORTH = 0.75
"""Of the keys of a shard that was rewritten, so many must be in the new one to go on with them as
they are held: those of records that are gone cost time in every search."""


class Part:
    """One shard as searched. One thread at a time follows; `now` may be searched meanwhile.

    Args:
        name: the shard's.
        width: E, the length of a key.
        reader: reads shards.
        index: the folder of index files.
        device: where keys are compared.
    """

    def __init__(
        self, name: str, width: int, reader: ShardReader, index: Path, device: str
    ) -> None:
        self.shard: Shard | None = None
        """The row of the shard as far as it was followed; None before the first time."""
        self._name = name
        self._width = width
        self._reader = reader
        self._index = index
        self._device = device
        self._lock = threading.Lock()
        self.now = self._nothing()
        """What is searched."""
        self._saved = 0
        self._saved_codes = False
        # The keys are not those of another shard, of which some records are gone for good.
        self._is_own = True

    def _nothing(self) -> Held:
        empty = np.empty((0, self._width), np.float16)
        return Held.of(NO_RECORDS, scanner_on(self._device, empty, None))

    def follow(
        self, shard: Shard, rows: Rows, others: Sequence[Held], left: list[Held]
    ) -> list[int]:
        """Take in what was committed since.

        Args:
            shard: its row now.
            rows: the catalogue, of the same moment.
            others: where the records may have been before they were moved here.
            left: those of them that hold a shard in which nothing is left; one is taken out if this
                part goes on with its keys.

        Returns:
            Numbers of the records that no search can find, because their keys cannot be read.
        """
        with self._lock:
            now, rev = self.now, -1 if self.shard is None else self.shard.rev
            if self.shard is None or not self.shard.num_keys:
                now, rev = self._loaded(shard, rows)
            if rev == shard.rev and len(now.records):
                columns = rows.columns(shard.number, now.last)
            else:
                sids = rows.sids(shard.number)
                now = (now if len(now.records) else self._taken(shard, rows, sids, left)).only(sids)
                columns = _missing(shard, rows, sids, now)
            keys, is_lost = self._read(columns, others)
            self.now = now.and_these(columns, keys, is_lost)
            self.shard = shard
            lost: list[int] = columns["sid"][is_lost].tolist()
            return lost

    def _loaded(self, shard: Shard, rows: Rows) -> tuple[Held, int]:
        """What index files hold, if they are there and of this shard, and its `rev` then."""
        saved = derived.load(self._index, self._name, self._width, shard.num_keys)
        if saved is None or not len(saved.records):
            return self._nothing(), shard.rev
        if not _is_of(saved, shard, rows):
            logger.warning(
                "index of %s in %s is thrown away and made again: it is of records that the "
                "catalogue does not have",
                self._name,
                self._index,
            )
            return self._nothing(), shard.rev
        self._saved, self._saved_codes = len(saved.keys), saved.index is not None
        scanner = scanner_on(self._device, saved.keys, saved.index)
        return Held.of(saved.records, scanner), saved.rev

    def _taken(self, shard: Shard, rows: Rows, sids: NDArray[np.int64], left: list[Held]) -> Held:
        """What another shard held, if this one was made of most of its records; else nothing.

        Copying the keys and giving each its code anew takes fourteen times as long.
        """
        for place, held in enumerate(left):
            numbers, counts = held.records["sid"], held.records["count"]
            if counts[np.isin(numbers, sids)].sum() < _WORTH * max(1, len(held.scanner)):
                continue
            thinned = rows.columns(shard.number, min_tier=2)
            changed = thinned["sid"][held.same(thinned) < 0]
            del left[place]
            held.scanner.unmap()
            self._is_own = False
            return held.where((held.records["base"] != LOST) & ~np.isin(numbers, changed))
        self._saved, self._saved_codes = 0, False
        return self._nothing()

    def _read(
        self, columns: NDArray[np.void], others: Sequence[Held]
    ) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
        """The indexed keys of records, one behind the other, and (n,) which cannot be read."""
        counts = columns["count"]
        last = counts.cumsum()
        keys = np.empty((counts.sum(), self._width), np.float16)
        is_wanted = counts > 0
        for other in others:
            if not is_wanted.any() or other.last < columns["sid"][is_wanted].min():
                continue
            place = np.where(is_wanted, other.same(columns), -1)
            is_there = place >= 0
            if not is_there.any():
                continue
            keys[np.repeat(is_there, counts)] = other.keys_of(place[is_there])
            is_wanted &= ~is_there
        is_lost = np.zeros(len(columns), bool)
        for number in np.flatnonzero(is_wanted).tolist():
            count, offset, end = (int(each[number]) for each in (counts, columns["offset"], last))
            try:
                blob = self._reader.read(self._name, offset, indexed_bytes(count, self._width))
                keys[end - count : end] = unpack_indexed(blob, "")
            except (DamagedRecord, OSError):
                is_lost[number] = True
        return keys[np.repeat(~is_lost, counts)], is_lost

    def save(self) -> None:
        """Write the index files, if that is worth it and possible."""
        with self._lock:
            scanner, records = self.now.scanner, self.now.records
            unsaved = len(scanner) - self._saved
            new_codes = scanner.has_index and not self._saved_codes
            if not new_codes and unsaved < (_SAVE_EVERY if self._saved else INDEX_FROM):
                return
            if self.shard is None or not self._is_own or (records["base"] == LOST).any():
                return
            with suppress(OSError):
                keys, codes = scanner.keys, scanner.serialize()
                derived.save(self._index, self._name, keys, codes, records, self.shard.rev)
                self._saved = len(scanner)
                self._saved_codes = scanner.has_index or self._saved_codes


def _missing(shard: Shard, rows: Rows, sids: NDArray[np.int64], held: Held) -> NDArray[np.void]:
    """The columns of a shard's records that are not held yet."""
    missing = sids[~np.isin(sids, held.records["sid"])]
    if not len(missing):
        return np.empty(0, COLUMNS)
    columns = rows.columns(shard.number, int(missing.min()) - 1)
    return columns[np.isin(columns["sid"], missing)]


def _is_of(saved: derived.Saved, shard: Shard, rows: Rows) -> bool:
    """Whether index files are of the records that the catalogue has in a shard.

    They are not if it was replaced by an older copy: as it goes on, it gives numbers once more. So
    some of the records, the last among them, are compared.
    """
    records = saved.records
    sids = records["sid"]
    if saved.rev == shard.rev:
        tally = rows.tally(shard.number, int(sids.max(initial=0)))
        if tally != (len(sids), int(sids.sum())):
            return False
    places = np.unique(np.linspace(0, max(len(records), 1) - 1, _PROBES).astype(int))
    probes = np.sort(records[places[: len(records)]], order="sid")
    known = np.sort(rows.columns_of(shard.number, probes["sid"].tolist()), order="sid")
    if saved.rev != shard.rev:
        probes = probes[np.isin(probes["sid"], known["sid"])]
    return all(np.array_equal(probes[name], known[name]) for name in FIELDS)

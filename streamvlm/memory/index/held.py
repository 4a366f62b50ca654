"""One shard as it is searched at one moment: its records, and which of the keys are theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.columns import COLUMNS
from streamvlm.memory.index.scan import AnyScanner, Asked, Look

FIELDS = ("sid", "start", "end", "stream", "tier", "count")
RECORD = np.dtype([*((name, COLUMNS[name]) for name in FIELDS), ("base", "<i4")])
"""A record as it is held, in 40 bytes: as `COLUMNS` of the catalogue, but `base` is where the first
of its keys is held."""

NO_RECORDS = np.empty(0, RECORD)
LOST = -1
"""The `base` of a record whose keys could not be read; its `count` is 0."""


@dataclass(frozen=True, eq=False)
class Held:
    """Never changes, so that one thread may search while another follows the catalogue."""

    records: NDArray[np.void]
    """(n,) of `RECORD`, in the order of their keys."""
    scanner: AnyScanner
    """Holds the keys; more may be added to it, of which nothing is known here."""
    owner: NDArray[np.int64]
    """(k,) the record of each key, by its place in `records`; -1 where there is none any more."""
    has_owner: NDArray[np.bool_]
    """(k,)"""
    is_full: bool
    """Whether all of them have."""

    @classmethod
    def of(cls, records: NDArray[np.void], scanner: AnyScanner) -> Held:
        """What is searched of these records, whose keys are among those of the scanner."""
        owner = np.full(len(scanner), -1, np.int64)
        owner[rows_of(records)] = np.repeat(np.arange(len(records)), records["count"])
        return cls._owned(records, scanner, owner)

    @classmethod
    def _owned(
        cls, records: NDArray[np.void], scanner: AnyScanner, owner: NDArray[np.int64]
    ) -> Held:
        has_owner = owner >= 0
        return cls(records, scanner, owner, has_owner, bool(has_owner.all()))

    def only(self, sids: NDArray[np.int64]) -> Held:
        """The same without the records that are not among these."""
        return self.where(np.isin(self.records["sid"], sids))

    def where(self, stays: NDArray[np.bool_]) -> Held:
        """The same without the records for which this (n,) says no."""
        if stays.all():
            return self
        # The last place is for the -1 of keys without an owner.
        place = np.append(np.where(stays, stays.cumsum() - 1, -1), -1)
        return self._owned(self.records[stays], self.scanner, place[self.owner])

    def and_these(
        self, columns: NDArray[np.void], keys: NDArray[np.float16], is_lost: NDArray[np.bool_]
    ) -> Held:
        """The same and more records.

        Args:
            columns: (n,) of `COLUMNS`, theirs.
            keys: of all of them, one behind the other, but for the lost; added to the scanner.
            is_lost: (n,) which have keys that could not be read.
        """
        if not len(columns):
            return self
        records = np.empty(len(columns), RECORD)
        for name in FIELDS:
            records[name] = columns[name]
        records["count"][is_lost] = 0
        first, counts = len(self.scanner), records["count"]
        records["base"] = np.where(is_lost, LOST, first + counts.cumsum() - counts)
        self.scanner.add(keys)
        gap = np.full(first - len(self.owner), -1, np.int64)
        own = np.repeat(np.arange(len(records)) + len(self.records), counts)
        joined = np.concatenate([self.records, records])
        return self._owned(joined, self.scanner, np.concatenate([self.owner, gap, own]))

    @property
    def last(self) -> int:
        """The number of the newest record."""
        return int(self.records["sid"].max(initial=0))

    def same(self, columns: NDArray[np.void]) -> NDArray[np.int64]:
        """(n,) the place here of each of these records of any shard, -1 where it is not held.

        A record that was thinned into tier 2 or 3 has other keys than before.
        """
        if not len(self.records):
            return np.full(len(columns), -1, np.int64)
        order = self.records["sid"].argsort(kind="stable")
        found = np.searchsorted(self.records["sid"][order], columns["sid"])
        place = order[found.clip(max=len(order) - 1)]
        own = self.records[place]
        is_same = (own["sid"] == columns["sid"]) & (own["count"] == columns["count"])
        is_same &= (own["tier"] == columns["tier"]) | (columns["tier"] < 2)
        return np.where(is_same, place, -1)

    def keys_of(self, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """The keys of the records in these places, one behind the other."""
        rows = rows_of(self.records[places])
        base, tail = self.scanner.keys
        keys = np.empty((len(rows), base.shape[1]), np.float16)
        is_old = rows < len(base)
        keys[is_old] = base[rows[is_old]]
        keys[~is_old] = tail[rows[~is_old] - len(base)]
        return keys

    def look(
        self,
        queries: NDArray[np.float32],
        streams: Sequence[int] | None,
        times: tuple[float | None, float | None],
        limit: int,
    ) -> tuple[NDArray[np.int64], Look]:
        """The records whose indexed keys are nearest, by their places.

        Args:
            queries: (Q, E) unit vectors.
            streams: numbers of the streams to look at; None for all.
            times: (since, until) in seconds; see `Memory.search`.
            limit: how many records for each query key.

        Returns:
            The number of the record in each place, and what is seen at first sight.
        """
        asked = Asked(queries, self.owner, self._allowed(streams, times), limit)
        return self.records["sid"], self.scanner.look(asked)

    def _allowed(
        self, streams: Sequence[int] | None, times: tuple[float | None, float | None]
    ) -> NDArray[np.bool_] | None:
        """(k,) which keys may be found; None for all."""
        since, until = times
        if streams is None and since is None and until is None:
            return None if self.is_full else self.has_owner
        allowed = np.ones(len(self.records), bool)
        if streams is not None:
            allowed &= np.isin(self.records["stream"], streams)
        if since is not None:
            allowed &= self.records["end"] > since
        if until is not None:
            allowed &= self.records["start"] < until
        mask = np.zeros(len(self.owner), bool)
        mask[rows_of(self.records[allowed])] = True
        return mask


def rows_of(records: NDArray[np.void]) -> NDArray[np.int64]:
    """The places of the keys of some records, one record's behind the other's."""
    counts = records["count"].astype(np.int64)
    first = records["base"] - (counts.cumsum() - counts)
    return np.arange(counts.sum()) + np.repeat(first, counts)

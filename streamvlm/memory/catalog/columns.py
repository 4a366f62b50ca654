"""What a search reads of the catalogue: columns of all records of a shard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.database import Database

COLUMNS = np.dtype(
    [
        ("sid", "<i8"),
        ("start", "<f8"),
        ("end", "<f8"),
        ("stream", "<i4"),
        ("tier", "<i4"),
        ("count", "<i4"),
        ("base", "<i8"),
        ("offset", "<i8"),
    ]
)
"""What a search needs of a record: its number, its times in seconds, the number of its stream, how
far it was thinned, its indexed keys, the number of the first of them, and where its bytes are."""

AMONG = "IN (SELECT value FROM json_each(?))"
"""Among the values of a JSON list: one statement for lists of all lengths, and SQLite keeps one."""


class Columns(Database):
    """Numbers of many records at once; several threads may ask."""

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.lock:
            self.follow()
            return self.sql.execute(query, values).fetchall()

    def sids(self, shard: int) -> NDArray[np.int64]:
        """The numbers of a shard's records, in no order.

        As one text, which SQLite makes of its index alone: a row each takes three times as long.
        """
        ((text,),) = self._all("SELECT group_concat(sid) FROM segment WHERE shard = ?", (shard,))
        return np.fromstring(text or "", np.int64, sep=",")

    def tally(self, shard: int, last: int) -> tuple[int, int]:
        """How many records of a shard have a number up to `last`, and the sum of these numbers."""
        query = "SELECT count(*), coalesce(sum(sid), 0) FROM segment WHERE shard = ? AND sid <= ?"
        ((count, total),) = self._all(query, (shard, last))
        return count, total

    def columns(self, shard: int, after: int = 0, *, min_tier: int = 0) -> NDArray[np.void]:
        """What a search needs of the records of a shard.

        Args:
            shard: its number.
            after: only records with a number above this.
            min_tier: only records that were thinned so far.

        Returns:
            (n,) of `COLUMNS`, in the order of their keys.
        """
        where = "WHERE shard = ? AND sid > ? AND tier >= ?"
        return self._columns(where, (shard, after, min_tier))

    def columns_of(self, shard: int, sids: Sequence[int]) -> NDArray[np.void]:
        """The same of a few records by number, those that are in the shard."""
        # The plus keeps SQLite from looking for them among all of the shard.
        return self._columns(f"WHERE +shard = ? AND sid {AMONG}", (shard, json.dumps(sids)))

    def _columns(self, where: str, values: Sequence[Any]) -> NDArray[np.void]:
        found = self._all(
            'SELECT sid, start, "end", stream, tier, num_indexed, key_base, offset FROM segment '
            f"{where}",
            values,
        )
        columns = np.array(found, COLUMNS)
        return columns[np.lexsort((columns["sid"], columns["base"]))]

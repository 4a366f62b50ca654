"""What is read of the catalogue: which shards, records and streams exist."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from streamvlm.memory.catalog.columns import AMONG, Columns
from streamvlm.memory.info import StreamInfo, where
from streamvlm.types import Coverage, Span


class Shard(NamedTuple):
    """A row of `shard`."""

    number: int
    """For ever."""
    name: str
    """File name without ending."""
    state: str
    """`open`, `sealed` or `dead`."""
    bytes: int
    """Where the last committed record ends."""
    num_keys: int
    """Keys ever indexed, also of records forgotten since."""
    rev: int
    """Goes up when records leave; a reader then looks anew at which are there."""


class Segment(NamedTuple):
    """Where a record is, and what a filter needs of it."""

    uid: str
    """The record's id."""
    stream: str
    start: float
    end: float
    offset: int
    length: int
    num_keys: int
    """All keys of the record."""
    num_indexed: int
    """Those that the index has."""
    key_base: int
    """Number of its first indexed key within the shard."""
    is_anchor: int
    """1 if what follows is compared with nothing before it (see `novelty`), else 0."""
    tier: int
    """How far it was thinned, 0 to 3."""

    @property
    def key_end(self) -> int:
        """Number of the indexed key after its last."""
        return self.key_base + self.num_indexed

    @property
    def when(self) -> str:
        """Its stretch of its stream, for messages."""
        return where(self.stream, self.start, self.end)


class Row(NamedTuple):
    """A segment with its number and its shard."""

    sid: int
    """Grows with every record, never used twice; stays when the record is moved."""
    shard: str
    """The shard's name."""
    segment: Segment


_COLUMNS = (
    'uid, stream.name, start, "end", offset, length, num_keys, num_indexed, key_base, is_anchor, '
    "tier"
)
_JOINED = (
    "FROM segment JOIN stream ON stream.number = segment.stream "
    "JOIN (SELECT number, name AS shard_name FROM shard) AS held ON held.number = segment.shard"
)
_ROW = f"SELECT sid, shard_name, {_COLUMNS} {_JOINED}"
_WHOSE = "stream = (SELECT number FROM stream WHERE name = ?1)"
_IS_ANCHOR = "is_anchor = 1"


Interval = tuple[int, float, float]
"""Number of a stream, and [from, to) in seconds of it: what lies between two anchors."""


class Rows(Columns):
    """Everything that is asked of `catalog.db`; several threads may ask."""

    def _rows(self, rest: str, values: Sequence[Any] = ()) -> list[Row]:
        found = self._all(f"{_ROW} {rest}", values)
        return [Row(row[0], row[1], Segment(*row[2:])) for row in found]

    def shards(self, state: str | None = None) -> list[Shard]:
        """All shards, or those in one state, oldest first."""
        return self._shards("WHERE ?1 IS NULL OR state = ?1 ORDER BY number", state)

    def shard(self, name: str) -> Shard | None:
        """The shard of a name, or None if it is not registered."""
        return next(iter(self._shards("WHERE name = ?", name)), None)

    def _shards(self, rest: str, value: str | None) -> list[Shard]:
        columns = "number, name, state, bytes, num_keys, rev"
        return [Shard(*row) for row in self._all(f"SELECT {columns} FROM shard {rest}", (value,))]

    def live(self) -> dict[str, int]:
        """Bytes of the records of each shard that has any."""
        return dict(
            self._all(
                "SELECT name, sum(length) FROM segment JOIN shard ON number = shard GROUP BY shard"
            )
        )

    def count(self) -> int:
        """How many records exist."""
        number: int = self._all("SELECT count(*) FROM segment")[0][0]
        return number

    def known(self, uids: Sequence[str]) -> set[str]:
        """Which of these record ids exist."""
        query = f"SELECT uid FROM segment WHERE uid {AMONG}"
        return {uid for (uid,) in self._all(query, (json.dumps(uids),))}

    def is_covered(self, stream: str, start: float, end: float) -> bool:
        """Whether a merged record of a stream stands for a stretch of time already."""
        found = self._all(
            f'SELECT tier > 1 AND "end" >= ?3 FROM segment WHERE {_WHOSE} AND start <= ?2 '
            "ORDER BY start DESC LIMIT 1",
            (stream, start, end),
        )
        return bool(found and found[0][0])

    def uids(
        self, stream: str | None, since: float | None = None, until: float | None = None
    ) -> list[str]:
        """Record ids of one stream or all, by stream and time; those within a time if one is given.

        Args:
            stream: its name; None for all.
            since: only records that end after this second of their stream.
            until: only records that start before this second of their stream.
        """
        found = self._all(
            "SELECT uid FROM segment JOIN stream ON number = stream WHERE "
            '(?1 IS NULL OR name = ?1) AND (?2 IS NULL OR "end" > ?2) '
            "AND (?3 IS NULL OR start < ?3) ORDER BY name, start, sid",
            (stream, since, until),
        )
        return [uid for (uid,) in found]

    def last_before(self, stream: str, seconds: float) -> str | None:
        """The record of a stream that starts last before a second of it."""
        found = self._all(
            f"SELECT uid FROM segment WHERE {_WHOSE} AND start < ?2 ORDER BY start DESC LIMIT 1",
            (stream, seconds),
        )
        return found[0][0] if found else None

    def by_sid(self, sids: Sequence[int]) -> dict[int, Row]:
        """Records by number; those gone meanwhile are left out."""
        found = self._rows(f"WHERE sid {AMONG}", (json.dumps(sids),))
        return {row.sid: row for row in found}

    def are_there(self, sids: Sequence[int]) -> bool:
        """Whether all of these records, each named once, still exist."""
        query = f"SELECT count(*) FROM segment WHERE sid {AMONG}"
        count: int = self._all(query, (json.dumps(sids),))[0][0]
        return count == len(sids)

    def places(self, uids: Sequence[str]) -> dict[str, Row]:
        """Where the records of these ids are; those that do not exist are left out."""
        found = self._rows(f"WHERE uid {AMONG}", (json.dumps(uids),))
        return {row.segment.uid: row for row in found}

    def place(self, uid: str) -> Row | None:
        """Where the record of an id is, or None if there is none."""
        return self.places([uid]).get(uid)

    def held(self, shard: str) -> list[Row]:
        """The records of a shard in the order of their bytes."""
        return self._rows(
            "WHERE segment.shard = (SELECT number FROM shard WHERE name = ?) ORDER BY offset",
            (shard,),
        )

    def stream_rows(self, stream: str) -> list[Row]:
        """The records of a stream in the order of time."""
        return self._rows(f"WHERE segment.{_WHOSE} ORDER BY start, sid", (stream,))

    def between(self, stream: str, since: float, until: float) -> list[Row]:
        """The records of a stream that begin in [since, until), in the order of time."""
        where = f"WHERE segment.{_WHOSE} AND start >= ?2 AND start < ?3 ORDER BY start, sid"
        return self._rows(where, (stream, since, until))

    def intervals(self, sids: Sequence[int]) -> dict[int, Interval]:
        """The anchor interval of each record, by the record's number; one query for all."""
        others = "FROM segment AS other WHERE other.stream = segment.stream AND other.is_anchor = 1"
        found = self._all(
            f"SELECT sid, stream, (SELECT max(other.start) {others} AND other.start <= "
            f"segment.start), (SELECT min(other.start) {others} AND other.start > "
            f"segment.start) FROM segment WHERE sid {AMONG}",
            (json.dumps(sids),),
        )
        return {
            sid: (stream, -math.inf if low is None else low, math.inf if high is None else high)
            for sid, stream, low, high in found
        }

    def partly_indexed(self, intervals: Sequence[Interval]) -> list[Row]:
        """The records that begin within these and have keys which the index does not have."""
        # JSON has no infinity.
        bounds = [(number, max(low, -1e300), min(high, 1e300)) for number, low, high in intervals]
        return self._rows(
            "WHERE sid IN (SELECT sid FROM json_each(?) CROSS JOIN segment "
            "WHERE segment.stream = json_extract(value, '$[0]') "
            "AND start >= json_extract(value, '$[1]') AND start < json_extract(value, '$[2]') "
            "AND num_indexed < num_keys)",
            (json.dumps(bounds),),
        )

    def until_anchor(self, stream: str, since: float) -> list[Row]:
        """The records of a stream that end after a time, until before the first anchor among them.

        Args:
            stream: its name.
            since: in seconds of the stream.
        """
        return self._rows(
            f'WHERE segment.{_WHOSE} AND "end" > ?2 AND start >= coalesce((SELECT max(start) '
            f"FROM segment WHERE {_WHOSE} AND start <= ?2), -1e300) AND "
            f'start < coalesce((SELECT min(start) FROM segment WHERE {_WHOSE} AND "end" > ?2 '
            f"AND start > ?2 AND {_IS_ANCHOR}), 1e300) ORDER BY start, sid",
            (stream, since),
        )

    def headless(self) -> set[str]:
        """Streams whose first record is no anchor, because what was before it was forgotten."""
        found = self._all(
            "SELECT name FROM stream WHERE 0 = (SELECT is_anchor FROM segment "
            "WHERE segment.stream = stream.number ORDER BY start, sid LIMIT 1)"
        )
        return {name for (name,) in found}

    def stream_numbers(self) -> dict[str, int]:
        """The number of each stream that has a record or is known."""
        return dict(self._all("SELECT name, number FROM stream"))

    def totals(
        self, before: float | None = None
    ) -> list[tuple[str, int, int, int, int, int, float, float]]:
        """Of each stream and tier: name, tier, records, bytes, keys, indexed keys, start, end.

        Args:
            before: count only records that end by this second of their stream.
        """
        return self._all(
            "SELECT name, tier, count(*), sum(length), sum(num_keys), sum(num_indexed), "
            'min(start), max("end") FROM segment JOIN stream ON number = stream '
            'WHERE ?1 IS NULL OR "end" <= ?1 GROUP BY name, tier ORDER BY name, tier',
            (before,),
        )

    def streams(self, only: str | None = None) -> list[StreamInfo]:
        """What is known about every stream, or about one that may not be there, by id."""
        rows = self._all(
            "SELECT name, size, digest, recipe, seconds, coverage, complete FROM stream "
            "WHERE digest IS NOT NULL AND (?1 IS NULL OR name = ?1) ORDER BY name",
            (only,),
        )
        found = []
        for name, size, digest, recipe, seconds, spans, complete in rows:
            coverage = Coverage(name, tuple(Span(*span) for span in json.loads(spans)))
            found.append(StreamInfo(name, size, digest, recipe, seconds, coverage, bool(complete)))
        return found

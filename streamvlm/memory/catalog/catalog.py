"""What is written to the catalogue. A record exists if and only if its row is committed.

This file, `rows`, `columns` and `database` hold all SQL of StreamVLM. A shard is `open` while one
writer, who holds a lock on its file, appends to it; `sealed` when nobody ever will again; `dead`
when no record is left in it, until its files are gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from streamvlm.memory.catalog.rows import Row, Rows, Segment
from streamvlm.memory.info import StreamInfo
from streamvlm.types import Coverage, Span

FORGOTTEN = "forgotten"
"""The reason of the gap in a stream's coverage whose records were deleted."""


class Catalog(Rows):
    """A connection that writes."""

    def add_shard(self, name: str, seal: str | None = None) -> None:
        """Register an open shard, before its first record.

        Args:
            name: of the new shard.
            seal: a shard of the same writer that ends with it.
        """
        with self.transaction():
            self.sql.execute("UPDATE shard SET state = 'sealed' WHERE name = ?", (seal,))
            self.sql.execute("INSERT INTO shard (name, state) VALUES (?, 'open')", (name,))

    def seal(self, names: Iterable[str]) -> None:
        """Let these shards never be appended to again."""
        query = "UPDATE shard SET state = 'sealed' WHERE name = ? AND state = 'open'"
        with self.transaction():
            self.sql.executemany(query, [(name,) for name in names])

    def bury(self) -> None:
        """Mark every sealed shard in which no record is left as dead."""
        with self.transaction():
            self.sql.execute(
                "UPDATE shard SET state = 'dead' WHERE state = 'sealed' AND NOT EXISTS "
                "(SELECT 1 FROM segment WHERE segment.shard = shard.number)"
            )

    def drop_shards(self, names: Iterable[str]) -> None:
        """Take dead shards, whose files are gone, out of the catalogue."""
        with self.transaction():
            self.sql.executemany("DELETE FROM shard WHERE name = ?", [(name,) for name in names])

    def add(self, shard: str, segments: Sequence[Segment]) -> bool:
        """Commit records of one open shard; those whose id is known are left out.

        Args:
            shard: the shard's name.
            segments: at least one, in the order of their keys.

        Returns:
            False if the shard was sealed meanwhile: then nothing was added.
        """
        with self.transaction():
            found = self.sql.execute(
                "SELECT number FROM shard WHERE name = ? AND state = 'open'", (shard,)
            ).fetchone()
            if found is None:
                return False
            self._insert(found[0], segments)
        return True

    def adopt(self, shards: Sequence[tuple[str, Sequence[Segment]]]) -> int:
        """Commit finished shards with their records; a shard that is known adds nothing.

        Returns:
            How many records were added.
        """
        added = 0
        with self.transaction():
            for name, segments in shards:
                number = self.sql.execute(
                    "INSERT OR IGNORE INTO shard (name, state) VALUES (?, 'sealed') "
                    "RETURNING number",
                    (name,),
                ).fetchone()
                if number is not None and segments:
                    added += self._insert(number[0], segments)
        return added

    def _insert(self, shard: int, segments: Sequence[Segment]) -> int:
        """How many of them were not known."""
        streams = {name: self._stream_number(name) for name in {s.stream for s in segments}}
        done = self.sql.executemany(
            'INSERT INTO segment (uid, stream, start, "end", offset, length, num_keys, '
            "num_indexed, key_base, is_anchor, tier, shard) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (uid) DO NOTHING",
            [(s.uid, streams[s.stream], *s[2:], shard) for s in segments],
        )
        self._extend(shard, segments)
        return done.rowcount

    def _extend(self, shard: int, segments: Sequence[Segment]) -> None:
        last = segments[-1]
        self.sql.execute(
            "UPDATE shard SET bytes = ?, num_keys = ? WHERE number = ?",
            (last.offset + last.length, last.key_end, shard),
        )

    def _stream_number(self, name: str) -> int:
        query = "SELECT number FROM stream WHERE name = ?"
        found = self.sql.execute(query, (name,)).fetchone()
        if found is None:
            query = "INSERT INTO stream (name) VALUES (?) RETURNING number"
            found = self.sql.execute(query, (name,)).fetchone()
        number: int = found[0]
        return number

    def move(
        self, shard: str, moved: Sequence[Row], replaced: Sequence[tuple[Sequence[Row], Segment]]
    ) -> bool:
        """Point rows at their new place, and put new records in the place of others, all at once.

        Args:
            shard: the registered shard that holds all new places; it is sealed by this.
            moved: rows as they were, with the new place in `segment`.
            replaced: rows as they were, and the record that stands for them from now on.

        Returns:
            False if one of the replaced rows is gone or was moved meanwhile: then nothing changed.
        """
        gone = [row for rows, _ in replaced for row in rows]
        with self.transaction():
            here = "SELECT 1 FROM segment WHERE sid = ? AND shard = "
            here += "(SELECT number FROM shard WHERE name = ?)"
            if not all(self.sql.execute(here, (row.sid, row.shard)).fetchone() for row in gone):
                return False
            self._leave([*moved, *gone])
            (number,) = self.sql.execute(
                "SELECT number FROM shard WHERE name = ?", (shard,)
            ).fetchone()
            self.sql.executemany(
                "UPDATE segment SET shard = ?, offset = ?, length = ?, num_keys = ?, "
                "num_indexed = ?, key_base = ?, is_anchor = ?, tier = ? WHERE sid = ? AND shard = "
                "(SELECT number FROM shard WHERE name = ?)",
                [(number, *row.segment[4:], row.sid, row.shard) for row in moved],
            )
            self.sql.executemany("DELETE FROM segment WHERE sid = ?", [(r.sid,) for r in gone])
            # Only those: a moved row that was forgotten meanwhile must not come back.
            new = [segment for _, segment in replaced]
            if new:
                self._insert(number, new)
            whole = sorted((*(row.segment for row in moved), *new), key=lambda s: s.offset)
            self._extend(number, whole)
            self.sql.execute("UPDATE shard SET state = 'sealed' WHERE number = ?", (number,))
        return True

    def _leave(self, rows: Iterable[Row]) -> None:
        names = {row.shard for row in rows}
        query = "UPDATE shard SET rev = rev + 1 WHERE name = ?"
        self.sql.executemany(query, [(name,) for name in names])

    def forget(self, stream: str, before: float | None) -> int:
        """Delete a stream and its records, or its records that end by a time; readers are told.

        The coverage of a stream that stays says up to when it was forgotten.

        Returns:
            How many records were deleted.
        """
        with self.transaction():
            return self._forget(stream, before)

    def _forget(self, stream: str, before: float | None) -> int:
        whose = "stream = (SELECT number FROM stream WHERE name = ?1) AND (?2 IS NULL OR"
        whose += ' "end" <= ?2)'
        self.sql.execute(
            "UPDATE shard SET rev = rev + 1 WHERE number IN "
            f"(SELECT DISTINCT shard FROM segment WHERE {whose})",
            (stream, before),
        )
        query = f'SELECT max("end") FROM segment WHERE {whose}'
        (last,) = self.sql.execute(query, (stream, before)).fetchone()
        done = self.sql.execute(f"DELETE FROM segment WHERE {whose}", (stream, before))
        if before is None:
            self.sql.execute("DELETE FROM stream WHERE name = ?", (stream,))
        elif last is not None:
            for info in self.streams(stream):
                # The last clip may be longer than its stream; how long that is, is not known yet
                # while it is being read.
                until = min(last, info.seconds or last)
                self._write(replace(info, coverage=_forgotten(info.coverage, until)))
        return done.rowcount

    def forget_strays(self, stream: str) -> None:
        """Delete a stream's records if nothing is known about it."""
        with self.transaction():
            if not self.streams(stream):
                self._forget(stream, None)

    def put_stream(self, info: StreamInfo) -> int:
        """Write or replace what is known about a stream.

        Returns:
            Its number, which no other stream ever has, nor the same one after it was forgotten.
        """
        with self.transaction():
            number = self._stream_number(info.stream)
            self._write(info)
        return number

    def has_stream(self, name: str, number: int) -> bool:
        """Whether a stream is there and was not forgotten since it got its number."""
        return bool(self._all("SELECT 1 FROM stream WHERE name = ? AND number = ?", (name, number)))

    def update_stream(self, info: StreamInfo, number: int) -> bool:
        """Replace what is known about a stream, but what says up to when it was forgotten.

        Args:
            info: what is known now.
            number: of the stream.

        Returns:
            False if all of it was forgotten since it got this number: then nothing changed.
        """
        with self.transaction():
            if not self.has_stream(info.stream, number):
                return False
            for known in self.streams(info.stream):
                gone = [span.end for span in known.coverage.spans if span.reason == FORGOTTEN]
                if gone:
                    until = min(gone[0], info.seconds)
                    info = replace(info, coverage=_forgotten(info.coverage, until))
            self._write(info)
        return True

    def _write(self, info: StreamInfo) -> None:
        spans = [[s.start, s.end, s.kind, s.reason] for s in info.coverage.spans]
        self.sql.execute(
            "UPDATE stream SET size = ?, digest = ?, recipe = ?, seconds = ?, coverage = ?, "
            "complete = ? WHERE name = ?",
            (
                *(info.size, info.digest, info.recipe, info.seconds),
                *(json.dumps(spans), int(info.complete), info.stream),
            ),
        )


def _forgotten(coverage: Coverage, until: float) -> Coverage:
    """What is left of a coverage once the records up to a second are forgotten.

    What stood still from then on was to be seen in the last of them, so it goes as well.
    """
    left = [span for span in coverage.spans if span.end > until]
    if left and left[0].kind == "still":
        until = left.pop(0).end
    left = [replace(span, start=max(span.start, until)) for span in left]
    return replace(coverage, spans=(Span(0.0, until, "gap", FORGOTTEN), *left))

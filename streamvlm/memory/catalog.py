"""The catalogue: which shards, records and streams exist. The only SQL of StreamVLM.

A record exists if and only if its row is committed here. SQLite in WAL mode gives readers a
consistent snapshot beside the writer. There is one writer, which holds `writer.lock` for as long
as it is open, so no commit can overlap a checkpoint of another process (SQLite before 3.51.3 may
corrupt the file then); with automatic checkpoints off they cannot overlap within it either.
Several writers will need one short lock round each commit and checkpoint instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from streamvlm.memory.folder import Sync
from streamvlm.memory.info import StreamInfo
from streamvlm.types import Coverage, Span

_CHECKPOINT_EVERY = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shard (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed')),
    bytes INTEGER NOT NULL DEFAULT 0, start REAL, "end" REAL,
    num_keys INTEGER NOT NULL DEFAULT 0, rev INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS segment (
    sid INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE,
    stream TEXT NOT NULL, start REAL NOT NULL, "end" REAL NOT NULL,
    shard INTEGER NOT NULL REFERENCES shard, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    num_keys INTEGER NOT NULL, key_base INTEGER NOT NULL, meta TEXT);
CREATE INDEX IF NOT EXISTS segment_by_stream ON segment (stream, start);
CREATE INDEX IF NOT EXISTS segment_by_shard ON segment (shard);
CREATE TABLE IF NOT EXISTS stream (
    stream TEXT PRIMARY KEY, size INTEGER NOT NULL, digest TEXT NOT NULL, recipe TEXT NOT NULL,
    seconds REAL NOT NULL, coverage TEXT NOT NULL, complete INTEGER NOT NULL) WITHOUT ROWID;
"""


class Shard(NamedTuple):
    """A row of `shard`."""

    number: int
    """For ever."""
    name: str
    """File name without ending."""
    state: str
    """`open`: the writer may go on appending. `sealed`: never again."""
    bytes: int
    """Where the last committed record ends."""
    num_keys: int
    """Keys ever committed, also of records forgotten since."""
    rev: int
    """Goes up when records leave; a reader then forgets what it holds of the shard."""


class Segment(NamedTuple):
    """Where a record is and what a filter needs of it: a row of `segment`."""

    sid: int
    """Grows with every record, never used twice."""
    uid: str
    """The record's id."""
    stream: str
    start: float
    end: float
    offset: int
    length: int
    num_keys: int
    key_base: int
    """Number of its first key within the shard."""


_SEGMENT = 'sid, uid, stream, start, "end", offset, length, num_keys, key_base'


class Catalog:
    """One connection to `catalog.db`."""

    def __init__(self, path: Path, *, writable: bool, sync: Sync = "power") -> None:
        self._commits = 0
        self._writable = writable
        if writable:
            self._sql = self._connect(str(path), uri=False)
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA wal_autocheckpoint = 0")
            self._sql.execute(f"PRAGMA synchronous = {'FULL' if sync == 'power' else 'OFF'}")
            self._sql.executescript(_SCHEMA)
            return
        try:
            self._sql = self._connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            self.version()
        except sqlite3.OperationalError:
            # A WAL catalogue in a folder where nothing may be written opens only as immutable,
            # which is right as long as no writer is there, and a writer leaves a -wal file.
            if path.with_name("catalog.db-wal").exists():
                raise
            self._sql = self._connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)

    @staticmethod
    def _connect(path: str, *, uri: bool) -> sqlite3.Connection:
        return sqlite3.connect(
            path, uri=uri, isolation_level=None, timeout=30, check_same_thread=False
        )

    def _shards(self, order: str) -> list[Shard]:
        columns = "number, name, state, bytes, num_keys, rev"
        return [Shard(*row) for row in self._sql.execute(f"SELECT {columns} FROM shard {order}")]

    def close(self) -> None:
        """Move what was committed into `catalog.db` itself, if this is the writer, and close."""
        if self._writable:
            with suppress(sqlite3.Error):
                self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside becomes visible, and durable, at once or not at all."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._sql.execute("ROLLBACK")
            raise
        self._commits += 1
        if self._commits % _CHECKPOINT_EVERY == 0:
            # What was committed is safe without it, and the next one comes.
            with suppress(sqlite3.Error):
                self._sql.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment."""
        self._sql.execute("BEGIN")
        try:
            yield
        finally:
            self._sql.execute("COMMIT")

    def version(self) -> tuple[int, int]:
        """Another value whenever anything was committed, here or by another process."""
        foreign: int = self._sql.execute("PRAGMA data_version").fetchone()[0]
        return foreign, self._commits

    def shards(self) -> list[Shard]:
        """All shards, oldest first."""
        return self._shards("ORDER BY number")

    def last_shard(self) -> Shard | None:
        """The newest shard, or None before the first record."""
        shards = self._shards("ORDER BY number DESC LIMIT 1")
        return shards[0] if shards else None

    def add_shard(self, name: str) -> None:
        """Register a shard, before its first record, and seal all others."""
        with self.transaction():
            self._sql.execute("UPDATE shard SET state = 'sealed'")
            self._sql.execute("INSERT INTO shard (name, state) VALUES (?, 'open')", (name,))

    def seal_all(self) -> None:
        """Let no shard be appended to any more."""
        with self.transaction():
            self._sql.execute("UPDATE shard SET state = 'sealed'")

    def known(self, uids: Sequence[str]) -> set[str]:
        """Which of these record ids exist."""
        query = "SELECT 1 FROM segment WHERE uid = ?"
        return {uid for uid in uids if self._sql.execute(query, (uid,)).fetchone()}

    def add(self, shard: str, segments: Sequence[Segment]) -> None:
        """Commit records of one shard; `sid` is ignored and given here.

        Args:
            shard: the shard's name.
            segments: at least one, in the order of their keys.
        """
        with self.transaction():
            (number,) = self._sql.execute(
                "SELECT number FROM shard WHERE name = ?", (shard,)
            ).fetchone()
            self._sql.executemany(
                'INSERT INTO segment (uid, stream, start, "end", offset, length, num_keys, '
                "key_base, shard) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*segment[1:], number) for segment in segments],
            )
            last = segments[-1]
            self._sql.execute(
                "UPDATE shard SET bytes = ?, num_keys = ?, start = min(ifnull(start, 1e300), ?), "
                '"end" = max(ifnull("end", 0), ?) WHERE number = ?',
                (
                    last.offset + last.length,
                    last.key_base + last.num_keys,
                    min(segment.start for segment in segments),
                    max(segment.end for segment in segments),
                    number,
                ),
            )

    def count(self) -> int:
        """How many records exist."""
        number: int = self._sql.execute("SELECT count(*) FROM segment").fetchone()[0]
        return number

    def uids(self, stream: str | None) -> list[str]:
        """Record ids of one stream or all, by stream and time."""
        where = "" if stream is None else "WHERE stream = ?"
        rows = self._sql.execute(
            f"SELECT uid FROM segment {where} ORDER BY stream, start, sid",
            () if stream is None else (stream,),
        )
        return [uid for (uid,) in rows]

    def last_before(self, stream: str, seconds: float) -> str | None:
        """The record of a stream that starts last before a second of it."""
        row = self._sql.execute(
            "SELECT uid FROM segment WHERE stream = ? AND start < ? ORDER BY start DESC LIMIT 1",
            (stream, seconds),
        ).fetchone()
        return row[0] if row else None

    def uid_of(self, sids: Sequence[int]) -> dict[int, str]:
        """Record ids by number; those gone meanwhile are left out."""
        query = "SELECT sid, uid FROM segment WHERE sid = ?"
        found = [self._sql.execute(query, (sid,)).fetchone() for sid in sids]
        return {row[0]: row[1] for row in found if row}

    def place(self, uid: str) -> tuple[str, Segment] | None:
        """The shard's name and the row of a record, or None if there is none."""
        row = self._sql.execute(
            f"SELECT name, {_SEGMENT} FROM (SELECT shard, {_SEGMENT} FROM segment WHERE uid = ?) "
            "JOIN (SELECT number, name FROM shard) ON shard = number",
            (uid,),
        ).fetchone()
        return (row[0], Segment(*row[1:])) if row else None

    def segments(self, shard: int, after: int) -> list[Segment]:
        """The records of a shard with a number above `after`, in the order of their keys."""
        rows = self._sql.execute(
            f"SELECT {_SEGMENT} FROM segment WHERE shard = ? AND sid > ? ORDER BY sid",
            (shard, after),
        )
        return [Segment(*row) for row in rows]

    def put_stream(self, info: StreamInfo) -> None:
        """Write or replace what is known about a stream."""
        spans = [[s.start, s.end, s.kind, s.reason] for s in info.coverage.spans]
        with self.transaction():
            self._sql.execute(
                "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(info.stream, info.size, info.digest, info.recipe, info.seconds),
                    *(json.dumps(spans), int(info.complete)),
                ),
            )

    def streams(self, only: str | None = None) -> list[StreamInfo]:
        """What is known about every stream, or about one that may not be there, by id."""
        rows = self._sql.execute(
            "SELECT stream, size, digest, recipe, seconds, coverage, complete FROM stream "
            "WHERE ?1 IS NULL OR stream = ?1 ORDER BY stream",
            (only,),
        )
        found = []
        for stream, size, digest, recipe, seconds, spans, complete in rows:
            coverage = Coverage(stream, tuple(Span(*span) for span in json.loads(spans)))
            found.append(
                StreamInfo(stream, size, digest, recipe, seconds, coverage, bool(complete))
            )
        return found

    def forget(self, stream: str) -> None:
        """Delete a stream and its records, and tell readers through `rev`."""
        with self.transaction():
            self._sql.execute(
                "UPDATE shard SET rev = rev + 1 WHERE number IN "
                "(SELECT shard FROM segment WHERE stream = ?)",
                (stream,),
            )
            self._sql.execute("DELETE FROM segment WHERE stream = ?", (stream,))
            self._sql.execute("DELETE FROM stream WHERE stream = ?", (stream,))

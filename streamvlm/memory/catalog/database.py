"""One connection to `catalog.db`: how it is opened, what is one transaction, who may checkpoint.

SQLite in WAL mode gives readers a consistent snapshot beside the writers. Everything that writes
passes the gate (see `gate`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamvlm.memory.disk.folder import Sync
from streamvlm.memory.disk.gate import Gate

_CHECKPOINT_EVERY = 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shard (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'dead')),
    bytes INTEGER NOT NULL DEFAULT 0, num_keys INTEGER NOT NULL DEFAULT 0,
    rev INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS stream (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,
    size INTEGER, digest TEXT, recipe TEXT, seconds REAL, coverage TEXT, complete INTEGER);
CREATE TABLE IF NOT EXISTS segment (
    sid INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE,
    stream INTEGER NOT NULL REFERENCES stream, start REAL NOT NULL, "end" REAL NOT NULL,
    shard INTEGER NOT NULL REFERENCES shard, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    num_keys INTEGER NOT NULL, num_indexed INTEGER NOT NULL, key_base INTEGER NOT NULL,
    is_anchor INTEGER NOT NULL, tier INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS segment_by_stream ON segment (stream, start);
CREATE INDEX IF NOT EXISTS segment_by_shard ON segment (shard);
CREATE INDEX IF NOT EXISTS anchor_by_stream ON segment (stream, start) WHERE is_anchor = 1;
"""


class Database:
    """A connection that may be shared between threads: each use of it takes `lock`.

    Args:
        path: `catalog.db`; its gate lies beside it.
        writable: whether to make what is missing and to write.
        sync: what a commit survives.
    """

    def __init__(self, path: Path, *, writable: bool, sync: Sync = "power") -> None:
        self.lock = threading.RLock()
        """Held by a thread that uses the connection."""
        self._commits = 0
        self._gate: Gate | None = None
        self._path = path
        # What the file was when it was opened as one that nobody changes; None if it was not.
        self._frozen: tuple[bool, int, int] | None = None
        if writable:
            self._open_writable(path, sync)
        else:
            self._open_readable()

    def _open_writable(self, path: Path, sync: Sync) -> None:
        self._gate = Gate(path.with_suffix(".lock"))
        try:
            self._gate.check(path.parent)
            with self._gate:
                self.sql = self._connect(str(path), uri=False)
                self.sql.execute("PRAGMA journal_mode = WAL")
                self.sql.execute("PRAGMA wal_autocheckpoint = 0")
                self.sql.execute(f"PRAGMA synchronous = {'FULL' if sync == 'power' else 'NORMAL'}")
                # What was deleted is not to be found in the file either.
                self.sql.execute("PRAGMA secure_delete = ON")
                self.sql.executescript(_SCHEMA)
        except BaseException:
            self._gate.close()
            raise

    def _open_readable(self) -> None:
        place, before = self._path.absolute().as_uri(), self._state()
        try:
            self.sql, self._frozen = self._connect(f"{place}?mode=ro", uri=True), None
            self.version()
        except sqlite3.OperationalError:
            # A WAL catalogue in a folder where nothing may be written opens only as immutable,
            # which is right as long as no writer is there, and a writer leaves a -wal file.
            if before[0]:
                raise
            self.sql, self._frozen = self._connect(f"{place}?immutable=1", uri=True), before

    def _state(self) -> tuple[bool, int, int]:
        """Whether a writer is there, and when the file was written and how long it is."""
        now = self._path.stat()
        has_log = self._path.with_name(f"{self._path.name}-wal").exists()
        return has_log, now.st_mtime_ns, now.st_size

    def follow(self) -> None:
        """Open the catalogue anew if it was thought immutable, but a writer has been there."""
        is_old = self._frozen is not None and self._frozen != self._state()
        if is_old and not self.sql.in_transaction:
            self._commits += 1
            old = self.sql
            self._open_readable()
            old.close()

    @staticmethod
    def _connect(path: str, *, uri: bool) -> sqlite3.Connection:
        return sqlite3.connect(
            path, uri=uri, isolation_level=None, timeout=30, check_same_thread=False
        )

    def close(self) -> None:
        """Close; a writer first moves what was committed into `catalog.db` itself."""
        with self.lock:
            if self._gate is None:
                self.sql.close()
                return
            with self._gate:
                # Not TRUNCATE, which would wait for readers while all writers wait for the gate.
                self._checkpoint("PASSIVE")
                # The last connection to close checkpoints as well.
                self.sql.close()
            self._gate.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside becomes visible, and durable, at once or not at all."""
        assert self._gate is not None
        with self.lock, self._gate:
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.sql.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.sql.execute("ROLLBACK")
                raise
            self._commits += 1
            if self._commits % _CHECKPOINT_EVERY == 0:
                self._checkpoint("PASSIVE")

    def scrub(self) -> None:
        """Write `catalog.db` anew and empty its log, so that neither holds anything deleted.

        Secure deletion alone leaves copies of cells that were moved between pages.
        """
        assert self._gate is not None
        with self.lock, self._gate:
            self.sql.execute("VACUUM")
            self._checkpoint("TRUNCATE")

    def flaws(self) -> list[str]:
        """What SQLite finds wrong with the file, and rows that refer to what is not there."""
        with self.lock:
            try:
                found = [text for (text,) in self.sql.execute("PRAGMA integrity_check(20)")]
                lost = self.sql.execute("PRAGMA foreign_key_check").fetchmany(20)
            except sqlite3.DatabaseError as error:
                return [str(error)]
        flaws = [text for text in found if text != "ok"]
        return flaws + [
            f"row {row} of {table} refers to no {other}" for table, row, other, _ in lost
        ]

    def _checkpoint(self, how: str) -> None:
        # What was committed is safe without it, and the next one comes.
        with suppress(sqlite3.Error):
            self.sql.execute(f"PRAGMA wal_checkpoint({how})")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment."""
        with self.lock:
            self.follow()
            self.sql.execute("BEGIN")
            try:
                yield
            finally:
                self.sql.execute("COMMIT")

    def version(self) -> tuple[int, int]:
        """Another value whenever anything was committed, here or by another process."""
        with self.lock:
            self.follow()
            foreign: int = self.sql.execute("PRAGMA data_version").fetchone()[0]
            return foreign, self._commits

    def backup(self, target: Path) -> None:
        """Write a consistent copy of the catalogue as one file.

        Args:
            target: the file; replaced if it is there.
        """
        draft = target.with_name(f".{target.name}.draft")
        draft.unlink(missing_ok=True)
        copy = sqlite3.connect(draft)
        try:
            with self.lock:
                self.sql.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        draft.replace(target)

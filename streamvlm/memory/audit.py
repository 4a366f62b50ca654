"""Whether a memory's own bytes are what was written: catalogue, records, index files.

This reads the memory and nothing else. Whether its records still show what their sources show is
another question, see `streamvlm.verify`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Row, Rows, Segment, Shard
from streamvlm.memory.disk.codec import Head, unpack_stored
from streamvlm.memory.disk.folder import check_catalog, in_words, read_format
from streamvlm.memory.disk.shards import ShardReader, shard_file
from streamvlm.memory.index import derived
from streamvlm.memory.info import Progress, unwatched

_REBUILD = "make the catalogue again from the shards: streamvlm memory rebuild {}"
_AGAIN = (
    "restore its shard from a copy, or forget its stream and ingest it again; the other records "
    "are not affected"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written."""

    kind: Literal["catalogue", "shard", "record", "index"]
    """What is damaged. An `index` costs nothing but time: it is made again."""
    problem: str
    """What is wrong, and what to do."""
    records: int = 0
    """How many records are lost by it, as far as is known."""
    id: str = ""
    """Of the record, if it is one."""
    stream: str = ""
    """Whose records they are."""
    start: float | None = None
    """Their first second."""
    end: float | None = None
    """Their last second."""


def audit(path: Path | str, progress: Progress = unwatched) -> Iterator[Finding]:
    """Read every byte of a memory and compare it with its checksum; others may use it meanwhile.

    Args:
        path: its folder.
        progress: is told how many records of how many were read.

    Yields:
        What is damaged, as soon as it is found; nothing if all is well.

    Raises:
        MemoryStoreError: it is no memory, has no catalogue, or cannot be read at all.
    """
    path = Path(path).absolute()
    with in_words(path, "verify"):
        width = read_format(path).identity.key_width
        check_catalog(path)
        try:
            rows = Rows(path / "catalog.db", writable=False)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            yield _catalogue(path, str(error))
            return
        reader = ShardReader(path / "shards")
        is_told = False
        try:
            for finding in _Audit(path, rows, reader, width).findings(progress):
                is_told = is_told or finding.kind == "catalogue"
                yield finding
        except sqlite3.DatabaseError as error:
            # What cannot be read any further is of the damage that was named already.
            if not is_told:
                yield _catalogue(path, str(error))
        finally:
            reader.close()
            rows.close()


def _catalogue(path: Path, flaw: str) -> Finding:
    remedy = _REBUILD.format(path)
    return Finding("catalogue", f"the catalogue is damaged ({flaw}); {remedy}")


@dataclass(frozen=True, slots=True)
class _Audit:
    """One pass over a memory."""

    path: Path
    rows: Rows
    reader: ShardReader
    width: int

    def findings(self, progress: Progress) -> Iterator[Finding]:
        flaws = self.rows.flaws()
        yield from (_catalogue(self.path, flaw) for flaw in flaws)
        total, done = self.rows.count(), 0
        progress(0, total)
        seen: set[str] = set()
        # Maintenance may move records to a new shard meanwhile, so that there is another round.
        while fresh := [shard for shard in self.rows.shards() if shard.name not in seen]:
            for shard in fresh:
                seen.add(shard.name)
                held = self.rows.held(shard.name)
                if held and not shard_file(self.path / "shards", shard.name).exists():
                    yield from self._missing(shard)
                else:
                    yield from self._numbering(shard, held)
                    for row in held:
                        yield from self._record(row)
                        done += 1
                        progress(done, max(total, done))
                yield from self._index(shard)

    def _missing(self, shard: Shard) -> Iterator[Finding]:
        """What is lost with a file; nothing if maintenance has just removed it."""
        by_stream: dict[str, list[Segment]] = {}
        for row in self.rows.held(shard.name):
            by_stream.setdefault(row.segment.stream, []).append(row.segment)
        for stream, lost in by_stream.items():
            yield Finding(
                "shard",
                f"the file of shard {shard.name} is missing, and with it {len(lost)} "
                f"record{'s' if len(lost) > 1 else ''} of {stream}; {_AGAIN}",
                records=len(lost),
                stream=stream,
                start=min(segment.start for segment in lost),
                end=max(segment.end for segment in lost),
            )

    def _numbering(self, shard: Shard, held: list[Row]) -> Iterator[Finding]:
        """Whether no two records claim the same bytes or the same keys of the index."""
        own = [row.segment for row in held]
        spans = sorted((s.offset, s.offset + s.length) for s in own)
        keys = sorted((s.key_base, s.key_end) for s in own if s.num_indexed)
        for what, ranges in (("bytes", spans), ("keys", keys)):
            if any(end > begin for (_, end), (begin, _) in pairwise(ranges)):
                yield _catalogue(
                    self.path, f"two records of shard {shard.name} claim the same {what}"
                )
        # It may have grown since its row was read, but has never had less.
        last = max((end for _, end in keys), default=0)
        now = self.rows.shard(shard.name)
        if now is not None and last > now.num_keys:
            flaw = f"shard {shard.name} has {last} keys, its row says {now.num_keys}"
            yield _catalogue(self.path, flaw)

    def _record(self, row: Row) -> Iterator[Finding]:
        problem = self._problem(row)
        while problem is not None:
            now = self.rows.place(row.segment.uid)
            if now is None:
                return
            if now == row:
                s = row.segment
                yield Finding("record", problem, 1, s.uid, s.stream, s.start, s.end)
                return
            # It was moved between the look at its row and the look at its bytes.
            row, problem = now, self._problem(now)

    def _problem(self, row: Row) -> str | None:
        """What is wrong with a record; None if nothing is."""
        segment = row.segment
        named = f"{segment.when}: record {segment.uid}"
        try:
            size = shard_file(self.path / "shards", row.shard).stat().st_size
            if segment.offset < 0 or segment.offset + segment.length > size:
                end = segment.offset + segment.length
                return (
                    f"{named} should lie at bytes {segment.offset}–{end} of shard {row.shard}, "
                    f"which has {size}; {_AGAIN}"
                )
            blob = self.reader.read(row.shard, segment.offset, segment.length)
            stored = unpack_stored(blob, segment.uid)
            head = Head.parse(blob, segment.uid)
        except OSError as error:
            return f"{named} cannot be read ({error.strerror}); {_AGAIN}"
        except MemoryStoreError as error:
            return f"{segment.when}: {error}"
        if head.packed_bytes != len(blob) or any(blob[head.keys_end + head.body_bytes :]):
            return f"{named} is damaged (what fills it up is not what was written); {_AGAIN}"
        record = stored.record
        found = segment._replace(
            stream=record.stream,
            start=record.start,
            end=record.end,
            num_keys=head.num_keys,
            num_indexed=head.num_indexed,
            is_anchor=head.is_anchor,
            tier=record.tier,
        )
        if found != segment:
            rebuild = _REBUILD.format(self.path)
            return f"{named} is whole, but its catalogue row says something else; {rebuild}"
        if head.key_width != self.width:
            return f"{named} has keys of {head.key_width} numbers, not {self.width}; {_AGAIN}"
        return None

    def _index(self, shard: Shard) -> Iterator[Finding]:
        flaw = derived.flaw(self.path / "index", shard.name, self.width, shard.num_keys)
        now = self.rows.shard(shard.name)
        # Another process may have searched and saved it meanwhile, with more keys than then.
        if flaw is not None and now is not None and now.num_keys != shard.num_keys:
            flaw = derived.flaw(self.path / "index", shard.name, self.width, now.num_keys)
        if flaw is not None and now is not None:
            yield Finding(
                "index",
                f"the index files of shard {shard.name} are damaged ({flaw}); nothing is lost: the "
                "next search makes them again",
            )

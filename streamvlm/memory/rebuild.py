"""Making the catalogue again from the shards, which say everything about their records.

What the shards cannot tell comes from the newest copy of the catalogue that can still be read:
which streams were complete, and what was watched of them. Records that were forgotten since, but
whose bytes were not erased yet, come back.
"""

from __future__ import annotations

import logging
import mmap
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from xxhash import xxh3_64_intdigest as checksum

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Rows, Segment
from streamvlm.memory.disk import body as bodies
from streamvlm.memory.disk.codec import HEAD_BYTES, MAGIC, DamagedRecord, Head
from streamvlm.memory.disk.folder import in_words, read_format, sync_folder
from streamvlm.memory.disk.gate import Gate, sole_maintainer, try_lock
from streamvlm.memory.disk.shards import SUFFIX
from streamvlm.memory.info import StreamInfo
from streamvlm.types import Coverage

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many were read."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found in the shards."""

    records: int
    shards: int
    streams: int
    """Streams of which a copy of the catalogue still knew what was watched."""
    unknown: int
    """Streams with records of which no copy did; the same ingest again makes that good."""
    damaged: int
    """Records that are not whole; they are left out."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One shard as it was read."""

    name: str
    segments: tuple[Segment, ...]
    lost: tuple[str | None, ...]
    """The stream of each record that is not whole; None where it cannot be told."""


def rebuild(path: Path | str, progress: Progress = lambda done, total: None) -> Rebuilt:
    """Make `catalog.db` again from the shards. Nobody may have the memory open meanwhile.

    The old catalogue stays beside it as `catalog.db.old`.

    Args:
        path: the memory's folder.
        progress: is told how far the reading is.

    Raises:
        MemoryStoreError: a writer has the memory open, or the disk is full or broken.
    """
    path = Path(path).absolute()
    with in_words(path, "rebuild"):
        read_format(path)
        with sole_maintainer(path):
            return _rebuild(path, progress)


def _rebuild(path: Path, progress: Progress) -> Rebuilt:
    files = sorted((path / "shards").glob(f"*{SUFFIX}"))
    _check_idle(path, files)
    total, done = sum(file.stat().st_size for file in files), 0
    found: list[_Found] = []
    for file in files:
        found.append(_read(file))
        done += file.stat().st_size
        progress(done, total)
    streams = _known_streams(path)
    draft = path / ".catalog.rebuild"
    for leftover in path.glob(f"{draft.name}*"):
        leftover.unlink()
    catalog = Catalog(draft, writable=True)
    try:
        kept = _newest(found)
        records = catalog.adopt([(shard.name, shard.segments) for shard in kept])
        lost = {stream for shard in found for stream in shard.lost}
        for info in streams:
            # A stream that lacks records is as one whose ingest was interrupted: it may go on.
            is_whole = not lost & {info.stream, None}
            catalog.put_stream(info if is_whole else _interrupted(info))
    finally:
        catalog.close()
    _replace(path, draft)
    damaged = sum(len(shard.lost) for shard in found)
    there = {segment.stream for shard in kept for segment in shard.segments}
    unknown = len(there - {info.stream for info in streams})
    return Rebuilt(records, len(kept), len(streams), unknown, damaged)


def _interrupted(info: StreamInfo) -> StreamInfo:
    return replace(info, seconds=0.0, coverage=Coverage(info.stream, ()), complete=False)


def _check_idle(path: Path, files: list[Path]) -> None:
    """Refuse while a writer holds a shard."""
    for file in files:
        with file.open("rb") as opened:
            if not try_lock(opened.fileno()):
                raise MemoryStoreError(
                    f"another process writes to the memory {path}; stop it, then rebuild"
                )


def _replace(path: Path, draft: Path) -> None:
    """Put a new catalogue in the place of the old one; index files may number keys otherwise."""
    gate = Gate(path / "catalog.lock")
    with gate:
        shutil.rmtree(path / "index", ignore_errors=True)
        with suppress(FileNotFoundError):
            (path / "catalog.db").replace(path / "catalog.db.old")
        for end in ("-wal", "-shm"):
            (path / f"catalog.db{end}").unlink(missing_ok=True)
        draft.replace(path / "catalog.db")
        draft.with_suffix(".lock").unlink(missing_ok=True)
        sync_folder(path)
    gate.close()


def _read(file: Path) -> _Found:
    """Every whole record of a shard."""
    segments: list[Segment] = []
    lost: list[str | None] = []
    base = 0
    for offset, segment in _scan(file):
        if not isinstance(segment, Segment):
            lost.append(segment)
            whose = "" if segment is None else f" of {segment}"
            logger.warning("%s: a record%s at byte %d is damaged and left out", file, whose, offset)
            continue
        segments.append(segment._replace(key_base=base))
        base += segment.num_indexed
    return _Found(file.stem, tuple(segments), tuple(lost))


def _scan(file: Path) -> Iterator[tuple[int, Segment | str | None]]:
    """Where a record begins, and its row; or the stream of one that is not whole, if known."""
    size = file.stat().st_size
    if size < HEAD_BYTES:
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as content:
        at = content.find(MAGIC)
        while at >= 0:
            if at % HEAD_BYTES:
                at = content.find(MAGIC, at + 1)
                continue
            segment, end = _segment(content, at)
            yield at, segment
            at = content.find(MAGIC, end)


def _segment(content: mmap.mmap, at: int) -> tuple[Segment | str | None, int]:
    """The row of the record whose head is at a place, or its stream, and where to go on."""
    try:
        head = Head.parse(content[at : at + HEAD_BYTES], f"at byte {at}")
    except DamagedRecord:
        return None, at + HEAD_BYTES
    end = at + head.packed_bytes
    # A batch that was torn by a crash, not damage: nobody was told that it is there.
    parts = (
        (HEAD_BYTES, head.indexed_end, head.indexed_sum),
        (head.indexed_end, head.keys_end, head.other_sum),
        (head.keys_end, head.keys_end + head.body_bytes, head.body_sum),
    )
    try:
        about = bodies.about(content[at + head.keys_end : at + head.keys_end + head.body_bytes])
    except ValueError:
        return None, at + HEAD_BYTES
    if any(checksum(content[at + a : at + b]) != wanted for a, b, wanted in parts):
        return str(about.get("stream")), at + HEAD_BYTES
    segment = Segment(
        uid=about["id"],
        stream=about["stream"],
        start=about["start"],
        end=about["end"],
        offset=at,
        length=head.packed_bytes,
        num_keys=head.num_keys,
        num_indexed=head.num_indexed,
        key_base=0,
        is_anchor=head.is_anchor,
        tier=about["tier"],
    )
    return segment, end


def _newest(found: list[_Found]) -> list[_Found]:
    """Of a record that is in several shards, the last; of merged ones, not their parts as well.

    A crash between a rewrite and the removal of the old shard leaves both.
    """
    last: dict[str, tuple[str, int]] = {}
    merged: dict[str, list[tuple[float, float, str]]] = {}
    for shard in found:
        for segment in shard.segments:
            last[segment.uid] = (shard.name, segment.offset)
            if segment.tier > 1:
                span = (segment.start, segment.end, shard.name)
                merged.setdefault(segment.stream, []).append(span)

    def is_kept(shard: str, segment: Segment) -> bool:
        if last[segment.uid] != (shard, segment.offset):
            return False
        spans = merged.get(segment.stream, ())
        return not any(
            start <= segment.start and segment.end <= end and shard < later
            for start, end, later in spans
            if (start, end) != (segment.start, segment.end)
        )

    kept = []
    for shard in found:
        own = tuple(s for s in shard.segments if is_kept(shard.name, s))
        if own:
            kept.append(_Found(shard.name, own, ()))
    return kept


def _known_streams(path: Path) -> list[StreamInfo]:
    """What the newest readable catalogue says of the streams."""
    copies = sorted((path / "backup").glob("catalog-*.db"), reverse=True)
    for file in (path / "catalog.db", *copies):
        if not file.exists():
            continue
        try:
            rows = Rows(file, writable=False)
            try:
                return rows.streams()
            finally:
                rows.close()
        except (sqlite3.Error, ValueError, TypeError):
            continue
    return []

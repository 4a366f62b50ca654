"""Tidying up: shards in which little or nothing is left, what killed writers left, a backup.

Nothing here is needed for a right answer. One process does it at a time, beside any number of
writers and readers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Shard
from streamvlm.memory.disk.folder import Sync, check_catalog, in_words, read_format
from streamvlm.memory.disk.gate import sole_maintainer, try_lock
from streamvlm.memory.disk.rewrite import Kept, remove_dead, rewrite
from streamvlm.memory.disk.shards import (
    ShardLimits,
    ShardReader,
    ShardWriter,
    age,
    shard_file,
    shard_size,
)

logger = logging.getLogger(__name__)

LIVE_SHARE = 0.25
"""A shard of which less than this is live is written anew."""
ORPHAN_SECONDS = 3600.0
"""A file that nobody registered is kept so long: its worker may still be writing it."""
_BACKUPS = 2
"""How many copies of the catalogue are kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did."""

    rewritten: int
    """Shards whose records were written anew."""
    freed_bytes: int
    """Of files that are gone."""
    orphans: int
    """Files that nobody had registered, removed."""
    kept_bytes: int
    """Deleted bytes that are still in shards: maintenance takes few at a time."""


@contextmanager
def maintaining(path: Path, sync: Sync = "power") -> Iterator[tuple[Catalog, ShardReader]]:
    """Be the one process that rewrites shards.

    Raises:
        MemoryStoreError: another one is at it, or the folder cannot be written.
    """
    path = path.absolute()
    with in_words(path, "maintain"):
        read_format(path)
        check_catalog(path)
        with sole_maintainer(path):
            catalog = Catalog(path / "catalog.db", writable=True, sync=sync)
            reader = ShardReader(path / "shards")
            try:
                yield catalog, reader
            finally:
                reader.close()
                catalog.close()


def maintain(path: Path | str, *, sync: Sync = "power") -> Report:
    """Do what has become due: a pass is short, and any number may follow.

    Shards in which no record is left are deleted, at most one of which little is left is written
    anew, orphans older than an hour are removed, and once a day the catalogue is copied.

    Args:
        path: the memory's folder.
        sync: what the result survives.

    Raises:
        MemoryStoreError: another process maintains it, or the disk is full or broken.
    """
    path = Path(path).absolute()
    with maintaining(path, sync) as (catalog, reader):
        live = catalog.live()
        _seal_abandoned(path, catalog, live)
        sparse = [
            shard
            for shard in catalog.shards("sealed")
            if live.get(shard.name, 0)
            and _is_sparse(shard, live)
            and shard_file(path / "shards", shard.name).exists()
        ]
        rewritten = sum(_renewed(path, catalog, reader, shard, sync) for shard in sparse[:1])
        orphans = _remove_orphans(path, catalog)
        freed = remove_dead(path, catalog, reader)
        back_up(path, catalog)
        return Report(rewritten, freed, orphans, dead_bytes(path, catalog))


def erase(path: Path | str, *, sync: Sync = "power") -> Report:
    """Take every deleted record off the disk: its keys, tokens, thumbnail and catalogue row.

    Shards that hold deleted bytes are written anew without them, whatever it costs. Their writers
    go on in new ones. Older copies of the catalogue go too.

    Args:
        path: the memory's folder.
        sync: what the result survives.

    Raises:
        MemoryStoreError: another process maintains it, or the disk is full or broken.
    """
    path = Path(path).absolute()
    with maintaining(path, sync) as (catalog, reader):
        live = catalog.live()
        stained = [s for s in catalog.shards() if _stain(path, s, live.get(s.name, 0))]
        catalog.seal(shard.name for shard in stained)
        rewritten = sum(
            _renewed(path, catalog, reader, shard, sync)
            for shard in stained
            if live.get(shard.name, 0)
        )
        freed = remove_dead(path, catalog, reader)
        catalog.scrub()
        _sweep(path, catalog)
        back_up(path, catalog)
        return Report(rewritten, freed, _remove_orphans(path, catalog), dead_bytes(path, catalog))


def _sweep(path: Path, catalog: Catalog) -> None:
    """Remove old copies of the catalogue, drafts, and index files of shards that are gone."""
    # A search may save index files at any time: looked for before it is asked which shards are.
    files = list((path / "index").glob("*"))
    known = {shard.name for shard in catalog.shards()}
    old = [file for file in files if file.name.lstrip(".").split(".")[0] not in known]
    old += [path / "catalog.db.old", *path.glob(".catalog*"), *(path / "backup").glob("*")]
    old += (path / "backup").glob(".*")
    for file in old:
        file.unlink(missing_ok=True)


def dead_bytes(path: Path, catalog: Catalog) -> int:
    """Bytes in the shards of a memory that belong to no record."""
    live = catalog.live()
    return sum(_stain(path, shard, live.get(shard.name, 0)) for shard in catalog.shards())


def _stain(path: Path, shard: Shard, live: int) -> int:
    """Bytes in a shard's file that belong to no record."""
    return max(0, shard_size(path / "shards", shard.name) - live)


def _renewed(path: Path, catalog: Catalog, reader: ShardReader, shard: Shard, sync: Sync) -> bool:
    """Write what is left of a sealed shard anew."""
    # Its last record may have been forgotten since it was looked at.
    if not (held := catalog.held(shard.name)):
        return False
    try:
        return rewrite(path, catalog, reader, map(Kept, held), sync)
    except FileNotFoundError:
        logger.warning("shard %s is missing: its records are damaged; see `verify`", shard.name)
        return False


def _is_sparse(shard: Shard, live: dict[str, int]) -> bool:
    return live.get(shard.name, 0) < LIVE_SHARE * shard.bytes


def _seal_abandoned(path: Path, catalog: Catalog, live: dict[str, int]) -> None:
    """Seal open shards without a writer: old ones that none will go on with, and sparse ones."""
    for shard in catalog.shards("open"):
        if age(shard.name) <= ShardLimits().max_seconds and not _is_sparse(shard, live):
            continue
        file = shard_file(path / "shards", shard.name)
        writer = ShardWriter.resume(file, shard.bytes, "process")
        if writer is not None or not file.exists():
            catalog.seal([shard.name])
        if writer is not None:
            writer.close()


def _remove_orphans(path: Path, catalog: Catalog) -> int:
    """Delete files that nobody registered within an hour, and half-written drafts."""
    # The files first: a shard that is registered after the look at the catalogue is not among them.
    files = [file for name in ("shards", "index") for file in (path / name).glob("*")]
    known = {shard.name for shard in catalog.shards()}
    removed = 0
    for file in files:
        try:
            is_old = time.time() - file.stat().st_mtime > ORPHAN_SECONDS
            is_draft = file.name.startswith(".")
            if is_old and (is_draft or file.name.split(".")[0] not in known):
                removed += _remove_unused(file, catalog)
        except FileNotFoundError:
            continue
    return removed


def _remove_unused(file: Path, catalog: Catalog) -> bool:
    """Delete a file, unless somebody writes or adopts it, or has done so by now."""
    with file.open("rb") as opened:
        # Who adopts a shard holds a lock until it is registered.
        if not try_lock(opened.fileno()) or catalog.shard(file.stem) is not None:
            return False
        file.unlink()
    return True


def back_up(path: Path, catalog: Catalog) -> Path:
    """Copy the catalogue into `backup/`, once a day; the newest copies are kept.

    Returns:
        The copy of today.
    """
    folder = path / "backup"
    folder.mkdir(exist_ok=True)
    today = folder / f"catalog-{time.strftime('%Y-%m-%d')}.db"
    if not today.exists():
        catalog.backup(today)
    for old in sorted(folder.glob("catalog-*.db"))[:-_BACKUPS]:
        old.unlink()
    return today
